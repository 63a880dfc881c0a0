"""Triggers that fire for what a plugin tells, on a real server: once for each firing, over three nodes and a death."""

from __future__ import annotations

import asyncio
import os
import signal
from dataclasses import replace

import pytest
from tests.integration.trigger.conftest import define, keep, output, runs_of, trigger_node
from tests.integration.work.conftest import until

from knotwork.desk.triggers import TriggerDesk
from knotwork.flow.shards import owner
from knotwork.sdk.errors import Invalid
from knotwork.sockets.pace import Pace
from knotwork.trigger import resting
from knotwork.trigger.listening import known_as

QUICK = Pace(first_s=0.02, most_s=0.05)


@pytest.fixture
def lines(tmp_path):
    """A file whose lines fire."""
    file = tmp_path / "lines"
    file.write_text("old\n")
    return file


def add(file, *texts: str) -> None:
    with file.open("a") as opened:
        opened.writelines(f"{text}\n" for text in texts)


async def one_node(nodes, lines, *, pace: Pace = QUICK, **agents):
    """Return a node here that has the plugin; its triggers pause no longer than the pace says."""
    slot = await nodes.bench.stack.enter_async_context(trigger_node.open_slot(trigger_node.Lines(str(lines)), pace))
    flow, triggers = await nodes.here(sources=lambda: {"lines": slot}, **agents)
    triggers.telling._pace = pace
    await define(flow)
    return flow, triggers, slot


async def listening(triggers, name: str = "t") -> None:
    """Return when the trigger is listened for: its first mark is written down."""

    async def marked() -> bool:
        return (await triggers.store.state(name))[0].mark is not None

    await until(marked)


async def started(triggers, count: int, name: str = "t") -> list:
    async def enough() -> list:
        rows = [row for row in await triggers.firings.last(name, 1000) if row.what == "started"]
        return rows if len(rows) >= count else []

    return await until(enough)


async def told(triggers, name: str = "t") -> str:
    known = await triggers.store.get(name)
    return triggers.telling.why(known.trigger, (await triggers.store.state(name))[0])


async def test_each_line_starts_one_run_with_what_was_told(nodes, lines):
    flow, triggers, _ = await one_node(nodes, lines)
    await keep(triggers, source="lines", mapping={"it": "body", "number": "number"}, labels={"team": "x"})
    await listening(triggers)
    add(lines, "a", "b")
    await started(triggers, 2)
    found = await runs_of(flow)
    keys = [f"t/{known_as(f'line {number}')}" for number in (2, 3)]
    assert sorted(found) == sorted(keys)  # what was there before is none of its business
    assert await output(flow, found[keys[0]]) == {"it": "a", "number": 2}
    start = (await flow.runs.look(found[keys[1]])).start
    assert (start.trigger, start.labels["team"], start.labels["trigger_kind"]) == ("t", "x", "plugin")
    assert await triggers.firings.counts(["t", "none"]) == {"t": 2}
    await triggers.switch("t", enabled=False)
    add(lines, "while it was disabled")
    await triggers.switch("t", enabled=True)

    async def looked_again() -> bool:
        return (await triggers.store.state("t"))[0].mark == 4

    await until(looked_again)
    add(lines, "later")
    rows = await started(triggers, 3)
    assert await output(flow, rows[0].run) == {"it": "later", "number": 5}


async def test_three_nodes_start_one_run_for_each_though_the_one_that_listens_is_killed(nodes, lines):
    flow, triggers = await nodes.here("without")  # it has no such plugin: never its to see to
    await define(flow)
    others = {name: await nodes.process(name, lines=str(lines)) for name in ("two", "three", "four")}
    await until(lambda: asyncio.sleep(0, len(flow.shards.having("lines")) == 3))
    await keep(triggers, source="lines")
    await listening(triggers)
    add(lines, *(f"before {number}" for number in range(20)))
    by = {row.node for row in await started(triggers, 20)}
    desk = TriggerDesk(triggers, str)
    assert by == {(await desk.show("t")).node}  # also a node that has no such plugin knows who listens
    assert (await desk.trial("t", None, {}, 3, None)).fires == "when its source tells: [triggers.lines]"
    add(lines, *(f"during {number}" for number in range(30)))
    await started(triggers, 21)
    os.kill(others[by.pop()].pid, signal.SIGKILL)
    add(lines, *(f"after {number}" for number in range(20)))

    async def all_of_them() -> bool:
        return len(await runs_of(flow)) >= 70

    await until(all_of_them)
    rows = await started(triggers, 70)
    assert len({row.node for row in rows}) == 2
    found = await runs_of(flow)
    assert sorted(found) == sorted(f"t/{known_as(f'line {number}')}" for number in range(2, 72))
    assert await triggers.firings.counts(["t"]) == {"t": 70}


class Panic(BaseException):
    """What an extension in Rust raises when it panics."""


@pytest.mark.parametrize("kind", [RuntimeError, SystemExit, Panic])
async def test_a_plugin_that_fails_says_why_and_goes_on_where_it_was(nodes, lines, kind, monkeypatch):
    monkeypatch.setattr(trigger_node.Lines, "fails", kind)
    _, triggers, slot = await one_node(nodes, lines, pace=replace(QUICK, crashes_max=4))
    await keep(triggers, source="lines")
    await listening(triggers)
    broken = lines.with_suffix(".broken")
    broken.write_text("out of paper")

    async def quarantined() -> bool:
        return "4 crashes" in await told(triggers)

    await until(quarantined)
    assert f"{kind.__name__}: out of paper" in await told(triggers)
    broken.unlink()
    add(lines, "meanwhile")
    slot.restart()
    await started(triggers, 1)

    async def well() -> bool:
        return not await told(triggers)

    await until(well)
    assert await triggers.firings.counts(["t"]) == {"t": 1}


class Deaf(trigger_node.Lines):
    """A plugin that opens and cannot hear anything where it is, until a file beside its own says that it can."""

    async def firings(self, since):
        """Tell what there is, if it can."""
        if not self.file.with_suffix(".hears").exists():
            raise RuntimeError("no way out of here")
        async for one in super().firings(since):
            yield one


async def test_a_trigger_whose_plugin_fails_on_one_node_again_and_again_goes_to_another(nodes, lines, monkeypatch):
    monkeypatch.setattr(resting, "REST_S", 2.0)
    slot = await nodes.bench.stack.enter_async_context(trigger_node.open_slot(Deaf(str(lines)), QUICK))
    flow, triggers = await nodes.here(sources=lambda: {"lines": slot})
    said = []
    triggers.telling._pace, triggers.telling._said = QUICK, lambda *told: said.append(told)
    await define(flow)
    await nodes.process("other", lines=str(lines))
    await until(lambda: asyncio.sleep(0, len(flow.shards.having("lines")) == 2))
    name = next(name for name in map("t{}".format, range(99)) if owner(["here", "other"], name) == "here")
    await keep(triggers, name, source="lines")
    await listening(triggers, name)  # by the other one: here nothing is ever told
    add(lines, "a")
    (row,) = await started(triggers, 1, name)
    assert row.node == "other"
    (event, fields) = said[0]
    assert (event, fields["trigger"], fields["node"], fields["to"]) == ("trigger.given_up", name, "here", "other")
    assert (fields["why"], fields["rest_s"]) == ("RuntimeError: no way out of here", 2.0)

    async def rests_again() -> list:  # when it had rested it tried, failed, and rests twice as long
        if (await triggers.store.state(name))[0].rests["here"].times < 2:
            return []
        return (await TriggerDesk(triggers, str).show(name)).resting

    (shown,) = await until(rests_again)
    assert (shown.node, shown.why) == ("here", "RuntimeError: no way out of here")

    lines.with_suffix(".hears").touch()
    found = 1

    async def here() -> bool:
        nonlocal found
        add(lines, "b")
        found += 1
        told_here = "here" in {row.node for row in await started(triggers, found, name)}
        return told_here and not (await triggers.store.state(name))[0].rests

    # it has what its order says again, and nothing is left of the rests once something was told here that the other one,
    # who listens a moment longer, has not written down before
    await until(here)
    assert (await triggers.firings.counts([name]))[name] == found == len(await runs_of(flow, name))


async def test_a_trigger_whose_plugin_fails_everywhere_is_given_up_by_nobody_who_is_alone(nodes, lines):
    slot = await nodes.bench.stack.enter_async_context(trigger_node.open_slot(Deaf(str(lines)), QUICK))
    flow, triggers = await nodes.here(sources=lambda: {"lines": slot})
    triggers.telling._pace = replace(QUICK, crashes_max=5)
    await define(flow)
    await keep(triggers, source="lines")

    async def quarantined() -> bool:
        return "5 crashes" in await told(triggers)

    await until(quarantined)
    assert (await TriggerDesk(triggers, str).show("t")).resting == []
    assert triggers.is_mine("t")


async def test_what_is_no_firing_is_a_crash_that_is_told(nodes, lines):
    _, triggers, _ = await one_node(nodes, lines)
    await keep(triggers, source="lines")
    await listening(triggers)
    add(lines, "good", "nan")

    async def ailing() -> bool:
        return "no JSON" in await told(triggers)

    await until(ailing)
    assert len(await started(triggers, 1)) == 1


async def test_a_source_that_nobody_has_is_refused_and_one_that_goes_is_told(nodes, lines):
    slots = {}
    flow, triggers = await nodes.here(sources=lambda: slots)
    await define(flow)
    with pytest.raises(Invalid) as refused:
        await keep(triggers, source="lines")
    assert refused.value.code == "trigger.no_source"
    slots["lines"] = await nodes.bench.stack.enter_async_context(trigger_node.open_slot(trigger_node.Lines(str(lines))))
    await keep(triggers, source="lines")
    await listening(triggers)
    slots.clear()
    assert "no node that is there has [triggers.lines]" in await told(triggers)
    assert not triggers.is_mine("t")


async def test_runs_in_the_way_are_waited_for_left_alone_or_stopped(nodes, lines):
    flow, triggers, _ = await one_node(nodes, lines)
    await define(flow, steps={"a": {"kind": "wait_for_signal", "signal": "go"}})
    for overlap in ("queue", "skip", "cancel"):
        await keep(triggers, overlap, source="lines", overlap=overlap)
        await listening(triggers, overlap)
    add(lines, "a", "b", "c")
    await started(triggers, 3, "cancel")

    async def skipped() -> bool:
        return sum(row.what == "skipped" for row in await triggers.firings.last("skip", 100)) == 2

    await until(skipped)
    assert await triggers.firings.counts(["queue", "skip", "cancel"]) == {"queue": 1, "skip": 1, "cancel": 3}
    for count in (1, 2, 3):
        (newest, *_) = await started(triggers, count, "queue")
        await flow.runs.signal(newest.run, "go", b"1")
        await output(flow, newest.run)
    assert sorted(await runs_of(flow, "queue")) == sorted(f"queue/{known_as(f'line {n}')}" for n in (2, 3, 4))
    (first,) = ((await runs_of(flow, "cancel"))[f"cancel/{known_as('line 2')}"],)
    async with asyncio.timeout(60):
        assert (await flow.runs.ended(first)).state == "cancelled"
