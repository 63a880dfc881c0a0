"""Callers that take their time, on real sockets: who does not say what he wants is sent away, everybody else is not."""

from __future__ import annotations

import asyncio
import contextlib
import json

import pytest

from knotwork.web import patience, serve

TOKEN = "open-sesame"
HEAD = f"POST /api/agents/invoke HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer {TOKEN}\r\n".encode()
ASK = b"GET /livez HTTP/1.1\r\nhost: localhost\r\n\r\n"
WAIT_S = 30.0


@pytest.fixture
async def web(node, monkeypatch):
    monkeypatch.setattr(patience, "HEAD_TIMEOUT_S", 2.0)
    async with serve.run_web(serve.WebSettings(token=TOKEN), node) as door:
        yield door


@contextlib.asynccontextmanager
async def opened(web):
    reader, writer = await asyncio.open_connection("127.0.0.1", web.port)
    try:
        async with asyncio.timeout(WAIT_S):
            yield reader, writer
    finally:
        writer.close()


async def drip(writer, text: bytes) -> None:
    """Send a byte now and then, for ever."""
    with contextlib.suppress(OSError):
        while True:
            for byte in text:
                writer.write(bytes([byte]))
                await writer.drain()
                await asyncio.sleep(0.05)


async def dripped(writer, reader, text: bytes) -> bytes:
    """Return what came back until the end, while a byte of `text` is sent now and then.

    Nothing, when a byte that came behind the end has reset the link before the answer was read.
    """
    found = b""
    async with asyncio.TaskGroup() as group:
        dripping = group.create_task(drip(writer, text))
        with contextlib.suppress(ConnectionError):
            while piece := await reader.read(4096):
                found += piece
        dripping.cancel()
    return found


@pytest.mark.parametrize("begin", [b"GET /livez HTTP/1.1\r\nhost: localhost\r\nx-a: ", b"G", b"\r\n"])
async def test_a_head_that_never_ends_is_not_waited_for(web, begin):
    for _ in range(20):
        async with opened(web) as (reader, writer):
            writer.write(begin)
            if answer := await dripped(writer, reader, b"a"):
                break
    assert answer.startswith((b"HTTP/1.1 408 ", b"HTTP/1.1 400 ")), answer
    assert b"connection: close" in answer.lower()


async def test_a_caller_that_says_nothing_is_sent_away(web):
    async with opened(web) as (reader, _):
        assert await reader.read() == b""


async def test_the_second_request_has_no_more_time_than_the_first(web):
    for _ in range(20):
        async with opened(web) as (reader, writer):
            writer.write(ASK)
            assert b"200" in await reader.readuntil(b"\r\n\r\n")
            answer = await dripped(
                writer, reader, b"GET /livez HTTP/1.1\r\nx-a: aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"
            )
            if b"HTTP/1.1 " in answer:
                break
    assert b"HTTP/1.1 408 " in answer


async def test_hundreds_of_them_hinder_nobody(web):
    async with contextlib.AsyncExitStack() as stack:
        slow = []
        for _ in range(300):
            reader, writer = await stack.enter_async_context(opened(web))
            writer.write(b"GET /livez HTTP/1.1\r\nx: ")  # at once: who says nothing in time gets no answer
            slow.append((reader, writer))
        reader, writer = await stack.enter_async_context(opened(web))
        writer.write(ASK)
        assert b"200" in await reader.readline()
        for reader, _ in slow:
            assert (await reader.read()).startswith(b"HTTP/1.1 408 ")


async def test_work_that_takes_long_is_not_cut_nor_a_stream_nor_a_body(web, node):
    async with opened(web) as (reader, writer):  # an answer that never comes
        body = json.dumps({"target": "slow", "input": 1}).encode()
        writer.write(HEAD + f"content-length: {len(body)}\r\n\r\n".encode() + body)
        async with opened(web) as (events, asking):
            asking.write(
                b"GET /api/node/events HTTP/1.1\r\nhost: localhost\r\naccept: text/event-stream\r\n"
                b"authorization: Bearer " + TOKEN.encode() + b"\r\n\r\n"
            )
            assert b"200" in await events.readline()
            async with opened(web) as (late, dawdling):  # its body comes later
                body = json.dumps({"target": "echo", "input": "late"}).encode()
                dawdling.write(HEAD + f"content-length: {len(body)}\r\nconnection: close\r\n\r\n".encode())
                await asyncio.sleep(5)  # far longer than a head may take
                dawdling.write(body)
                answer = await late.read()
                assert b"200" in answer.partition(b"\r\n")[0]
                assert b"late" in answer
            assert not events.at_eof()
        assert not reader.at_eof()
        assert not node.one_mesh.cancelled.is_set()


async def test_requests_on_one_connection_go_on_as_long_as_they_come(web):
    async with opened(web) as (reader, writer):
        for _ in range(9):
            writer.write(ASK)
            head = await reader.readuntil(b"\r\n\r\n")
            assert b"200" in head
            length = next(int(line[15:]) for line in head.split(b"\r\n") if line.lower().startswith(b"content-length:"))
            await reader.readexactly(length)
            await asyncio.sleep(0.3)  # a pause; together they are longer than a head may take


async def test_pipelined_requests_are_all_answered(web):
    async with opened(web) as (reader, writer):
        writer.write(ASK * 20)
        found = b""
        while found.count(b"HTTP/1.1 200") < 20:
            found += await reader.read(65536)
