"""Orchestrations for the doors' tests: one that is always the same."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from typing import Any

from knotwork.ops import crew_replies as replies
from knotwork.ops.crew_ports import Assessing, NewPart, Progressing, Spawning, Together
from knotwork.ops.op import Caller

ID = "o0198c0ffee0012345678ab"


def plan(orchestration: str = ID, *parts: NewPart) -> replies.CrewPlan:
    planned = [replies.PlannedPart(id=one.id, capability=one.capability) for one in parts]
    return replies.CrewPlan(
        id=orchestration, phase="assessment", revision=1, parts=planned or [replies.PlannedPart(id="db")],
        groups=[["db"]], order="[db]", complexity=replies.Complexity(level="simple", score=1),
    )  # fmt: skip


def state(orchestration: str = ID, phase: replies.Phase = "execution") -> replies.CrewState:
    return replies.CrewState(
        id=orchestration, phase=phase, percent=50.0, parts=[replies.PartState(id="db", state="running", agent="laptop")],
        budget=replies.Allowance(depth=3, children=200, time_s=0, tokens=0, cost=0), used=replies.Used(children=1),
    )  # fmt: skip


class StandInCrews:
    """One orchestration with one part."""

    async def assess(self, wanted: Assessing, caller: Caller) -> replies.CrewPlan:
        return plan()

    async def plan(
        self, orchestration: str, parts: Sequence[NewPart] | None, revision: int | None, caller: Caller
    ) -> replies.CrewPlan:
        return plan(orchestration, *(parts or ()))

    async def spawn(self, orchestration: str, how: Spawning, caller: Caller) -> replies.CrewState:
        return state(orchestration)

    async def checkpoint(self, orchestration: str, said: Progressing, caller: Caller) -> replies.Reported:
        return replies.Reported(id=orchestration, phase="execution", percent=said.percent or 0.0, part=said.part)

    async def listed(self, phases: frozenset[str], limit: int, cursor: str = "") -> replies.CrewList:
        rows = [replies.CrewRow(id=ID, phase="execution", percent=50.0, done=0, parts=1)]
        return replies.CrewList(orchestrations=rows)

    async def results(self, orchestration: str, part: str) -> replies.CrewResults:
        parts = [replies.PartResult(id="db", state="completed", output={"tables": 3})]
        return replies.CrewResults(id=orchestration, phase="execution", complete=True, parts=parts)

    async def synthesize(self, orchestration: str, how: Together, wait_s: float, caller: Caller) -> replies.CrewResult:
        return replies.CrewResult(id=orchestration, phase="complete", how=how.how, output="# all")

    async def state(self, orchestration: str) -> replies.CrewState:
        return state(orchestration)

    async def watch(self, orchestration: str, timeout_s: float) -> AsyncGenerator[dict[str, Any], None]:
        yield {"event": "phase", "phase": "execution"}

    async def hold(
        self, orchestration: str, *, resume: bool, tokens: int | None = None, cost: float | None = None
    ) -> replies.CrewState:
        return state(orchestration)

    async def cancel(self, orchestration: str, why: str, caller: Caller) -> replies.CrewState:
        return state(orchestration, "cancelled")

    async def retry(self, orchestration: str, part: str, caller: Caller) -> replies.CrewState:
        return state(orchestration)
