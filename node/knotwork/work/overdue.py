"""What becomes of an attempt that nobody begins in time, or whose holder vanished before its time was over? It times out.

Every node knows every claim, so each remembers those whose lease ran out; the one that kept it acts when the attempt's
time is over, the others a little later, in case that node is gone too. An attempt has one outcome, whoever is first.
"""

from __future__ import annotations

import contextlib
import random
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

from knotwork.bus import clock, digits, reading, subjects
from knotwork.sdk.errors import NotFound, TimedOut
from knotwork.work import intake, queues, recording, records, settle

if TYPE_CHECKING:
    from knotwork.bus.connection import Connection
    from knotwork.work.keeping import Keeper
    from knotwork.work.leases import Claim
    from knotwork.work.leases import Over as Why
    from knotwork.work.recording import Recorder
    from knotwork.work.records import Task

GRACE_NS = 2_000_000_000
"""How long an attempt that was given to somebody may take to be on record as begun."""
Over = Callable[["Task"], Awaitable[bool]]
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

    def _note(self, claim: Claim, why: Why) -> None:
        if why == "expired" and claim.ends_ns and len(self._lost) < REMEMBERED_MAX:
            self._lost[claim.outcome_subject] = claim

    async def look(self) -> None:
        """End what is over; call it every second or so. Raises what reading raises."""
        now_ns = clock.now_ns()
        for place, claim in list(self._lost.items()):
            if now_ns >= claim.ends_ns + (0 if claim.node == self._node else int(OTHERS_S * 1e9)):
                if not await self._went_on(claim):
                    await self._time_over(claim)
                self._lost.pop(place, None)

    async def _went_on(self, claim: Claim) -> bool:
        """Return whether an attempt has ended, or was begun again by somebody: then its time is counted anew."""
        if await intake.outcome_at(self._connection, claim.outcome_subject) is not None:
            return True
        begun = await reading.last(self._connection, subjects.FACTS, f"{claim.trace_subject('started')}.*")
        delivery = digits.read(begun.subject.rpartition(".")[2]) if begun is not None else None
        return delivery is not None and delivery > claim.delivery


async def unbegun(connection: Connection, recorder: Recorder, task: Task, *, node: str, over: Over) -> None:
    """End an attempt that nobody began in time, unless somebody did, or it has its outcome (`over(task)`).

    One that was just given to somebody is looked at again: that it was begun is recorded a moment later.
    """
    if await over(task) or await _is_begun(connection, task):
        return
    now_ns = clock.now_ns()
    stored = await reading.last(connection, subjects.TASKS, task.subject)
    queue = queues.Queue(task.boundary, task.queue, task.lane)
    given = await queues.given_up_to(connection, queue) if stored is not None else None
    if stored is not None and given is not None and stored.seq <= given and now_ns < task.start_by_ns + GRACE_NS:
        again_ns = now_ns + GRACE_NS // 4
        await recorder.set_timer(task.run, recording.start_timer(task), again_ns, records.encode(task))
        return
    outcome = settle.unbegun(task, node, now_ns, random.random())  # noqa: S311  (jitter)
    standing = await recorder.append_end(task, outcome)
    if stored is not None:
        with contextlib.suppress(NotFound):
            await reading.delete(connection, subjects.TASKS, stored.seq)
    await recorder.carry_out(task, standing)


async def _is_begun(connection: Connection, task: Task) -> bool:
    """Return whether somebody began an attempt and has not handed it back since."""
    found = {}
    for what in ("started", "released"):
        stored = await reading.last(connection, subjects.FACTS, f"{records.trace_subject(task, what)}.*")
        found[what] = stored.seq if stored is not None else 0
    return found["started"] > found["released"]


def late(task: Task, claim: Claim, now_ns: int) -> TimedOut:
    """Return why the time of an attempt is over (pure)."""
    if task.deadline_ns and now_ns >= task.deadline_ns:
        return TimedOut("Its deadline passed.", code="work.deadline")
    if claim.heartbeat_s and not (claim.limit_ns and now_ns >= claim.limit_ns):
        return settle.silent(claim.worker, claim.heartbeat_s)
    took_s = ((claim.limit_ns or claim.ends_ns) - claim.started_ns) / 1e9
    return TimedOut(
        f"{claim.worker} did not finish within {round(took_s, 1) or took_s:g} s.", code="call.timed_out",
        hint="Allow more time, or ask for less.",
    )  # fmt: skip
