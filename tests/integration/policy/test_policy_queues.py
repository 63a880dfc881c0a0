"""Who takes tasks of a boundary? Never whom it forbids, first whom it prefers, others when nobody of those is free."""

from __future__ import annotations

import time

import pytest
from tests.integration.work.conftest import ended, task, until

from knotwork.bus import pulls, reading
from knotwork.mesh.records import AgentRecord
from knotwork.sdk.errors import Denied, Invalid

pytestmark = pytest.mark.timeout(180)
CORPORATE = {"boundary": "corporate"}
COPILOT = {"executor": "copilot", "capabilities": ("do",)}
CLAUDE = {"executor": "claude-code", "capabilities": ("do",)}


async def submit(at, value=None, /, **fields):
    one = await at.work.placed(task(value=value, **fields))
    await at.work.submitter.submit(one)
    return one


async def all_see(*nodes):
    """Wait until every node knows every other."""
    names = {node.name for node in nodes}
    await until(lambda: all(names <= set(node.membership.directory.node_names()) for node in nodes))


def asked_of(node, monkeypatch):
    """Return the consumers that a node asks from now on."""
    asked = []
    real = node.work.worker.taking._pulls.ask

    def ask(consumer, *rest, **more):
        asked.append(consumer)
        real(consumer, *rest, **more)

    monkeypatch.setattr(node.work.worker.taking._pulls, "ask", ask)
    return asked


async def test_whom_the_policy_forbids_never_asks_for_such_work(mesh, monkeypatch):
    here = await mesh.node("here", {"claude": CLAUDE})
    asked = asked_of(here, monkeypatch)
    corporate = await submit(here, **CORPORATE)
    plain = await submit(here)
    assert (await ended(here.work, plain.run)).agent == "claude"
    swept = here.work.depths  # a further look around: it has seen that the task waits
    await until(lambda: here.work.depths is not swept and any(one.pending for one in here.work.depths))
    assert await here.work.find(corporate.run) is None
    assert asked
    assert not [consumer for consumer in asked if consumer.startswith("corporate+")]
    there = await mesh.node("there", {"pilot": COPILOT})
    done = await ended(there.work, corporate.run)
    assert (done.node, done.agent) == ("there", "pilot")
    assert "here/claude: corporate work is only for copilot" in corporate.why


async def test_of_two_agents_of_one_node_only_the_allowed_one_gets_it(mesh):
    here = await mesh.node("here", {"claude": {**CLAUDE, "concurrency": 8}, "pilot": COPILOT})
    runs = [(await submit(here, **CORPORATE)).run for _ in range(20)]
    assert {(await ended(here.work, run)).agent for run in runs} == {"pilot"}


async def test_an_agent_that_accepts_only_some_boundaries_gets_no_other(mesh, monkeypatch):
    here = await mesh.node("here", {"pilot": {**COPILOT, "boundaries": ("open-source",)}})
    asked = asked_of(here, monkeypatch)
    corporate = await submit(here, **CORPORATE)
    free = await submit(here, boundary="open-source")
    assert (await ended(here.work, free.run)).state == "completed"
    assert await here.work.find(corporate.run) is None
    assert set(asked) == {"open-source+do+normal"}


async def test_an_unknown_boundary_is_refused_and_the_known_ones_named(mesh):
    here = await mesh.node("here", {"claude": CLAUDE}, boundaries={"lab": {}})
    with pytest.raises(Invalid, match="corporate, corporate-adjacent, lab, open-source, personal, none") as caught:
        await submit(here, boundary="corprate")
    assert caught.value.code == "policy.unknown_boundary"
    assert "corporate?" in caught.value.hint


async def test_an_agent_that_is_named_must_be_allowed(mesh):
    here = await mesh.node("here", {"claude": CLAUDE})
    with pytest.raises(Denied, match="corporate work is only for copilot") as caught:
        await submit(here, agent="claude", **CORPORATE)
    assert caught.value.code == "policy.forbidden"
    away = await submit(here, agent="nobody", **CORPORATE)  # who is not there may come
    assert await here.work.find(away.run) is None


async def test_preferred_first_and_fallback_when_none_of_them_is_free(mesh):
    there = await mesh.node("there", {"claude": CLAUDE})
    here = await mesh.node("here", {"pilot": COPILOT})
    await all_see(here, there)
    adjacent = {"boundary": "corporate-adjacent"}
    for _ in range(10):
        first = await submit(here, **adjacent)
        assert (await ended(here.work, first.run)).agent == "pilot"
    busy = await submit(here, {"sleep": 60}, **adjacent)
    await until(lambda: here.work.worker.running)
    here.changed()  # its next beat tells that it is full
    second = await submit(here, **adjacent)
    assert (await ended(here.work, second.run)).agent == "claude"
    await here.work.end(busy.run, "cancelled", Denied("enough"))


async def test_fallback_after_a_while_though_a_preferred_agent_seems_free(mesh):
    """The preferred agent is there and idle as far as anybody knows, but never takes: its node only says so."""
    slow = {"corporate-adjacent": {"fallback_after_s": 3}}
    here = await mesh.node("here", {"claude": CLAUDE}, boundaries=slow)
    there = await mesh.node("there", {"pilot": COPILOT}, boundaries={"corporate-adjacent": {"forbid": ["pilot"]}})
    await all_see(here, there)
    began_s = time.monotonic()
    one = await submit(here, boundary="corporate-adjacent")
    assert (await ended(here.work, one.run)).agent == "claude"
    assert time.monotonic() - began_s >= 2.5


async def test_fallback_list_names_who_may_step_in(mesh):
    rules = {"lab": {"prefer": ["copilot"], "fallback": ["claude-code"]}}
    here = await mesh.node("here", {"claude": CLAUDE, "other": {**CLAUDE, "executor": "codex"}}, boundaries=rules)
    runs = [(await submit(here, boundary="lab")).run for _ in range(10)]
    assert {(await ended(here.work, run)).agent for run in runs} == {"claude"}


async def test_a_boundary_can_be_given_and_taken_while_tasks_wait(mesh):
    here = await mesh.node("here", {"claude": CLAUDE})
    waiting = await submit(here, {"n": 1}, **CORPORATE)
    swept = here.work.depths
    await until(lambda: here.work.depths is not swept)
    assert await here.work.find(waiting.run) is None
    here.allow({"corporate": {"allow": ["claude"]}})
    assert (await ended(here.work, waiting.run)).agent == "claude"
    here.allow({})
    again = await submit(here, **CORPORATE)
    plain = await submit(here)
    await ended(here.work, plain.run)
    assert await here.work.find(again.run) is None
    await here.host({"claude": {**CLAUDE, "executor": "copilot"}})
    assert (await ended(here.work, again.run)).state == "completed"


async def test_what_was_on_its_way_to_an_agent_that_lost_the_boundary_is_handed_back(mesh, monkeypatch):
    """The policy changes between the request and the delivery: the agent refuses, and the task waits for another."""
    here = await mesh.node("here", {"pilot": COPILOT})
    monkeypatch.setattr(here.work.accepts, "permits", lambda *_: True)
    monkeypatch.setattr(type(here.work.accepts), "__call__", lambda *_: True)
    here.allow({"corporate": {"forbid": ["pilot"]}})
    one = await submit(here, **CORPORATE)
    handed_back = f"run.*.{one.run}.released.>"

    async def released():
        return await reading.last(here.membership.connection, "FACTS", handed_back)

    assert await until(released)
    assert await here.work.find(one.run) is None
    monkeypatch.undo()
    there = await mesh.node("there", {"copilot": COPILOT})
    done = await ended(there.work, one.run)
    assert (done.state, done.node) == ("completed", "there")


async def test_a_task_is_classified_by_its_path_and_labels(mesh):
    rules = {
        "corporate": {"paths": ["/srv/corp"], "labels": ["team=pay*"]},
        "open-source": {"paths": ["/srv/corp/oss/**"]},
    }
    here = await mesh.node("here", {"pilot": COPILOT}, boundaries=rules)
    found = {
        "corporate": [{"path": "/srv/corp/x.py"}, {"path": "/srv/corp/oss/../x.py"}],
        "open-source": [{"path": "/srv/corp/oss/x.py"}],
        "none": [{"path": "/srv/corporation/x"}, {"path": 7}, {"path": None}, "text", None, 17],
    }
    for boundary, values in found.items():
        for value in values:
            assert (await here.work.placed(task(value=value))).boundary == boundary, value
    assert (await here.work.placed(task(labels={"team": "payments"}))).boundary == "corporate"
    labelled = await here.work.placed(task(value={"path": "/srv/corp/x"}, labels={"path": "/srv/corp/oss/y"}))
    assert labelled.boundary == "open-source"
    named = await here.work.placed(task(value={"path": "/srv/corp/x"}, boundary="personal"))
    assert (named.boundary, "it was named" in named.why) == ("personal", True)


async def test_no_consumer_holds_an_open_request_of_somebody_forbidden(mesh):
    """What the server knows: nobody waits at the consumer, and nothing of it was ever delivered."""
    here = await mesh.node("here", {"claude": CLAUDE})
    one = await submit(here, **CORPORATE)
    plain = await submit(here)
    await ended(here.work, plain.run)
    rows = {row["name"]: row for row in await pulls.consumers(here.membership.connection, "TASKS")}
    row = rows["corporate+do+normal"]
    assert (row["num_pending"], row["num_waiting"], row["delivered"]["stream_seq"]) == (1, 0, 0), one.why


async def test_agents_that_come_in_follow_the_policy_too(mesh):
    here = await mesh.node("here")
    one = await submit(here, **CORPORATE)

    async def claimed(kind: str, wait_s: float):
        record = AgentRecord("laptop", ("do",), executor=kind, attached=True)
        return await here.work.claims.claim(record, lease_s=60, wait_s=wait_s, held_max=10)

    assert await claimed("claude-code", 1.5) == []  # a look around falls into this time
    (held,) = await claimed("copilot", 30)
    assert held.task.run == one.run


async def test_a_preferred_agent_that_only_seems_to_be_full_is_left_its_work(mesh):
    """Its node's last word is that all its places are taken, which is over: nobody is faster than the one it is meant for."""
    there = await mesh.node("there", {"claude": CLAUDE}, heartbeat_s=600.0)
    here = await mesh.node("here", {"pilot": COPILOT}, heartbeat_s=600.0)
    await all_see(here, there)
    busy = await submit(here, {"sleep": 600}, boundary="corporate-adjacent")
    await until(lambda: here.work.worker.running)
    here.changed()
    await until(lambda: there.membership.directory.candidates(agent="pilot")[0].load >= 1)
    await here.work.end(busy.run, "cancelled", Denied("enough"))
    await until(lambda: not here.work.worker.running)
    for _ in range(10):
        one = await submit(here, boundary="corporate-adjacent")
        assert (await ended(here.work, one.run)).agent == "pilot"
