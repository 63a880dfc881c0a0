"""Routers that choose an agent for a task: in order, and never for ever: what they chose moves on when the agent goes."""

from __future__ import annotations

from collections import Counter

import pytest
from tests.integration.policy.test_policy_queues import all_see, submit
from tests.integration.work.conftest import ended, task, until

from knotwork.bus import reading
from knotwork.sdk.errors import Cancelled
from knotwork.work import records, reroute

pytestmark = pytest.mark.timeout(180)
DO = {"capabilities": ("do",)}
STICKY = ["sticky", "policy", "capability"]
KEY = {"labels": {"sticky": "repo-42"}}


async def in_queue(node, routed):
    return await reading.batch(node.membership.connection, "TASKS", f"task.*.{routed}.>", 1, 1000)


async def test_by_default_a_task_waits_for_whoever_is_free_first(mesh):
    here = await mesh.node("here", {"a": DO})
    placed = await here.work.placed(task(labels=KEY["labels"]))
    assert (placed.queue, placed.why) == ("do", "it waits for whoever has do and is free first")


async def test_round_robin_gives_each_agent_its_turn(mesh):
    here = await mesh.node("here", {"a": DO, "b": DO, "c": DO}, routers=["round-robin"])
    runs = [(await submit(here)).run for _ in range(9)]
    assert Counter([(await ended(here.work, run)).agent for run in runs]) == {"a": 3, "b": 3, "c": 3}


async def test_sticky_stays_and_moves_when_its_agent_dies(mesh):
    there = await mesh.process("there", {"worker": DO}, heartbeat_s=1.5)
    other = await mesh.process("other", {"worker": DO}, heartbeat_s=1.5)
    here = await mesh.node("here", routers=STICKY)
    await until(lambda: {"there", "other"} <= set(here.membership.directory.node_names()))
    chosen = {(await ended(here.work, (await submit(here, **KEY)).run)).node for _ in range(5)}
    assert len(chosen) == 1
    (first,) = chosen
    ({"there": there, "other": other})[first].kill()
    await until(lambda: here.membership.directory.state(first) == "offline")
    chosen = {(await ended(here.work, (await submit(here, **KEY)).run)).node for _ in range(5)}
    assert chosen == {"there", "other"} - {first}


async def test_the_first_router_that_answers_wins(mesh):
    here = await mesh.node("here", {"a": DO, "b": {**DO, "executor": "copilot"}}, routers=[*STICKY])
    assert (await here.work.placed(task(**KEY))).queue in ("here=a", "here=b")
    assert (await here.work.placed(task())).queue == "do"  # sticky has nothing to say
    adjacent = await here.work.placed(task(boundary="corporate-adjacent", **KEY))
    assert adjacent.queue == "here=b"  # also sticky puts those preferred first
    here.routers = [here.routers[1], here.routers[0]]
    placed = await here.work.placed(task(boundary="corporate-adjacent", **KEY))
    assert placed.queue == "do"
    assert "policy leaves it to any agent with do" in placed.why
    assert (await here.work.placed(task(**KEY))).queue in ("here=a", "here=b")  # policy has nothing to say
    forbidden = await here.work.placed(task(boundary="corporate", **KEY))
    assert forbidden.queue == "here=b"
    assert "left out: here/a: corporate work is only for copilot" in forbidden.why


async def test_nobody_to_choose_leaves_it_in_the_queue_of_the_capability(mesh):
    here = await mesh.node("here", routers=STICKY)
    placed = await here.work.placed(task(**KEY))
    assert placed.queue == "do"
    assert "nobody can be chosen now" in placed.why


async def test_what_a_router_chose_is_not_lost_with_its_node_and_what_was_named_waits_for_it(mesh):
    process = await mesh.process("there", {"worker": DO}, heartbeat_s=1.5, lease_s=1.0)
    here = await mesh.node("here", routers=["round-robin"])
    await until(lambda: "there" in here.membership.directory.node_names())
    first = await submit(here, {"sleep": 600})
    assert first.queue == "there=worker"
    chosen = [await submit(here, {"n": number}) for number in range(100)]
    named = await submit(here, {"n": 1}, agent="worker", node="there")
    assert {one.queue for one in chosen} == {"there=worker"}

    async def running():
        return await reading.last(here.membership.connection, "FACTS", f"run.*.{first.run}.started.>")

    assert await until(running)
    process.kill()  # with one task under way, and a hundred that wait for it
    later = await mesh.node("zz", {"worker": {**DO, "concurrency": 20}})
    for one in chosen:
        done = await ended(later.work, one.run)
        assert (done.state, done.node) == ("completed", "zz")
        assert "was moved back to do: there is " in records.decode_task(bytes(done.task)).why

    async def only_the_named_one():
        left = await in_queue(here, "there=worker")
        return [records.decode_task(one.data).run for one in left] == [named.run]

    assert await until(only_the_named_one)
    assert await later.work.current(first.run) is not None  # it sleeps there now
    await later.work.end(first.run, "cancelled", Cancelled("enough"))
    assert await here.work.find(named.run) is None
    again = await mesh.process("there", {"worker": DO}, heartbeat_s=1.5)
    assert (await ended(here.work, named.run)).node == "there"
    assert again.returncode is None


async def test_what_a_killed_node_had_comes_back_after_its_lease_long_before_the_node_counts_as_offline(mesh):
    process = await mesh.process("there", {"worker": DO}, heartbeat_s=120.0, lease_s=2.0)
    here = await mesh.node("here", {"other": {"capabilities": ("else",)}}, routers=["round-robin"], lease_s=2.0)
    await until(lambda: "there" in here.membership.directory.node_names())
    first = await submit(here, {"sleep": 600})

    async def running():
        return await reading.last(here.membership.connection, "FACTS", f"run.*.{first.run}.started.>")

    assert await until(running)
    chosen = [await submit(here, {"n": number}, priority=5 if number % 2 else 10) for number in range(100)]
    assert {one.queue for one in chosen} == {"there=worker"}
    process.kill()

    async def moved():
        return len(await in_queue(here, "do")) == 101 and not await in_queue(here, "there=worker")

    assert await until(moved)
    assert here.membership.directory.state("there") == "online"
    for priority in (5, 10):
        lane = [one for one in chosen if one.priority == priority]
        waits = await reading.batch(here.membership.connection, "TASKS", f"task.*.do.{lane[0].lane}.>", 1, 1000)
        order = [records.decode_task(one.data).run for one in waits]
        assert [run for run in order if run != first.run] == [one.run for one in lane]
    later = await mesh.node("zz", {"worker": {**DO, "concurrency": 20}})
    assert {(await ended(later.work, one.run)).node for one in chosen} == {"zz"}
    await later.work.end(first.run, "cancelled", Cancelled("enough"))


async def test_whether_a_node_listens_is_known_at_once(mesh):
    await mesh.process("there", {"worker": DO}, heartbeat_s=120.0, lease_s=2.0)
    here = await mesh.node("here", {"other": {"capabilities": ("else",)}}, routers=["round-robin"], lease_s=2.0)
    await until(lambda: "there" in here.membership.directory.node_names())
    assert await here.membership.listens("there")
    assert not await here.membership.listens("nobody")


async def test_what_waits_for_an_agent_that_its_node_no_longer_has_is_moved(mesh):
    there = await mesh.node("there", {"worker": DO, "other": {"capabilities": ("else",)}})
    here = await mesh.node("here", {"helper": {**DO, "concurrency": 4}}, routers=STICKY)
    await all_see(here, there)
    for key in map(str, range(1000)):
        if (await here.work.placed(task(labels={"sticky": key}))).queue == "there=worker":
            break
    labels = {"sticky": key}
    busy = await submit(here, {"sleep": 600}, labels=labels)
    await until(lambda: there.work.worker.running)
    chosen = [await submit(here, labels=labels) for _ in range(10)]
    await there.host({"other": {"capabilities": ("else",)}})
    for one in chosen:
        assert (await ended(here.work, one.run)).agent == "helper"
    assert there.work.worker.running  # what it works on it may bring to an end
    await here.work.end(busy.run, "cancelled", Cancelled("enough"))


async def test_moving_twice_or_from_two_nodes_at_once_does_no_harm(mesh):
    nodes = [await mesh.node(name, {"worker": {**DO, "concurrency": 4}}, lease_s=60.0) for name in ("n1", "n2")]
    await all_see(*nodes)
    runs = []
    for number in range(40):
        one = task(value={"n": number})
        one = type(one)(**{**{key: getattr(one, key) for key in one.__struct_fields__}, "queue": "gone=worker"})
        await nodes[0].work.submitter.submit(one)
        runs.append(one.run)
    for node in nodes:  # both think that it is theirs to do
        node.work._rerouter._is_mine = lambda _queue: True
    done = [await ended(nodes[0].work, run) for run in runs]
    assert {one.state for one in done} == {"completed"}
    assert len({one.delivery for one in done}) == 1

    async def gone():
        return not await in_queue(nodes[0], "gone=worker")

    assert await until(gone)  # stored in the new place first, removed from the old one then
    found = await reading.batch(nodes[0].membership.connection, "FACTS", "run.*.*.outcome.>", 1, 1000)
    assert len(found) == 40


async def test_a_task_that_ended_while_its_agent_was_going_is_not_done_again(mesh):
    here = await mesh.node("here", {"worker": DO})
    one = task()
    one = type(one)(**{**{key: getattr(one, key) for key in one.__struct_fields__}, "queue": "gone=worker"})
    outcome = records.Outcome("completed", records.raw(one), node="gone", agent="worker")
    await here.work.recorder.append(one, outcome)
    await here.work.submitter.submit(one)

    async def gone():
        return not await in_queue(here, "gone=worker")

    assert await until(gone)
    assert (await here.work.find(one.run)).node == "gone"
    assert not await in_queue(here, "do")


@pytest.mark.parametrize("state", ["online", "stale", "offline", "draining"])
def test_what_nobody_listens_for_is_moved_as_soon_as_its_lease_is_over(state):
    def which(deaf_s: float) -> str:
        return reroute.movable(state, there=True, gone_s=0.0, deaf_s=deaf_s, lease_s=10.0)

    assert [which(0.0), which(1.0), which(10.0)] == ["none", "none", "all"]
    assert which(5.0) == ("none" if state == "offline" else "waiting")  # gone for so long, it is offline's to say


def test_which_tasks_are_moved():
    late = reroute.GONE_S + 1
    found = {
        (state, there, gone_s): reroute.movable(state, there=there, gone_s=gone_s)
        for state in ("online", "stale", "draining", "offline")
        for there in (True, False)
        for gone_s in (0.0, 10.0, late)
    }
    assert {key for key, which in found.items() if which == "all"} == {
        ("offline", True, 10.0), ("offline", True, late), ("offline", False, 10.0), ("offline", False, late),
        ("online", False, late), ("stale", False, late),
    }  # fmt: skip
    assert {key for key, which in found.items() if which == "waiting"} == {
        ("draining", True, 10.0), ("draining", True, late), ("draining", False, 10.0), ("draining", False, late),
        ("online", False, 10.0), ("stale", False, 10.0),
    }  # fmt: skip


async def test_a_poison_task_is_not_handed_from_node_to_node_for_ever(mesh):
    """Each node it kills loses it to the queue of the capability, where its kills are counted."""
    here = await mesh.node("here", routers=["round-robin"])
    names = ["k1", "k2", "k3", "k4", "k5"]
    processes = [await mesh.process(name, {"worker": DO}, heartbeat_s=1.5, lease_s=1.0) for name in names]
    await until(lambda: set(names) <= set(here.membership.directory.node_names()))
    one = await submit(here, {"exit": True}, retry=records.Retry(max_crashes=2))
    done = await ended(here.work, one.run, 150)
    assert (done.state, done.error["code"]) == ("dead", "work.poison")
    assert sum(process.returncode is not None for process in processes) <= 3


TEXT, NUMBER = {**DO, "input_schema": {"type": "string"}}, {**DO, "input_schema": {"type": "integer"}}


@pytest.mark.parametrize("routers", [["policy", "capability"], ["round-robin"]])
async def test_a_task_finds_the_agent_whose_schema_takes_its_input(mesh, routers):
    agents = {"text": TEXT, "number": NUMBER, "other": NUMBER}
    here = await mesh.node("here", agents, routers=routers, lease_s=60.0)
    away = await mesh.node("away", {"far": NUMBER}, routers=routers, lease_s=60.0)
    await all_see(here, away)
    runs = [(await submit(here, "a word")).run for _ in range(12)]
    done = [await ended(here.work, run) for run in runs]
    assert {(one.state, one.node, one.agent, one.delivery) for one in done} == {("completed", "here", "text", 1)}
    numbers = [await ended(here.work, (await submit(here, one)).run) for one in range(8)]
    assert {(one.state, one.agent == "text") for one in numbers} == {("completed", False)}


async def test_a_task_that_no_schema_takes_ends_and_is_not_handed_around(mesh):
    here = await mesh.node("here", {"text": TEXT, "number": NUMBER})
    done = await ended(here.work, (await submit(here, [1])).run)
    assert (done.state, done.error["code"]) == ("failed", "agent.bad_input")
    there = await mesh.node("there", {"any": DO})
    await all_see(here, there)
    named = await ended(here.work, (await submit(here, [1], agent="text")).run)
    assert (named.state, named.error["code"]) == ("failed", "agent.bad_input")
    done = await ended(here.work, (await submit(here, [1])).run)
    assert (done.state, done.agent) == ("completed", "any")
