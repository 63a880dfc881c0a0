"""No cancellation, wherever it strikes, may hurt the connection or leave something behind."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable

import pytest

from knotwork.bus import publisher, streams
from knotwork.bus.connection import Connection, open_connection
from knotwork.bus.endpoint import Endpoint
from knotwork.sdk.errors import TimedOut, Unreachable

STEPS = 40
"""Turns of the event loop after which a cancellation strikes: more than any of these needs."""


async def strike(work: Callable[[], Awaitable[object]], turns: int) -> bool:
    """Start `work`, cancel it after so many turns of the loop; return whether it had ended by itself."""
    ended = False

    async def run() -> None:
        nonlocal ended
        await work()
        ended = True

    async with asyncio.TaskGroup() as group:
        task = group.create_task(run())
        for _ in range(turns):
            await asyncio.sleep(0)
        task.cancel()
    return ended


async def works(connection: Connection) -> None:
    """Ask somebody; raises when the connection does not live."""
    await connection.round_trip(timeout_s=30.0)
    assert (await connection.request("echo", b"hello", timeout_s=30.0)).data == b"hello"


@pytest.fixture
async def echo(server, connect):
    other = await connect(server.url)
    await other.listen("echo", lambda message: other.send(message.reply, message.data))
    await other.listen("silence", lambda message: None)
    await streams.ensure(other, streams.StreamSpec("S", ("s.>",)))
    return other


@pytest.mark.parametrize("what", ["request", "silence", "round_trip", "listen", "publish", "publish_many"])
async def test_a_connection_survives_a_cancel_at_every_moment(server, connect, echo, what):
    connection = await connect(server.url)

    async def listen() -> None:
        listening = await connection.listen("x", lambda message: None)
        connection.unlisten(listening)

    work = {
        "request": lambda: connection.request("echo", b"x"),
        "silence": lambda: connection.request("silence", b"x"),
        "round_trip": connection.round_trip,
        "listen": listen,
        "publish": lambda: publisher.publish(connection, "s.1", b"x"),
        "publish_many": lambda: publisher.publish_many(connection, [("s.1", b"x", b"")] * 50, window=3),
    }[what]
    for turns in range(STEPS):
        await strike(work, turns)
        assert connection.state == "connected"
    await works(connection)
    assert connection.reconnects == 0
    assert len(connection._inbox) == 0
    assert [listening.subject for listening in connection._listening if listening.subject == "x"] == []


async def test_what_was_listened_to_in_vain_is_not_served(server, connect, echo, until):
    connection = await connect(server.url)
    heard: list[bytes] = []
    for turns in range(STEPS):
        await strike(lambda: connection.listen("mine", lambda message: heard.append(message.data)), turns)
    kept = sum(listening.subject == "mine" for listening in connection._listening)
    await connection.round_trip()
    echo.send("mine", b"1")
    await echo.round_trip()
    await connection.round_trip()
    assert len(heard) == kept
    assert kept < STEPS


async def test_a_cancelled_start_leaves_nothing_behind(server):
    before = set(asyncio.all_tasks())

    async def open_and_close() -> None:
        async with open_connection(Endpoint((server.url,))):
            pass

    ends = [await strike(open_and_close, turns) for turns in range(60)]
    assert not ends[0]
    async with asyncio.timeout(30):
        while set(asyncio.all_tasks()) - before:
            await asyncio.sleep(0.01)


async def test_a_cancelled_close_still_ends(server, connect):
    async with asyncio.timeout(60):
        for turns in range(20):
            closing = asyncio.Event()

            async def open_and_close(closing: asyncio.Event = closing) -> None:
                async with open_connection(Endpoint((server.url,))):
                    closing.set()

            async with asyncio.TaskGroup() as group:
                task = group.create_task(open_and_close())
                await closing.wait()
                for _ in range(turns):
                    await asyncio.sleep(0)
                task.cancel()


async def test_a_request_without_an_answer_times_out(server, connect, echo):
    connection = await connect(server.url)
    with pytest.raises(TimedOut) as caught:
        await connection.request("silence", timeout_s=0.1)
    assert caught.value.code == "bus.no_answer"
    assert len(connection._inbox) == 0


async def test_nobody_listening_is_told_at_once(server, connect):
    connection = await connect(server.url)
    async with asyncio.timeout(30):
        with pytest.raises(Unreachable) as caught:
            await connection.request("nobody", timeout_s=300.0)
    assert caught.value.code == "bus.no_responders"


async def test_a_handler_that_raises_hurts_nobody(server, connect, echo, caplog):
    connection = await connect(server.url)

    def broken(message) -> None:
        raise ValueError(message.subject)

    await connection.listen("broken", broken)
    with contextlib.suppress(TimedOut):
        await connection.request("broken", timeout_s=0.05)
    await works(connection)
    assert "handler of broken failed" in caplog.text


async def test_messages_keep_their_order_from_the_first_on(server, connect, echo):
    """A message that arrives while the subscription is being made must not be overtaken by later ones."""
    connection = await connect(server.url)
    for number in range(20):
        heard: list[int] = []

        async def flood(subject: str) -> None:
            for one in range(200):
                echo.send(subject, b"%d" % one)
                if one % 10 == 0:
                    await asyncio.sleep(0)

        async with asyncio.TaskGroup() as group:
            group.create_task(flood(f"order.{number}"))
            await connection.listen(f"order.{number}", lambda message, heard=heard: heard.append(int(message.data)))
        await echo.round_trip()
        await connection.round_trip()
        assert heard == sorted(heard)
