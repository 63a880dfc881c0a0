"""The NATS door of ops against real clients that are killed, lose their link, or whose answer is ready while NATS is away."""

from __future__ import annotations

import asyncio
import contextlib
import sys
import time
from contextlib import aclosing
from pathlib import Path

import pytest
from tests.integration.bus import raw_server
from tests.unit.ops import stand_in

from knotwork.bus import child, client, credit, frames, subjects, way
from knotwork.bus.background import background
from knotwork.bus.connection import open_connection
from knotwork.bus.endpoint import Endpoint
from knotwork.host.doors import NatsDoor, open_nats_door
from knotwork.ops import replies, serve
from knotwork.sdk.errors import Unreachable

TESTS = Path(__file__).parents[2]
WAIT_S = 30.0
PIECES, PIECE_BYTES = 100, 512 * 1024
MUCH = b'{"target": "echo", "input": "much", "stream": true}'


class Mesh(stand_in.StandInMesh):
    """Stands in for the node behind the door: a call answers when it is released, and tells when it was stopped."""

    def __init__(self) -> None:
        super().__init__()
        self.made = 0
        self.started, self.release, self.stopped = asyncio.Event(), asyncio.Event(), asyncio.Event()

    async def invoke(self, call, caller):
        self.started.set()
        try:
            await self.release.wait()
            for number in range(5 if call.stream and call.input != "much" else 0):
                yield replies.Chunk(data=number)
            for number in range(PIECES if call.input == "much" else 0):
                self.made = number + 1
                yield replies.Chunk(data="x" * PIECE_BYTES)
        except (asyncio.CancelledError, GeneratorExit):
            self.stopped.set()
            raise
        yield replies.Answer(output="kept", agent="here/echo")


class Control(stand_in.StandInNode):
    def __init__(self) -> None:
        super().__init__(one_mesh=Mesh())
        self.watchers = 0

    async def events(self, names, project):
        self.watchers += 1
        try:
            async for row in super().events(names, project):
                yield row
        finally:
            self.watchers -= 1


async def until(condition, timeout_s: float = WAIT_S) -> None:
    async with asyncio.timeout(timeout_s):
        while not condition():
            await asyncio.sleep(0.01)


@pytest.fixture
async def server(tmp_path):
    async with raw_server.running(tmp_path / "nats") as made:
        yield made


@pytest.fixture
async def door(server):
    control = Control()
    endpoint = Endpoint((server.url,), pause_min_s=0.02, pause_max_s=0.1, inbox_prefix="_NODE")
    async with open_connection(endpoint) as connection, background() as group:
        made = NatsDoor(connection, control, "default", "here")
        await made.open(group)
        made.control, made.connection = control, connection
        yield made


@pytest.fixture
async def ask():
    """Start a client process; it is gone at the end."""
    async with contextlib.AsyncExitStack() as stack:

        async def start(url: str, op: str, request: str, timeout_s: float = 600.0):
            process = await child.spawn(
                sys.executable, TESTS / "integration" / "host" / "asking.py", url, op, request, str(timeout_s),
                stdout=asyncio.subprocess.PIPE,
            )  # fmt: skip

            async def end() -> None:
                if process.returncode is None:
                    process.kill()
                await process.wait()

            stack.push_async_callback(end)
            return process

        yield start


def idle(door, replies: int = 0) -> bool:
    return door._running == 0 and not door._tasks and len(door.connection._inbox) == replies


async def test_a_killed_client_stops_its_work(server, door, ask):
    client = await ask(server.url, "agents.invoke", '{"target": "echo", "input": 1}')
    mesh = door.control.one_mesh
    async with asyncio.timeout(WAIT_S):
        await mesh.started.wait()
    client.kill()
    began_s = time.monotonic()
    async with asyncio.timeout(WAIT_S):
        await mesh.stopped.wait()
    took_s = time.monotonic() - began_s
    await until(lambda: idle(door))
    assert took_s < WAIT_S / 2  # far less than the ten minutes it may take


async def test_who_leaves_while_his_answer_is_on_its_way_did_not_get_it(door, monkeypatch):
    undone = asyncio.Event()

    async def whole(_op, _raw, caller, _node):
        caller.undo.append(undone.set)
        return serve.Frame("result", b"{}")

    monkeypatch.setattr(serve, "whole", whole)
    answers: asyncio.Queue = asyncio.Queue()
    reply = door.connection.open_reply(answers.put_nowait)
    for call in ("gets", "leaves"):
        door.connection.send(subjects.op("node.status"), b"{}", reply, frames.Envelope(call, 5.0, plain=False).head())
        async with asyncio.timeout(WAIT_S):
            await answers.get()
    await until(lambda: idle(door, replies=1))
    assert not undone.is_set()
    door.connection.send(subjects.op_cancel("leaves"))
    async with asyncio.timeout(WAIT_S):
        await undone.wait()
    door.connection.close_reply(reply)


async def test_a_killed_watcher_of_events_is_let_go(server, door, ask):
    client = await ask(server.url, "node.events", "{}")
    async with asyncio.timeout(WAIT_S):
        assert b"chunk" in await client.stdout.readline()
    assert door.control.watchers == 1
    client.kill()
    await until(lambda: door.control.watchers == 0)
    await until(lambda: idle(door))


async def test_a_client_that_is_there_is_never_given_up(server, door, ask):
    client = await ask(server.url, "agents.invoke", '{"target": "echo", "input": 1}')
    mesh = door.control.one_mesh
    async with asyncio.timeout(WAIT_S):
        await mesh.started.wait()
    await asyncio.sleep(4.0)  # longer than a caller that is gone is given
    assert not mesh.stopped.is_set()
    mesh.release.set()
    async with asyncio.timeout(WAIT_S):
        out = await client.stdout.read()
    assert b'"kept"' in out
    await until(lambda: idle(door))


async def test_a_client_whose_link_was_cut_for_a_moment_keeps_its_work(server, door, ask, monkeypatch):
    monkeypatch.setattr(way, "GONE_AFTER_S", 4.0)  # on a slow machine it needs more than a second to come back
    proxy = raw_server.Proxy(server.port)
    await proxy.start()
    client = await ask(proxy.url, "agents.invoke", '{"target": "echo", "input": 1}')
    mesh = door.control.one_mesh
    async with asyncio.timeout(WAIT_S):
        await mesh.started.wait()
    await asyncio.sleep(5.2)  # a link that was steady is made again at once
    proxy.cut()
    await until(lambda: proxy.accepted == 2)
    await asyncio.sleep(6.0)  # longer than a caller that is gone is given
    assert not mesh.stopped.is_set()
    mesh.release.set()
    async with asyncio.timeout(WAIT_S):
        assert b'"kept"' in await client.stdout.read()
    await proxy.stop()


@pytest.mark.parametrize("stream", ["false", "true"])
async def test_what_is_ready_while_nats_is_away_arrives_when_it_is_back(server, door, ask, stream):
    """The client comes back later than the node: what is sent in between would be lost."""
    client = await ask(server.url, "agents.invoke", f'{{"target": "echo", "input": 1, "stream": {stream}}}')
    mesh = door.control.one_mesh
    async with asyncio.timeout(WAIT_S):
        await mesh.started.wait()
    await server.kill()
    await until(lambda: door.connection.state != "connected")
    mesh.release.set()
    await asyncio.sleep(0.1)  # the answer is ready now, and cannot be sent
    await server.start()
    async with asyncio.timeout(WAIT_S):
        out = (await client.stdout.read()).decode().splitlines()
    assert [line.partition(" ")[0] for line in out] == ["chunk"] * (5 if stream == "true" else 0) + ["result"], out
    assert '"kept"' in out[-1]
    assert [f'"data":{n}' in line.replace(" ", "") for n, line in enumerate(out[:-1])] == [True] * (len(out) - 1)
    await until(lambda: idle(door))


async def test_an_answer_nobody_waits_for_any_more_is_dropped(server, door, ask):
    client = await ask(server.url, "agents.invoke", '{"target": "echo", "input": 1}', 600.0)
    mesh = door.control.one_mesh
    async with asyncio.timeout(WAIT_S):
        await mesh.started.wait()
    await server.kill()
    await until(lambda: door.connection.state != "connected")
    client.kill()
    mesh.release.set()
    await server.start()
    await until(lambda: idle(door), 60)


async def test_a_slow_reader_holds_up_the_pieces_of_an_answer_and_gets_all_of_them(server, door):
    mesh = door.control.one_mesh
    mesh.release.set()
    endpoint = Endpoint((server.url,), pause_min_s=0.02, pause_max_s=0.1)
    pieces = client.call(endpoint, "agents.invoke", MUCH, timeout_s=600.0, whole=True)
    async with aclosing(pieces), asyncio.timeout(2 * WAIT_S):
        first = await anext(pieces)
        await until(lambda: mesh.made * PIECE_BYTES >= credit.WINDOW_BYTES)
        await asyncio.sleep(2 * way.EVERY_S)  # signs of life come, and nothing more is made for who has used nothing
        assert mesh.made * PIECE_BYTES < 2 * credit.WINDOW_BYTES
        rest = [frame async for frame in pieces]
    assert [len(frame.data) for frame in (first, *rest)] == [len(first.data)] * PIECES + [len(rest[-1].data)]
    assert rest[-1].kind == "result"
    await until(lambda: idle(door) and not door._credits)


async def test_a_reader_that_names_no_window_gets_everything_at_once(server, door):
    mesh = door.control.one_mesh
    mesh.release.set()
    endpoint = Endpoint((server.url,), pause_min_s=0.02, pause_max_s=0.1)
    async with open_connection(endpoint) as connection, asyncio.timeout(2 * WAIT_S):
        came = asyncio.Queue()
        reply = connection.open_reply(came.put_nowait)
        envelope = frames.Envelope("anolderone", 600.0, "test", plain=False)
        connection.send(subjects.op("agents.invoke"), MUCH, reply, envelope.head())
        kinds = []
        while "result" not in kinds:
            message = await came.get()
            kinds.append(frames.read(message).kind)
            assert not message.header(frames.SENT)
    assert kinds.count("chunk") == PIECES


async def pieces_with_a_loss(connection, lose, *, whole):
    """Return the kinds of frames that come when messages are lost from the second piece on, as `lose` says."""
    kinds = []
    pieces = client.over(connection, "agents.invoke", MUCH, timeout_s=600.0, whole=whole)
    async with aclosing(pieces), asyncio.timeout(2 * WAIT_S):
        async for frame in pieces:
            kinds.append(frame.kind)
            if len(kinds) == 1:
                (key, deliver), *_ = connection._inbox._waiting.items()
                connection._inbox._waiting[key] = lambda message, on=deliver: lose(message) or on(message)
    return kinds


async def test_who_needs_the_whole_is_told_that_a_piece_was_lost_and_others_go_on(server, door):
    door.control.one_mesh.release.set()

    def one():
        left = [None]
        return lambda message: left and frames.read(message).kind == "chunk" and (left.clear() or True)

    endpoint = Endpoint((server.url,), pause_min_s=0.02, pause_max_s=0.1)
    async with open_connection(endpoint) as connection:
        with pytest.raises(Unreachable, match=r"A part of the answer to agents\.invoke was lost between NATS") as told:
            await pieces_with_a_loss(connection, one(), whole=True)
        kinds = await pieces_with_a_loss(connection, one(), whole=False)
    assert told.value.code == "node.lost"
    assert (kinds.count("chunk"), kinds[-1]) == (PIECES - 1, "result")


async def test_a_reader_whose_link_was_cut_is_told_that_and_not_that_the_node_hangs(server, door, monkeypatch):
    monkeypatch.setattr(client, "ALIVE_MAX_S", 2.0)
    door.control.one_mesh.release.set()
    endpoint = Endpoint((server.url,), pause_min_s=0.02, pause_max_s=0.1)
    async with open_connection(endpoint) as connection:

        def cut(message):
            if connection.reconnects == 0 and connection._client is not None:
                connection._client.abort()
            return True

        with pytest.raises(Unreachable, match=r"was lost before agents\.invoke was answered"):
            await pieces_with_a_loss(connection, cut, whole=True)
        await until(lambda: connection.state == "connected")


async def test_who_told_a_node_to_change_has_the_verdict_before_that_closes_the_door(server):
    control, asked, release = Control(), asyncio.Event(), asyncio.Event()
    usual = control.reload

    async def reload():
        asked.set()
        await release.wait()
        return await usual()

    control.reload = reload
    node, caller = Endpoint((server.url,), inbox_prefix="_NODE"), Endpoint((server.url,))

    async def ask(theirs):
        while not asked.is_set():
            with contextlib.suppress(Unreachable):  # the door may not be open yet
                answers = client.over(theirs, "node.reload", b"{}", timeout_s=600.0)
                return [frame.kind async for frame in answers]
        return []

    async with (
        asyncio.timeout(WAIT_S), open_connection(caller) as theirs, asyncio.TaskGroup() as asking,
        open_connection(node) as ours, open_nats_door(ours, control, "default", "here"),
    ):  # fmt: skip
        kinds = asking.create_task(ask(theirs))
        await asked.wait()
        release.set()  # and from here on nothing waits: the door closes first
    assert kinds.result() == ["result"]


@pytest.mark.parametrize(
    ("op", "request_"), [("node.events", b"{}"), ("agents.invoke", b'{"target": "echo", "input": 1}')]
)
async def test_whoever_waits_is_told_at_once_that_the_door_closes(server, op, request_):
    control, told = Control(), asyncio.Queue()
    node, caller = Endpoint((server.url,), inbox_prefix="_NODE"), Endpoint((server.url,))

    async def ask(theirs):
        async for frame in client.over(theirs, op, request_, timeout_s=600.0):
            told.put_nowait(frame)

    async with (
        asyncio.timeout(WAIT_S), open_connection(caller) as theirs, asyncio.TaskGroup() as asking,
        open_connection(node) as ours,
    ):  # fmt: skip
        async with open_nats_door(ours, control, "default", "here"):
            await ours.round_trip()
            asking.create_task(ask(theirs))
            await until(lambda: control.watchers or control.one_mesh.started.is_set())
        # the connection stays: nothing but the door's own word tells that it is closed
        while (frame := await told.get()).kind != "error":
            pass
    assert b"here leaves default, or stops, before it answered" in frame.data


async def test_an_op_that_cannot_be_loaded_is_answered_and_takes_no_place(door, server, monkeypatch):
    class Torn(dict):
        def get(self, name, default=None):
            raise ImportError("cannot import name 'BELOW'")

    monkeypatch.setattr("knotwork.host.doors.TABLE", Torn())
    pieces = client.call(Endpoint((server.url,)), "node.health", b"{}", timeout_s=WAIT_S, whole=True)
    async with aclosing(pieces):
        frames_ = [frame async for frame in pieces]
    assert [frame.kind for frame in frames_] == ["error"]
    assert b"start the node again" in frames_[0].data
    assert door._running == 0
