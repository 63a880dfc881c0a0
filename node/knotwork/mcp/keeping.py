"""Who says that an agent still works on what it claimed? We do, for as long as its session lives."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from knotwork.bus.background import background
from knotwork.mcp import held, standing
from knotwork.sdk.errors import KnotworkError, Unavailable

if TYPE_CHECKING:
    from knotwork.mcp.ways import Ask

Extend = Callable[[str, str, float], Awaitable[None]]
"""Extends a lease: work, claim, seconds. Raises what the op `work.extend` raises."""


@dataclass(eq=False, slots=True)
class _Kept:
    claim: str
    lease_s: float
    next_s: float


class Keeping:
    """What one agent claimed and has not ended, extended three times in each lease."""

    def __init__(self, extend: Extend) -> None:
        """Hold nothing yet."""
        self._extend = extend
        self._kept: dict[tuple[str, str], _Kept] = {}
        self._more = asyncio.Event()

    def took(self, work_id: str, claim: str, lease_s: float, step: str = "") -> None:
        """Keep work, or a step of it, from now on."""
        now_s = asyncio.get_running_loop().time()
        self._kept[work_id, step] = _Kept(claim, lease_s, now_s + lease_s / 3)
        self._more.set()

    def heard(self, tool: str, arguments: dict[str, Any], found: dict[str, Any]) -> None:
        """Take note of a call that succeeded: it may have claimed work, or ended it."""
        if tool == "claim_work" and found.get("claimed"):
            self.took(found["work_id"], found["claim"], float(found["lease_secs"]), found.get("step", ""))
        elif tool == "list_claimed_work":
            for one in found["work"]:
                self.took(one["work_id"], one["claim"], float(one["lease_secs"]), one.get("step", ""))
        elif tool in ("complete_work", "fail_work") and found.get("status"):
            claim = arguments.get("claim")
            self._drop(str(arguments.get("work_id")), claim=claim if isinstance(claim, str) else "")

    async def claim_of(self, work_id: str, ask: Ask) -> str:
        """Return what to show for work, "" when it is not kept; raises what `held.meant` raises."""
        for over in await standing.lost(ask, work_id, self._of(work_id)):
            self._drop(work_id, over)
        return held.meant(work_id, self._of(work_id))

    def _of(self, work_id: str) -> dict[str, str]:
        return {step: kept.claim for (of, step), kept in self._kept.items() if of == work_id}

    def lost(self, notice: dict[str, Any]) -> None:
        """Keep no longer what the node says is lost: one step of the work."""
        step = notice.get("step", "")
        if isinstance(work_id := notice.get("id"), str) and isinstance(step, str):
            self._kept.pop((work_id, step), None)

    def _drop(self, work_id: str, claim: str) -> None:
        for name in [name for name, kept in self._kept.items() if name[0] == work_id and claim in ("", kept.claim)]:
            del self._kept[name]

    def all(self) -> list[tuple[str, str]]:
        """Return work and claim of all that is kept."""
        return [(work_id, kept.claim) for (work_id, _), kept in self._kept.items()]

    async def run(self) -> None:
        """Extend leases when it is time, for ever."""
        loop = asyncio.get_running_loop()
        while True:
            self._more.clear()
            due_s = min((kept.next_s for kept in self._kept.values()), default=None)
            try:
                async with asyncio.timeout(None if due_s is None else max(0.0, due_s - loop.time())):
                    await self._more.wait()
            except TimeoutError:
                late = [name for name, kept in self._kept.items() if kept.next_s <= loop.time()]
                async with background() as group:
                    for task in [group.create_task(self._renew(name)) for name in late]:
                        await task

    async def _renew(self, name: tuple[str, str]) -> None:
        kept = self._kept.get(name)
        if kept is None:
            return
        loop = asyncio.get_running_loop()
        kept.next_s = loop.time() + kept.lease_s / 3
        try:
            await self._extend(name[0], kept.claim, kept.lease_s)
        except Unavailable:
            kept.next_s = loop.time() + min(2.0, kept.lease_s / 6)
        except KnotworkError:  # it is somebody else's, or has ended
            if self._kept.get(name) is kept:
                del self._kept[name]
