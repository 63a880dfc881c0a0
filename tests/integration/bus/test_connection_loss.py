"""A lost connection comes back by itself, whatever way it was lost, and everything that listened listens again."""

from __future__ import annotations

import asyncio
import sys
import time

import pytest
from tests.integration.bus import raw_server

from knotwork.bus import away, endpoint, reading, streams, wire
from knotwork.bus.connection import open_connection
from knotwork.bus.endpoint import Endpoint
from knotwork.sdk.errors import KnotworkError, TooLarge, Unreachable

PING_S = 0.5
"""Two unanswered ones end a link: a busy machine must not be taken for a dead one."""


async def answering(connection, subject: str = "echo"):
    return await connection.listen(subject, lambda message: connection.send(message.reply, message.data))


async def test_a_killed_server_is_noticed_and_everything_is_restored(server, connect, until):
    states: list[str] = []
    connection = await connect(server.url, on_state=states.append)
    await answering(connection)
    ups: list[int] = []
    connection.on_up(lambda: ups.append(connection.reconnects))
    for round_ in range(1, 4):
        await server.kill()
        await until(lambda: connection.state == "reconnecting")
        with pytest.raises(Unreachable) as caught:
            connection.send("x", b"")
        assert caught.value.code == "bus.disconnected"
        assert caught.value.retry_after_s
        await server.start()
        await until(lambda: connection.state == "connected")
        assert (await connection.request("echo", b"x", timeout_s=30)).data == b"x"
        assert connection.reconnects >= round_  # more on a machine that stands still for seconds
    assert ups == list(range(1, len(ups) + 1))  # told once of each, in order
    assert states[:3] == ["connected", "reconnecting", "connected"]


async def test_a_long_read_does_not_wait_for_the_server_as_long_as_for_its_answer(server, connect, until, monkeypatch):
    connection = await connect(server.url)
    await server.kill()
    await until(lambda: connection.state == "reconnecting")
    monkeypatch.setattr(reading, "READ_TIMEOUT_S", 0.2)
    with pytest.raises(Unreachable) as caught:
        await reading.batch(connection, "FACTS", ">", 1, 10, timeout_s=3600)
    assert caught.value.code == "bus.disconnected"


async def test_a_request_waits_for_the_server_to_come_back(server, connect):
    connection = await connect(server.url)
    await answering(connection)
    await server.kill()
    async with asyncio.TaskGroup() as group:
        asked = group.create_task(connection.request("echo", b"patient", timeout_s=30.0))
        await server.start()
    assert asked.result().data == b"patient"


async def test_what_is_listened_to_while_away_is_served_afterwards(server, connect, until):
    connection = await connect(server.url)
    kept, dropped = await answering(connection, "kept"), await answering(connection, "dropped")
    await server.kill()
    await until(lambda: connection.state != "connected")
    late = await answering(connection, "late")
    connection.unlisten(dropped)
    await server.start()
    await until(lambda: connection.state == "connected")
    assert (await connection.request("kept", b"1", timeout_s=30)).data == b"1"
    assert (await connection.request("late", b"1", timeout_s=30)).data == b"1"
    with pytest.raises(Unreachable):
        await connection.request("dropped", timeout_s=30)
    connection.unlisten(late)
    connection.unlisten(late)
    connection.unlisten(kept)
    with pytest.raises(Unreachable):
        await connection.request("late", timeout_s=30)


async def test_a_half_open_link_is_noticed_by_pings(proxy, connect, until):
    connection = await connect(proxy.url, ping_s=PING_S)
    await answering(connection)
    for _ in range(2):
        proxy.stall()
        before = connection.reconnects
        await until(lambda before=before: connection.reconnects > before)
        assert (await connection.request("echo", b"x", timeout_s=30)).data == b"x"


async def test_a_half_open_link_with_much_to_send_is_left(proxy, connect, until):
    connection = await connect(proxy.url, ping_s=PING_S)
    await answering(connection)
    proxy.stall()
    for _ in range(30):
        connection.send("nobody", bytes(1_000_000))
    await until(lambda: connection.reconnects > 0)
    assert (await connection.request("echo", b"x", timeout_s=30)).data == b"x"


async def test_a_frozen_server_is_left_and_found_again(server, connect, until):
    connection = await connect(server.url, ping_s=PING_S, connect_timeout_s=1.0)
    await answering(connection)
    server.freeze()
    try:
        await until(lambda: connection.state == "reconnecting")
        with pytest.raises(Unreachable) as unsent:
            await connection.request("echo", timeout_s=0.2)
        assert unsent.value.code == "bus.disconnected"
    finally:
        server.thaw()
    await until(lambda: connection.state == "connected")
    assert (await connection.request("echo", b"x", timeout_s=30)).data == b"x"


async def test_a_link_that_is_cut_again_and_again_is_not_hammered(proxy, connect, until):
    connection = await connect(proxy.url, pause_min_s=0.1, pause_max_s=0.5)
    proxy.dead = True
    proxy.cut()
    accepted = proxy.accepted
    await until(lambda: proxy.accepted >= accepted + 4)
    start, begun_s = proxy.accepted, time.monotonic()
    await until(lambda: proxy.accepted >= start + 2)
    assert time.monotonic() - begun_s > 0.15
    proxy.dead = False
    await until(lambda: connection.state == "connected")


async def test_nats_away_at_the_start_is_told_or_waited_for(server, connect, until):
    await server.kill()
    with pytest.raises(Unreachable) as caught:
        await connect(server.url)
    assert caught.value.code == "bus.unreachable"
    assert "127.0.0.1" in caught.value.message
    states: list[str] = []
    connection = await connect(server.url, on_state=states.append, wait_first=False)
    assert connection.state in {"connecting", "reconnecting"}
    with pytest.raises(Unreachable):
        connection.send("x", b"")
    await until(lambda: connection.last_error != "")
    await server.start()
    await until(lambda: connection.state == "connected")
    assert states[:2] == ["reconnecting", "connected"]  # and again on a machine that stands still for seconds


async def test_nobody_waits_for_an_address_that_never_answers(connect):
    writers: list[asyncio.StreamWriter] = []
    silent = await asyncio.start_server(lambda _reader, writer: writers.append(writer), "127.0.0.1", 0)
    async with silent:
        port = silent.sockets[0].getsockname()[1]
        async with asyncio.timeout(30):
            connection = await connect(f"nats://127.0.0.1:{port}", wait_first=False, connect_timeout_s=300.0)
        assert connection.state == "connecting"
        with pytest.raises(Unreachable) as caught:
            await connect(f"nats://127.0.0.1:{port}", connect_timeout_s=0.2)
        assert caught.value.code == "bus.unreachable"
        for writer in writers:
            writer.transport.abort()
        await asyncio.sleep(0)


async def test_the_second_address_is_used_when_the_first_is_dead(server, make_server, until):
    other = await make_server()
    endpoint = Endpoint((server.url, other.url), pause_min_s=0.02, pause_max_s=0.1, connect_timeout_s=20.0)
    async with open_connection(endpoint) as connection:
        await answering(connection)
        await server.kill()
        await until(lambda: connection.reconnects == 1)
        assert (await connection.request("echo", b"x", timeout_s=30)).data == b"x"
        await other.kill()
        await server.start()
        await until(lambda: connection.reconnects == 2)
        assert (await connection.request("echo", b"x", timeout_s=30)).data == b"x"


async def test_too_large_a_message_is_refused_before_it_is_sent(make_server, connect):
    server = await make_server("max_payload: 1000")
    connection = await connect(server.url)
    await answering(connection)
    assert connection.max_payload == 1000
    with pytest.raises(TooLarge) as caught:
        connection.send("x", bytes(1001))
    assert caught.value.code == "bus.message_too_large"
    with pytest.raises(TooLarge):
        connection.send("x", bytes(990), "", wire.header(("A", "b")))
    assert len((await connection.request("echo", bytes(1000), timeout_s=30)).data) == 1000
    assert connection.reconnects == 0


async def test_what_waits_to_be_sent_is_bounded(proxy, connect, until):
    connection = await connect(proxy.url, ping_s=60)
    proxy.stall()
    sent = 0
    with pytest.raises(Unreachable) as caught:
        for _ in range(200):  # without a turn of the loop: nothing can leave
            connection.send("x", bytes(1_000_000))
            sent += 1
    assert caught.value.code == "bus.buffer_full"
    assert sent <= wire.BUFFER_MAX_BYTES // 1_000_000 + 2
    proxy.cut()
    await until(lambda: connection.reconnects == 1)
    await connection.round_trip()


async def test_hostile_bytes_do_not_end_the_connection(server, connect, until):
    """Subjects, replies and headers are bytes chosen by whoever sends; the server lets nearly all of them pass."""
    connection = await connect(server.url)
    heard: list[wire.Message] = []
    await connection.listen("agent.*", heard.append)
    await connection.round_trip()
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
    await reader.readline()
    writer.write(b'CONNECT {"verbose":false,"headers":true}\r\n')
    writer.write(b"PUB agent.\xff\xfe 2\r\nhi\r\n")
    writer.write(b"PUB agent.a \xff\xc0 2\r\nhi\r\n")
    writer.write(b"PUB agent.\x00\x01\x1b[2J 2\r\nhi\r\n")
    for block in (
        b"NATS/1.0\r\n\xff:\xfe\r\n\r\n",
        b"NATS/1.0 \xff\r\n\r\n",
        b"NATS/1.0\r\n:::\r\n\r\n",
        b"\xff\r\n\r\n",
    ):
        writer.write(b"HPUB agent.b %d %d\r\n%shi\r\n" % (len(block), len(block) + 2, block))
    writer.write(b"PUB agent." + b"x" * 3000 + b" 2\r\nhi\r\nPUB agent.last 2\r\nhi\r\n")
    await until(lambda: heard and heard[-1].subject == "agent.last")
    writer.close()
    assert len(heard) == 9
    assert connection.reconnects == 0
    await connection.round_trip()


async def test_a_closed_connection_says_so(server):
    async with open_connection(Endpoint((server.url,))) as connection:
        await connection.round_trip()
    assert connection.state == "closed"
    with pytest.raises(Unreachable):
        connection.send("x", b"")
    with pytest.raises(KnotworkError) as caught:
        await connection.request("x", timeout_s=1)
    assert caught.value.code == "bus.closed"


async def test_what_was_sent_before_the_end_arrives(server, connect, until):
    other = await connect(server.url)
    heard: list[bytes] = []
    await other.listen("last", lambda message: heard.append(message.data))
    await other.round_trip()
    async with open_connection(Endpoint((server.url,))) as connection:
        for number in range(100):
            connection.send("last", b"%d" % number)
    await until(lambda: len(heard) == 100)


async def test_an_error_of_the_block_comes_out_as_itself(server):
    with pytest.raises(ValueError, match="mine"):
        async with open_connection(Endpoint((server.url,))):
            raise ValueError("mine")


@pytest.mark.skipif(sys.platform == "win32", reason="uvloop")
def test_the_loop_a_node_runs_on_behaves_the_same(tmp_path):
    """Sockets of uvloop raise other things at other moments."""
    import uvloop

    raw = raw_server

    async def live() -> None:
        from knotwork.bus import child

        async with child.guard():
            server = raw.RawServer(tmp_path)
            await server.start()
            proxy = raw.Proxy(server.port)
            await proxy.start()
            endpoint = Endpoint((proxy.url,), pause_min_s=0.02, pause_max_s=0.1, ping_s=PING_S, connect_timeout_s=20)
            async with asyncio.timeout(120), open_connection(endpoint) as connection:
                await answering(connection)
                for harm in (proxy.stall, proxy.cut, server.kill, None):
                    before = connection.reconnects
                    if harm is not None:
                        done = harm()
                        if done is not None:
                            await done
                            await server.start()
                        while connection.reconnects == before:
                            await asyncio.sleep(0.01)
                    assert (await connection.request("echo", b"x", timeout_s=30)).data == b"x"
            await proxy.stop()
            await server.kill()

    uvloop.run(live())


@pytest.mark.parametrize("odd", [b"\x0b", b"\x0c", b"\x1c", b"\x85", b"\xa0", b"\xff" * 1500])
async def test_no_subject_that_the_server_lets_pass_ends_the_connection_or_reaches_another_listener(
    odd: bytes, server, connect
):
    connection = await connect(server.url)
    heard: list[tuple[str, bytes]] = []
    for subject in ("op.one", "op.two", "op.*"):

        def take(message: wire.Message, subject: str = subject) -> None:
            heard.append((subject, message.data))
            if message.reply:
                connection.send(message.reply, b"answered")

        await connection.listen(subject, take)
    await connection.round_trip(timeout_s=60)
    numbers = b"".join(b"PUB op.one%b%d 2\r\n{}\r\n" % (odd, number) for number in range(1, 6))
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
    try:
        writer.write(b'CONNECT {"verbose":false,"headers":true}\r\n')
        writer.write(numbers + b"PUB op.two _INBOX.a%bb 2\r\n{}\r\n" % odd)
        writer.write(b"HPUB op.two _INBOX.a%bb 12 14\r\nNATS/1.0\r\n\r\n{}\r\nPING\r\n" % odd)
        async with asyncio.timeout(60):
            while await reader.readline() != b"PONG\r\n":
                pass
    finally:
        writer.close()
    await connection.round_trip(timeout_s=60)
    assert connection.reconnects == 0, connection.last_error
    assert sorted(heard) == [("op.*", b"{}")] * 7 + [("op.two", b"{}")] * 2


async def test_what_was_not_sent_while_nats_was_away_is_told_so(server, connect, until):
    connection = await connect(server.url)
    assert connection.down_for_s() == 0
    await server.kill()
    await until(lambda: connection.state == "reconnecting")
    with pytest.raises(Unreachable) as caught:
        await streams.api(connection, "INFO", timeout_s=0.2)
    assert (caught.value.code, caught.value.retriable) == ("bus.disconnected", True)
    assert caught.value.hint
    assert "$JS" not in caught.value.message
    await until(lambda: connection.down_for_s() > away.BLINK_S)
    told = away.why_away(connection)
    assert told is not None
    assert told.code == "bus.disconnected"
    await server.start()
    await until(lambda: connection.state == "connected")
    assert away.why_away(connection) is None


def test_a_dead_link_is_noticed_within_ten_seconds():
    assert 3 * Endpoint(("nats://x:4222",)).ping_s <= 10  # two unanswered pings, and up to one before the first


async def test_each_reason_is_told_once_however_often_it_is_tried(server, connect, until, caplog):
    connection = await connect(server.url)
    await server.kill()
    tries = 0
    connected = endpoint.connect

    async def counted(*given):
        nonlocal tries
        tries += 1
        return await connected(*given)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(endpoint, "connect", counted)
        await until(lambda: tries > 5)
    told = [record for record in caplog.records if "cannot be reached" in record.message]
    assert connection.state == "reconnecting"
    assert 0 < len(told) < 4  # as many as there are reasons, not tries


async def test_a_server_without_jetstream_is_named(make_server, connect):
    connection = await connect((await make_server(jetstream=False)).url)
    with pytest.raises(Unreachable, match="JetStream does not answer") as caught:
        await streams.api(connection, "INFO")
    assert (caught.value.code, "enabled" in caught.value.hint) == ("bus.no_responders", True)
