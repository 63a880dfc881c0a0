"""Which of the claims that an agent is remembered to have does it still hold? The node that keeps them is asked.

A lease can end without a word to whoever remembers it, so before an agent is made to choose, what is over is forgotten.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from knotwork.sdk.errors import KnotworkError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from knotwork.mcp.ways import Ask

OVER = frozenset({"claim.invalid", "claim.expired", "claim.superseded", "claim.ended", "claim.cancelled"})


async def lost(ask: Ask, work_id: str, claims: Mapping[str, str]) -> list[str]:
    """Return those of several claims on one work, by step, that do not stand any more; nothing for fewer than two."""
    found = []
    for claim in claims.values() if len(claims) > 1 else ():
        try:
            await ask("work.checkpoint", claim=claim, id=work_id, read=True)
        except KnotworkError as error:
            if error.code in OVER:
                found.append(claim)
    return found
