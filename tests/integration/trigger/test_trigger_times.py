"""Triggers that fire at times, on a real server: once for each due time, over three nodes and the death of one."""

from __future__ import annotations

import asyncio
import itertools
import os
import signal
import time
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import pytest
from tests.integration.trigger.conftest import define, keep, output, runs_of
from tests.integration.work.conftest import until

from knotwork.bus import clock
from knotwork.desk.runs.desk import FlowDesk
from knotwork.desk.runs.planned import Planned
from knotwork.desk.triggers import TriggerDesk
from knotwork.ops.flow_ports import NewRun, RunBatch, RunFilter
from knotwork.ops.op import Caller
from knotwork.ops.run_words import read_cursor
from knotwork.sdk.errors import Conflict, KnotworkError, NotFound
from knotwork.trigger import due, source
from knotwork.trigger.store import Pending, State

EACH_SECOND = "* * * * * *"


async def fired(flow, name: str = "t", count: int = 1) -> dict[str, str]:
    async def enough() -> dict[str, str]:
        found = await runs_of(flow, name)
        return found if len(found) >= count else {}

    return await until(enough)


def seconds_of(keys: list[str]) -> list[datetime]:
    return sorted(datetime.fromisoformat(key.partition("/")[2]) for key in keys)


async def test_a_cron_trigger_starts_one_run_for_each_second(nodes):
    flow, triggers = await nodes.here()
    await define(flow)
    await keep(triggers, cron=EACH_SECOND, input={"a": 1}, labels={"team": "x"})
    found = await fired(flow, count=3)
    times = seconds_of(list(found))
    assert all(later - earlier == timedelta(seconds=1) for earlier, later in itertools.pairwise(times))
    run = found[f"t/{times[0].strftime('%Y-%m-%dT%H:%M:%SZ')}"]
    assert await output(flow, run) == {"a": 1}  # the shape of a start by hand
    start = (await flow.runs.look(run)).start
    assert (start.trigger, start.labels["team"], start.labels["trigger_kind"]) == ("t", "x", "cron")
    await triggers.switch("t", enabled=False)
    rows = await until(lambda: triggers.firings.last("t", 50))
    assert {row.what for row in rows} == {"started"}
    assert {row.node for row in rows} == {"here"}


async def by_two(triggers, names: list[str]) -> bool:
    rows = [row for name in names for row in await triggers.firings.last(name, 1000)]
    return any(row.node == "two" for row in rows)


async def test_three_nodes_fire_once_for_each_time_though_one_is_killed(nodes):
    flow, triggers = await nodes.here("one")
    await define(flow)
    others = {name: await nodes.process(name) for name in ("two", "three")}
    names = [f"t{number}" for number in range(12)]
    began = datetime.now(UTC)
    for name in names:
        await keep(triggers, name, cron=EACH_SECOND)
    for name in names:
        await fired(flow, name)
    await until(lambda: by_two(triggers, names))
    os.kill(others["two"].pid, signal.SIGKILL)
    killed_ns = time.time_ns()

    async def far_enough() -> bool:
        states = [(await triggers.store.state(name))[0] for name in names]
        return all(state.since_ns > killed_ns + 8 * due.S for state in states)

    assert await until(far_enough)
    for name in names:
        await triggers.switch(name, enabled=False)
    by = set()
    for name in names:
        found = await runs_of(flow, name)
        times = seconds_of(list(found))
        assert times[0] - began < timedelta(minutes=2)
        missing = [a for a, b in itertools.pairwise(times) if b - a != timedelta(seconds=1)]
        assert not missing, (name, missing)  # none left out, and one run has one key: none twice
        by |= {row.node for row in await triggers.firings.last(name, 1000)}
    assert by == {"one", "two", "three"}


async def test_two_owners_at_once_do_no_harm(nodes):
    flow, triggers = await nodes.here("one")
    _, others = await nodes.here("two")
    for room in (triggers, others):
        room._timed._mine = room._following._mine = lambda _: True
    await define(flow)
    await keep(triggers, cron=EACH_SECOND, overlap="skip")
    await fired(flow, count=4)
    rows = await triggers.firings.last("t", 100)
    started = [row.due_ns for row in rows if row.what == "started"]
    assert len(started) == len(set(started))


async def missed(nodes, policy: str, **more) -> tuple[list[str], list]:
    """Return the runs and the history after 50 s during which nobody was there."""
    flow, triggers = await nodes.here()
    await define(flow)
    past_ns = (time.time_ns() // due.S - 50) * due.S
    await keep(triggers, cron=EACH_SECOND, grace="10s", missed=policy, enabled=False, **more)
    await triggers.store.save("t", State(since_ns=past_ns), 0)
    known = await triggers.store.get("t")
    kept = msgspec.json.encode(
        {"trigger": msgspec.Raw(known.trigger.model_copy(update={"enabled": True}).model_dump_json().encode()), "since_ns": past_ns}
    )  # fmt: skip
    await triggers.store._bucket.put("def.t", kept)  # as it was before all nodes were away
    await fired(flow, count=9)

    async def settled() -> list:
        rows = await triggers.firings.last("t", 1000)
        return rows if len(rows) >= 9 else []

    rows = await until(settled)
    await triggers.switch("t", enabled=False)
    return list(await runs_of(flow)), rows


def old(keys: list[str], rows: list) -> int:
    decided = max((row for row in rows if row.what == "skipped"), key=lambda row: row.count)
    return sum(when.timestamp() < decided.at_ns / due.S - 10 for when in seconds_of(keys))


async def test_missed_times_are_skipped(nodes):
    keys, rows = await missed(nodes, "skip")
    assert old(keys, rows) == 0
    assert any(row.what == "skipped" and row.count > 1 for row in rows)


async def test_missed_times_are_made_up_for_up_to_a_cap(nodes):
    keys, rows = await missed(nodes, "all", max_missed=7)
    assert 6 <= old(keys, rows) <= 7
    assert any(row.what == "skipped" and row.count > 1 for row in rows)


async def test_overlap_skip_cancel_and_queue(nodes):
    flow, triggers = await nodes.here()
    await define(flow, steps={"a": {"kind": "wait_for_signal", "signal": "go"}})
    await keep(triggers, "skipping", cron=EACH_SECOND, overlap="skip")
    await keep(triggers, "queueing", cron=EACH_SECOND, overlap="queue")
    await keep(triggers, "cancelling", cron=EACH_SECOND, overlap="cancel")
    await fired(flow, "cancelling", 3)

    async def skipped() -> bool:
        return sum(row.what == "skipped" for row in await triggers.firings.last("skipping", 100)) > 1

    await until(skipped)
    assert len(await runs_of(flow, "skipping")) == 1
    await until(lambda: pending(triggers))
    (first,) = (await runs_of(flow, "queueing")).values()
    await flow.runs.signal(first, "go", b"1")
    await fired(flow, "queueing", 2)
    gone = min((await runs_of(flow, "cancelling")).items())[1]
    async with asyncio.timeout(60):
        assert (await flow.runs.ended(gone)).state == "cancelled"


async def pending(triggers) -> bool:
    return bool((await triggers.store.state("queueing"))[0].pending)


async def test_a_trigger_that_fires_once_is_gone_afterwards(nodes):
    flow, triggers = await nodes.here()
    await define(flow)
    at = datetime.now(UTC) + timedelta(seconds=1)
    await keep(triggers, "later", at=at.isoformat(), input="now")
    (run,) = (await fired(flow, "later")).values()
    assert await output(flow, run) == "now"

    async def gone() -> bool:
        try:
            await triggers.store.get("later")
        except NotFound:
            return True
        return False

    await until(gone)
    await keep(triggers, "late", at="2020-01-01T00:00:00Z", input="better late")
    (run,) = (await fired(flow, "late")).values()
    assert await output(flow, run) == "better late"


async def test_one_that_is_put_off_while_it_fires_fires_again_then(nodes, monkeypatch):
    flow, triggers = await nodes.here()
    await define(flow)
    later, fire = datetime.now(UTC) + timedelta(days=1), triggers.starter.fire

    async def slowly(*asked):
        done = await fire(*asked)
        await keep(triggers, "t", at=later.isoformat(), input="then")
        return done

    monkeypatch.setattr(triggers.starter, "fire", slowly)
    await keep(triggers, "t", at="2020-01-01T00:00:00Z", input="now")
    (run,) = (await fired(flow)).values()
    assert await output(flow, run) == "now"

    async def struck_out() -> bool:
        state, revision = await triggers.store.state("t")
        return bool(revision) and not state.pending and not triggers._timed._busy

    await until(struck_out)
    assert (await triggers.store.get("t")).trigger.input == "then"


async def test_a_moment_counts_though_times_of_the_trigger_before_are_put_off(nodes):
    flow, triggers = await nodes.here()
    await define(flow)
    await keep(triggers, cron=EACH_SECOND, jitter="1h", input="old")

    async def put_off() -> list:
        return (await triggers.store.state("t"))[0].pending

    await until(put_off)
    at = (datetime.now(UTC) + timedelta(seconds=1)).isoformat()
    await keep(triggers, at=at, kind="once", input="new")
    found = await fired(flow)
    assert [await output(flow, run) for run in found.values()] == ["new"]
    await until(lambda: _gone(triggers))


async def test_what_a_trigger_before_had_gathered_is_no_time(nodes):
    flow, triggers = await nodes.here()
    await define(flow)
    await keep(triggers, cron="0 0 1 1 *")
    state = State(pending=[Pending("t/EVENTS-1-1-1", messages=[1])])
    await triggers.store.save("t", state, (await triggers.store.state("t"))[1])
    await keep(triggers, cron=EACH_SECOND)
    assert len(seconds_of(list(await fired(flow, count=2)))) >= 2


async def _gone(triggers) -> bool:
    try:
        await triggers.store.get("t")
    except NotFound:
        return True
    return False


async def test_what_is_disabled_while_another_replaces_it_is_not_put_back(nodes, monkeypatch):
    flow, triggers = await nodes.here()
    await define(flow)
    await keep(triggers, cron="0 0 1 1 *", input="old")
    get, new = triggers.store.get, {"id": "t", "workflow": "w", "cron": "0 0 1 1 *", "input": "new"}

    async def slowly(name):
        found = await get(name)
        await triggers.store.put(source.trigger(new), now_ns=time.time_ns())
        return found

    with monkeypatch.context() as patched, pytest.raises(Conflict) as refused:
        patched.setattr(triggers.store, "get", slowly)
        await triggers.switch("t", enabled=False)
    assert refused.value.code == "trigger.changed"
    kept = (await triggers.store.get("t")).trigger
    assert (kept.input, kept.enabled) == ("new", True)


async def test_what_cannot_start_is_in_the_history(nodes):
    flow, triggers = await nodes.here()
    await define(flow)
    await keep(triggers, cron=EACH_SECOND, mapping='abs(`"no number"`)')

    async def failed() -> list:
        return [row for row in await triggers.firings.last("t", 100) if row.what == "failed"]

    rows = await until(failed)
    assert "abs()" in rows[0].why
    assert not await runs_of(flow)


async def test_backfill_starts_what_is_missing_and_nothing_twice(nodes):
    flow, triggers = await nodes.here()
    await define(flow)
    await keep(triggers, cron="0 3 * * *", enabled=False)
    trigger = (await triggers.store.get("t")).trigger
    now_ns = time.time_ns()
    times, more = due.between("0 3 * * *", "UTC", now_ns - 5 * 86400 * due.S, now_ns, 3)
    assert (len(times), more) == (3, True)
    first = await triggers.backfill(trigger, times)
    again = await triggers.backfill(trigger, times)
    assert [one.run for one in first] == [one.run for one in again]
    assert all(one.new for one in first)
    assert not any(one.new for one in again)
    dry = (await TriggerDesk(triggers, str).backfill("t", "5d", "", 10, dry_run=True)).runs
    assert {one.run for one in dry if not one.new} == {one.run for one in first}  # it says which are missing
    assert len(dry) == 5


async def test_a_workflow_that_triggers_start_is_not_removed_by_mistake(nodes):
    flow, triggers = await nodes.here()
    await define(flow)
    await define(flow, "other")
    flows = FlowDesk(flow, None, str, None, Planned(triggers))
    await keep(triggers, "b", cron="@daily")
    await keep(triggers, "a", cron="@daily")
    await until(lambda: asyncio.sleep(0, {"a", "b"} <= triggers.store.known.keys()))
    with pytest.raises(Conflict, match="'w': a, b") as refused:
        await flows.remove("w", Caller("ann"))
    assert (refused.value.code, refused.value.detail) == ("flow.in_use", {"triggers": ["a", "b"], "count": 2})
    assert await flows.remove("other", Caller("ann"))
    assert await flows.remove("w", Caller("ann"), force=True)
    assert await flows.remove("w", Caller("ann")) is False  # it is gone: nothing to refuse


async def test_a_run_that_is_to_come_is_shown_waited_for_and_called_off_by_its_id(nodes):
    flow, triggers = await nodes.here()
    await define(flow)
    caller, desk = Caller("ann"), TriggerDesk(triggers, str)
    flows = FlowDesk(flow, None, str, None, Planned(triggers))
    wanted = NewRun("w", {"n": 5}, labels={"team": "x"})

    async def later(when: str):
        made = await desk.later(wanted, when, caller)
        await until(lambda: asyncio.sleep(0, made.trigger in triggers.store.known))
        return made

    far = await later("2h")
    shown = await flows.run(far.id)
    assert (shown.state, shown.input, shown.started_at, shown.labels) == (
        "scheduled",
        {"n": 5},
        far.started_at,
        {"team": "x"},
    )
    (waits,) = (await flows.why(far.id)).waits
    assert (far.trigger in waits.what, waits.until) == (True, far.started_at)
    assert await flows.events(far.id) == []
    assert (await flows.ended(far.id, 0.2)).state == "scheduled"
    cancel = RunBatch("cancel", (far.id,), RunFilter(), 10, 60.0)
    (piece,) = [piece async for piece in flows.change(cancel, caller)]
    assert (piece.done, far.trigger in piece.runs[0].why) == (1, True)
    await until(lambda: asyncio.sleep(0, far.trigger not in triggers.store.known))
    with pytest.raises(NotFound):
        await flows.run(far.id)

    first, last, held = await later("1h"), await later("3h"), await later("2h")

    async def listed(limit: int = 10, **narrow: Any) -> tuple[list[str], str]:
        page = await flows.runs(RunFilter(**{"states": frozenset({"scheduled", "running"}), **narrow}), limit)
        return [one.id for one in page.runs], page.next

    assert (await listed())[0] == [last.id, held.id, first.id]  # as if they had started then: the newest first
    some, cursor = await listed(2)
    assert (some, await listed(below=read_cursor(cursor))) == ([last.id, held.id], ([first.id], ""))
    assert (await listed(states=frozenset({"running"})))[0] == []
    assert (await listed(workflow="other"))[0] == []
    assert (await listed(labels=frozenset({("team", "x")}), until_ns=clock.now_ns() + 5400 * 10**9))[0] == [first.id]
    (row,) = (await flows.runs(RunFilter(states=frozenset({"scheduled"}), text=first.trigger), 10)).runs
    assert (row.state, row.steps, row.labels, row.by) == ("scheduled", 1, {"team": "x"}, "node/ann")
    await triggers.switch(held.trigger, enabled=False)
    await until(lambda: asyncio.sleep(0, not triggers.store.known[held.trigger].trigger.enabled))
    (waits,) = (await flows.why(held.id)).waits
    assert "disabled" in waits.what
    with pytest.raises(Conflict) as early:
        await flows.signal(first.id, "go", None, "", caller)
    assert early.value.code == "flow.scheduled"
    pause = RunBatch("pause", (), RunFilter(states=frozenset({"scheduled"}), text=first.trigger), 10, 60.0)
    (piece,) = [piece async for piece in flows.change(pause, caller)]
    assert [one.code for one in piece.runs] == ["flow.scheduled"]
    (piece,) = [
        piece async for piece in flows.change(replace(pause, what="cancel", wanted=RunFilter(workflow="w")), caller)
    ]
    assert piece.matched == 0  # a filter that does not say so calls off nothing that is planned
    (piece,) = [piece async for piece in flows.change(replace(pause, what="cancel"), caller)]
    assert piece.done == 1

    soon = await later("5s")  # on any machine it is seen before it begins
    pieces = [piece async for piece in flows.watch(soon.id, 60.0, tree=False)]
    assert pieces[0].text == f"it begins at {soon.started_at}"
    over = await flows.ended(soon.id, 60.0)
    assert (over.id, over.state, over.output) == (soon.id, "completed", {"n": 5})


async def test_the_server_is_killed_and_no_time_is_left_out(nodes):
    flow, triggers = await nodes.here()
    await define(flow)
    await keep(triggers, cron=EACH_SECOND)
    await fired(flow, count=2)
    await nodes.bench.kill_server()
    killed_ns = time.time_ns()

    async def far_enough() -> bool:
        try:
            return (await triggers.store.state("t"))[0].since_ns > killed_ns + 3 * due.S
        except KnotworkError:
            return False

    assert await until(far_enough)
    await triggers.switch("t", enabled=False)
    times = seconds_of(list(await runs_of(flow)))
    assert all(later - earlier == timedelta(seconds=1) for earlier, later in itertools.pairwise(times))


async def test_jitter_delays_each_time_by_its_own(nodes):
    flow, triggers = await nodes.here()
    await define(flow)
    await keep(triggers, cron=EACH_SECOND, jitter="900ms")
    await fired(flow, count=3)

    async def noted() -> list:
        rows = await triggers.firings.last("t", 100)
        return rows if len(rows) >= 3 else []

    rows = await until(noted)
    assert all(row.at_ns >= row.due_ns + due.late_ns(row.key, 0.9) for row in rows)
    assert len({due.late_ns(row.key, 0.9) for row in rows}) == len(rows)
