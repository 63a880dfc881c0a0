"""Who lost a shard leaves its runs alone, and who takes one over never does a finished run again."""

from __future__ import annotations

import asyncio

import pytest
from tests.integration.flow.conftest import define, ended, start
from tests.integration.work.conftest import until

from knotwork.bus import patterns, reading, subjects
from knotwork.flow import facts, history, journal
from knotwork.sdk.errors import Denied

WAITS = {"kind": "wait_for_signal", "signal": "go"}


@pytest.fixture
def by_hand(monkeypatch):
    """What is over is kept and purged by the test, step by step."""
    monkeypatch.setattr(history, "EVERY_S", 3600.0)


async def one_in(flow, shard: str, workflow: str = "w") -> str:
    """Return a new run in a shard."""
    while facts.shard(run := await start(flow, 1, workflow)) != shard:
        await flow.runs.cancel(run)
    return run


async def late(flow) -> str:
    """Return a run that is over and kept, above one that goes on."""
    await define(flow, steps={"a": {"capability": "do"}, "b": {"capability": "do", "depends_on": ["a"]}})
    await define(flow, name="waits", steps={"a": WAITS})
    steady = await start(flow, 1, "waits")
    run = await one_in(flow, facts.shard(steady))
    await ended(flow, run)
    await until(lambda: _is_over(flow, run))
    over = flow._historian._over[run]
    await flow._historian._keep(over)
    assert over.kept_s
    over.kept_s -= 60.0
    return run


async def _is_over(flow, run) -> bool:
    return run in flow._historian._over


async def test_who_lost_a_shard_purges_nothing_of_it(flows, by_hand):
    flow = await flows.here(do={"concurrency": 5})
    run = await late(flow)
    there = await history.all_facts(flow.connection, run)
    flow.journal.own(frozenset())
    await flow._historian._forget()
    assert await history.all_facts(flow.connection, run) == there
    assert not flow._historian._over, "the next owner finds it in FACTS"


async def test_who_has_a_shard_purges_what_is_late_of_it(flows, by_hand):
    flow = await flows.here(do={"concurrency": 5})
    run = await late(flow)
    await flow._historian._forget()
    assert await history.all_facts(flow.connection, run) == []
    assert (await flow.runs.look(run)).finish is not None


async def test_a_run_of_which_only_the_beginning_was_left_to_read_is_not_done_again(flows, by_hand, monkeypatch):
    """As when the former owner, which had purged it already in its mind, does so while the new one reads."""
    flow = await flows.here(do={"concurrency": 5})
    run = await late(flow)
    read, torn = reading.batch, []

    async def slowly(connection, stream, subject, from_seq, count, **more):
        """Read a message at a time; once the beginning of the run was read, the rest is gone."""
        found = await read(connection, stream, subject, from_seq, 1, **more)
        if stream == subjects.FACTS and found and found[0].subject == facts.subject(run, "start"):
            torn.append(await reading.purge(connection, subjects.FACTS, f"{facts.subject(run)}.>", 0))
        return found

    tasks = await reading.last_seq(flow.connection, subjects.TASKS)
    flow.journal.own(frozenset())
    flow._historian._over.clear()  # as in another node
    monkeypatch.setattr(journal.reading, "batch", slowly)
    flow.journal.own(frozenset(facts.SHARDS))
    await until(lambda: _all_ready(flow))
    monkeypatch.undo()
    assert torn[0] > 1
    assert flow.journal.find(run) is None
    assert await reading.last_seq(flow.connection, subjects.TASKS) == tasks, "nothing of it was begun again"
    assert (await flow.runs.look(run)).finish is not None


async def test_a_run_that_is_read_anew_while_it_is_purged_is_not_done_again(flows, by_hand, monkeypatch):
    flow = await flows.here(do={"concurrency": 5})
    run = await late(flow)
    shard = flow.journal._shards[facts.shard(run)]
    flow._historian._over.clear()  # as in another node
    read = journal.all_facts

    async def torn(connection, one):
        found = await read(connection, one)
        return found[:2] if one == run else found

    tasks = await reading.last_seq(flow.connection, subjects.TASKS)
    monkeypatch.setattr(journal, "all_facts", torn)
    await flow.journal.missed(shard.name)
    assert flow.journal.find(run) is None
    assert await reading.last_seq(flow.connection, subjects.TASKS) == tasks


async def _all_ready(flow) -> bool:
    return all(shard.ready for shard in flow.journal._shards.values())


async def test_whoever_looks_at_a_run_that_is_being_purged_sees_all_of_it(flows, by_hand, monkeypatch):
    flow = await flows.here(do={"concurrency": 5})
    run = await late(flow)
    read = history.all_facts

    async def torn(connection, one):
        return (await read(connection, one))[:2]

    monkeypatch.setattr(history, "all_facts", torn)
    sight = await flow.runs.look(run)
    assert (sight.finish is not None, sight.run.phase) == (True, "over")


async def test_a_run_that_is_known_by_its_end_alone_holds_its_shard_until_it_is_kept(flows, by_hand):
    """As when its start was not told and another owner ended it: where its first fact stands is not known."""
    flow = await flows.here(do={"concurrency": 5})
    await define(flow, name="waits", steps={"a": WAITS})
    run = await start(flow, 1, "waits")
    other = await one_in(flow, facts.shard(run), "waits")
    await flow.runs.cancel(other)
    await until(lambda: _is_over(flow, other))
    await flow._historian._keep(flow._historian._over[other])
    del flow.journal._shards[facts.shard(run)].runs[run]
    finish = facts.encode(facts.Finish("cancelled"))
    await flow.runs._facts.append(facts.subject(run, "ended"), finish)
    await until(lambda: _is_over(flow, run))
    there = await history.all_facts(flow.connection, run)
    await flow._historian._forget()
    assert await history.all_facts(flow.connection, run) == there
    await flow._historian._keep(flow._historian._over[run])
    assert history.is_whole(await history.kept_facts(flow.connection, run))


async def test_who_lost_a_shard_tries_nothing_more_for_its_runs(flows):
    flow = await flows.here()
    limit = {"concurrency": 1, "scope": "capability"}
    await define(flow, steps={"a": {"capability": "do", "limit": limit}})
    first = await start(flow, 1)
    await until(lambda: _dispatched(flow, first))
    run = await start(flow, 2)
    await until(lambda: _opened(flow, run))
    live = flow.journal.find(run)
    flow.journal.own(frozenset())
    assert not live.run.open, "whoever owns it now carries it out"
    (book,) = flow.limits._books
    flow.limits.release(f"{first}.s.a", book)
    await until(lambda: _nobody_waits(flow))
    assert await reading.last(flow.connection, subjects.TASKS, patterns.tasks_of(run)) is None, (
        "it was let in, and left alone"
    )


async def test_what_fails_for_who_lost_a_shard_fails_for_nobody_else(flows, monkeypatch):
    flow = await flows.here()
    await define(flow, steps={"a": {"capability": "do"}})
    carrier = flow.journal._taker._carrier
    asked, lost = asyncio.Event(), asyncio.Event()
    refused: list[str] = []

    async def placed(task, value=None):
        asked.set()
        await lost.wait()
        refused.append(task.run)
        raise Denied("no", code="policy.forbidden")

    monkeypatch.setattr(carrier, "_dispatched", lambda *_: False)
    monkeypatch.setattr(carrier._work, "placed", placed)
    run = await start(flow, 1)
    async with asyncio.timeout(60):
        await asked.wait()
        flow.journal.own(frozenset())
        lost.set()
        await until(lambda: _came(refused))
    await flow.runs._facts.append(facts.subject(run, "signal", "s", "1"), b"{}")  # behind whatever it would record
    whats = [one.subject.split(".")[3] for one in await history.all_facts(flow.connection, run)]
    assert whats == ["start", "signal"]


async def _came(refused) -> bool:
    return bool(refused)


async def _nobody_waits(flow) -> bool:
    return not flow.limits._lines


async def _dispatched(flow, run) -> bool:
    return await reading.last(flow.connection, subjects.TASKS, patterns.tasks_of(run)) is not None


async def _opened(flow, run) -> bool:
    live = flow.journal.find(run)
    return live is not None and live.run is not None and bool(live.run.open) and bool(flow.limits._lines)
