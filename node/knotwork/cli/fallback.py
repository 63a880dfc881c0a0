"""What can be answered without a running node? Questions about files and installed plugins."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import click

from knotwork.cli import files, local
from knotwork.cli.files import FileOptions
from knotwork.cli.options import Shared

if TYPE_CHECKING:
    from knotwork.sockets.catalog import Catalog, Entry

Request = dict[str, Any]
Reply = dict[str, Any]


def params(op: str) -> list[click.Option]:
    """Return the further options of an op that can be answered from files."""
    return files.options() if op in ANSWERS and op not in _OF_THE_DATA_FOLDER else []


def answer(op: str, request: Request, shared: Shared, chosen: FileOptions) -> Reply | None:
    """Return the answer made from files, None when a node can be asked or the op needs one.

    Naming a configuration asks about that one, whether a node runs or not.
    """
    made = ANSWERS.get(op)
    if made is None or shared.url or shared.on:
        return None
    node = None if chosen.given else local.read(local.data_dir(shared.data_dir))
    if node is not None and not node.early:
        return None
    return made(request, shared, chosen)


def _show(request: Request, _: Shared, chosen: FileOptions) -> Reply:
    from knotwork.config import keys  # parsing and models: only for commands about files
    from knotwork.config.loaded import effective  # the same

    loaded = files.load(chosen)
    prefix, origin = request.get("prefix", ""), loaded.origin if request.get("origin") else {}
    settings = [
        {"key": keys.dotted(path), "value": value, "origin": origin.get(keys.dotted(path), "")}
        for path, value in keys.leaves(effective(loaded.config))
    ]
    return {
        "revision": 0,
        "files": [os.path.abspath(text.path) for text in loaded.texts],  # noqa: PTH100  links stay links
        "settings": [setting for setting in settings if setting["key"].startswith(prefix)],
    }


def _revisions(_: Request, shared: Shared, __: FileOptions) -> Reply:
    from knotwork.config import revisions  # the same

    kept = revisions.listed(local.data_dir(shared.data_dir) / "revisions")
    rows = [
        {
            "number": row.number,
            "at": row.at,
            "digest": row.digest[:12],
            "files": [str(text.path) for text in row.texts],
        }
        for row in kept
    ]
    return {"revisions": rows}


def _rollback(request: Request, shared: Shared, _: FileOptions) -> Reply:
    """Write the files of a revision again, unjudged: this shell may lack variables and secrets that the node will have."""
    from knotwork.config import revisions  # the same

    folder = local.data_dir(shared.data_dir) / "revisions"
    revision = revisions.load(folder, int(request["number"]))
    done = revisions.restore(revision, revisions.listed(folder))
    return {
        "result": "applied" if done else "unchanged",
        "revision": revision.number,
        "trigger": "rollback",
        "message": f"{'; '.join(done) or 'The files say that already'}. No node is ready here to judge it: "
        "`knotwork config check` does; a node takes it when it starts.",
    }


def _plugins(_: Request, __: Shared, chosen: FileOptions) -> Reply:
    return {"plugins": rows(files.catalog(files.load(chosen), safe_mode=chosen.safe_mode)), "slots": []}


def rows(catalog: Catalog) -> list[Reply]:
    """Return what `plugin.list` says about a catalog: usable types, then broken ones with their reason."""
    usable = [{**_told(entry), "broken": ""} for entry in catalog.entries()]
    broken = [
        {"kind": "", "type": "", "origin": row.source, "summary": "", "abilities": [], "broken": row.reason}
        for row in catalog.broken()
    ]
    return usable + broken


def _plugin(request: Request, _: Shared, chosen: FileOptions) -> Reply:
    entry = find(
        files.catalog(files.load(chosen), safe_mode=chosen.safe_mode), request["type"], request.get("kind", "")
    )
    return {**_told(entry), "config_schema": entry.factory.config.model_json_schema(), "slots": []}


def _told(entry: Entry) -> Reply:
    return {
        "kind": entry.kind,
        "type": entry.type,
        "origin": str(entry.source),
        "version": entry.source.version,
        "summary": entry.factory.summary or entry.source.summary,
        "abilities": list(entry.factory.abilities),
        "hosted_only": entry.hosted_only,
    }


def find(catalog: Catalog, type_name: str, kind: str = "") -> Entry:
    """Return the entry of a type in whatever kind has it; raises `NotFound` with the nearest name."""
    from knotwork.sdk import KINDS, NotFound  # plugins are loaded by now
    from knotwork.sdk.errors import guess

    known: list[str] = []
    for name in KINDS:
        if kind in ("", name):
            try:
                return catalog.find(name, type_name)
            except NotFound as error:
                known += error.detail.get("known", [])
    hint = guess(type_name, known) or "`knotwork plugin list` shows all of them."
    raise NotFound(f"There is no plugin of type {type_name[:128]!r}.", code="plugin.unknown_type", hint=hint)


ANSWERS: dict[str, Callable[[Request, Shared, FileOptions], Reply]] = {
    "config.show": _show,
    "config.revisions": _revisions,
    "config.rollback": _rollback,
    "plugin.list": _plugins,
    "plugin.info": _plugin,
}
_OF_THE_DATA_FOLDER = ("config.rollback",)
"""Ops that are about what is kept there, whichever configuration somebody could name."""
