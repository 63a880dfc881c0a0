"""What stands in a stream, when that is more than the server tells in one answer, or sends to one reader at a time."""

from __future__ import annotations

import asyncio

from knotwork.bus import publisher, reading, streams

COUNT = 100_003


async def test_all_of_many_subjects_are_told(server, connect):
    connection = await connect(server.url)
    await streams.ensure(connection, streams.StreamSpec("MANY", ("many.>",), {"storage": "memory"}))
    await publisher.publish_many(connection, [(f"many.{number}", b"", b"") for number in range(COUNT)])
    found = await reading.subjects_of(connection, "MANY", "many.>")
    assert len(found) == len(set(found)) == await reading.count_from(connection, "MANY", "many.>", 1) == COUNT
    assert await reading.subjects_of(connection, "MANY", "none.>") == []


async def test_many_who_read_large_messages_at_a_time_do_not_lose_the_connection(make_server, connect):
    connection = await connect((await make_server("max_payload: 8MB")).url)
    await streams.ensure(connection, streams.StreamSpec("LARGE", ("large.>",), {"storage": "memory"}))
    for number in range(3):
        await publisher.publish(connection, f"large.{number}", bytes(7 * 1024 * 1024))
    async with asyncio.TaskGroup() as group:
        reads = [
            group.create_task(reading.batch(connection, "LARGE", "large.>", 1, 3, timeout_s=60)) for _ in range(16)
        ]
    assert {len(read.result()) for read in reads} == {2}
    assert connection.reconnects == 0
