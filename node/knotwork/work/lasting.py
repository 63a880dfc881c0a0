"""When does it go on record that an agent that came in has begun a task? When it has held it for longer than a moment.

Who holds a task stands in LEASES before its agent is told, so nothing hangs on this fact but what others see. An attempt
that is over sooner leaves no trace, like one of a hosted agent: that saves a quick claim a write to disk, and those that
last share one, because they are put at the same time. Whichever node keeps a claim sees to it, so also the one that takes
it over from a node that died before; the server refuses the second of two.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING

from knotwork.bus.background import heard
from knotwork.sdk.errors import KnotworkError
from knotwork.work import records
from knotwork.work.records import Started

if TYPE_CHECKING:
    from knotwork.bus.commit import GroupCommit
    from knotwork.work.leases import Claim

LONG_S = 0.25
"""An attempt that takes longer goes on record as begun (`worker.LONG_S`; `view.archive.LONG_NS` counts on both)."""
GATHER_S = 0.25
"""How long those that have lasted so long wait for each other: they share one write then."""


class Lasting:
    """The claims that one node keeps since a moment ago, the oldest first."""

    def __init__(self, facts: GroupCommit, stands: Callable[[Claim], bool]) -> None:
        """Record through `facts` what still `stands` after `LONG_S`."""
        self._facts, self._stands = facts, stands
        self._young: deque[tuple[float, Claim]] = deque()
        self._loop = asyncio.get_running_loop()

    def add(self, claim: Claim) -> None:
        """Take note of a claim that this node keeps from now on."""
        if claim.delivery > 1:  # it went on record before it was begun
            return
        if not self._young:
            self._loop.call_later(LONG_S, self._look)
        self._young.append((self._loop.time() + LONG_S, claim))

    def _look(self) -> None:
        now_s = self._loop.time()
        while self._young and self._young[0][0] <= now_s:
            claim = self._young.popleft()[1]
            if self._stands(claim):
                self._record(claim)
        if self._young:
            self._loop.call_later(max(GATHER_S, self._young[0][0] - now_s), self._look)

    def _record(self, claim: Claim) -> None:
        fact = Started(claim.node, claim.worker, claim.started_ns, claim.delivery, claimed=True)
        try:
            stored = self._facts.put(claim.trace_subject("started", claim.delivery), records.encode(fact))
        except KnotworkError:  # the node is closing, or cannot keep up
            return
        stored.add_done_callback(heard)
