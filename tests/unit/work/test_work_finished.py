"""Which queues are looked through for work that has ended, and when?"""

from __future__ import annotations

import pytest

from knotwork.bus import subjects
from knotwork.sdk.errors import Unreachable
from knotwork.work import finished as finished_module
from knotwork.work.finished import SHARE, STILL_S, Finished, Rests
from knotwork.work.queues import Depth, Queue
from knotwork.work.records import Task


def depth(name: str, pending: int = 1, taken: int = 0) -> Depth:
    return Depth(Queue("none", name, "normal"), pending, taken, 0, 0, 10.0)


def names(rests: Rests, now_s: float, *, tired: bool = False) -> list[str]:
    return [rest.depth.queue.routed for rest in rests.due(now_s, tired=tired)]


def looked(rests: Rests, now_s: float) -> None:
    for rest in rests.due(now_s, tired=False):
        rest.looked, rest.anew = rest.depth, False


def test_every_queue_that_holds_something_is_looked_through_after_a_connect():
    rests = Rests()
    rests.swept([depth("a"), depth("b", 0, 2), depth("empty", 0)], 0.0)
    assert names(rests, 0.0, tired=True) == ["a", "b"]
    looked(rests, 0.0)
    assert names(rests, 2 * STILL_S) == []
    rests.reconnected()
    assert names(rests, 2 * STILL_S) == []  # not by what was swept before the connection was lost
    rests.swept([depth("a"), depth("c")], 2 * STILL_S)
    assert names(rests, 2 * STILL_S) == ["a", "c"]


def test_later_only_what_stands_still_is_looked_through_once():
    rests = Rests()
    rests.swept([], 0.0)
    rests.swept([depth("new")], 1.0)
    assert names(rests, 1.0) == []
    rests.swept([depth("new", 2)], 4.0)  # it moves
    assert names(rests, 1.0 + STILL_S) == []
    rests.swept([depth("new", 2)], 4.0 + STILL_S)
    assert names(rests, 4.0 + STILL_S, tired=True) == []
    assert names(rests, 4.0 + STILL_S) == ["new"]
    looked(rests, 4.0 + STILL_S)
    assert names(rests, 100.0) == []
    rests.swept([depth("new", 1)], 100.0)
    assert names(rests, 100.0 + STILL_S) == ["new"]


def test_where_an_attempt_stands_tells_where_its_outcome_does():
    task = Task(run="t0198c0ffee001234", queue="do", capability="do", step="a--3", iteration=2, number=4)
    assert subjects.outcome_of(task.subject) == subjects.outcome(task.run, "a--3", 2, 4)
    for odd in ("task.none.do.normal", f"{task.subject}.5", task.subject.replace(".2.4", ".x.4"), "task.a.b.c.d.e.1.2"):
        assert subjects.outcome_of(odd) == ""


async def test_a_look_that_failed_is_made_up_for_later_and_one_is_asked_for_meanwhile(monkeypatch):
    finished = Finished(None, None, mine=lambda: True)  # it reads nothing: when the server fails is up to the test
    looks: list[str] = []

    async def look_through(pattern: str) -> None:
        looks.append(pattern)
        now[0] += 2.0
        if len(looks) == 1:
            raise Unreachable("It is gone.", code="bus.lost")
        if len(looks) == 2:  # the connection was lost and is back before this look has ended
            finished.reconnected()
            finished.swept([depth("a")])

    now = [1000.0]
    monkeypatch.setattr(finished_module.time, "monotonic", lambda: now[0])
    monkeypatch.setattr(finished, "_look_through", look_through)
    finished.swept([depth("a")])
    with pytest.raises(Unreachable):
        await finished.look()
    now[0] += 1.0
    await finished.look()
    assert len(looks) == 1  # not again from the beginning every second
    now[0] += 2.0 * SHARE
    await finished.look()
    await finished.look()
    assert len(looks) == 3
    await finished.look()
    assert len(looks) == 3
