"""Health while the loop is held up: two questions are answered by a thread, and all others wait for the loop."""

from __future__ import annotations

import asyncio
import http.client
import json
import os
import socket
import sys
import threading

import pytest

from knotwork.cli import after, local
from knotwork.web import serve, standby
from knotwork.web.guard import Doorkeeper, names_of

TOKEN = "open-sesame"
KEEPER = Doorkeeper(TOKEN)
WAIT_S = 30.0


def asked(line: str, *headers: str) -> bytes:
    return "\r\n".join((f"{line} HTTP/1.1", "host: localhost", *headers, "", "")).encode()


@pytest.mark.parametrize(
    ("path", "held_s", "status", "body"),
    [
        ("/livez", 2.0, 200, {"live": True}),
        ("/livez", 59.0, 200, {"live": True}),
        ("/livez", 60.0, 503, {"live": False}),
        ("/readyz", 2.0, 503, {"ready": False}),
        ("/readyz?verbose", 2.0, 503, {"ready": False}),
    ],
)
def test_health_is_told(path, held_s, status, body):
    head, _, said = (standby.answer(asked(f"GET {path}"), KEEPER, held_s) or b"").partition(b"\r\n\r\n")
    assert head.startswith(f"HTTP/1.1 {status} ".encode())
    assert b"content-type: application/json" in head.lower()
    assert b"x-content-type-options: nosniff" in head.lower()
    assert b"connection: close" in head.lower()
    assert json.loads(said) == body


def test_a_head_alone_has_no_body():
    said = standby.answer(asked("HEAD /livez"), KEEPER, 2.0)
    assert said is not None
    assert said.endswith(b"\r\n\r\n")
    assert b"content-length: 13" in said.lower()


@pytest.mark.parametrize(
    "head",
    [
        asked("GET /metrics"),
        asked("POST /livez"),
        asked("GET /livez", "origin: https://elsewhere.example"),
        asked("GET /livez", "content-length: 1") + b"x",
        asked("GET /livez", "content-length: 1"),
        asked("GET /livez") + asked("GET /livez"),
        asked("GET /livez")[:-1],
        b"GET /livez HTTP/1.1\r\nhost: elsewhere.example\r\n\r\n",
        b"GET /livez HTTP/1.1\r\n\r\n",
        b"GET /livez\r\n\r\n",
        b"\x16\x03\x01\x02\x00",
        b"\x00" * standby.HEAD_MAX,
        b"",
    ],
)
def test_all_else_is_for_the_loop(head):
    assert standby.answer(head, KEEPER, 2.0) is None


@pytest.fixture
async def web(node):
    async with serve.run_web(serve.WebSettings(token=TOKEN), node) as door:
        yield door


def ask(port: int, method: str, path: str, body: str | None = None) -> tuple[int, object]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=WAIT_S)
    try:
        headers = {"authorization": f"Bearer {TOKEN}", "content-type": "application/json"}
        connection.request(method, path, body, headers)
        response = connection.getresponse()
        return response.status, json.loads(response.read())
    finally:
        connection.close()


async def test_who_asks_meanwhile_is_answered_or_waits_for_the_loop(web):
    turned = threading.Event()
    standing = threading.Thread(target=web.standby.stand_in, args=(turned, lambda: 3.0))
    silent = socket.create_connection(("127.0.0.1", web.port), timeout=WAIT_S)
    slow = socket.create_connection(("127.0.0.1", web.port), timeout=WAIT_S)
    slow.sendall(asked("GET /livez")[:-2])
    gone = socket.create_connection(("127.0.0.1", web.port), timeout=WAIT_S)
    gone.close()
    listed: list[object] = []
    other = threading.Thread(
        target=lambda: listed.append(ask(web.port, "POST", "/api/agents/list", json.dumps({"capability": "talk"})))
    )
    health: list[object] = []
    probe = threading.Thread(
        target=lambda: health.extend(ask(web.port, "GET", f"/{one}z") for one in ("live", "ready"))
    )
    standing.start()
    other.start()
    probe.start()
    probe.join(WAIT_S)  # in the loop, which does nothing else now
    assert health == [(200, {"live": True}), (503, {"ready": False})]
    assert not listed
    turned.set()
    standing.join(WAIT_S)
    await asyncio.to_thread(other.join, WAIT_S)
    assert [status for status, _ in listed] == [200]
    for late, rest in ((silent, asked("GET /livez")), (slow, b"\r\n")):
        await asyncio.to_thread(late.sendall, rest)
        assert (await asyncio.to_thread(late.recv, 4096)).startswith(b"HTTP/1.1 200 ")
        late.close()
    assert await asyncio.to_thread(ask, web.port, "GET", "/readyz") == (200, {"ready": True})


async def test_a_command_tells_a_node_that_is_held_up_from_one_that_was_only_slow(web, monkeypatch):
    def local_node(http: str) -> local.LocalNode:
        return local.LocalNode(os.getpid(), "n", "", http, "default", "", "")

    assert await asyncio.to_thread(after._lives, local_node(web.url)) is None
    turned, standing = standing_in(web)
    assert after._lives(local_node(web.url)) is True  # in the loop, which does nothing else now
    turned.set()
    await asyncio.to_thread(standing.join, WAIT_S)
    monkeypatch.delattr(http.client, "HTTPConnection")
    assert after._lives(local_node("")) is None, "there is nobody to be asked"


async def test_a_door_that_closes_takes_nobody_in(node):
    turned = threading.Event()
    async with serve.run_web(serve.WebSettings(token=TOKEN), node) as web:
        standing = threading.Thread(target=web.standby.stand_in, args=(turned, lambda: 3.0))
        standing.start()
    standing.join(WAIT_S)
    assert not standing.is_alive()
    with pytest.raises(OSError, match="refused"):
        socket.create_connection(("127.0.0.1", web.port), timeout=WAIT_S)
    web.standby.stand_in(turned, lambda: 3.0)  # comes back at once


def standing_in(web) -> tuple[threading.Event, threading.Thread]:
    turned = threading.Event()
    standing = threading.Thread(target=web.standby.stand_in, args=(turned, lambda: 3.0))
    standing.start()
    return turned, standing


def said(connection: socket.socket, request: bytes = b"") -> bytes:
    connection.sendall(request)
    return connection.recv(4096)


def connected(web) -> socket.socket:
    return socket.create_connection(("127.0.0.1", web.port), timeout=WAIT_S)


async def test_health_is_answered_however_many_say_nothing(web, monkeypatch):
    monkeypatch.setattr(standby, "CONNECTIONS_MAX", 3)
    silent = [connected(web) for _ in range(8)]
    turned, standing = standing_in(web)
    assert ask(web.port, "GET", "/livez") == (200, {"live": True})  # in the loop, which takes nobody in now
    turned.set()
    await asyncio.to_thread(standing.join, WAIT_S)
    assert await asyncio.to_thread(said, silent[0]) == b"", "those that waited for longest were let go"
    assert (await asyncio.to_thread(said, silent[-1], asked("GET /livez"))).startswith(b"HTTP/1.1 200 ")
    for one in silent:
        one.close()


async def test_health_is_answered_however_many_ask_for_something_else(web, monkeypatch):
    monkeypatch.setattr(standby, "CONNECTIONS_MAX", 3)
    turned, standing = standing_in(web)
    others = []
    for _ in range(8):
        others.append(connected(web))
        others[-1].sendall(asked("GET /metrics"))
    assert ask(web.port, "GET", "/readyz") == (503, {"ready": False})  # the same
    turned.set()
    await asyncio.to_thread(standing.join, WAIT_S)
    answers = [await asyncio.to_thread(said, one) for one in others]
    told = [answer.split()[1] for answer in answers]
    assert sorted(set(told)) == [b"401", b"503"], "served by the loop, or asked to come again"
    assert all(b"retry-after: 1\r\n" in answer for answer in answers if answer.split()[1] == b"503")
    for one in others:
        one.close()


@pytest.mark.skipif(sys.platform == "win32", reason="no such limit")
async def test_health_is_answered_where_no_file_is_left(web):
    import resource

    silent, probe = [connected(web) for _ in range(8)], connected(web)
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    free = os.dup(0)
    os.close(free)
    resource.setrlimit(resource.RLIMIT_NOFILE, (free + 4, before[1]))
    try:
        turned, standing = standing_in(web)
        answer = said(probe, asked("GET /livez"))
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)
        turned.set()
    assert answer.startswith(b"HTTP/1.1 200 ")
    await asyncio.to_thread(standing.join, WAIT_S)
    for one in (*silent, probe):
        one.close()


@pytest.mark.parametrize(
    ("host", "reached"),
    [
        ("0.0.0.0", "127.0.0.1"),
        ("127.0.0.1", "127.0.0.1"),
        ("localhost", "localhost"),
        ("::", "[::1]"),
        ("::1", "[::1]"),
    ],
)
def test_a_door_is_reached_from_this_machine_at_an_address_that_it_answers_to(host, reached):
    assert serve.reached_by(host) == reached
    name = asked("GET /livez").replace(b"localhost", f"{reached}:8080".encode())
    assert standby.answer(name, Doorkeeper(TOKEN, names_of(host, ())), 2.0) is not None
