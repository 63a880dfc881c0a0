"""Orchestrations from the plan to the result: parts claimed by agents, one of which dies, on a real server."""

from __future__ import annotations

import asyncio
import json
from contextlib import aclosing

import pytest
from tests.integration.crew.conftest import ME, part, soon
from tests.integration.work.conftest import until

from knotwork.crew import watching
from knotwork.crew.planning import Planner, Wish
from knotwork.crew.records import Synthesis
from knotwork.crew.reporting import Report
from knotwork.crew.room import Spawn
from knotwork.sdk.errors import Cancelled, Conflict, Invalid, NotFound
from knotwork.trust.who import Who


async def test_four_agents_do_the_parts_and_another_does_that_of_one_who_vanished(nodes):
    node = await nodes.here()
    made = await node.plan(task="Build a shop: database schema, REST API, web UI and tests")
    assert [one.capability for one in made.parts] == ["general"] * 4
    view, _ = await node.crew.spawn(made.id, Spawn(synthesis=Synthesis("merge")), ME)
    assert (view.phase, [one.state for one in view.parts.values()]) == (
        "execution", ["queued", "queued", "waiting", "waiting"],
    )  # fmt: skip
    dead = await node.claim("mortal", "general")
    lost = dead.task.step
    first = await node.do("one", {"by": {"one": 1}, "list": [1]}, "general")
    seen = await node.is_in(made.id, lost, "running")
    assert (seen.parts[lost].agent, seen.parts[first].agent) == ("mortal", "one")
    node.work.claims.keeper.abandon("mortal")  # as when its lease is over, without a word of it
    assert await node.do("two", {"by": {"two": 2}, "list": [2]}, "general") == lost
    third, fourth = await node.claim("three", "general"), await node.claim("four", "general")
    assert json.loads(bytes(third.task.input))["input"]["results"] == {
        first: {"by": {"one": 1}, "list": [1]}, lost: {"by": {"two": 2}, "list": [2]},
    }  # fmt: skip
    await node.work.claims.complete(third.token, {"by": {"three": 3}})
    await node.work.claims.complete(fourth.token, {"by": {"four": 4}, "list": [1, 4]})
    view = await node.reaches(made.id, "complete")
    assert {one.agent for one in view.parts.values()} == {"one", "two", "three", "four"}
    assert (view.percent, view.parts[lost].agent) == (100.0, "two")
    whole = await node.output(made.id)
    assert whole["by"] == {"one": 1, "two": 2, "three": 3, "four": 4}
    assert sorted(whole["list"]) == [1, 2, 4]
    phases = [phase for one, phase in node.told if one == made.id]
    assert list(dict.fromkeys(phases)) == ["spawning", "execution", "collection", "complete"]
    folder = nodes.folder / "here" / made.id
    await until((folder / "state.json").exists)
    assert json.loads((folder / first / "result.json").read_text()) == {"by": {"one": 1}, "list": [1]}
    assert (folder / lost / "workspace").is_dir()
    assert json.loads((folder / "result.json").read_text())["by"]["four"] == 4


async def test_a_part_that_is_handed_back_goes_to_another(nodes):
    node = await nodes.here()
    view = await node.spawn(part("a"))
    found = await node.claim("one")
    await node.work.claims.release(found.token, "going home")
    await node.is_in(view.record.id, "a", "queued")
    assert await node.do("two") == "a"
    view = await node.reaches(view.record.id, "complete")
    assert view.parts["a"].agent == "two"
    assert await node.output(view.record.id) == "## The a\n\ntwo\n"


async def test_a_large_result_travels_by_its_digest(nodes):
    node = await nodes.here()
    view = await node.spawn(part("a"), part("b", "a"), synthesis=Synthesis("merge"))
    large = "x" * 700_000
    await node.do("one", large)
    found = await node.claim("two")
    told = json.loads(await node.work.values.input_of(found.task))
    assert told["input"]["results"] == {"a": large}
    assert large in told["prompt"]
    await node.work.claims.complete(found.token, {"n": 1})
    await node.reaches(view.record.id, "complete")
    assert await node.output(view.record.id) == {"a": large, "n": 1}


async def test_a_failed_part_leaves_out_those_that_need_it_and_is_done_again(nodes):
    node = await nodes.here()
    view = await node.spawn(part("a"), part("b", "a"), part("c"))
    name = view.record.id
    claims = [await node.claim("one"), await node.claim("two")]
    by_part = {one.task.step: one for one in claims}
    await node.work.claims.fail(
        by_part["a"].token, "no such table", code="agent.failed", retriable=False, retry_after_s=None
    )
    view = await node.is_in(name, "b", "skipped")
    assert view.phase == "execution"  # c goes on
    again = await node.crew.steering.retry(name, "a", ME)  # c is under way, and does not matter for it
    assert again.parts["a"].state in ("waiting", "queued")
    await node.work.claims.complete(by_part["c"].token, "c1")
    assert [await node.do("three", "a2"), await node.do("three", "b2")] == ["a", "b"]
    view = await node.reaches(name, "complete")
    assert await node.output(name) == "## The a\n\na2\n\n## The b\n\nb2\n\n## The c\n\nc1\n"
    assert len(view.record.rounds) == 2
    await node.crew.steering.retry(name, "a", ME)  # it was done, and not well
    with pytest.raises(Conflict, match="b must wait for a first") as refused:
        await node.crew.steering.retry(name, "b", ME)
    assert refused.value.code == "crew.part_runs"
    with pytest.raises(Conflict, match=r"^a(, b)? is under way"):
        await node.crew.steering.retry(name, "a", ME)
    found = await node.claim("four")
    assert json.loads(bytes(found.task.input))["input"]["results"] == {}
    await node.work.claims.complete(found.token, "a3")
    found = await node.claim("four")
    assert json.loads(bytes(found.task.input))["input"]["results"] == {"a": "a3"}
    await node.work.claims.complete(found.token, "b3")
    await node.reaches(name, "complete")
    assert await node.output(name) == "## The a\n\na3\n\n## The b\n\nb3\n\n## The c\n\nc1\n"
    view = await node.crew.steering.retry(name, "b", ME)
    found = await node.claim("five")
    assert json.loads(bytes(found.task.input))["input"]["results"] == {"a": "a3"}  # taken over


async def test_how_far_a_part_was_before_is_past_when_another_has_it_or_it_is_done_again(nodes):
    node = await nodes.here()
    name = (await node.spawn(part("a"), part("b", "a"))).record.id
    first = await node.claim("one")
    view, _ = await node.crew.reporting.report(
        name, Report("a", percent=70, text="most of it"), Who("p", "one", "default", "me")
    )
    assert (view.parts["a"].percent, view.percent) == (70, 35)
    await node.work.claims.release(first.token, "tired")
    view = await node.is_in(name, "a", "queued")
    assert (view.parts["a"].percent, view.parts["a"].text) == (0, "most of it")  # what was said helps the next one
    await node.do("two")
    await node.is_in(name, "b", "queued")
    found = await node.claim("three")
    await node.crew.reporting.report(name, Report("b", percent=40), Who("p", "three", "default", "me"))
    await node.work.claims.complete(found.token, "b")
    await node.reaches(name, "complete")
    view = await node.crew.steering.retry(name, "a", ME)
    view = await node.is_in(name, "a", "queued")
    assert (view.parts["b"].state, view.parts["b"].percent, view.percent) == ("waiting", 0, 0)


async def test_all_that_failed_is_told_and_results_can_be_partial(nodes):
    node = await nodes.here()
    view = await node.spawn(part("a"), part("b"))
    name = view.record.id
    done = await node.do("one", {"k": 1})
    with pytest.raises(Conflict) as early:
        await node.crew.steering.synthesize(name, Synthesis("merge"), ME)
    assert early.value.code == "crew.not_collected"
    _, shown = await node.crew.steering.synthesize(name, Synthesis("merge", partial=True), ME)
    assert json.loads(bytes(shown.output)) == {"k": 1}
    assert await node.crew.store.result(name) is None  # it goes on
    found = await node.claim("two")
    await node.work.claims.fail(found.token, "impossible", code="agent.failed", retriable=False, retry_after_s=None)
    view = await node.reaches(name, "failed")
    assert "impossible" in view.record.error["message"]
    view, result = await node.crew.steering.synthesize(name, Synthesis("merge", partial=True), ME)
    assert (view.phase, result.missing) == ("complete", tuple({"a", "b"} - {done}))
    with pytest.raises(Conflict) as late:
        await node.crew.steering.stop(name, ME, "too late")
    assert late.value.code == "crew.over"


async def test_pause_begins_nothing_resume_does_and_cancel_stops_all(nodes):
    node = await nodes.here()
    view = await node.spawn(part("a"), part("b", "a"))
    name = view.record.id
    begun = await node.claim("one")
    view = await node.crew.steering.hold(name, resume=False)
    assert view.record.held == "asked"
    await node.work.claims.complete(begun.token, "one")
    view = await node.is_in(name, "a", "completed")
    assert view.parts["b"].state == "waiting"
    view, why = await node.crew.reporting.report(name, Report("a", percent=100), ME)
    assert (view.parts["b"].state, why) == ("waiting", "it is paused")
    with pytest.raises(Conflict) as paused:
        await node.crew.steering.retry(name, "a", ME)
    assert paused.value.code == "crew.held"
    await node.crew.steering.hold(name, resume=True)
    found = await node.claim("two")
    assert found.task.step == "b"
    await node.crew.steering.stop(name, ME, "enough")
    view = await node.reaches(name, "cancelled")
    assert (view.parts["a"].state, view.parts["b"].state) == ("completed", "cancelled")
    with pytest.raises(Exception, match="cancelled"):
        await node.work.claims.complete(found.token, "late")
    for refused in (node.crew.steering.retry(name, "b", ME), node.crew.steering.hold(name, resume=True)):
        with pytest.raises(Conflict) as caught:
            await refused
        assert caught.value.code == "crew.over"


async def test_an_agent_puts_the_results_together_also_on_demand(nodes):
    node = await nodes.here()
    view = await node.spawn(part("a"), part("b"), synthesis=Synthesis("agent", capability="write"))
    name = view.record.id
    await node.do("one", "A")
    await node.do("one", "B")
    await node.reaches(name, "synthesis")
    found = await node.claim("writer", "write")
    told = json.loads(bytes(found.task.input))
    assert told["input"]["results"] == {"a": "A", "b": "B"}
    assert "--- a ---\nA\n" in told["prompt"]
    await node.work.claims.complete(found.token, {"whole": "AB"})
    view = await node.reaches(name, "complete")
    assert (await node.output(name), view.synthesis.agent) == ({"whole": "AB"}, "writer")
    _, nothing = await node.crew.steering.synthesize(name, Synthesis("agent", agent="critic"), ME)
    assert nothing is None
    found = await node.claim("critic", "other")
    await node.work.claims.fail(found.token, "I cannot", code="agent.failed", retriable=False, retry_after_s=None)
    view = await node.reaches(name, "failed")
    assert "I cannot" in view.record.error["message"]
    view, result = await node.crew.steering.synthesize(name, Synthesis("concatenate"), ME)
    assert (view.phase, json.loads(bytes(result.output))) == ("complete", "## The a\n\nA\n\n## The b\n\nB\n")


async def test_an_agent_does_not_go_on_putting_together_what_is_complete(nodes):
    """It worked for nobody, and others were given its work when it died."""
    node = await nodes.here()
    name = (await node.spawn(part("a"), synthesis=Synthesis("agent", "do"))).record.id
    await node.do("one")
    claimed = await node.claim("two")
    view, _ = await node.crew.reporting.report(name, Report(phase="complete", data=b'"mine"'), ME)
    assert (view.phase, await node.output(name)) == ("complete", "mine")

    async def is_over() -> bool:
        view = await node.view(name)
        return view.over and view.phase == "complete"

    await until(is_over)
    with pytest.raises(Cancelled):
        await node.work.claims.complete(claimed.token, "its own")
    assert await node.output(name) == "mine"


async def test_whoever_orchestrates_may_collect_and_complete_it_by_hand(nodes):
    node = await nodes.here()
    view = await node.spawn(part("a"), synthesis=Synthesis("none"))
    name = view.record.id
    with pytest.raises(Conflict) as early:
        await node.crew.reporting.report(name, Report(phase="collection"), ME)
    assert early.value.code == "crew.bad_phase"
    await node.crew.reporting.report(name, Report(phase="execution", text="it runs"), ME)
    await node.do("one")
    await node.reaches(name, "collection")
    await node.crew.reporting.report(name, Report(phase="synthesis"), ME)
    view, why = await node.crew.reporting.report(name, Report(phase="complete", data=b'{"mine": true}'), ME)
    assert (view.phase, why) == ("complete", "it is complete")
    assert await node.output(name) == {"mine": True}
    assert [one.phase for one in view.record.notes] == ["execution", "synthesis", "complete"]
    view, _ = await node.crew.reporting.report(name, Report(phase="complete", data=b'{"mine": true}'), ME)  # said twice
    assert view.phase == "complete"
    with pytest.raises(Conflict) as late:
        await node.crew.reporting.report(name, Report(phase="complete", data=b'"another"'), ME)
    assert (late.value.code, await node.output(name)) == ("crew.over", {"mine": True})
    view, _ = await node.crew.reporting.report(name, Report(phase="execution"), ME)
    assert view.phase == "complete"
    with pytest.raises(NotFound) as unknown:
        await node.crew.reporting.report(name, Report("z", percent=1), ME)
    assert unknown.value.code == "crew.no_part"


async def test_a_plan_is_edited_by_revision_spawned_once_and_then_stands(nodes):
    node = await nodes.here()
    made = await node.crew.assess(Wish("a", "me", ()), ME, asked=None, key="k")
    assert (await node.crew.assess(Wish("a", "me", ()), ME, asked=None, key="k")).id == made.id
    with pytest.raises(Conflict) as reused:
        await node.crew.assess(Wish("b", "me", ()), ME, asked=None, key="k")
    assert reused.value.code == "crew.key_reused"
    edited = await node.crew.edit(made.id, [part("x")], 1, ME)
    with pytest.raises(Conflict) as changed:
        await node.crew.edit(made.id, [part("y")], 1, ME)
    assert (edited.revision, changed.value.code) == (2, "crew.plan_changed")
    with pytest.raises(Invalid):
        await node.crew.edit(made.id, [part("y", "z")], 2, ME)
    async with asyncio.TaskGroup() as group:
        spawns = [group.create_task(_spawned(node, made.id)) for _ in range(5)]
    assert sum(one.result() for one in spawns) == 1
    with pytest.raises(Conflict) as stands:
        await node.crew.edit(made.id, [part("y")], None, ME)
    assert stands.value.code == "crew.spawned"
    assert await node.do("one") == "x"
    view = await node.reaches(made.id, "complete")
    assert len(view.runs) == 1


async def _spawned(node, name: str) -> bool:
    return (await node.crew.spawn(name, Spawn(), ME))[1]


async def test_a_planner_plans_or_the_rules_do_with_the_reason(nodes):
    node = await nodes.here()

    async def planned(answer: object, wait_s: float = 60.0):
        wish = Wish("1. do this\n2. do that", "me", {"do"}, "do")
        async with asyncio.TaskGroup() as group:
            asked = group.create_task(node.crew.assess(wish, ME, asked=Planner("plan", wait_s=wait_s)))
            if answer is not None:
                await node.do("planner", answer, "plan")
        return asked.result()

    made = await planned({"parts": [{"id": "all", "capability": "do", "title": "All of it"}]})
    assert (made.planned_by, [one.id for one in made.parts]) == ("plan", ["all"])
    made = await planned('```json\n{"parts": [{"id": "a"}, {"id": "b", "needs": ["a"]}]}\n```')
    assert [(one.id, one.capability, one.needs) for one in made.parts] == [("a", "do", ()), ("b", "do", ("a",))]
    for bad in ({"parts": [{"id": "a", "capability": "magic"}]}, {"parts": []}, "no idea", {"parts": [{"id": "../x"}]}):
        made = await planned(bad)
        assert (made.planned_by, len(made.parts)) == ("rules", 2)
        assert "gave no plan" in made.remarks[-1]
    made = await planned(None, wait_s=0.2)
    assert "within 0.2 s" in made.remarks[-1]


async def test_who_watches_sees_every_phase_and_part(nodes):
    node = await nodes.here()
    made = await node.plan(part("a"), part("b", "a"), task="x")
    seen: list[dict] = []

    async def look() -> None:
        events = watching.watch(node.flow.connection, node.crew.store, node.crew.looking, made.id, 60)
        async with aclosing(events):
            async for event in events:
                seen.append(event)  # noqa: PERF401  each as it comes

    async with asyncio.TaskGroup() as group:
        watcher = group.create_task(look())
        await until(lambda: seen)
        await node.crew.spawn(made.id, Spawn(), ME)
        found = await node.claim("one")
        await until(lambda: any(one.get("state") == "running" for one in seen))
        await node.crew.reporting.report(made.id, Report("a", percent=40, text="half"), ME)
        await until(lambda: any(one.get("text") == "half" and one["percent"] == 40 for one in seen))
        await node.work.claims.complete(found.token, 1)
        await node.do("two", 2)
        await soon(watcher)
    phases = [one["phase"] for one in seen if one["event"] == "phase"]
    assert (phases[0], phases[-1]) == ("assessment", "complete")
    assert "execution" in phases
    assert [one["agent"] for one in seen if one.get("state") == "completed"] == ["one", "two"]
