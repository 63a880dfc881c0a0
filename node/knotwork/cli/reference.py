"""What does the reference page of the command line say? Made from the tree itself, so it cannot disagree with it.

`python -m knotwork.cli.reference > docs/cli.md` writes it; a test compares.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator

import click

from knotwork.cli import app, options, topics
from knotwork.ops import table

_HEAD = """# The command line

Made by `python -m knotwork.cli.reference`; edit the ops table or the commands, not this page.

`knotwork COMMAND --help` says the same. The options under *Every command* may stand before the command, too;
`help` and `completion` print text and know none of them.
"""


def page() -> str:
    """Return the page as Markdown."""
    tree = app.tree()
    parts = [_HEAD, "## Every command\n", _options(options.answering()), "Commands that ask a node know these, too:\n"]
    parts += [_options(options.reaching()), "## Commands\n"]
    listed = list(_walk(tree, ()))
    parts.append(
        "\n".join(f"- [`{_name(words)}`](#{_anchor(words)}): {command.short_help}" for words, command in listed) + "\n"
    )
    parts += [_section(words, command) for words, command in listed]
    parts += ["## Exit codes\n", _codes(), "## Environment\n", _environment()]
    return "\n".join(parts)


def _walk(group: click.Group, words: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], click.Command]]:
    """Yield every command that can be typed, in the order of the tree."""
    ctx = click.Context(group)
    for name in group.list_commands(ctx):
        command = group.get_command(ctx, name)
        assert command is not None, "what is listed is there"
        if not isinstance(command, click.Group) or command.invoke_without_command:
            yield (*words, name), command
        if isinstance(command, click.Group):
            yield from _walk(command, (*words, name))


def _name(words: tuple[str, ...]) -> str:
    return " ".join(("knotwork", *words))


def _anchor(words: tuple[str, ...]) -> str:
    return "-".join(("knotwork", *words))


def _section(words: tuple[str, ...], command: click.Command) -> str:
    shared = {option.name for option in (*options.answering(), *options.reaching())}
    arguments = [param for param in command.params if isinstance(param, click.Argument)]
    own = [param for param in command.params if isinstance(param, click.Option) and param.name not in shared]
    usage = " ".join([_name(words), *(["[OPTIONS]"] if command.params else []), *map(_argument, arguments)])
    parts = [f"### {_name(words)}\n", f"```\n{usage}\n```\n", (command.help or "").replace("\n\n", "\n\n") + "\n"]
    parts += [_options(own)] if own else []
    if command.epilog:
        lines = [line.strip() for line in command.epilog.replace("\b", "").splitlines() if line.startswith("  ")]
        parts.append("```sh\n" + "\n".join(lines) + "\n```\n")
    op = next((op for op in table.TABLE.values() if op.cli.words == words), None)
    if op is not None:
        methods = "`GET` or `POST`" if op.effect == "read" else "`POST`"
        parts.append(f"The op `{op.name}` ({op.effect}); over HTTP {methods} `/api/{op.room}/{op.verb}`.\n")
    return "\n".join(parts)


def _argument(argument: click.Argument) -> str:
    name = (argument.name or "").removesuffix("_").upper() + ("..." if argument.nargs == -1 else "")
    return name if argument.required else f"[{name}]"


def _options(found: list[click.Option]) -> str:
    lines = ["| Option | |", "|---|---|"]
    for option in found:
        flags = ", ".join(f"`{flag}`" for flag in [*option.secondary_opts, *sorted(option.opts, key=len)])
        value = "" if option.is_flag else f" {_value(option)}"
        lines.append(f"| {flags}{value} | {(option.help or '').replace('|', chr(92) + '|')} |")
    return "\n".join(lines) + "\n"


def _value(option: click.Option) -> str:
    if isinstance(option.type, click.Choice):
        return " or ".join(f"`{choice}`" for choice in option.type.choices)
    return f"*{option.metavar or option.type.name}*"


def _codes() -> str:
    lines = ["| Code | |", "|---|---|", *(f"| {code} | {text} |" for code, text in topics.EXIT_CODES.items())]
    return "\n".join(lines) + "\n"


def _environment() -> str:
    lines = ["| Variable | |", "|---|---|", *(f"| `{name}` | {text} |" for name, text in topics.ENVIRONMENT.items())]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    sys.stdout.write(page())
