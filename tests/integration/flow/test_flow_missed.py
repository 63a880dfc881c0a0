"""A run that nobody told of is read, and what is told of it meanwhile is neither lost nor taken before its start."""

from __future__ import annotations

from tests.integration.flow.conftest import define, ended, output, start
from tests.integration.work.conftest import until

from knotwork.flow import facts, history, journal


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


async def _waits(flow, run) -> bool:
    live = flow.journal.find(run)
    return live is not None and live.run is not None and bool(live.run.open)


async def _told(flow, run) -> bool:
    live = flow.journal.find(run)
    return live is not None and any(".signal." in one.subject for one in [*(live.told or []), *live.found])


async def _purged(flow, run) -> bool:
    return not await history.all_facts(flow.connection, run)
