"""Tasks that have ended and stand in their queue all the same are taken out of it, and no other is."""

from __future__ import annotations

import msgspec
from tests.integration.work.conftest import task, until

from knotwork.bus import reading, subjects
from knotwork.work import records
from knotwork.work.finished import CHUNK
from knotwork.work.records import Outcome

ENDED = 2 * CHUNK + 5


async def test_what_has_ended_leaves_its_queue_and_what_has_not_stays(bench):
    work = await bench.room()
    tasks = [task("nobody", value=number) for number in range(ENDED + 3)]
    for one in tasks:
        await work.submitter.submit(one)
    for one in tasks[:ENDED]:  # as if a server that was killed had forgotten their acknowledgements
        outcome = Outcome("completed", msgspec.Raw(records.encode(one)), node="n", agent="a")
        await work.facts.append(records.outcome_subject(one.run, one.step, 0, 1), records.encode(outcome))
    work.finished.reconnected()
    await until(lambda: work.finished.removed == ENDED)
    left = await reading.subjects_of(work._connection, subjects.TASKS, "task.>")
    assert sorted(left) == sorted(one.subject for one in tasks[ENDED:])
