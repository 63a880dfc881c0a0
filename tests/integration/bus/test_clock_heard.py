"""From which answers of the server is the time of now taken? From none that was written down before."""

from __future__ import annotations

import asyncio

from knotwork.bus import clock, pulls, streams


async def test_making_a_consumer_that_is_there_sets_no_clock_back(server, connect, monkeypatch):
    connection = await connect(server.url)
    heard: list[tuple[int, int, int]] = []
    monkeypatch.setattr(clock.SHARED, "heard", lambda *told: heard.append(told))
    await streams.ensure(connection, streams.StreamSpec("S", ("s.>",), {}))
    for _ in range(2):
        await pulls.ensure_consumer(connection, "S", "c", {"ack_wait": streams.NS})
        await asyncio.sleep(0.3)  # so that the consumer is older than what is asked for next
    await streams.api(connection, "STREAM.INFO.S")
    await streams.api(connection, "CONSUMER.INFO.S.c")
    assert len(heard) >= 2
    for server_ns, asked, answered in heard:
        about_ns = clock.SHARED.at(asked), clock.SHARED.at(answered)
        assert about_ns[0] - 100_000_000 <= server_ns <= about_ns[1] + 100_000_000
