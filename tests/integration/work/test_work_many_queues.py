"""Where there are very many queues, not all are listed every second, and nothing that is in one is overlooked."""

from __future__ import annotations

import asyncio

import pytest
from tests.integration.work.conftest import ended, task, until
from tests.integration.work.test_claims import agent, claim

from knotwork.bus import publisher, reading, subjects
from knotwork.work import queues, records, sweeping
from knotwork.work.queues import Queue
from knotwork.work.sweeping import Sweeper


@pytest.fixture(autouse=True)
def many(monkeypatch):
    """Let a handful be very many: once they are listened for, a list of them is good for hours."""
    monkeypatch.setattr(sweeping, "LISTED_PER_S", 1e-4)


class Looks:
    """A sweeper, and what it asked the server for."""

    def __init__(self, connection, monkeypatch) -> None:
        self.sweeper, self.lists, self.asked = Sweeper(connection), 0, set()
        real_list, real_ask = self.sweeper._list, self.sweeper._ask

        async def list_all(began_s):
            self.lists += 1
            await real_list(began_s)

        async def ask(maybe):
            self.asked |= {queue.routed for queue in maybe}
            await real_ask(maybe)

        monkeypatch.setattr(self.sweeper, "_list", list_all)
        monkeypatch.setattr(self.sweeper, "_ask", ask)

    async def of(self, name):
        """Return how many wait and are taken of a queue, None when it is not known."""
        found = {depth.queue.routed: (depth.pending, depth.taken) for depth in await self.sweeper.look()}
        return found.get(name)


async def test_what_was_empty_is_not_asked_for_until_somebody_is_told_of_it(bench, monkeypatch):
    work = await bench.room()
    for name in ("empty", "later"):
        await queues.open_queue(work._connection, Queue("none", name, "normal"), 2.0)
    await work.submitter.submit(task("taken"))
    await until(lambda: _waits(work, "taken"))
    looks = Looks(work._connection, monkeypatch)
    assert await looks.of("empty") == await looks.of("later") == (0, 0)
    assert looks.lists == 2, "the second after it began to listen"
    await until(lambda: _is(looks, "taken", (1, 0)))
    await work.submitter.submit(task("later"))
    await work.submitter.submit(task("new"))
    for name in ("later", "new"):
        await until(lambda name=name: _is(looks, name, (1, 0)))
    held = await claim(work, agent("laptop", "taken"))
    await until(lambda: _is(looks, "taken", (0, 1)))
    await work.claims.complete(held.token, None)
    await until(lambda: _is(looks, "taken", (0, 0)))
    assert (looks.lists, looks.asked) == (2, {"taken", "later", "new"})


async def test_a_hint_that_got_lost_is_made_good_by_the_next_list(bench, monkeypatch):
    work = await bench.room()
    looks = Looks(work._connection, monkeypatch)
    await queues.open_queue(work._connection, Queue("none", "do", "normal"), 2.0)
    assert await looks.of("do") == await looks.of("do") == (0, 0)
    one = task()
    await publisher.publish(work._connection, one.subject, records.encode(one))
    assert await looks.of("do") == (0, 0)

    async def listed_anew() -> bool:
        looks.sweeper.reconnected()
        return await looks.of("do") == (1, 0)

    await until(listed_anew)
    assert looks.asked == set()


async def test_where_many_may_have_changed_all_are_listed(bench, monkeypatch):
    work = await bench.room()
    looks = Looks(work._connection, monkeypatch)
    await work.submitter.submit(task("one"))
    monkeypatch.setattr(sweeping, "ASKED_MAX", 0)
    await until(lambda: _is(looks, "one", (1, 0)))
    before = looks.lists
    assert [await looks.of("one") for _ in range(4)] == [(1, 0)] * 4
    assert (looks.lists - before, looks.asked) == (4, set())


async def test_work_is_done_and_what_is_finished_leaves_the_stream_where_there_are_many(bench):
    work = await bench.room("here", do={})
    await work.submitter.submit(task("nobody"))
    await until(lambda: work._sweeper._list_s > 0)
    for number in range(3):
        one = task(value=number)
        await work.submitter.submit(one)
        assert (await ended(work, one.run)).state == "completed"

    async def only_one() -> bool:
        return len(await reading.subjects_of(work._connection, subjects.TASKS, "task.>")) == 1

    await until(only_one)


async def test_who_waits_for_work_has_not_all_queues_listed(bench, monkeypatch):
    work = await bench.room()
    await work.submitter.submit(task("others"))
    await until(lambda: work._sweeper._list_s > 0)
    listed = []

    async def listed_all(_connection):
        listed.append(True)
        return []

    monkeypatch.setattr(queues, "sweep", listed_all)
    assert await work.claims.claim(agent("laptop", "do"), lease_s=60.0, wait_s=0.5, held_max=9) == []
    one = task()
    async with asyncio.TaskGroup() as group:
        claiming = group.create_task(claim(work, agent("laptop", "do")))
        await work.submitter.submit(one)
    assert claiming.result().task.run == one.run
    assert listed == []


@pytest.mark.parametrize(
    "subject",
    ["hint.task.none.do.weird", "hint.task.none.do", "hint.task.none.*.normal", "hint.task.none.do.normal.more", "x"],
)
def test_what_is_no_hint_names_no_queue(subject):
    assert queues.from_hint(subject) is None


def test_a_hint_names_its_queue():
    for queue in (Queue("none", "do", "normal"), Queue("corporate", "here=laptop", "high")):
        assert queues.from_hint(subjects.hint(*queue)) == queue


async def _is(looks, name, stands) -> bool:
    return await looks.of(name) == stands


async def _waits(work, name) -> bool:
    depth = await queues.stands(work._connection, Queue("none", name, "normal"))
    return depth.pending == 1
