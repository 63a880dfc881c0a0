"""A run that nobody told of is read, and what is told of it meanwhile is neither lost nor taken before its start."""

from __future__ import annotations

import asyncio

import pytest
from tests.integration.flow import flow_node
from tests.integration.flow.conftest import define, ended, output, start
from tests.integration.work.conftest import until

from knotwork.bus import reading, subjects
from knotwork.flow import facts, history, journal, untold
from knotwork.sdk.errors import NotFound, Unavailable


async def test_what_is_told_of_a_run_while_it_is_read_comes_behind_what_is_read(flows, monkeypatch):
    monkeypatch.setattr(history, "KEEP_S", 0.05)
    flow = await flows.here(do={"concurrency": 5})
    steps = {"a": {"kind": "wait_for_signal", "signal": "go"}, "b": {"capability": "do", "depends_on": ["a"]}}
    await define(flow, steps=steps)
    run = await start(flow, 7)
    name = facts.shard(run)
    await until(lambda: _waits(flow, run))

    read, floors = journal.all_facts, []

    async def slow(connection, one):
        """Read, and be told of the signal before what was read is taken."""
        found = await read(connection, one)
        floors.append(flow.journal.floor(name))
        assert await flow.runs.signal(run, "go", b'"now"')
        await until(lambda: _told(flow, run))
        return found

    monkeypatch.setattr(journal, "all_facts", slow)
    del flow.journal._shards[name].runs[run]  # as after a change of the server's leader
    assert await flow.journal.missed(name)
    assert floors == [0], "nothing of the shard may be purged while a run of it is being read"

    assert output(await ended(flow, run)) == "now"
    await until(lambda: history.is_kept(flow.connection, run))
    await until(lambda: _purged(flow, run))
    sight = await flow.runs.look(run)
    assert sight.facts[0].subject == facts.subject(run, "start")
    assert sight.facts[-1].subject == facts.subject(run, "ended")
    assert sight.finish is not None


async def test_who_awaits_a_run_is_told_when_the_store_comes_back_without_it(flows):
    flow = await flows.here()
    await define(flow, steps={"a": {"kind": "wait_for_signal", "signal": "go"}})
    run = await start(flow)
    before = flow.connection.reconnects

    async def lost() -> None:
        with pytest.raises(NotFound) as told:
            await ended(flow, run)
        assert told.value.code == "flow.no_run"

    async with asyncio.TaskGroup() as group:
        group.create_task(lost())
        await until(lambda: run in flow.runs._waiting)
        await until(lambda: _waits(flow, run))
        await reading.purge(flow.connection, subjects.FACTS, f"{facts.subject(run)}.>", 0)
        await flows.bench.kill_server()
        await until(lambda: flow.connection.reconnects > before)


async def test_who_awaits_a_run_is_told_at_once_that_the_node_leaves_the_project(flows):
    opened = flow_node.open_node(flows.bench.url, flows.bench.seed, "leaving", {})

    async def left(flow, run) -> None:
        with pytest.raises(Unavailable) as told:
            await flow.runs.ended(run)
        assert told.value.code == "bus.disconnected"

    async with asyncio.timeout(60), asyncio.TaskGroup() as group, opened as (_, flow):
        await define(flow, steps={"a": {"kind": "wait_for_signal", "signal": "go"}})
        run = await start(flow)
        group.create_task(left(flow, run))
        await until(lambda: run in flow.runs._waiting)


async def _waits(flow, run) -> bool:
    live = flow.journal.find(run)
    return live is not None and live.run is not None and bool(live.run.open)


async def _told(flow, run) -> bool:
    live = flow.journal.find(run)
    return live is not None and any(".signal." in one.subject for one in [*(live.told or []), *live.found])


async def _purged(flow, run) -> bool:
    return not await history.all_facts(flow.connection, run)


async def _ended_in_another(flow, shards: set[str]) -> str:
    """Return a run that has ended, in none of these shards."""
    while facts.shard(run := await start(flow, 1)) in shards:
        pass
    await _end(flow, run)
    return run


async def _end(flow, run) -> None:
    assert await flow.runs.signal(run, "go", b"1")
    await until(lambda: _let_go(flow, run))


async def _let_go(flow, run) -> bool:
    return flow.journal.find(run) is None and run in flow._historian._over


async def test_a_run_that_ends_while_others_are_purged_loses_nothing(flows, monkeypatch):
    monkeypatch.setattr(history, "EVERY_S", 3600.0)  # it is done here, step by step
    flow = await flows.here()
    await define(flow, steps={"a": {"kind": "wait_for_signal", "signal": "go"}})
    first = await _ended_in_another(flow, set())
    second = await _ended_in_another(flow, {facts.shard(first)})
    while facts.shard(steady := await start(flow, 1)) != facts.shard(second):
        pass
    for run in (first, second):
        await flow._historian._keep(flow._historian._over[run])
    await until(lambda: _waits(flow, steady))
    missed = flow.journal.missed

    async def slow(name: str) -> bool:
        """End a run of the shard that comes next."""
        if name == facts.shard(first):
            await _end(flow, steady)
        return await missed(name)

    monkeypatch.setattr(flow.journal, "missed", slow)
    await flow._historian._forget()
    assert await _purged(flow, first)
    assert await _purged(flow, second)
    assert (await history.all_facts(flow.connection, steady))[0].subject == facts.subject(steady, "start")
    assert await flow.runs.over(steady)


async def test_a_run_of_which_only_later_facts_were_told_is_read_before_anything_is_purged(flows):
    flow = await flows.here()
    waits = {"kind": "wait_for_signal", "signal": "go"}
    await define(flow, steps={"a": waits, "b": {**waits, "signal": "on", "depends_on": ["a"]}})
    run = await start(flow, 7)
    await until(lambda: _waits(flow, run))
    shard = flow.journal._shards[facts.shard(run)]
    del shard.runs[run]  # as after a change of the server's leader
    assert await flow.runs.signal(run, "go", b"1")
    await until(lambda: _is_stray(flow, run))
    assert await flow.journal.missed(shard.name)
    assert flow.journal.find(run).run is not None
    assert not await flow.journal.missed(shard.name)


async def _is_stray(flow, run) -> bool:
    live = flow.journal.find(run)
    return live is not None and live.run is None and bool(live.found)


async def test_what_is_left_of_a_run_does_not_replace_its_history(flows, monkeypatch):
    monkeypatch.setattr(history, "EVERY_S", 3600.0)
    flow = await flows.here()
    await define(flow, steps={"a": {"kind": "wait_for_signal", "signal": "go"}})
    run = await _ended_in_another(flow, set())
    over = flow._historian._over[run]
    await flow._historian._keep(over)
    whole = await history.kept_facts(flow.connection, run)
    over.found, over.kept_s = whole[-1:], 0.0  # as read by the next owner while this one purges
    await flow._historian._keep(over)
    assert await history.kept_facts(flow.connection, run) == whole
    assert (over.kept_s > 0, history.is_whole(whole), history.is_whole(whole[-1:])) == (True, True, False)


async def test_a_fact_that_nobody_told_of_is_read_as_soon_as_a_server_takes_the_lead(flows, monkeypatch):
    """The middle of a run is untold: its next fact comes, and shows no gap."""
    monkeypatch.setattr(untold, "SILENT_S", 3600.0)
    monkeypatch.setattr(history, "KEEP_S", 0.05)
    flow = await flows.here(do={"concurrency": 5})
    steps = {"a": {"kind": "wait_for_signal", "signal": "go"}, "b": {"capability": "do", "depends_on": ["a"]}}
    await define(flow, steps=steps)
    run = await start(flow, 7)
    await until(lambda: _waits(flow, run))
    take = flow.journal._take

    def forgetful(shard, stored):
        if ".signal.go." not in stored.subject:
            take(shard, stored)

    monkeypatch.setattr(flow.journal, "_take", forgetful)
    assert await flow.runs.signal(run, "go", b'"now"')
    assert await flow.runs.signal(run, "later", b"1")
    await until(lambda: _counts(flow, run, 2))
    monkeypatch.setattr(flow.journal, "_take", take)
    assert flow.journal.find(run).run.open
    flow.connection.send(subjects.leads(subjects.FACTS), b"{}")
    assert output(await ended(flow, run)) == "now"


async def _counts(flow, run, count) -> bool:
    return flow.journal.find(run).count == count


async def test_a_fact_that_nobody_told_of_is_kept_with_the_others(flows, monkeypatch):
    monkeypatch.setattr(history, "EVERY_S", 3600.0)
    flow = await flows.here()
    await define(flow, steps={"a": {"kind": "wait_for_signal", "signal": "go"}})
    run = await start(flow, 7)
    await until(lambda: _waits(flow, run))
    take = flow.journal._take
    monkeypatch.setattr(
        flow.journal, "_take", lambda shard, one: None if ".aside." in one.subject else take(shard, one)
    )
    assert await flow.runs.signal(run, "aside", b"1")
    await _end(flow, run)
    flow.untold.doubt()  # the server that leads now says so before a run is kept
    await flow._historian._keep(flow._historian._over[run])
    kept = await history.kept_facts(flow.connection, run)
    assert [one.subject for one in kept] == [one.subject for one in await history.all_facts(flow.connection, run)]
    assert any(".aside." in one.subject for one in kept)
