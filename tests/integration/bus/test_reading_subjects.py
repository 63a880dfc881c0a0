"""The names of what stands in a stream, of more than the server tells in one answer."""

from __future__ import annotations

from knotwork.bus import publisher, reading, streams

COUNT = 100_003


async def test_all_of_many_subjects_are_told(server, connect):
    connection = await connect(server.url)
    await streams.ensure(connection, streams.StreamSpec("MANY", ("many.>",), {"storage": "memory"}))
    await publisher.publish_many(connection, [(f"many.{number}", b"", b"") for number in range(COUNT)])
    found = await reading.subjects_of(connection, "MANY", "many.>")
    assert len(found) == len(set(found)) == await reading.count_from(connection, "MANY", "many.>", 1) == COUNT
    assert await reading.subjects_of(connection, "MANY", "none.>") == []
