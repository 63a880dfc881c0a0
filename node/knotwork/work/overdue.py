"""What becomes of an attempt whose holder vanished before its time was over, when nobody else takes it? It times out.

Every node knows every claim, so each remembers those whose lease ran out; the one that kept it acts when the attempt's
time is over, the others a little later, in case that node is gone too. An attempt has one outcome, whoever is first.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

from knotwork.bus import reading, subjects
from knotwork.work import intake, records

if TYPE_CHECKING:
    from knotwork.bus.connection import Connection
    from knotwork.work.keeping import Keeper
    from knotwork.work.leases import Claim, Over

OTHERS_S = 3.0
"""How much later than its keeper other nodes act."""
REMEMBERED_MAX = 10_000


class Overdue:
    """Attempts of one project whose lease ran out and whose time has not."""

    def __init__(
        self, connection: Connection, keeper: Keeper, time_over: Callable[[Claim], Awaitable[None]], *, node: str
    ) -> None:
        """Hear of lost claims from `keeper`; `time_over(claim)` ends the attempt."""
        self._connection, self._time_over, self._node = connection, time_over, node
        self._lost: dict[str, Claim] = {}
        keeper.on_lost(self._note)

    def _note(self, claim: Claim, why: Over) -> None:
        if why == "expired" and claim.ends_ns and len(self._lost) < REMEMBERED_MAX:
            self._lost[claim.outcome_subject] = claim

    async def look(self) -> None:
        """End what is over; call it every second or so. Raises what reading raises."""
        now_ns = time.time_ns()
        for place, claim in list(self._lost.items()):
            if now_ns >= claim.ends_ns + (0 if claim.node == self._node else int(OTHERS_S * 1e9)):
                if not await self._went_on(claim):
                    await self._time_over(claim)
                self._lost.pop(place, None)

    async def _went_on(self, claim: Claim) -> bool:
        """Return whether an attempt has ended, or was begun again by somebody: then its time is counted anew."""
        if await intake.outcome_at(self._connection, claim.outcome_subject) is not None:
            return True
        step, iteration, number = claim.subject.split(".")[5:]
        place = subjects.fact(records.shard(claim.run), claim.run, "started", step, iteration, number)
        begun = await reading.last(self._connection, subjects.FACTS, f"{place}.*")
        delivery = begun.subject.rpartition(".")[2] if begun is not None else ""
        return delivery.isdigit() and int(delivery) > claim.delivery
