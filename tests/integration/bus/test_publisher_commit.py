"""Nothing that was acknowledged is lost, each append gets its own answer, and nobody waits for ever."""

from __future__ import annotations

import asyncio
import contextlib
import random

import pytest

from knotwork.bus import commit, publisher, streams
from knotwork.bus.commit import open_group_commit
from knotwork.sdk.errors import Conflict, Invalid, KnotworkError, TooLarge, Unavailable, Unreachable

FACTS = {
    "max_msgs_per_subject": 1,
    "discard": "new",
    "discard_new_per_subject": True,
    "allow_atomic": True,
}


async def facts(connection, name: str = "FACTS", subject: str = "run.>", **settings):
    await streams.ensure(connection, streams.StreamSpec(name, (subject,), {**FACTS, **settings}))


async def stored(connection, name: str = "FACTS") -> int:
    return int((await streams.api(connection, f"STREAM.INFO.{name}"))["state"]["messages"])


@pytest.fixture
async def connection(server, connect):
    made = await connect(server.url)
    await facts(made)
    return made


async def test_a_refusal_says_what_it_is(connection):
    first = await publisher.publish(connection, "run.a", b"1")
    assert (first.stream, first.seq) == ("FACTS", 1)
    with pytest.raises(Conflict) as caught:
        await publisher.publish(connection, "run.a", b"2")
    assert caught.value.code == "bus.exists"
    with pytest.raises(Conflict) as caught:
        await publisher.publish(connection, "run.b", b"2", head=publisher.head(publisher.expect_revision(7)))
    assert caught.value.code == "bus.wrong_revision"
    with pytest.raises(Unreachable) as unreachable:
        await publisher.publish(connection, "nostream", b"")
    assert unreachable.value.code == "bus.no_stream"
    await facts(
        connection,
        "TINY",
        "tiny.>",
        max_msgs=2,
        max_msg_size=100,
        max_msgs_per_subject=-1,
        discard_new_per_subject=False,
    )
    with pytest.raises(TooLarge) as large:
        await publisher.publish(connection, "tiny.a", bytes(200))
    assert large.value.code == "bus.message_too_large"
    for _ in range(2):
        await publisher.publish(connection, "tiny.a", b"")
    with pytest.raises(Unavailable) as full:
        await publisher.publish(connection, "tiny.a", b"")
    assert full.value.code == "bus.stream_full"
    assert full.value.retriable


async def test_many_get_their_own_answers_in_order(connection):
    await publisher.publish(connection, "run.5", b"")
    answers = await publisher.publish_many(connection, [(f"run.{n}", b"x", b"") for n in range(50)], window=7)
    assert isinstance(answers[5], Conflict)
    assert [answer.seq for n, answer in enumerate(answers) if n != 5] == list(range(2, 51))
    assert await publisher.publish_many(connection, []) == []
    assert len(connection._inbox) == 0


async def test_what_is_under_way_fails_at_once_when_the_server_dies(server, connection, until):
    server.freeze()
    batch = [(f"run.{n}", b"x", b"") for n in range(20)]
    async with asyncio.timeout(60), asyncio.TaskGroup() as group:
        many = group.create_task(publisher.publish_many(connection, batch, timeout_s=300))
        one = group.create_task(_outcome(publisher.publish(connection, "run.x", b"", timeout_s=300)))
        asked = group.create_task(_outcome(streams.api(connection, "STREAM.INFO.FACTS", timeout_s=300)))
        await asyncio.sleep(0)
        await until(lambda: len(connection._inbox) >= 22)
        await server.kill()
    assert {answer.code for answer in many.result()} == {"bus.lost"}
    assert one.result().code == asked.result().code == "bus.lost"
    assert len(connection._inbox) == 0
    assert not connection._on_down


async def _outcome(work):
    try:
        return await work
    except KnotworkError as error:
        return error


async def test_no_answer_is_not_called_unsent(server, connection):
    server.freeze()
    try:
        answers = await publisher.publish_many(
            connection, [(f"run.{n}", b"", b"") for n in range(4)], window=2, timeout_s=0.1
        )
    finally:
        server.thaw()
    assert [answer.code for answer in answers] == ["bus.no_answer", "bus.no_answer", "bus.not_sent", "bus.not_sent"]


async def test_a_lone_fact_goes_out_at_once(connection):
    async with open_group_commit(connection) as writer:
        ack = await writer.append("run.lone", b"1")
        assert (ack.seq, writer.singles, writer.batches) == (1, 1, 0)


async def test_many_facts_share_few_writes(connection):
    async with open_group_commit(connection) as writer:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(writer.append(f"run.{n}", b"%d" % n)) for n in range(3000)]
        seqs = [task.result().seq for task in tasks]
        assert sorted(seqs) == list(range(1, 3001))
        assert 3 <= writer.batches <= 8
        for n in (0, 1, 1500, 2999):  # the answer names the place where it is
            message = await streams.api(connection, "STREAM.MSG.GET.FACTS", {"seq": seqs[n]})
            assert message["message"]["subject"] == f"run.{n}"


async def test_a_batch_waits_for_who_comes_back_and_for_nobody_else(connection, monkeypatch):
    """With 64 who come back at once, none of them waits for two batches; and who is alone then is not left waiting."""
    async with open_group_commit(connection, returning=True) as writer:

        async def loop(worker: int) -> list[int]:
            return [(await writer.append(f"run.{worker}.{number}", b"")).seq for number in range(10)]

        monkeypatch.setattr(commit, "GATHER_MAX_S", 30.0)
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(loop(worker)) for worker in range(64)]
        assert sorted(seq for task in tasks for seq in task.result()) == list(range(1, 641))
        assert writer.batches <= 15, "ten, when nobody is late"
        async with asyncio.timeout(30):
            assert (await writer.append("run.alone", b"")).seq == 641


async def test_a_duplicate_inside_a_batch_hurts_nobody_else(connection):
    async with open_group_commit(connection) as writer:
        await writer.append("run.7", b"first")
        async with asyncio.TaskGroup() as group:
            names = [*range(50), 20, 20]
            tasks = [group.create_task(_outcome(writer.append(f"run.{n}", b"x"))) for n in names]
        outcomes = [task.result() for task in tasks]
        refused = [n for n, outcome in zip(names, outcomes, strict=True) if isinstance(outcome, Conflict)]
        assert sorted(refused) == [7, 20, 20]
        assert all(isinstance(one, Conflict | publisher.Ack) for one in outcomes)
        assert await stored(connection) == 50


async def test_a_cancelled_append_takes_no_other_with_it(connection):
    async with open_group_commit(connection) as writer, asyncio.TaskGroup() as group:
        tasks = [group.create_task(writer.append(f"run.{n}", b"x")) for n in range(400)]
        for turn in range(20):
            for task in tasks[turn::20][:7]:
                task.cancel()
            await asyncio.sleep(0)
        left = [task for task in tasks if not task.cancelled()]
        for task in left:
            with contextlib.suppress(asyncio.CancelledError):
                await task
    kept = [task for task in tasks if not task.cancelled()]
    assert len(kept) >= 400 - 140
    assert len({task.result().seq for task in kept}) == len(kept)


async def test_too_many_and_too_large_are_refused(connection):
    writer = commit.GroupCommit(connection, waiting_max=10)  # nobody writes
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(_outcome(writer.append(f"run.{n}", b""))) for n in range(15)]
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        writer.close()
    codes = [task.result().code for task in tasks]
    assert codes == ["bus.closed"] * 10 + ["bus.commit_full"] * 5
    async with open_group_commit(connection) as open_writer:
        with pytest.raises(TooLarge):
            await open_writer.append("run.large", bytes(connection.max_payload + 1))
        async with asyncio.TaskGroup() as group:  # the head makes one of them too large: the others are stored
            sized = [
                group.create_task(
                    _outcome(open_writer.append(f"run.s{n}", bytes(connection.max_payload if n == 9 else 1)))
                )
                for n in range(20)
            ]
        assert [isinstance(task.result(), publisher.Ack) for task in sized].count(False) <= 1


async def test_closing_fails_whoever_waits(server, connection, until):
    server.freeze()
    try:
        async with asyncio.TaskGroup() as group, open_group_commit(connection) as writer:
            tasks = [group.create_task(_outcome(writer.append(f"run.{n}", b""))) for n in range(30)]
            await until(lambda: writer._writing)
            tasks.append(group.create_task(_outcome(writer.append("run.late", b""))))
            await asyncio.sleep(0)
        assert {task.result().code for task in tasks} == {"bus.closed"}
    finally:
        server.thaw()
    with pytest.raises(Unreachable):
        async with asyncio.timeout(30):
            await writer.append("run.after", b"")


async def test_a_stream_that_takes_no_batches_is_still_written(connection):
    await facts(connection, "PLAIN", "plain.>", allow_atomic=False)
    async with open_group_commit(connection) as writer, asyncio.TaskGroup() as group:
        tasks = [group.create_task(_outcome(writer.append(f"plain.{n}", b""))) for n in range(40)]
    assert await stored(connection, "PLAIN") == 40
    assert all(isinstance(task.result(), publisher.Ack) for task in tasks)


async def test_what_cannot_be_a_header_is_refused(connection):
    """A fact with a header that would end early must not take its batch with it."""
    async with open_group_commit(connection) as writer, asyncio.TaskGroup() as group:
        tasks = [
            group.create_task(
                _outcome(writer.append(f"run.{n}", b"", ("A", "b\r\nNats-Rollup: all" if n == 3 else "b")))
            )
            for n in range(20)
        ]
    outcomes = [task.result() for task in tasks]
    assert isinstance(outcomes[3], Invalid)
    assert sum(isinstance(one, publisher.Ack) for one in outcomes) == 19


async def _kills(make_server, connect, until, rounds: int, *, returning: bool = False) -> None:
    server = await make_server(sync_always=True)
    connection = await connect(server.url)
    await facts(connection)
    acked: dict[str, int] = {}
    stop = asyncio.Event()
    outcomes = {"unknown": 0}
    chance = random.Random(7)

    async def load(writer, worker: int) -> None:
        number = 0
        while not stop.is_set():
            subject = f"run.{worker}.{number}"
            number += 1
            try:
                acked[subject] = (await writer.append(subject, b"x" * 50)).seq
            except Conflict as error:
                raise AssertionError(f"{subject} was never written twice: {error}") from error
            except KnotworkError:
                outcomes["unknown"] += 1
                await asyncio.sleep(0.01)

    async with open_group_commit(connection, returning=returning) as writer, asyncio.TaskGroup() as group:
        for worker in range(40):
            group.create_task(load(writer, worker))
        for _ in range(rounds):
            before = len(acked)
            await until(lambda before=before: len(acked) > before + 200)
            await asyncio.sleep(chance.random() * 0.02)
            await server.kill()
            await server.start()
        stop.set()
    await until(lambda: connection.state == "connected")
    assert writer.batches > 0
    assert outcomes["unknown"] > 0
    count = await stored(connection)
    assert count >= len(acked)
    there: dict[str, int] = {}
    listening = await connection.listen(
        "_INBOX.all", lambda message: there.update({message.subject: int(message.reply.split(".")[5])})
    )
    await streams.api(
        connection,
        "CONSUMER.CREATE.FACTS",
        {
            "stream_name": "FACTS",
            "config": {"deliver_subject": "_INBOX.all", "deliver_policy": "all", "ack_policy": "none"},
        },
    )
    await until(lambda: len(there) >= count)  # with those that nobody was told of
    connection.unlisten(listening)
    assert [subject for subject, seq in acked.items() if there.get(subject) != seq] == []


@pytest.mark.parametrize("returning", [False, True])
async def test_no_acknowledged_fact_is_lost_when_the_server_is_killed(make_server, connect, until, returning):
    await _kills(make_server, connect, until, rounds=4, returning=returning)


@pytest.mark.slow
async def test_no_acknowledged_fact_is_lost_in_twenty_kills(make_server, connect, until):
    await _kills(make_server, connect, until, rounds=20)
