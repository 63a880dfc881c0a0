"""Which commands are there, and how does each one end? One lazy tree; every error becomes one exit code.

Commands made from the ops table and those of this machine alone hang in the same tree; a module is imported when its
command is typed, or when help about all of them is wanted.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache
from importlib import import_module
from itertools import pairwise
from typing import TYPE_CHECKING

import click

from knotwork.cli import options, outlet

if TYPE_CHECKING:
    from knotwork.ops.form import Row

LOCAL: dict[tuple[str, ...], str] = {
    ("up",): "up:up",
    ("demo",): "exhibits:demo",
    ("init",): "config:init",
    ("bench",): "exhibits:bench",
    ("mcp",): "mcp:mcp",
    ("connect",): "connect:connect",
    ("config", "check"): "config:check",
    ("config", "fmt"): "config:fmt",
    ("config", "revision"): "config:revision",
    ("config", "schema"): "config:schema",
    ("config", "example"): "config:example",
    ("plugin", "new"): "plugin:new",
    ("plugin", "test"): "plugin:test",
    ("plugin", "docs"): "plugin:docs",
    ("completion",): "topics:completion",
    ("version",): "topics:version_command",
    ("help",): "topics:help_command",
}
"""Commands that no op stands behind: words, then `module:name` in this room."""

GROUPS = {
    "config": "Read, check and change the configuration",
    "plugin": "Find, write and test plugins",
    "agents": "",
    "route": "Explain who would do a piece of work",
    "view": "Look after the view of the past",
    "task": "Submit durable tasks, and see what becomes of them",
    "dead": "Look at tasks that died, bring them back or drop them",
    "blob": "Keep and read values too large for one request",
    "workflow": "Check, keep, show and draw workflows",
    "run": "Start runs of workflows, look at them, steer them",
    "trigger": "Keep triggers that start runs, and see what they did",
    "event": "Publish events that runs may wait for",
    "work": "Take tasks and do them, as an agent that is no plugin",
    "session": "Come in as an agent, and see which others did",
    "channel": "Talk where everybody in the project hears it",
    "message": "Write to one agent, and read what was written to you",
    "contact": "Say who may write to whom",
    "memory": "Remember, recall and forget, for yourself or for others",
    "crew": "Split a big job among agents, and put together what they did",
    "tool": "Call the tools that agents use over MCP",
    "project": "Show how much there is in a project, and what happens",
}
INTERRUPTED = 130


class Tree(click.Group):
    """A group whose commands are made when they are asked for. `words` are what stands before them."""

    def __init__(self, words: tuple[str, ...] = (), base: click.Command | None = None, **rest: str) -> None:
        """Make the group below `words`; `base` is the command that runs when nothing follows."""
        self.words = words
        super().__init__(
            name=words[-1] if words else "knotwork",
            help=base.help if base else rest.get("help"),
            short_help=base.short_help if base else rest.get("help"),
            epilog=(base.epilog if base else rest.get("epilog")) or None,
            params=list(base.params) if base else list(options.answering()),
            callback=_unless_more_follows(base.callback) if base and base.callback else self._keep,
            invoke_without_command=base is not None,
            no_args_is_help=base is None,
        )

    @staticmethod
    @click.pass_context
    def _keep(ctx: click.Context, /, **values: object) -> None:
        """Keep options given before the command for it."""
        ctx.find_root().obj = options.take(dict(values))

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click's signature
        """Return the next words, in the order of the tables."""
        depth = len(self.words)
        found = [words[depth] for words in _all_words() if words[:depth] == self.words and len(words) > depth]
        return list(dict.fromkeys(found))

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002 - the same
        """Return one command, None when there is none of that name."""
        words = (*self.words, cmd_name)
        if words in LOCAL:
            module, _, name = LOCAL[words].partition(":")
            found: click.Command = getattr(import_module(f"knotwork.cli.{module}"), name)
            return found
        from knotwork.cli import verbs  # not for local commands

        op = next((op for op in _ops() if words in (op.cli.words, op.cli.also)), None)
        command = verbs.command(op, cmd_name) if op is not None else None
        if any(other[: len(words)] == words and len(other) > len(words) for other in _all_words()):
            return Tree(words, command, help=GROUPS.get(cmd_name, ""))
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the command, and name the nearest one when there is none."""
        try:
            return super().resolve_command(ctx, args)
        except click.UsageError as error:
            from knotwork.sdk.errors import guess  # only on the error path

            told = f"No such command {args[0]!r}. {guess(args[0], self.list_commands(ctx))}".rstrip()
            raise click.UsageError(told, ctx) from error


def _unless_more_follows(callback: Callable[..., object]) -> Callable[..., object]:
    @click.pass_context
    def run(ctx: click.Context, /, **values: object) -> object:
        return callback(**values) if ctx.invoked_subcommand is None else None

    return run


@cache
def _ops() -> tuple[Row, ...]:
    from knotwork.ops.listed import LISTED  # not for local commands

    return tuple(LISTED.values())


def _all_words() -> list[tuple[str, ...]]:
    ops = [words for op in _ops() for words in (op.cli.words, op.cli.also) if words]
    first = [words for words in LOCAL if words[0] in ("up", "demo", "init")]
    return [*first, *ops, *(words for words in LOCAL if words not in first)]


def tree() -> Tree:
    """Return the whole command line."""
    return Tree(
        help="Make this machine a node where AI agents and scripts meet.",
        epilog="\b\nExamples:\n  # See it work\n  knotwork demo\n  # Start a node and call an agent\n"
        "  knotwork up --detach && knotwork agents\n\n`knotwork help exit-codes` and `knotwork help environment` tell more.",
    )


def run(words: Sequence[str]) -> int:
    """Run one command line; returns its exit code and never raises."""
    as_json = wants_json(words)
    outlet.open_closed()
    outlet.take_all(as_json=as_json)
    code = _run(words, as_json=as_json)
    lost = outlet.lost()
    return code if lost is None else _unwritten(lost, as_json=as_json)


def _run(words: Sequence[str], *, as_json: bool) -> int:
    try:
        result = tree().main(
            list(words), prog_name="knotwork", standalone_mode=False, complete_var="_KNOTWORK_COMPLETE"
        )
    except SystemExit as done:
        return done.code if isinstance(done.code, int) else int(done.code is not None)
    except BaseException as error:  # noqa: BLE001 - the last boundary: a person or a script reads what comes now
        return _ended(error, as_json=as_json)
    return result if isinstance(result, int) else 0


def _ended(error: BaseException, *, as_json: bool) -> int:
    """Return the exit code of a command that was ended by `error`, after saying what there is to say."""
    from knotwork.cli import trouble  # only on the error path

    error = trouble.single(error)
    lost = outlet.lost(error) if isinstance(error, OSError) else None
    if lost is not None:
        return _unwritten(lost, as_json=as_json)
    if isinstance(error, click.NoSuchOption) and _is_text(error.option_name):
        error = click.UsageError(f"{error.format_message()} Put -- before a text that begins with -.", error.ctx)
    match error:
        case click.Abort() | KeyboardInterrupt():
            return INTERRUPTED
        case click.ClickException() if not as_json or isinstance(error, click.exceptions.NoArgsIsHelpError):
            error.show()
            return error.exit_code
        case click.ClickException():
            return trouble.tell(trouble.usage(error.format_message()), as_json=True)
        case _:
            return trouble.tell(error, as_json=as_json)


def _is_text(word: str) -> bool:
    """Return whether what was taken for an option is a text, such as a list, or a number."""
    return " " in word or word[1:2].isdigit()


def _unwritten(error: OSError, *, as_json: bool) -> int:
    """Return the exit code of a command whose answer could not be written; one whose reader left wants to hear nothing."""
    from knotwork.cli import trouble  # only on the error path

    return 1 if isinstance(error, BrokenPipeError) else trouble.tell(outlet.told(error), as_json=as_json)


def wants_json(words: Sequence[str]) -> bool:
    """Return whether errors are to be JSON, too; looked up in the words because parsing may be what fails."""
    shapes = [after for before, after in pairwise(words) if before in ("-o", "--output")]
    shapes += [word.partition("=")[2] for word in words if word.startswith("--output=")]
    shapes += [word[2:].removeprefix("=") for word in words if word.startswith("-o") and len(word) > 2]  # noqa: PLR2004
    return bool(shapes) and shapes[-1] in ("json", "jsonl")
