"""When does a node leave a plugin's trigger to others, and which node listens then? (pure).

A plugin may open on a node and yet hear nothing there: no way to the service, a token that is refused. A node where it
fails several times in a row while it may work elsewhere rests for a while, longer each time; so another one listens. When
it rests everywhere, nobody does: whoever comes first in the order goes on trying.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

import msgspec

GIVES_UP_AFTER = 3
"""Failures in a row, with nothing told between, after which a node rests."""
REST_S = 300.0
REST_MAX_S = 3600.0
LONG_AGO_S = 86400.0
"""So long after a rest it counts no more: the next one is short again."""
S = 1_000_000_000


class Rest(msgspec.Struct, array_like=True, frozen=True):
    """That a node rests: until when (nanoseconds since 1970), why, and how often in a row it did."""

    until_ns: int
    why: str = ""
    times: int = 1


Rests = Mapping[str, Rest]


def awake(nodes: Collection[str], rests: Rests, now_ns: int) -> list[str]:
    """Return the nodes of these that may listen: those that do not rest, or all when each of them does."""
    return [node for node in nodes if node not in resting(rests, now_ns)] or list(nodes)


def resting(rests: Rests, now_ns: int) -> dict[str, Rest]:
    """Return who rests now."""
    return {node: rest for node, rest in rests.items() if rest.until_ns > now_ns}


def recent(rests: Rests, now_ns: int) -> dict[str, Rest]:
    """Return the rests that still count: the others are forgotten."""
    return {node: rest for node, rest in rests.items() if now_ns - rest.until_ns < int(LONG_AGO_S * S)}


def gives_up(failures: int, node: str, nodes: Collection[str], rests: Rests, now_ns: int) -> bool:
    """Return whether a node rests after so many failures in a row: if another one is there that does not."""
    others = {one for one in nodes if one != node} - resting(rests, now_ns).keys()
    return failures >= GIVES_UP_AFTER and bool(others)


def rest(before: Rest | None, why: str, now_ns: int) -> Rest:
    """Return how long a node rests, twice as long as the time before."""
    times = before.times + 1 if before is not None and recent({"": before}, now_ns) else 1
    return Rest(now_ns + int(min(REST_S * 2 ** min(times - 1, 16), REST_MAX_S) * S), why, times)
