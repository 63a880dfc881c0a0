"""Which commands are about configuration files alone? init, config check, fmt, schema and example."""

from __future__ import annotations

import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from knotwork.cli import files, options, show
from knotwork.sdk.errors import ConfigInvalid, Conflict, Invalid, sentence

FILE = "knotwork.toml"


def _init(**values: Any) -> None:
    from knotwork.config import example  # renders from the models: only here

    shared = options.take(values)
    path = Path(values["file"])
    if path.exists() and not values["force"]:
        raise Conflict(f"{path} exists.", code="cli.file_exists", hint="Use it as it is, or overwrite it with --force.")
    _write(path, example.init_text())
    schema = _write_schema(path)
    _done(shared, {"file": str(path), "schema": str(schema), "next": f"knotwork up --config {path}"})


def _write_schema(path: Path) -> Path:
    """Write the JSON Schema that the first line of a new configuration names, for editors; returns where."""
    beside = path.with_name("knotwork.schema.json")
    _write(beside, show.pretty(_json_schema(files.FileOptions(config=(str(path),)))) + "\n")
    return beside


init = click.Command(
    "init",
    callback=_init,
    params=[
        click.Argument(["file"], default=FILE),
        click.Option(["--force"], is_flag=True, help="overwrite"),
        *options.answering(),
    ],
    short_help="Write a first configuration",
    help="Write a short, commented configuration to FILE [default: knotwork.toml], and beside it the JSON Schema that "
    "lets editors help.",
    epilog="\b\nExamples:\n  # Begin here\n  knotwork init && knotwork up",
)


def _check(**values: Any) -> None:
    shared = options.take(values)
    chosen = files.take(values)
    named = values.pop("file", None)
    if named:
        chosen = files.FileOptions((*chosen.config, named), chosen.config_dir, chosen.sets, chosen.safe_mode)
    loaded, catalog, warnings = files.check(chosen)
    if shared.shape == "table":
        for warning in warnings:
            print(show.plain(f"warning: {sentence(str(warning), _GOES_ON)}"), file=sys.stderr)
    from knotwork.config.instance_tables import SECTIONS  # loaded with the configuration

    instances = [f"{SECTIONS[kind]}.{name}" for kind in _kinds() for name in loaded.config.instances(kind)]
    broken = [f"{row.source}: {row.reason}" for row in catalog.broken()]
    _done(
        shared,
        {
            "ok": True,
            "files": [str(text.path) for text in loaded.texts],
            "instances": instances,
            "broken_plugins": broken,
            **({"warnings": [asdict(warning) for warning in warnings]} if shared.shape != "table" else {}),
        },
    )


_GOES_ON = "A node starts all the same, and tries it again and again."


def _kinds() -> tuple[Any, ...]:
    from knotwork.sdk import KINDS  # loaded with the configuration

    return KINDS


check = click.Command(
    "check",
    callback=_check,
    params=[click.Argument(["file"], required=False), *files.options(), *options.answering()],
    short_help="Say what is wrong with a configuration",
    help="Read everything a node would read and name every problem with file, line and column. "
    "Exit code 78 when there is one that a node would not start with.\n\n"
    "A plugin that cannot be imported is a warning: a node starts with it, and its slot waits "
    '(with `on_start_error = "fail"` it is a problem). Secrets are looked up, but no command is run for one.',
    epilog="\b\nExamples:\n  # The file a node started here would use\n  knotwork config check\n"
    "  # Another one\n  knotwork config check other.toml",
)


def _fmt(**values: Any) -> None:
    from knotwork.config import format as formatting  # tomlkit: only here

    shared = options.take(values)
    changed: list[str] = []
    for path in map(Path, (*values["config"], *values["file"]) or (FILE,)):
        text = _read(path)
        better = formatting.fmt(text, str(path))
        if better != text:
            changed.append(str(path))
            if not values["check"]:
                _write(path, better)
    _done(shared, {"changed": changed} if not values["check"] else {"would_change": changed})
    if values["check"] and changed:
        sys.exit(1)


fmt = click.Command(
    "fmt",
    callback=_fmt,
    params=[
        click.Argument(["file"], nargs=-1),
        click.Option(["--config"], multiple=True, metavar="FILE", help="the same as FILE, may be given again"),
        click.Option(["--check"], is_flag=True, help="change nothing; exit code 1 when something would change"),
        *options.answering(),
    ],
    short_help="Tidy configuration files",
    help="Write files in the usual layout. Comments and meaning stay as they are.",
    epilog="\b\nExamples:\n  # Tidy ./knotwork.toml\n  knotwork config fmt",
)


def _schema(**values: Any) -> None:
    shared = options.take(values)
    found = _json_schema(files.take(values))
    print(show.compact(found) if shared.shape == "jsonl" else show.pretty(found))


def _json_schema(chosen: files.FileOptions) -> dict[str, Any]:
    from knotwork.config import schema as schemas  # pydantic's generator: only here

    catalog = files.catalog(files.load(chosen), safe_mode=chosen.safe_mode)
    return schemas.json_schema(catalog.config_classes())


schema = click.Command(
    "schema",
    callback=_schema,
    params=[*files.options(), *options.answering()],
    short_help="Print the JSON Schema of the configuration",
    help="Print the JSON Schema of the whole file, with the options of every plugin that is loaded.",
    epilog="\b\nExamples:\n  # For an editor\n  knotwork config schema > knotwork.schema.json",
)


def _example(**values: Any) -> None:
    from knotwork.config import example as examples  # renders from the models: only here

    shared = options.take(values)
    chosen = files.take(values)
    catalog = files.catalog(files.load(chosen), safe_mode=chosen.safe_mode)
    text = examples.example_text(catalog.config_classes())
    if shared.shape == "table":
        sys.stdout.write(text)
    else:
        print(show.compact({"toml": text}))


example = click.Command(
    "example",
    callback=_example,
    params=[*files.options(), *options.answering()],
    short_help="Print every option with its default",
    help="Print a configuration that shows every option, its default and what it means.",
    epilog="\b\nExamples:\n  # Look something up\n  knotwork config example | less",
)


def _revision(**values: Any) -> None:
    from knotwork.cli import local  # where the node keeps its things
    from knotwork.config import revisions  # only here

    shared = options.take(values)
    kept = revisions.load(local.data_dir(shared.data_dir) / "revisions", values["number"])
    texts = [{"file": str(text.path), "text": text.text} for text in kept.texts]
    if shared.shape != "table":
        reply = {"number": kept.number, "digest": kept.digest[:12], "files": texts}
        print(show.pretty(reply) if shared.shape == "json" else show.compact(reply))
        return
    for one in texts:
        print(f"# {one['file']}\n{show.plain(one['text'])}")


revision = click.Command(
    "revision",
    callback=_revision,
    params=[click.Argument(["number"], type=click.IntRange(1)), *options.answering()],
    short_help="Print an earlier configuration",
    help="Print the files of a revision of `knotwork config revisions` as they were then. Needs no running node.",
    epilog="\b\nExamples:\n  # What did the third say?\n  knotwork config revision 3",
)


def _read(path: Path) -> str:
    from knotwork.config import files as reading  # the rules about encodings and sizes

    found = reading.read_text(path)
    if isinstance(found, str):
        return found
    raise ConfigInvalid(str(found), code=found.code)  # with what to do


def _write(path: Path, text: str) -> None:
    from knotwork.config import revisions  # its way of replacing a file at once, links kept

    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        revisions.write_whole(path, text)
    except OSError as error:
        raise Invalid(
            f"{path} cannot be written: {error.strerror}.",
            code="cli.not_writable",
            hint="Name another file, or mend its rights.",
        ) from error


def _done(shared: options.Shared, reply: dict[str, Any]) -> None:
    if shared.shape != "table":
        print(show.pretty(reply) if shared.shape == "json" else show.compact(reply))
    elif not shared.quiet:
        print(show.details(reply) or "nothing to do")
