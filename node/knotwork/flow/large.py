"""Which facts stand for large values that the rules look at, and what are they with these? Whoever follows a run asks.

A value over 512 KiB is a digest of BLOBS in a fact. The rules pass it on as that, except where an expression looks into
it: who decides what follows, and who shows what did, must see the same there, or they would not agree.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from knotwork.flow.facts import Handed, Left, Start, StepEnd

if TYPE_CHECKING:
    from knotwork.bus.blobs import Blobs
    from knotwork.flow.facts import Fact
    from knotwork.flow.graph import Graph


def stands_for_more(fact: Fact, graph: Graph | None) -> bool:
    """Return whether something must be fetched before the rules can take a fact of a run (pure).

    Of a run that has not begun there is no `graph`, and nothing but its start is asked for.
    """
    body = fact.body
    if isinstance(body, Start):
        given: tuple[dict[str, Any], ...] = (body.given, body.left, body.handed)
        return bool(body.blob) or any(one.blob for table in given for one in table.values())
    if isinstance(body, StepEnd) and fact.what == "outcome" and body.blob and graph is not None:
        return fact.about.partition("--")[0] in graph.looked_at or "--" in fact.about
    return False


async def whole(fact: Fact, blobs: Blobs) -> Fact:
    """Return a fact with its large values; raises what `Blobs.get` raises, `NotFound` for one that is not kept any more."""
    body = fact.body
    if isinstance(body, Start):
        for name, end in body.given.items():
            if end.blob:
                full = msgspec.structs.replace(end, output=msgspec.Raw(await blobs.get(end.blob)), blob="")
                body = msgspec.structs.replace(body, given={**body.given, name: full})
        for name, left in body.left.items():
            if left.blob:
                kept = Left(msgspec.Raw(await blobs.get(left.blob)))
                body = msgspec.structs.replace(body, left={**body.left, name: kept})
        for name, one in body.handed.items():
            if one.blob:
                brought = Handed(msgspec.Raw(await blobs.get(one.blob)))
                body = msgspec.structs.replace(body, handed={**body.handed, name: brought})
    if isinstance(body, Start | StepEnd) and body.blob:
        key = "input" if isinstance(body, Start) else "output"
        body = msgspec.structs.replace(body, **{key: msgspec.Raw(await blobs.get(body.blob)), "blob": ""})
    return msgspec.structs.replace(fact, body=body)
