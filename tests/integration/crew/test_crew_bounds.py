"""What orchestrations may use, of whom they inherit it, and that it holds: depth, sub-agents, time, tokens, cost."""

from __future__ import annotations

import msgspec
import pytest
from tests.integration.crew.conftest import ME, Node, part
from tests.integration.work.conftest import until

from knotwork.bus.background import together
from knotwork.crew import budget, records
from knotwork.crew.records import Budget, Checkpoint, Record, Stop, Synthesis
from knotwork.crew.reporting import Report
from knotwork.crew.room import Spawn
from knotwork.mesh.records import AgentRecord
from knotwork.sdk.errors import Conflict, Denied, KnotworkError, TooLarge
from knotwork.trust.who import Who

ID = "o0123456789ab"


async def refused(asked) -> KnotworkError:
    with pytest.raises(KnotworkError) as caught:
        await asked
    return caught.value


async def test_no_more_sub_agents_and_levels_than_allowed(nodes):
    node = await nodes.here()
    made = await node.plan(part("a"), part("b"), part("c"))
    error = await refused(node.crew.spawn(made.id, Spawn(budget=Budget(children=2)), ME))
    assert (type(error), error.code) == (Denied, "crew.too_many_children")
    assert (await node.view(made.id)).phase == "assessment"  # nothing began
    root = (await node.spawn(part("a"), part("b"), budget=Budget(depth=1, children=4))).record
    below = (await node.spawn(part("x"), parent=root.id)).record
    assert (below.budget.depth, below.budget.children, below.parent) == (0, 4, root.id)
    over = await node.plan(part("x"), part("y"), parent=root.id)
    error = await refused(node.crew.spawn(over.id, Spawn(), ME))
    assert (error.code, error.detail["id"]) == ("crew.too_many_children", root.id)
    assert (await node.crew.store.get(root.id)).charged == 3
    await node.spawn(part("y"), parent=root.id)
    deeper = await node.plan(part("z"), parent=below.id)
    error = await refused(node.crew.spawn(deeper.id, Spawn(), ME))
    assert (type(error), error.code) == (Denied, "crew.too_deep")


async def test_who_is_refused_by_one_above_costs_none_of_them_anything(nodes):
    """Those nearer had paid for it: what would have had room was refused by them afterwards."""
    node = await nodes.here()
    root = (await node.spawn(part("a"), budget=Budget(children=4))).record
    between = (await node.spawn(part("a"), parent=root.id)).record
    over = await node.plan(part("x"), part("y"), part("z"), parent=between.id)
    error = await refused(node.crew.spawn(over.id, Spawn(), ME))
    assert (error.code, error.detail["id"]) == ("crew.too_many_children", root.id)
    assert (await node.crew.store.get(between.id)).subs == {}
    await node.spawn(part("x"), part("y"), parent=between.id)
    assert [(await node.crew.store.get(one.id)).charged for one in (root, between)] == [4, 3]


async def test_no_more_orchestrations_below_than_are_added_up(nodes, monkeypatch):
    monkeypatch.setattr(budget, "SUBS_MAX", 2)
    node = await nodes.here()
    root = (await node.spawn(part("a"), budget=Budget(children=10_000, tokens=100))).record
    for name in ("x", "y"):
        await node.spawn(part(name), parent=root.id)
    over = await node.plan(part("z"), parent=root.id)
    error = await refused(node.crew.spawn(over.id, Spawn(), ME))
    assert (error.code, error.detail) == ("crew.too_many_children", {"id": root.id, "below": 2})
    assert (await node.view(over.id)).phase == "assessment"  # nothing began
    assert len((await node.crew.store.get(root.id)).subs) == 2


async def test_a_checkpoint_holds_no_more_than_can_be_read_of_all_together(nodes):
    node = await nodes.here()
    name = (await node.spawn(part("a"), synthesis=Synthesis("none"))).record.id
    most = b'"%s"' % (b"x" * (records.DATA_MAX_BYTES - 2))
    await node.crew.reporting.report(name, Report("a", data=most), ME)
    error = await refused(node.crew.reporting.report(name, Report("a", percent=5, data=most + b" "), ME))
    assert (type(error), error.code) == (TooLarge, "crew.data_too_large")
    await node.do("one")
    await node.reaches(name, "collection")
    whole = "y" * 1_000_000
    await node.crew.reporting.report(
        name, Report(phase="complete", data=f'"{whole}"'.encode()), ME
    )  # its result, not a checkpoint
    assert await node.output(name) == whole
    assert max(len(one.data) for one in await node.crew.store.checkpoints(name)) == len(most)


async def test_large_values_that_contradict_each_other_are_told_by_their_beginning(nodes):
    """They were left out, as if nobody had contradicted anybody."""
    node = await nodes.here()
    name = (await node.spawn(part("a"), part("b"), synthesis=Synthesis("merge"))).record.id
    for who in ("one", "two"):
        await node.do(who, {"text": who + "x" * 300_000, "number": who})
    await node.reaches(name, "complete")
    result = await node.crew.store.result(name)
    assert result is not None
    told = {
        one["path"]: [said["value"][:3] for said in one["values"]] for one in map(msgspec.json.decode, result.conflicts)
    }
    assert {path: {*said} for path, said in told.items()} == {"text": {"one", "two"}, "number": {"one", "two"}}
    assert sum(map(len, result.conflicts)) < records.CONFLICTS_MAX_BYTES


async def test_what_is_cancelled_while_it_is_put_together_stays_so(nodes):
    node = await nodes.here()
    name = (await node.spawn(part("a"), synthesis=Synthesis("none"))).record.id
    await node.do("ann")
    seen = await node.reaches(name, "collection")
    await node.crew.store.change(name, lambda one: msgspec.structs.replace(one, stop=Stop("cancelled", "ann")))
    error = await refused(node.crew.steering._anew(seen, Synthesis("concatenate"), ME))
    assert error.code == "crew.part_runs"
    assert (await node.crew.store.get(name)).stop == Stop("cancelled", "ann")


async def test_what_an_agent_says_at_the_same_time_adds_to_what_it_said(nodes):
    store = (await nodes.here()).crew.store
    said = [Checkpoint("a", "ann", number, tokens=30 - number) for number in range(20)]
    await together(*(store.put_checkpoint(ID, one) for one in said))
    (kept,) = await store.checkpoints(ID)
    assert kept.tokens == 30


async def test_an_agent_that_works_on_a_part_orchestrates_below_it(nodes):
    node = await nodes.here()
    lead = Who("a-lead", "lead", "default", "me")
    root = (await node.spawn(part("a"), by=lead)).record
    child = Who("a-child", "child", "default", "me", parent="a-lead")
    assert (await node.plan(by=child)).parent == root.id
    stranger = Who("a-stranger", "stranger", "default", "you")
    assert (await node.plan(by=stranger)).parent == ""
    await node.claim("stranger")  # it is given a part of it
    assert (await node.plan(by=stranger)).parent == root.id
    assert (await node.plan(by=ME)).parent == ""


async def nothing_for(node: Node, name: str) -> bool:
    """Return whether an agent that asks is given nothing."""
    record = AgentRecord(name, ("do",), concurrency=1, attached=True)
    return not await node.work.claims.claim(record, lease_s=60.0, wait_s=0.5, held_max=1000)


async def test_what_waits_in_its_queue_does_not_begin_when_the_budget_is_spent(nodes):
    node = await nodes.here()
    name = (await node.spawn(part("a"), part("b"), part("c"), budget=Budget(tokens=100))).record.id
    await node.do("one", {"usage": {"tokens": 120, "cost": 0}})
    await until(lambda: _held(node, name))
    assert await nothing_for(node, "two")
    view = await node.view(name)
    assert [one.state for one in view.parts.values()].count("queued") == 2
    await node.crew.steering.hold(name, resume=True, tokens=1000)
    await node.do("two", {})
    await node.do("three", {})
    view = await node.reaches(name, "complete")
    assert {one.attempt for one in view.parts.values()} == {1}  # being held back is no crash, and no attempt


async def _held(node: Node, name: str) -> bool:
    return (await node.view(name)).record.held == "budget"


async def test_what_waits_in_its_queue_is_begun_by_no_node_while_it_is_paused(nodes):
    first = await nodes.here("first")
    view = await first.spawn(part("a"), part("b"))
    name = view.record.id
    await first.crew.steering.hold(name, resume=False)
    second = await nodes.here("second", do={"concurrency": 5})

    async def handed_back() -> bool:
        seen = await second.flow.runs.look(view.record.rounds[0].run)
        return sum(".released." in one.subject for one in seen.facts) == 2

    await until(handed_back)
    assert [one.state for one in (await first.view(name)).parts.values()] == ["queued", "queued"]
    await second.crew.steering.hold(name, resume=True)
    view = await first.reaches(name, "complete")
    assert {one.node for one in view.parts.values()} == {"second"}


async def test_spent_tokens_hold_it_until_there_are_more(nodes):
    node = await nodes.here()
    view = await node.spawn(part("a"), part("b", "a"), part("c"), budget=Budget(tokens=100, cost=5.0))
    name = view.record.id
    one, two = await node.claim("one"), await node.claim("two")
    by_part = {found.task.step: found for found in (one, two)}
    agent = Who("a-agent", by_part["c"].claim.worker, "default", "me")
    holder = Who("a-holder", by_part["a"].claim.worker, "default", "me")
    _, why = await node.crew.reporting.report(name, Report("a", tokens=60, cost=1.5), holder)
    assert why == ""
    _, why = await node.crew.reporting.report(
        name, Report("a", tokens=60, cost=1.5), holder
    )  # totals: twice, it counts once
    assert why == ""
    view, why = await node.crew.reporting.report(name, Report("c", tokens=40), agent)
    assert (view.record.held, "100 of 100 tokens" in why) == ("budget", True)
    await node.work.claims.complete(by_part["a"].token, 1)
    view = await node.is_in(name, "a", "completed")
    assert view.parts["b"].state == "waiting"
    error = await refused(node.crew.steering.hold(name, resume=True))
    assert (type(error), error.code) == (Conflict, "crew.budget_spent")
    view = await node.crew.steering.hold(name, resume=True, tokens=1000)
    await node.is_in(name, "b", "queued")
    await node.work.claims.complete(by_part["c"].token, {"usage": {"tokens": 950, "cost": 0}})  # so says its result
    view = await node.is_in(name, "c", "completed")
    view, why = await node.crew.reporting.report(name, Report("b"), ME)
    assert (view.used.tokens, "1010 of 1000 tokens" in why) == (1010, True)


async def test_what_is_spent_below_counts_above(nodes):
    node = await nodes.here()
    root = (await node.spawn(part("a"), part("b", "a"), budget=Budget(tokens=100, time_s=600))).record
    below = (await node.spawn(part("x"), parent=root.id, budget=Budget(tokens=500))).record
    assert below.budget.tokens == 100
    assert 0 < below.budget.time_s <= 600
    found = [await node.claim("one"), await node.claim("two")]
    holder = next(one.claim.worker for one in found if one.task.step == "x")
    _, why = await node.crew.reporting.report(below.id, Report("x", tokens=100), Who("a-x", holder, "default", "me"))
    assert "100 of 100 tokens" in why
    assert (await node.crew.store.get(root.id)).held == "budget"
    other = await node.plan(part("y"), parent=root.id)
    assert (await refused(node.crew.spawn(other.id, Spawn(), ME))).code == "crew.budget_spent"
    await node.crew.steering.stop(root.id, ME, "enough")
    await node.reaches(root.id, "cancelled")
    await node.reaches(below.id, "cancelled")
    late = await refused(node.plan(part("z"), parent=root.id))
    assert late.code == "crew.over"


async def test_when_its_time_is_over_it_fails_with_what_is_there(nodes):
    node = await nodes.here()
    view = await node.spawn(part("a"), part("b"), budget=Budget(time_s=3.0))
    done = await node.do("one", "A")
    view = await node.reaches(view.record.id, "failed")
    assert view.parts[done].state == "completed"
    assert "flow.timeout" in view.record.error["code"]
    again = await refused(node.crew.steering.retry(view.record.id, next(iter({"a", "b"} - {done})), ME))
    assert again.code == "crew.budget_spent"


async def test_when_its_time_is_over_while_an_agent_puts_it_together_that_is_why_it_failed(nodes):
    """It told that the synthesis had been cancelled, and not why."""
    node = await nodes.here()
    name = (await node.spawn(part("a"), budget=Budget(time_s=3.0), synthesis=Synthesis("agent", "do"))).record.id
    await node.do("one", "A")
    await node.claim("two")
    record = (await node.reaches(name, "failed")).record
    assert (record.error["code"], "synthesis: It took longer" in record.error["message"]) == ("flow.timeout", True)


async def test_only_who_holds_a_part_and_who_spawned_it_report_on_it(nodes):
    node = await nodes.here()
    lead = Who("a-lead", "lead", "default", "me")
    name = (await node.spawn(part("a"), by=lead, budget=Budget(tokens=100))).record.id
    await node.claim("alice")
    alice, bob = Who("a-alice", "alice", "default", "me"), Who("a-bob", "bob", "default", "me")
    for said in (Report("a", percent=99, tokens=10**9), Report("a", text="mine"), Report(tokens=1), Report(text="hi")):
        error = await refused(node.crew.reporting.report(name, said, bob))
        assert (type(error), error.code) == (Denied, "crew.not_your_part")
    assert (
        await refused(node.crew.reporting.report(name, Report(phase="cancelled"), bob))
    ).code == "crew.not_your_part"
    assert (await refused(node.crew.reporting.report(name, Report("a", tokens=5), lead))).code == "crew.not_your_part"
    assert (await refused(node.crew.reporting.report(name, Report(tokens=5), alice))).code == "crew.not_your_part"
    await node.crew.reporting.report(name, Report("a", percent=10), lead)
    await node.crew.reporting.report(name, Report(text="a word"), alice)
    await node.crew.reporting.report(name, Report("a", percent=20), ME)  # whose agent the lead is
    view, _ = await node.crew.reporting.report(name, Report("a", percent=30, tokens=7), alice)
    assert (view.parts["a"].percent, view.used.tokens, view.record.held) == (30, 7, "")


async def test_spawned_again_with_another_budget_is_a_conflict(nodes):
    node = await nodes.here()
    view = await node.spawn(part("a"), budget=Budget(children=9))
    for same in (Budget(), Budget(children=9)):
        again, new = await node.crew.spawn(view.record.id, Spawn(budget=same), ME)
        assert (new, again.record.budget) == (False, Budget(children=9))
    error = await refused(node.crew.spawn(view.record.id, Spawn(budget=Budget(tokens=7, time_s=2)), ME))
    assert (type(error), error.code, error.detail["budget"]["children"]) == (Conflict, "crew.other_budget", 9)


async def test_a_plan_is_its_owners_and_of_people(nodes):
    node = await nodes.here()
    lead, stranger = Who("a-lead", "lead", "default", "me"), Who("a-stranger", "stranger", "default", "you")
    made = await node.plan(part("a"), by=lead)
    assert (await refused(node.crew.edit(made.id, (part("b"),), None, stranger))).code == "crew.not_yours"
    assert (await refused(node.crew.spawn(made.id, Spawn(), stranger))).code == "crew.not_yours"
    await node.crew.edit(made.id, (part("b"),), None, Who("a-sister", "sister", "default", "me"))
    person = Who("person-you", "you", "default", "you", "person")
    view, new = await node.crew.spawn(made.id, Spawn(), person)
    assert (new, view.record.spawner.id) == (True, "person-you")


async def test_what_cannot_begin_because_its_time_is_over_stays_as_it_was(nodes):
    node = await nodes.here()
    name = (await node.spawn(part("a"), part("b"), budget=Budget(time_s=3.0))).record.id
    await node.do("one", "A")
    failed = await node.reaches(name, "failed")
    undone = failed.named("cancelled", "failed")[0]
    assert (await refused(node.crew.steering.retry(name, undone, ME))).code == "crew.budget_spent"
    asked = Synthesis("agent", "do", partial=True)
    assert (await refused(node.crew.steering.synthesize(name, asked, ME))).code == "crew.budget_spent"
    assert (await node.view(name)).record == failed.record
    view, result = await node.crew.steering.synthesize(name, Synthesis("concatenate", partial=True), ME)
    assert (view.phase, result is not None) == ("complete", True)


async def test_a_round_that_its_time_left_no_room_for_ends_it(nodes):
    node = await nodes.here()
    name = (await node.spawn(part("a"), synthesis=Synthesis("none"))).record.id
    await node.do("one", "A")
    await node.reaches(name, "collection")

    def late(one: Record) -> Record:  # as if its last part had come with the last second of its time
        return msgspec.structs.replace(
            one, budget=Budget(time_s=0.001), synthesis=Synthesis("agent", "do"), phase="collection"
        )

    await node.crew.store.change(name, late)
    node.crew.keeping.look(name)
    view = await node.reaches(name, "failed")
    assert (view.record.error["code"], len(view.record.rounds)) == ("crew.budget_spent", 1)
    view, result = await node.crew.steering.synthesize(name, Synthesis("merge"), ME)
    assert (view.phase, result is not None) == ("complete", True)


async def test_what_was_cancelled_stays_so_and_shows_what_it_gave(nodes):
    node = await nodes.here()
    name = (await node.spawn(part("a"), part("b", "a"))).record.id
    await node.do("one", "A")
    await node.is_in(name, "b", "queued")
    await node.crew.steering.stop(name, ME, "enough")
    await node.reaches(name, "cancelled")
    view, shown = await node.crew.steering.synthesize(name, Synthesis("concatenate", partial=True), ME)
    assert (view.phase, shown is not None and b"A" in bytes(shown.output)) == ("cancelled", True)
    asked = Synthesis("agent", "do", partial=True)
    assert (await refused(node.crew.steering.synthesize(name, asked, ME))).code == "crew.over"
    assert (await node.view(name)).phase == "cancelled"


async def test_what_is_done_again_took_something_the_first_time_too(nodes):
    node = await nodes.here()
    name = (await node.spawn(part("a"), part("b", "a"), budget=Budget(tokens=100))).record.id
    await node.do("ann", {"usage": {"tokens": 60, "cost": 1}})
    await node.do("ann", {"usage": {"tokens": 30, "cost": 1}})
    await node.reaches(name, "complete")
    view = await node.crew.steering.retry(name, "b", ME)
    assert (view.used.tokens, view.record.held) == (90, "")
    await node.do("ann", {"usage": {"tokens": 30, "cost": 1}})
    view = await node.reaches(name, "complete")
    assert (view.used.tokens, view.used.cost, view.parts["b"].used.tokens) == (120, 3, 60)
    view = await node.crew.steering.retry(name, "a", ME)
    assert (view.record.held, view.used.tokens, view.parts["a"].state) == ("budget", 120, "waiting")
    await node.crew.steering.hold(name, resume=True, tokens=500)
    await node.is_in(name, "a", "queued")
    await node.do("ann", {"usage": {"tokens": 5, "cost": 0}})
    await node.do("ann", {"usage": {"tokens": 5, "cost": 0}})
    assert (await node.reaches(name, "complete")).used.tokens == 130


async def test_what_a_synthesis_took_counts_when_a_part_is_done_again(nodes):
    node = await nodes.here()
    by_agent = Synthesis("agent", capability="do")
    name = (await node.spawn(part("a"), budget=Budget(tokens=100), synthesis=by_agent)).record.id
    await node.do("ann")
    await node.do("ben", {"usage": {"tokens": 70, "cost": 0}})
    await node.reaches(name, "complete")
    assert (await node.crew.steering.retry(name, "a", ME)).used.tokens == 70


async def test_what_a_large_output_took_counts_too(nodes):
    node = await nodes.here()
    name = (await node.spawn(part("a"), part("b"), budget=Budget(tokens=100))).record.id
    done = await node.do("ann", {"text": "x" * 1_000_000, "usage": {"tokens": 120, "cost": 2}})
    view = await node.is_in(name, done, "completed")
    assert (bool(view.parts[done].blob), view.used.tokens, view.used.cost) == (True, 120, 2)
    _, why = await node.crew.reporting.report(name, Report("b"), ME)
    assert "120 of 100 tokens" in why
