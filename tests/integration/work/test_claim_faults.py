"""Claims survive what happens to agents, nodes and servers, and no forged or late word changes anything."""

from __future__ import annotations

import asyncio
import json
import time
from typing import Any

import msgspec
import pytest
from tests.integration.work.conftest import ended, task, until, work_node
from tests.integration.work.test_claims import SOON_S, agent, claim, facts, nothing, refused

from knotwork.bus import kv, publisher, pulls, reading, streams, subjects
from knotwork.sdk.errors import KnotworkError, Unavailable
from knotwork.view.vanished import Begun
from knotwork.work import history, holding, lasting, leases, records, tickets
from knotwork.work.claims import Claimed
from knotwork.work.records import Retry
from knotwork.work.room import Work


async def lost(work: Work, held: Claimed) -> None:
    """Wait until a lease is over."""
    await until(lambda: not any(kept.claim.id == held.claim.id for kept in work.claims.keeper._kept.values()))


def passing(bench: Any, name: str, lease_s: float) -> Any:
    """Return a node that is there for a block, and then not any more."""
    return work_node.open_node(bench.url, bench.seed, name, {}, lease_s=lease_s)


# -- agents that go away -------------------------------------------------------------------------------------------------


async def test_an_agent_that_is_silent_loses_its_task_to_another(bench):
    work = await bench.room(lease_s=60.0)
    one = task()
    await work.submitter.submit(one)
    start_s = time.monotonic()
    first = await claim(work, lease_s=1.0)
    second = await claim(work, agent("desk"))
    assert 1.0 <= time.monotonic() - start_s < 40.0, "its own lease counts, not that of the queue"
    assert (second.task.run, second.claim.delivery) == (one.run, 2)
    for late in (
        work.claims.complete(first.token, "late"),
        work.claims.extend(first.token, 60),
        work.claims.report(first.token, 1, ""),
        work.claims.save(first.token, 1),
        work.claims.fail(first.token, "late", code="x", retriable=True, retry_after_s=None),
        work.claims.release(first.token, ""),
    ):
        assert await refused(late) == "claim.superseded"
    await work.claims.complete(second.token, "in time")
    assert await refused(work.claims.complete(first.token, "late")) == "claim.superseded"
    outcome = await ended(work, one.run)
    assert (outcome.agent, bytes(outcome.output)) == ("desk", b'"in time"')


async def test_a_late_word_is_refused_also_when_nobody_has_it_yet(bench):
    work = await bench.room()
    one = task()
    await work.submitter.submit(one)
    held = await claim(work, lease_s=0.5)
    with work.attached.line(agent()) as notices:
        await lost(work, held)
        async with asyncio.timeout(SOON_S):
            assert (await anext(notices)).why == "expired"
        await notices.aclose()
    assert await refused(work.claims.complete(held.token, "late")) == "claim.expired"
    assert await work.find(one.run) is None
    again = await claim(work)
    await work.claims.complete(again.token, None)


async def test_a_task_that_loses_three_agents_is_poison(bench):
    work = await bench.room()
    one = task()
    await work.submitter.submit(one)
    for _ in range(3):
        await claim(work, lease_s=0.3)
    assert await work.claims.claim(agent(), lease_s=60, wait_s=3, held_max=10) == []
    outcome = await ended(work, one.run)
    assert (outcome.state, outcome.error["code"]) == ("dead", "work.poison")
    letter = await work.dead.of(one.run)
    assert [(past.state, past.agent) for past in letter.task.past] == [("crashed", "laptop")] * 3
    told = history.transitions(letter.task, [], outcome)
    assert [one.what for one in told] == ["submitted", "started", "started", "started", "dead"]


async def test_a_task_whose_agent_vanished_waits_again_and_its_time_still_ends(bench):
    work = await bench.room(lease_s=60.0)
    one = task(timeout_s=8.0)  # all that is seen before its end is seen within that
    await work.submitter.submit(one)
    held = await claim(work)
    await until(lambda: facts(work, one.run, "started"))
    assert (await work.look(one.run)).state == "running"
    row = Begun(0, one.run, held.claim.node, held.claim.started_ns, 1, "", "", "", "")
    assert work.holding.now()(row)
    work.claims.keeper.abandon("laptop")  # as when its lease is over
    await lost(work, held)
    assert (await work.look(one.run)).state == "pending"
    assert not work.holding.now()(row._replace(started_ns=held.claim.started_ns - holding.GRACE_NS))
    assert work.holding.now()(row._replace(started_ns=time.time_ns())), "another may have it, and we not have heard yet"
    assert work.holding.now()(row._replace(claimed=0)), "without presence every node is there"
    outcome = await ended(work, one.run)
    assert (outcome.state, outcome.error["code"]) == ("timed-out", "call.timed_out")
    assert await nothing(work)


async def test_the_time_of_an_attempt_begins_anew_when_somebody_else_has_it(bench):
    work = await bench.room(lease_s=60.0)
    one = task(timeout_s=10.0)
    await work.submitter.submit(one)
    held = await claim(work)
    work.claims.keeper.abandon("laptop")
    await lost(work, held)
    again = await claim(work, agent("desk"))
    (place,) = work.claims.overdue._lost
    assert again.claim.outcome_subject == place
    work.claims.overdue._lost[place] = msgspec.structs.replace(held.claim, ends_ns=1)  # the time of the first is over
    await until(lambda: not work.claims.overdue._lost)
    await work.claims.complete(again.token, "in time")
    assert (await ended(work, one.run)).state == "completed"


async def test_a_lease_that_is_extended_outlives_that_of_the_queue(bench):
    work = await bench.room(lease_s=1.0)
    one = task()
    await work.submitter.submit(one)
    held = await claim(work, lease_s=8.0)
    for _ in range(4):
        assert await work.claims.claim(agent("other"), lease_s=60, wait_s=2.5, held_max=10) == []
        longer = await work.claims.extend(held.token, 8.0)
        assert longer.until_ns > time.time_ns()
    assert not (await work.claims.complete(held.token, None)).already
    assert (await ended(work, one.run)).delivery == 1


async def test_who_hangs_up_while_waiting_loses_nothing(bench):
    work = await bench.room()
    async with asyncio.TaskGroup() as group:
        waiting = [
            group.create_task(work.claims.claim(agent(count=5), lease_s=60, wait_s=50, held_max=100)) for _ in "abc"
        ]
        await until(lambda: len(work.claims.polls._polls) == 3)
        for one in waiting:
            one.cancel()
    tasks = [task() for _ in range(6)]
    for one in tasks:
        await work.submitter.submit(one)
    for _ in tasks:
        held = await claim(work)
        await work.claims.complete(held.token, None)
    for one in tasks:
        assert (await ended(work, one.run)).state == "completed"


async def test_what_was_given_to_who_hung_up_goes_to_the_next(bench):
    """The worst moment: the task is in hand, and nobody is there to be told of it."""
    work = await bench.room(lease_s=60.0)
    given: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    polls = work.claims.polls

    async def gathered(_poll: Any) -> None:
        given.set_result(None)
        await asyncio.Event().wait()

    one = task()
    await work.submitter.submit(one)
    usual, polls._gathered = polls._gathered, gathered
    async with asyncio.TaskGroup() as group:
        waiting = group.create_task(work.claims.claim(agent(), lease_s=600, wait_s=50, held_max=100))
        await given
        waiting.cancel()
    polls._gathered = usual
    held = await claim(work, agent("next"))
    assert (held.task.run, held.claim.delivery) == (one.run, 2)
    assert len(await facts(work, one.run, "released")) == 1
    await work.claims.complete(held.token, None)
    assert (await ended(work, one.run)).agent == "next"


@pytest.mark.timeout(240)
async def test_a_crowd_that_hangs_up_at_random_loses_nothing(bench):
    work = await bench.room()
    tasks = {one.run for one in (task() for _ in range(150))}
    done: set[str] = set()

    async def labour(number: int) -> None:
        while len(done) < len(tasks):
            try:
                async with asyncio.timeout(
                    0.05 * number if number % 4 else None
                ):  # three of four are cut off somewhere
                    found = await work.claims.claim(agent(count=3), lease_s=30, wait_s=5, held_max=1000)
            except TimeoutError:
                continue
            for held in found:
                said = await work.claims.complete(held.token, None)
                assert not said.already
                done.add(held.task.run)

    async with asyncio.timeout(200), asyncio.TaskGroup() as group:
        for number in range(20):
            group.create_task(labour(number))
        for run in tasks:
            group.create_task(work.submitter.submit(task(run=run, retry=Retry(max_crashes=100))))
    assert done == tasks
    for run in tasks:
        assert (await ended(work, run)).state == "completed"


async def test_of_many_claims_at_a_time_one_that_another_has_harms_none(bench):
    """They go to disk as one batch, which the server refuses whole for the sake of one: then each goes by itself."""
    work, other = await bench.room("here"), await bench.room("there")
    tasks = [task(value=number) for number in range(40)]
    seized = leases.fresh(
        tasks[17], pulls.Delivery("", b"", "$JS.ACK.t.c.1.1.1.1.0", "", 1, 1, 0, 0), worker="desk", node="there",
        lease_s=60.0, left_s=None,
    )  # fmt: skip
    assert await other.claims.leases.give(seized) is None
    for one in tasks:
        await work.submitter.submit(one)
    held: list[Claimed] = []
    async with asyncio.timeout(SOON_S):
        while len(held) < len(tasks) - 1:
            held += await work.claims.claim(agent(count=40), lease_s=60, wait_s=1, held_max=1000)
    assert {one.task.run for one in held} == {one.run for one in tasks} - {tasks[17].run}
    standing, _ = await work.claims.leases.read(tasks[17].run, "task")
    assert (standing.id, standing.worker) == (seized.id, "desk")
    async with asyncio.TaskGroup() as group:
        said = [group.create_task(work.claims.complete(one.token, "ok")) for one in held]
    assert not any(one.result().already for one in said)
    assert work.claims.leases._writer.batches, "the ends of so many share a write"
    for one in held:
        assert (await ended(work, one.task.run)).agent == "laptop"
        standing, _ = await work.claims.leases.read(one.task.run, "task")
        assert standing.over == "said"


# -- nodes that go away --------------------------------------------------------------------------------------------------


async def test_a_claim_holds_on_any_node_and_when_its_own_is_gone(bench):
    there = await bench.room("there", lease_s=1.0)
    one = task()
    await there.submitter.submit(one)
    async with passing(bench, "here", lease_s=1.0) as here:
        held = await claim(here, lease_s=120)
        assert await nothing(there)
        await there.claims.report(held.token, 10, "told elsewhere")
    # its keeper is gone: the delivery comes again, and whoever gets it keeps it for the agent
    async with asyncio.timeout(SOON_S * 2):
        while not any(kept.claim.node == "there" for kept in there.claims.keeper._kept.values()):
            assert await there.claims.claim(agent("thief"), lease_s=60, wait_s=1, held_max=10) == []
    (kept,) = there.claims.keeper._kept.values()
    assert (kept.claim.node, kept.claim.worker, kept.claim.id) == ("there", "laptop", held.claim.id)
    assert kept.claim.reply != held.claim.reply
    assert not (await there.claims.complete(held.token, "ok")).already
    assert (await ended(there, one.run)).agent == "laptop"
    assert await nothing(there)


async def test_a_node_that_dies_before_it_records_that_a_task_is_begun(bench, monkeypatch):
    """The claim is on disk, and what others see of it is not: whoever keeps it next puts that on record."""
    monkeypatch.setattr(lasting, "LONG_S", 3600.0)
    there = await bench.room("there", lease_s=1.0)
    one = task()
    await there.submitter.submit(one)
    async with passing(bench, "here", lease_s=1.0) as here:
        held = await claim(here, lease_s=120)
        assert (await there.look(one.run)).started.node == "here", "anybody knows it from the claim"
    monkeypatch.undo()
    assert await facts(there, one.run, "started") == []
    async with asyncio.timeout(SOON_S * 2):
        while not await facts(there, one.run, "started"):
            assert await there.claims.claim(agent("thief"), lease_s=60, wait_s=1, held_max=10) == []
    sight = await there.look(one.run)
    assert (sight.state, sight.started.node, sight.started.agent) == ("running", "there", "laptop")
    assert not (await there.claims.complete(held.token, "ok")).already
    assert (await ended(there, one.run)).delivery == 1


async def test_a_hosted_agent_that_is_given_a_held_task_leaves_it(bench, tmp_path):
    there = await bench.room("there", lease_s=1.0, do={})
    one = task("held", value={"touch": str(tmp_path / "stolen")})
    async with passing(bench, "here", lease_s=1.0) as here:
        await here.submitter.submit(one)
        held = await claim(here, agent("laptop", "held"), lease_s=120)
    thief = await bench.room("thief", lease_s=1.0, held={})
    await until(lambda: any(kept.claim.node == "thief" for kept in thief.claims.keeper._kept.values()))
    await there.claims.complete(held.token, None)
    assert (await ended(there, one.run)).agent == "laptop"
    assert not (tmp_path / "stolen").exists()


async def test_the_node_comes_back_and_keeps_on(bench):
    one = task()
    async with passing(bench, "here", lease_s=2.0) as here:
        await here.submitter.submit(one)
        held = await claim(here, lease_s=60)
    back = await bench.room("here", lease_s=2.0)
    await until(lambda: back.claims.keeper._kept)
    assert await back.claims.claim(agent("other"), lease_s=60, wait_s=5, held_max=10) == [], "it is kept alive again"
    await back.claims.complete(held.token, None)
    assert (await ended(back, one.run)).delivery == 1


async def test_speaking_to_another_node_makes_it_the_keeper(bench):
    here, there = await bench.room("here"), await bench.room("there")
    one = task()
    await here.submitter.submit(one)
    held = await claim(here)
    assert (await there.claims.extend(held.token, 30)).node == "there"
    (key,) = there.claims.keeper._kept
    await until(lambda: here.claims.keeper._kept[key].claim.node == "there")
    with here.attached.line(agent()) as notices:  # the line is here, the keeper there
        await there.end(one.run, "cancelled", KnotworkError("No.", code="work.cancelled"))
        async with asyncio.timeout(SOON_S):
            assert (await anext(notices)).why == "ended"
        await notices.aclose()


async def test_the_server_is_killed_while_a_task_is_held(bench):
    work = await bench.room(lease_s=1.0)
    tasks = [task() for _ in range(5)]
    for one in tasks:
        await work.submitter.submit(one)
    held = await work.claims.claim(agent(count=5), lease_s=120, wait_s=SOON_S, held_max=10)
    while len(held) < 5:
        held += await work.claims.claim(agent(count=5), lease_s=120, wait_s=SOON_S, held_max=10)
    before = work._connection.reconnects
    await bench.kill_server()
    await until(lambda: work._connection.reconnects > before)

    async def stolen() -> list[Claimed]:
        return await work.claims.claim(agent("thief"), lease_s=30, wait_s=3, held_max=10)

    assert await stolen() == []
    for one in held:
        assert not (await work.claims.complete(one.token, "ok")).already
    for one in tasks:
        assert (await ended(work, one.run)).agent == "laptop"
    assert await stolen() == []


async def test_a_draining_node_gives_nothing_out(bench):
    work = await bench.room()
    work.claims._draining = lambda: True
    with pytest.raises(Unavailable) as caught:
        await claim(work)
    assert caught.value.code == "node.draining"


# -- words that are not true ---------------------------------------------------------------------------------------------


async def test_tokens_of_another_project_and_of_nobody(bench):
    work = await bench.room()
    one = task()
    await work.submitter.submit(one)
    held = await claim(work)
    ticket = work.claims._seal.open(held.token)
    forged = [
        "", "x", held.token[:-1], held.token + "A", held.token.replace("kc1", "kc2"), "kc1.." , "é" * 100, "x" * 10_000,
        tickets.Seal("other", b"f" * 64).close(ticket), tickets.Seal("default", b"0" * 64).close(ticket),
    ]  # fmt: skip
    for token in forged:
        assert await refused(work.claims.complete(token, None)) == "claim.invalid"
        assert await refused(work.claims.extend(token, 60)) == "claim.invalid"
    with pytest.raises(KnotworkError) as caught:
        work.claims.check(held.token, "t0000000000000000")
    assert caught.value.code == "claim.invalid"
    assert not (await work.claims.complete(held.token, None)).already


async def test_all_nodes_make_one_secret(bench):
    rooms = [await bench.room(name) for name in ("a", "b")]
    async with asyncio.TaskGroup() as group:
        made = [group.create_task(tickets.open_seal(rooms[0]._connection, "default")) for _ in range(20)]
    tokens = {seal.result()._key for seal in made} | {room.claims._seal._key for room in rooms}
    assert len(tokens) == 1
    bucket = kv.Bucket(rooms[0]._connection, subjects.SETTINGS)
    await bucket.put(tickets.KEY, b"short")
    assert await refused(tickets.open_seal(rooms[0]._connection, "default")) == "claim.bad_secret"


@pytest.mark.parametrize(
    "garbage",
    [b"", b"{}", b"[1]", b"\xff\xfe", b'{"id":"x"}', b"nonsense"],
    ids=["none", "empty", "list", "raw", "part", "text"],
)
async def test_garbage_in_place_of_a_claim_harms_nobody(bench, garbage):
    work = await bench.room()
    one = task()
    await kv.Bucket(work._connection, subjects.LEASES).put(leases.key(one.run, "task"), garbage)
    await work.submitter.submit(one)
    held = await claim(work)
    await kv.Bucket(work._connection, subjects.LEASES).put(leases.key(one.run, "task"), garbage)
    assert await refused(work.claims.complete(held.token, None)) == "claim.expired", (
        "nobody knows of the claim any more"
    )
    info = await streams.api(work._connection, "STREAM.INFO.TASKS")
    assert info["state"]["messages"] == 1, "the task is not lost"


async def test_a_record_cannot_make_a_node_publish_anywhere(bench):
    """Whoever writes LEASES chooses where we send signs of life: nothing but an acknowledgement may be meant."""
    work = await bench.room()
    await work.submitter.submit(task())
    held = await claim(work)
    heard: list[str] = []
    await work._connection.listen("evil.>", lambda message: heard.append(message.subject))
    for reply in ("evil.place", "$JS.API.STREAM.DELETE.FACTS", "$JS.ACK.TASKS.a b", "$JS.ACK.>"):
        fake = json.loads(records.encode(held.claim)) | {"reply": reply, "id": "f" * 16}
        with pytest.raises(KnotworkError):
            leases.decode(json.dumps(fake).encode())
        await kv.Bucket(work._connection, subjects.LEASES).put(held.claim.key, json.dumps(fake).encode())
    await work._connection.round_trip()
    await until(lambda: not heard)
    assert (await streams.api(work._connection, "STREAM.INFO.FACTS"))["config"]["name"] == "FACTS"


async def test_words_made_by_hand_with_a_members_credentials(bench):
    """Outcomes, acknowledgements and garbage straight on the subjects: one outcome stands, and it is a whole one."""
    work = await bench.room()
    one = task()
    await work.submitter.submit(one)
    held = await claim(work)
    place = records.outcome_subject(one.run, "task", 0, 1)
    await publisher.publish(work._connection, place, b"garbage")
    work._connection.send(held.claim.reply, pulls.ACK)
    assert not (await work.claims.complete(held.token, "true")).already
    stored = await reading.last(work._connection, subjects.FACTS, place)
    assert bytes(records.decode_outcome(stored.data).output) == b'"true"'
    with pytest.raises(KnotworkError):
        await publisher.publish(work._connection, place, b"later")
    assert bytes((await ended(work, one.run)).output) == b'"true"'


async def test_nothing_is_left_behind(bench):
    work = await bench.room()
    for number in range(20):
        await work.submitter.submit(task(value=number))
    for number in range(20):
        held = await claim(work)
        if number % 2:
            await work.claims.save(held.token, number)
        await work.claims.complete(held.token, None)
    assert not work.claims.keeper._kept
    assert not work.claims.polls._polls
    assert not +work.claims.polls.taking._reserved

    async def gone() -> bool:
        found = await kv.Bucket(work._connection, subjects.CHECKPOINTS).all()
        return not any(entry.value for entry in found.values())

    await until(gone)
    await until(lambda: work.depths and work.depths[0].taken == 0)

    async def purged() -> bool:
        return (await streams.api(work._connection, "STREAM.INFO.TASKS"))["state"]["messages"] == 0

    await until(purged)
