"""Large inputs and outputs on a real server: kept in BLOBS, handed on between attempts and nodes, refused when too large."""

from __future__ import annotations

import json

import msgspec
from tests.integration.work.conftest import ended, task, until

from knotwork.bus import blobs, reading, subjects
from knotwork.work import records
from knotwork.work.records import Retry

LARGE = {"text": "x" * (records.INLINE_MAX_BYTES + 10)}


async def with_input(work, value, **fields):
    """Return a task with a large input, as whoever submits makes it."""
    value, digest = await work.values.keep(json.dumps(value).encode())
    return msgspec.structs.replace(task(**fields), input=msgspec.Raw(value), blob=digest)


async def test_a_large_input_reaches_another_node_and_its_output_comes_back(bench):
    work = await bench.room("asks")
    await bench.worker("works", do={})
    one = await with_input(work, LARGE)
    assert one.blob
    assert len(records.encode(one)) < 2000
    await work.submitter.submit(one)
    outcome = await ended(work, one.run)
    assert (outcome.state, bytes(outcome.output)) == ("completed", b"null")
    assert json.loads(await work.values.read(bytes(outcome.output), outcome.blob)) == LARGE


async def test_a_small_one_stays_where_it_is(bench):
    work = await bench.room(do={})
    one = await with_input(work, {"small": 1})
    assert not one.blob
    await work.submitter.submit(one)
    outcome = await ended(work, one.run)
    assert (outcome.blob, bytes(outcome.output)) == ("", b'{"small":1}')
    assert await reading.count_from(work._connection, blobs.SPEC.name, "$O.BLOBS.>", 1) == 0


async def test_a_loop_hands_a_large_value_on(bench):
    work = await bench.room(do={})
    one = await with_input(work, {**LARGE, "loops": 2})
    await work.submitter.submit(one)
    outcome = await ended(work, one.run)
    assert (outcome.state, records.decode_task(bytes(outcome.task)).iteration) == ("completed", 2)
    assert json.loads(await work.values.read(bytes(outcome.output), outcome.blob)) == {**LARGE, "loops": 0}


async def test_a_retry_has_the_same_large_input(bench):
    work = await bench.room(do={})
    script = {**LARGE, "fail": {"message": "not yet", "retriable": True}, "fail_until": 3}
    one = await with_input(work, script, retry=Retry(max_attempts=5, delay_s=0.05, jitter=False))
    await work.submitter.submit(one)
    outcome = await ended(work, one.run)
    assert (outcome.state, records.decode_task(bytes(outcome.task)).number) == ("completed", 3)


async def test_an_input_that_is_gone_fails_the_task_and_says_so(bench):
    work = await bench.room(do={})
    one = msgspec.structs.replace(task(), blob="sha256-" + 64 * "0")
    await work.submitter.submit(one)
    outcome = await ended(work, one.run)
    assert (outcome.state, outcome.error["code"]) == ("failed", "blob.not_found")


async def test_an_output_that_is_too_large_fails_the_task(bench, monkeypatch):
    work = await bench.room(do={})
    one = await with_input(work, LARGE)
    monkeypatch.setattr(blobs, "SIZE_MAX_BYTES", 1000)  # the real limit is tested with the store itself
    await work.submitter.submit(one)
    outcome = await ended(work, one.run)
    assert (outcome.state, outcome.error["code"]) == ("failed", "blob.too_large")


async def test_a_cancel_while_the_input_is_fetched_never_begins_it(bench, tmp_path, monkeypatch):
    import asyncio

    from knotwork.sdk.errors import Cancelled

    work = await bench.room(do={})
    one = await with_input(work, {**LARGE, "touch": str(tmp_path / "began")})
    fetching, go_on = asyncio.Event(), asyncio.Event()
    real = work.values.blobs.get

    async def slow(digest):
        fetching.set()
        await go_on.wait()
        return await real(digest)

    monkeypatch.setattr(work.values.blobs, "get", slow)
    await work.submitter.submit(one)
    async with asyncio.timeout(30):
        await fetching.wait()
    assert (await work.end(one.run, "cancelled", Cancelled("no"))).state == "cancelled"
    await until(lambda: not work.worker.running)
    go_on.set()
    await until(lambda: reading_is_empty(work))
    assert not (tmp_path / "began").exists()
    assert (await work.find(one.run)).state == "cancelled"


async def reading_is_empty(work):
    return not await reading.batch(work._connection, subjects.TASKS, "task.>", 1, 1)
