"""How many tasks of a queue somebody has, and how many only seem to be had."""

from __future__ import annotations

import pytest

from knotwork.mesh.records import AgentRecord
from knotwork.work.hands import Busy, held
from knotwork.work.queues import Depth, Queue

BUILD, NAMED = Queue("none", "build", "normal"), Queue("none", "=ann", "normal")


def agent(name: str, *capabilities: str, running: int = 0, queued: int = 0) -> Busy:
    return Busy("far", AgentRecord(name, capabilities, running=running, queued=queued))


@pytest.mark.parametrize(
    ("queue", "known", "others", "stands"),
    [
        (BUILD, [BUILD.consumer] * 3, [], (2, 3)),
        (BUILD, [BUILD.consumer], [], (4, 1)),
        (BUILD, [NAMED.consumer] * 3, [], (5, 0)),
        (BUILD, [], [agent("ann", "build", running=1, queued=1)], (3, 2)),
        (BUILD, [], [agent("ann", "test", running=3)], (5, 0)),
        (BUILD, [BUILD.consumer], [agent("ann", "build", running=9)], (2, 3)),
        (BUILD, [BUILD.consumer] * 9, [], (2, 3)),  # some of it is just being given out
        (NAMED, [], [agent("ann", running=2), agent("bob", "ann", running=2)], (3, 2)),
        (NAMED._replace(routed="near=ann"), [], [agent("ann", running=2)], (5, 0)),
        (NAMED._replace(routed="far=ann"), [], [agent("ann", running=2)], (3, 2)),
    ],
)
def test_what_nobody_has_waits(queue: Queue, known: list[str], others: list[Busy], stands: tuple[int, int]):
    (found,) = held([Depth(queue, 2, 3, 7, 12, 30.0)], known, others)
    assert (found.pending, found.taken, found.floor) == (*stands, 7)
