"""Which commands are for plugin authors? plugin new, test and docs."""

from __future__ import annotations

import sys
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from knotwork.cli import fallback, files, given, options, show
from knotwork.cli.files import FileOptions
from knotwork.sdk.errors import Conflict, Invalid, NotFound, sentence

if TYPE_CHECKING:
    from knotwork.sockets.catalog import Entry

KINDS = ("executor", "router", "memory", "spinup", "telemetry", "trigger")
KINDS_ALL = ("executors", "routers", "memories", "spinups", "telemetry", "triggers")


def _new(**values: Any) -> None:
    from knotwork.sockets import scaffold  # templates: only here

    shared = options.take(values)
    single_file = bool(values["single_file"])
    _not_bundled(KINDS_ALL[KINDS.index(values["kind"])], values["name"])
    folder = Path(values["folder"] or ("." if single_file else values["name"]))
    made = scaffold.write(values["kind"], values["name"], folder, single_file=single_file)
    reply = {"files": [str(path) for path in made]}
    if shared.shape != "table":
        print(show.pretty(reply) if shared.shape == "json" else show.compact(reply))
    elif not shared.quiet:
        print("\n".join(reply["files"]))


def _not_bundled(kind: str, name: str) -> None:
    """Raise `Conflict` when a bundled plugin of this kind has the name: one of your own would never be taken for it."""
    from knotwork.sockets import catalog as catalogs  # plugins are imported: only here
    from knotwork.sockets import loading  # the same

    bundled = loading.load(catalogs.CatalogSettings(safe_mode=True))
    if any((entry.kind, entry.type) == (kind, name) for entry in bundled.entries()):
        raise Conflict(f"{name} is the name of a bundled plugin", code="plugin.exists", hint="Choose another name.")


new = click.Command(
    "new",
    callback=_new,
    params=[
        click.Argument(["kind"], type=click.Choice(KINDS)),
        click.Argument(["name"]),
        click.Option(["--folder"], metavar="DIR", help="where to put it [default: ./NAME; one file: here]"),
        click.Option(["--single-file"], is_flag=True, help="one .py file to be named as `type`, instead of a package"),
        *options.answering(),
    ],
    short_help="Begin a plugin",
    help="Write a plugin project that works, with tests that pass.",
    epilog="\b\nExamples:\n  # A package\n  knotwork plugin new executor my-agent\n"
    "  # One file\n  knotwork plugin new executor my-agent --single-file",
)


def _test(**values: Any) -> None:
    from knotwork.sockets import trial  # the test kit: only here

    shared = options.take(values)
    chosen = files.take(values)
    entry = _entry(
        values["what"], values["kind"] or "", chosen, imports=not values["apart"], tells=shared.shape == "table"
    )
    sample = given.read_input(values["sample"]) if values["sample"] is not None else trial.SAMPLE
    table = given.read_input(values["table"]) if values["table"] else {}
    if not isinstance(table, dict):
        raise Invalid("--with takes a JSON object.", code="cli.bad_table", hint='For example \'{"command": ["cat"]}\'.')
    _fits(entry, table, values["what"])
    results = []
    told = values["sample"] is not None
    for result in trial.run(entry, table, sample, apart=bool(values["apart"]), told=told):
        results.append(asdict(result))
        if shared.shape == "table" and not shared.quiet:
            print(f"{'ok' if result.passed else 'FAILED':<6}  {result.name:<44} {result.took_s:6.2f} s", flush=True)
            print(f"        {show.plain(result.reason)}\n" if result.reason else "", end="")
    passed = sum(result["passed"] for result in results)
    if shared.shape == "table":
        print(f"{entry.kind} {entry.type}: {passed} of {len(results)} passed")
    else:
        reply = {"kind": entry.kind, "type": entry.type, "passed": passed, "of": len(results), "results": results}
        print(show.pretty(reply) if shared.shape == "json" else show.compact(reply))
    sys.exit(0 if passed == len(results) else 1)


def _fits(entry: Entry, table: dict[str, Any], what: str) -> None:
    """Raise `Invalid` with all that is wrong with a table: every test of the suite would say the same."""
    from pydantic import ValidationError

    from knotwork.config import wording  # only here

    try:
        entry.factory.config.model_validate(table)
    except ValidationError as error:
        wrong = error.errors(include_url=False)
        told = "; ".join(wording.say(one, wording.path_of(one, table))[0] for one in wrong)
        hint = f"--with takes its table; `knotwork plugin docs {what}` tells what may stand in it."
        raise Invalid(f"{entry.type} cannot be configured so: {told}.", code="cli.bad_table", hint=hint) from error


def _entry(what: str, kind: str, chosen: FileOptions, *, imports: bool, tells: bool) -> Entry:
    """Return the plugin named by a type, a `.py` file (`./x.py` or `./x.py:type`) or a folder with a manifest.

    It is imported into this process when `imports`, else only looked at in another. With `tells` a person is told when
    another plugin has the same type.
    """
    from knotwork.sockets import catalog as catalogs  # plugins are imported: only here
    from knotwork.sockets import loading, offered  # the same

    if Path(what).is_dir():
        folder = Path(what).resolve()
        found = loading.load(catalogs.CatalogSettings(folders=(folder,), imports=imports))
    elif catalogs.is_path(what):
        name = catalogs.file_of(what)
        folder = Path(name).resolve()
        found = loading.load(catalogs.CatalogSettings(files=(name,), imports=imports))
    else:
        settings = offered.settings_of(files.load(chosen), safe_mode=chosen.safe_mode, imports=imports)
        return fallback.find(loading.load(replace(settings, uses=None)), what, kind)
    for row in found.broken():
        if row.source == str(folder) and row.code != "plugin.duplicate":
            raise row.error()
        if row.source == str(folder) and tells:  # most often the same plugin, installed: no reason not to test this one
            print(show.plain(f"note: {sentence(row.reason, row.hint)}"), file=sys.stderr)
    wanted = what.rpartition(".py")[2].removeprefix(":") if not Path(what).is_dir() else ""
    fitting = [
        entry
        for entries in found.rows.values()
        for entry in entries
        if entry.source.where == str(folder) and kind in ("", entry.kind) and wanted in ("", entry.type)
    ]
    if len(fitting) != 1:
        several = ", ".join(f"{entry.kind} {entry.type}" for entry in fitting)
        raise NotFound(
            f"{what} offers several plugins: {several}." if fitting else f"{what} offers no such plugin.",
            code="plugin.unknown_type",
            hint="Name one with --kind, or as ./file.py:type." if fitting else "Is the hook named right?",
        )
    return fitting[0]


test = click.Command(
    "test",
    callback=_test,
    params=[
        click.Argument(["what"]),
        click.Option(["--with", "table"], metavar="JSON", help="its configuration; @file reads a file"),
        click.Option(
            ["--input", "sample"], metavar="JSON", help="an input for an executor to work on [default: hello]"
        ),
        click.Option(["--apart"], is_flag=True, help="in a process of its own, as with hosted = true"),
        click.Option(["--kind"], type=click.Choice(KINDS_ALL)),
        *files.options(),
        *options.answering(),
    ],
    short_help="Say whether a plugin keeps its contract",
    help="Run the contract suite of the plugin's kind. WHAT is a type, a .py file or a plugin's folder.",
    epilog="\b\nExamples:\n  # A file\n  knotwork plugin test ./my_agent.py\n"
    '  # A type that needs configuration\n  knotwork plugin test process --with \'{"command": ["cat"]}\' --input hello',
)


def _docs(**values: Any) -> None:
    from knotwork.sockets import catalog as catalogs  # plugins are imported: only here
    from knotwork.sockets import describe  # the same

    shared = options.take(values)
    chosen = files.take(values)
    what, kind = values["what"], values["kind"] or ""
    if catalogs.is_path(what):
        entry = _entry(what, kind, chosen, imports=False, tells=shared.shape == "table")
    else:
        entry = fallback.find(files.catalog(files.load(chosen), safe_mode=chosen.safe_mode), what, kind)
    text = describe.docs(entry)
    if shared.shape == "table":
        print(text)
    else:
        told = {"type": entry.type, "markdown": text}
        print(show.pretty(told) if shared.shape == "json" else show.compact(told))


docs = click.Command(
    "docs",
    callback=_docs,
    params=[
        click.Argument(["what"]),
        click.Option(["--kind"], type=click.Choice(KINDS_ALL)),
        *files.options(),
        *options.answering(),
    ],
    short_help="Print the reference page of a plugin",
    help="Print what a plugin does and each of its options, as Markdown. WHAT is a type, a .py file or a plugin's folder.",
    epilog="\b\nExamples:\n  # How is a command made an agent?\n  knotwork plugin docs process\n"
    "  # A file\n  knotwork plugin docs ./my_agent.py",
)
