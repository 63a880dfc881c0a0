"""Who steers what: whoever holds a part speaks of that alone, what is above reaches what is below, and nothing begins twice."""

from __future__ import annotations

import pytest
from tests.integration.crew.conftest import ME, PATIENCE_S, part, until

from knotwork.bus import streams, subjects
from knotwork.crew.records import Budget, Synthesis
from knotwork.crew.reporting import Report
from knotwork.mesh.records import AgentRecord
from knotwork.sdk.errors import KnotworkError
from knotwork.trust.who import Who


async def refused(asked) -> str:
    with pytest.raises(KnotworkError) as caught:
        await asked
    return caught.value.code


async def claimed(node, name: str, agent: str):
    """Be an agent with a session that gets one part."""
    record = AgentRecord(name, ("do",), concurrency=1, attached=True)
    (found,) = await node.work.claims.claim(record, lease_s=60.0, wait_s=PATIENCE_S, held_max=10, agent=agent)
    return found


async def test_who_holds_a_part_of_another_owners_does_not_steer_the_whole(nodes):
    node = await nodes.here()
    name = (await node.spawn(part("a"), synthesis=Synthesis("none"))).record.id
    eve, mine = Who("a-eve", "eve", "default", "eve"), Who("a-ann", "ann", "default", "me")
    found = await claimed(node, "eve", "a-eve")
    for phase in ("cancelled", "failed"):
        assert await refused(node.crew.reporting.report(name, Report("a", phase=phase), eve)) == "crew.not_yours"
    view, why = await node.crew.reporting.report(
        name, Report("a", phase="execution", percent=10), eve
    )  # it is there already
    assert (view.parts["a"].percent, why) == (10, "")
    await node.work.claims.complete(found.token, "A")
    await node.reaches(name, "collection")
    wanted = Report("a", phase="complete", data=b'"hers"')
    assert await refused(node.crew.reporting.report(name, wanted, eve)) == "crew.not_yours"
    assert (await node.view(name)).phase == "collection"
    assert await refused(node.crew.reporting.report(name, wanted, mine)) == "crew.not_your_part"


async def test_an_agent_that_is_called_otherwise_by_now_holds_its_part_and_nobody_else_does(nodes):
    node = await nodes.here()
    name = (await node.spawn(part("a"), budget=Budget(tokens=100))).record.id
    await claimed(node, "ann", "a-ann")
    renamed, taker = Who("a-ann", "anna", "default", "you"), Who("a-eve", "ann", "default", "you")
    await node.crew.reporting.report(name, Report("a", tokens=20), Who("a-ann", "ann", "default", "you"))
    view, _ = await node.crew.reporting.report(name, Report("a", tokens=30), renamed)
    assert view.used.tokens == 30, "it is one agent under two names"
    assert await refused(node.crew.reporting.report(name, Report("a", tokens=99), taker)) == "crew.not_your_part"
    assert (await node.plan(by=renamed)).parent == name
    assert (await node.plan(by=taker)).parent == ""


async def test_what_is_below_begins_nothing_while_what_is_above_is_paused_or_stopped(nodes):
    node = await nodes.here()
    root = (await node.spawn(part("r"))).record.id
    held = await node.claim("ann")
    below = (await node.spawn(part("x", attempts=1), parent=root)).record.id
    found = await node.claim("ben")
    await node.work.claims.fail(found.token, "no", code="agent.failed", retriable=False, retry_after_s=None)
    await node.reaches(below, "failed")
    await node.crew.steering.hold(root, resume=False)
    assert await refused(node.crew.steering.retry(below, "x", ME)) == "crew.held"
    await node.crew.steering.hold(root, resume=True)
    await node.crew.steering.retry(below, "x", ME)
    await node.do("ben", "X")
    await node.reaches(below, "complete")
    await node.crew.steering.stop(root, ME, "enough")
    assert await refused(node.crew.steering.retry(below, "x", ME)) == "crew.over"
    assert await refused(node.crew.steering.synthesize(below, Synthesis("agent", "do"), ME)) == "crew.over"
    assert (await node.view(below)).phase == "complete"
    assert held.task.step == "r"


async def test_who_says_that_it_is_being_put_together_is_believed(nodes):
    node = await nodes.here()
    name = (await node.spawn(part("a"), synthesis=Synthesis("none"))).record.id
    await node.do("ann", "A")
    await node.reaches(name, "collection")
    view, why = await node.crew.reporting.report(name, Report(phase="synthesis"), ME)
    assert (view.phase, why) == ("synthesis", "")
    node.crew.keeping.look(name)
    assert (await node.crew.settling.settle(name)).phase == "synthesis"
    assert [phase for _, phase in node.told][-1] == "synthesis"
    view, result = await node.crew.steering.synthesize(name, Synthesis("concatenate"), ME)
    assert (view.phase, result is not None) == ("complete", True)


async def test_what_was_done_is_not_done_again_when_its_run_is_forgotten(nodes):
    node = await nodes.here()
    name = (await node.spawn(part("a"), part("b", "a"), synthesis=Synthesis("none"))).record.id
    await node.do("ann", "A")
    await node.do("ann", "B")
    view = await node.reaches(name, "collection")
    connection = node.flow.connection

    async def is_gone() -> bool | None:
        for stream in (subjects.FACTS, subjects.HISTORY):  # as `keep_max` of [workflows] lets go of it
            await streams.api(connection, f"STREAM.PURGE.{stream}")
        return True if (await node.view(name)).parts["a"].output == b"null" else None

    await until(is_gone)
    view = await node.crew.settling.settle(name)
    assert (view.phase, len(view.runs), view.parts["a"].error["code"]) == ("failed", 1, "flow.forgotten")
    assert "not kept any more" in view.record.error["message"]
    assert await refused(node.crew.steering.retry(name, "b", ME)) == "crew.part_waits"
    await node.crew.steering.retry(name, "a", ME)  # it is done again when somebody says so
    assert await node.do("ann", "A") == "a"
