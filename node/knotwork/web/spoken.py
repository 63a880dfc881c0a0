"""What does a program call over HTTP where a message names a command? The route of the same op (pure).

Our own command line comes in by this door, too, and is told commands: it asks for a stream of events.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any

from knotwork.ops import commands
from knotwork.ops.listed import LISTED
from knotwork.sdk.errors import KnotworkError, from_wire


@functools.cache
def _routes() -> Mapping[str, str]:
    """Return the route of each command, by its words."""
    found: dict[str, str] = {}
    for row in LISTED.values():
        room, _, verb = row.name.partition(".")
        route = f"{'GET' if row.effect == 'read' else 'POST'} /api/{room}/{verb}"
        found |= dict.fromkeys([" ".join(row.cli.words), *row.cli.also], route)
    return found


def for_programs(error: KnotworkError) -> KnotworkError:
    """Return an error whose message and hint, and those of each of its problems, name routes."""
    wire = error.to_wire()
    said = _said(wire)
    problems = error.detail.get("problems")
    if isinstance(problems, list):
        each = [_said(one) if isinstance(one, Mapping) else one for one in problems]
        if each != problems:
            said = {**said, "detail": {**error.detail, "problems": each}}
    return error if said == wire else from_wire(said)


def _said(wire: Mapping[str, Any]) -> dict[str, Any]:
    texts = {name: wire[name] for name in ("message", "hint") if isinstance(wire.get(name), str)}
    return {**wire, **{name: commands.said(text, _say) for name, text in texts.items()}}


def _say(command: str) -> str:
    found = commands.known(command, _routes())
    if found is None:
        return f"`knotwork {command}`"
    route, rest = found
    return f"`{route}`" + (f" with {rest}" if rest else "")
