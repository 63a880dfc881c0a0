"""What does a program call over HTTP where a message names a command? The route of the same op (pure).

Our own command line comes in by this door, too, and is told commands: it asks for a stream of events.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping

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
    """Return an error whose message and hint name routes."""
    said = [commands.said(text, _say) for text in (error.message, error.hint)]
    if said == [error.message, error.hint]:
        return error
    return from_wire(error.to_wire() | {"message": said[0], "hint": said[1]})


def _say(command: str) -> str:
    found = commands.known(command, _routes())
    if found is None:
        return f"`knotwork {command}`"
    route, rest = found
    return f"`{route}`" + (f" with {rest}" if rest else "")
