"""What orchestrations may use, of whom they inherit it, and that it holds: depth, sub-agents, time, tokens, cost."""

from __future__ import annotations

import pytest
from tests.integration.crew.conftest import ME, part

from knotwork.crew.records import Budget
from knotwork.crew.room import Report, Spawn
from knotwork.sdk.errors import Conflict, Denied, KnotworkError
from knotwork.trust.who import Who


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


async def test_spent_tokens_hold_it_until_there_are_more(nodes):
    node = await nodes.here()
    view = await node.spawn(part("a"), part("b", "a"), part("c"), budget=Budget(tokens=100, cost=5.0))
    name = view.record.id
    one, two = await node.claim("one"), await node.claim("two")
    by_part = {found.task.step: found for found in (one, two)}
    agent = Who("a-agent", by_part["c"].claim.worker, "default", "me")
    _, why = await node.crew.report(name, Report("a", tokens=60, cost=1.5), ME)
    assert why == ""
    _, why = await node.crew.report(name, Report("a", tokens=60, cost=1.5), ME)  # totals: said twice, it counts once
    assert why == ""
    view, why = await node.crew.report(name, Report("c", tokens=40), agent)
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
    view, why = await node.crew.report(name, Report("b"), ME)
    assert (view.used.tokens, "1010 of 1000 tokens" in why) == (1010, True)


async def test_what_is_spent_below_counts_above(nodes):
    node = await nodes.here()
    root = (await node.spawn(part("a"), part("b", "a"), budget=Budget(tokens=100, time_s=600))).record
    below = (await node.spawn(part("x"), parent=root.id, budget=Budget(tokens=500))).record
    assert below.budget.tokens == 100
    assert 0 < below.budget.time_s <= 600
    _, why = await node.crew.report(below.id, Report("x", tokens=100), ME)
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
