"""A call ends with an answer or a typed error, at the latest when its time is over, and leaves no work behind."""

from __future__ import annotations

import asyncio
import json
import time

import pytest
from tests.integration.mesh import mesh_member

from knotwork.bus import codec, frames
from knotwork.sdk import Continue, Done, Failed
from knotwork.sdk.errors import Busy, KnotworkError, NotFound, TimedOut, TooLarge, Unavailable, Unreachable
from knotwork.sdk.errors import Failed as FailedError


@pytest.fixture
async def pair(node, until):
    """A caller, and an agent's node beside it."""

    async def make(fill=None, **settings):
        far = await node("far", fill or mesh_member.fill, **settings)
        near = await node("near", lambda _node: None, **settings)
        await until(lambda: "far" in near.directory.node_names())
        return near, far

    return make


async def outcome(work):
    try:
        return await work
    except KnotworkError as error:
        return error


async def test_an_answer_comes_back_by_every_name(pair, invoke):
    near, _ = await pair()
    value = {"x": [1, 2.5, None, "é\u0000🦀"]}
    assert await invoke(near, "echo", value) == value
    assert await invoke(near, "echo", value, node="far") == value
    assert await invoke(near, capability="echo", value=value) == value


async def test_what_is_not_there_is_named(pair, invoke):
    near, _ = await pair()
    with pytest.raises(NotFound) as caught:
        await invoke(near, "ecko")
    assert (caught.value.code, caught.value.hint) == ("agent.not_found", "Did you mean echo?")
    with pytest.raises(NotFound, match="'near/echo'") as caught:  # as asked for, and not as somebody else has it
        await invoke(near, "echo", node="near")
    assert caught.value.hint == "Did you mean far/echo?"
    with pytest.raises(NotFound) as caught:
        await invoke(near, "echo", node="fra")
    assert caught.value.code == "node.not_found"
    with pytest.raises(NotFound) as caught:  # nobody has ever heard of it: not a matter of waiting
        await invoke(near, capability="ech")
    assert (caught.value.code, caught.value.hint) == ("route.no_eligible_agent", "Did you mean echo?")


async def test_errors_keep_class_code_and_detail_over_the_wire(pair, invoke):
    async def fail(attempt):
        return Failed("no paper", code="printer.empty", retriable=True, retry_after_s=3.0, detail={"tray": 2})

    near, _ = await pair(lambda far: far.agent("fail", fail))
    with pytest.raises(FailedError) as caught:
        await invoke(near, "fail")
    error = caught.value
    assert (error.code, error.message, error.retry_after_s) == ("printer.empty", "no paper", 3.0)
    assert error.detail == {"tray": 2, "retriable": True, "begun": True}


async def test_busy_agents_are_passed_over(node, invoke, until):
    go = asyncio.Event()

    async def hold(attempt):
        await go.wait()
        return Done(attempt.agent)

    for name in ("one", "two"):
        await node(name, lambda far, name=name: far.agent(f"{name}-agent", hold, ("work",), concurrency=1, queue_max=0))
    near = await node("near", lambda _node: None)
    await until(lambda: len(near.directory.candidates(capability="work")) == 2)
    async with asyncio.TaskGroup() as group:
        first = group.create_task(invoke(near, capability="work"))
        second = group.create_task(invoke(near, capability="work"))
        await until(lambda: sum(one.ours.now for one in near.directory._by_capability["work"].values()) == 2)
        with pytest.raises(Busy) as caught:
            await invoke(near, capability="work")
        assert caught.value.code == "agent.busy"
        assert caught.value.retry_after_s
        go.set()
    assert {first.result(), second.result()} == {"one-agent", "two-agent"}


async def test_work_that_says_busy_itself_is_not_done_twice(node, invoke, until):
    tries = []

    async def liar(attempt):
        tries.append(attempt.agent)
        if attempt.input:
            raise Unavailable("no", code="node.draining", detail={"begun": False})
        return Failed("no", code="agent.busy")

    for name in ("one", "two"):
        await node(name, lambda far, name=name: far.agent(f"{name}-agent", liar, ("work",)))
    near = await node("near", lambda _node: None)
    await until(lambda: len(near.directory.candidates(capability="work")) == 2)
    for value, code in ((0, "agent.busy"), (1, "node.draining")):
        tries.clear()
        with pytest.raises(KnotworkError) as caught:
            await invoke(near, capability="work", value=value)
        assert (caught.value.code, len(tries)) == (code, 1)


async def test_a_node_that_is_gone_but_not_yet_known_to_be_is_passed_over(node, invoke, until):
    near = await node("near", lambda _node: None)
    far = await node("far")
    ghost = far.node.record("default")
    from knotwork.mesh import records

    fields = {name: getattr(ghost, name) for name in ghost.__struct_fields__} | {"node": "aaa"}
    await until(lambda: "far" in near.directory.node_names())
    near.directory.heard("aaa", records.encode(type(ghost)(**fields)))
    for _ in range(5):
        assert await invoke(near, "echo", 1) == 1
    with pytest.raises(Unreachable) as caught:
        await invoke(near, "echo", node="aaa")
    assert caught.value.code == "agent.away"
    assert "aaa/echo" in caught.value.message
    assert caught.value.detail == {"agent": "echo", "node": "aaa"}


async def test_nothing_is_tried_twice_unless_asked(pair, invoke):
    tries = []

    async def flaky(attempt):
        tries.append((attempt.number, attempt.idempotency_key))
        if len(tries) % 3:
            return Failed("again", retriable=True, retry_after_s=0.01)
        return Done(len(tries))

    async def broken(attempt):
        tries.append(0)
        return Failed("never")

    near, _ = await pair(lambda far: (far.agent("flaky", flaky), far.agent("broken", broken)))
    with pytest.raises(FailedError):
        await invoke(near, "flaky")
    assert len(tries) == 1
    tries.clear()
    assert await invoke(near, "flaky", retries=2) == 3
    assert [number for number, _ in tries] == [1, 2, 3]
    assert len({key for _, key in tries}) == 1
    tries.clear()
    with pytest.raises(FailedError):
        await invoke(near, "broken", retries=5)
    assert tries == [0]


async def test_the_deadline_covers_retries_and_pauses(pair, invoke):
    async def fail(attempt):
        return Failed("again", retriable=True, retry_after_s=0.1)

    near, _ = await pair(lambda far: far.agent("fail", fail))
    start_s = time.monotonic()
    with pytest.raises(TimedOut) as caught:
        await invoke(near, "fail", retries=100, timeout_s=0.35)
    assert caught.value.code == "call.timed_out"
    assert time.monotonic() - start_s > 0.3


@pytest.mark.parametrize("how", ["time", "cancel"])
@pytest.mark.parametrize("where", ["far", "near"])
async def test_work_stops_where_it_runs_when_nobody_waits(pair, invoke, until, how, where):
    near, far = await pair()
    caller = near if where == "far" else far
    if how == "time":
        with pytest.raises(TimedOut):
            await invoke(caller, "sleep", timeout_s=0.5)
    else:
        async with asyncio.TaskGroup() as group:
            task = group.create_task(invoke(caller, "sleep"))
            await until(lambda: far.node.running.get("sleep"))
            task.cancel()
    await until(lambda: not far.node.running.get("sleep"))
    await until(lambda: not far.node.hosting.running())
    assert not caller.calls._waiting
    assert len(caller.connection._inbox) == 0
    assert await invoke(caller, "echo", 1) == 1


async def test_a_cancel_at_every_moment_leaves_nothing_behind(pair, invoke, until):
    near, far = await pair()
    for turns in range(40):
        async with asyncio.TaskGroup() as group:
            task = group.create_task(invoke(near, "sleep"))
            for _ in range(turns):
                await asyncio.sleep(0)
            task.cancel()
        assert task.cancelled()
    await until(lambda: not far.node.hosting.running())
    assert not near.calls._waiting
    assert near.directory.place("far", "sleep").ours.now == 0
    assert await invoke(near, "echo", "well") == "well"
    assert near.connection.reconnects == far.connection.reconnects == 0


async def test_a_cancel_while_nats_is_away_is_a_cancel(pair, invoke, until, server):
    near, far = await pair()
    async with asyncio.TaskGroup() as group:
        task = group.create_task(invoke(near, "sleep", timeout_s=30))
        await until(lambda: far.node.running.get("sleep"))
        await server.kill()
        task.cancel()
    assert task.cancelled()


async def test_pieces_come_in_order_before_the_answer(pair, invoke):
    async def talk(attempt):
        for n in range(500):
            await attempt.report.stream(n)
            if n % 100 == 0:
                attempt.report.progress(n / 5, f"at {n}")
        return Continue("more")

    near, _ = await pair(lambda far: far.agent("talk", talk))
    pieces = []
    assert await invoke(near, "talk", on_piece=pieces.append) == "more"
    assert [json.loads(piece.data) for piece in pieces if piece.kind == "chunk"] == list(range(500))
    assert [json.loads(piece.data)["percent"] for piece in pieces if piece.kind == "progress"] == [0, 20, 40, 60, 80]


async def test_a_flood_of_pieces_is_neither_lost_nor_harmful(pair, invoke):
    async def flood(attempt):
        for n in range(3000):
            await attempt.report.stream([n, "x" * 20_000])
        return Done("end")

    near, far = await pair(lambda far: (far.agent("flood", flood), mesh_member.fill(far)))
    seen = []
    async with asyncio.TaskGroup() as group:
        flooding = group.create_task(
            invoke(near, "flood", timeout_s=150, on_piece=lambda piece: seen.append(codec.decode(piece.data)[0]))
        )
        assert await invoke(near, "echo", 1) == 1
    assert flooding.result() == "end"
    assert seen == list(range(3000))
    assert near.connection.reconnects == far.connection.reconnects == 0


async def test_large_payloads_pass_and_larger_ones_are_refused(pair, invoke, server):
    async def large(attempt):
        return Done("x" * attempt.input)

    near, far = await pair(lambda one: (one.agent("large", large), mesh_member.fill(one)))
    limit = near.connection.max_payload
    assert await invoke(near, "echo", "y" * (limit - 1000)) == "y" * (limit - 1000)
    with pytest.raises(TooLarge) as caught:
        await invoke(near, "echo", "y" * (limit + 1))
    assert caught.value.code == "bus.message_too_large"
    with pytest.raises(TooLarge):
        await invoke(near, "large", limit + 1)
    assert far.node.hosting.running() == []
    assert near.connection.reconnects == far.connection.reconnects == 0


async def test_a_node_that_dies_in_a_call_is_told_soon(node, process, invoke, until):
    near = await node("near", lambda _node: None, keepalive_s=1.0)
    far = await process("far")
    await until(lambda: near.directory.candidates(agent="sleep"))
    async with asyncio.TaskGroup() as group:
        lost = group.create_task(outcome(invoke(near, "sleep", timeout_s=120)))
        await until(lambda: near.calls._waiting)
        await asyncio.sleep(0.05)  # on its way: any moment will do
        far.kill()
    error = lost.result()
    assert (type(error), error.code) == (Unreachable, "node.lost")
    assert "may have been done" in error.hint
    await until(lambda: near.directory.state("far") == "offline")
    with pytest.raises(Unavailable) as caught:  # for now: it may come back
        await invoke(near, capability="sleep")
    assert (caught.value.code, caught.value.exit_code) == ("route.no_eligible_agent", 75)


async def test_a_long_call_stays_alive_by_its_signs_of_life(node, process, invoke, until):
    near = await node("near", lambda _node: None, keepalive_s=1.0)
    await process("far")
    await until(lambda: near.directory.candidates(agent="sleep"))
    for _ in range(5):
        error = await outcome(invoke(near, "sleep", timeout_s=4.5))  # longer than one that is silent is given
        if error.code != "node.lost":  # else it was silent: its machine stood still for so long
            break
    assert error.code == "call.timed_out"


async def test_work_whose_caller_died_is_stopped(node, process, until):
    far = await node("far", keepalive_s=1.0)
    near = await process("near", "sleep")
    await until(lambda: far.node.running.get("sleep"))
    await asyncio.sleep(4.0)  # longer than what a caller that is gone is given
    assert far.node.running["sleep"] == 1
    near.kill()
    await until(lambda: not far.node.running["sleep"])
    await until(lambda: not far.node.hosting.running())
    assert len(far.connection._inbox) == 0


async def test_a_goodbye_in_a_call_is_told_at_once(node, server, invoke, until):
    long = {"keepalive_s": 60.0, "heartbeat_s": 60.0}  # nothing but the goodbye can tell within the wait
    near = await node("near", lambda _node: None, **long)
    member = mesh_member
    far = member.open_node(member.endpoint(server.url), "far", member.fill, **long)
    async with asyncio.timeout(60), asyncio.TaskGroup() as group, far:
        await until(lambda: near.directory.candidates(agent="sleep"))
        lost = group.create_task(outcome(invoke(near, "sleep", timeout_s=300)))
        await until(lambda: near.calls._waiting)
    assert lost.result().code in {"node.lost", "node.stopping", "plugin.not_running", "agent.stopped"}


async def test_hostile_requests_are_answered_or_dropped_and_hurt_nobody(pair, invoke, server, until):
    near, far = await pair()
    connection = near.connection
    got: list = []
    reply = connection.open_reply(got.append)
    subject = "agent.far.echo"

    def sent(payload: bytes, head: bytes, to: str = reply) -> None:
        connection.send(subject, payload, to, head)

    sent(b"1", b"NATS/1.0\r\nKnot-Call: a;b\r\n\r\n")
    sent(b"1", b"NATS/1.0\r\nKnot-Call: ;;;;;;;;;;;;\r\n\r\n")
    sent(b"1", b"NATS/1.0\r\nKnot-Call: x;-5;c;c;b;1;\r\n\r\n")
    sent(b"1", b"NATS/1.0\r\nKnot-Call: " + b"z" * 4000 + b"\r\n\r\n")
    sent(b"{", b"")
    sent(b"\xff\xfe\x00", b"")
    sent(b"[" * 100_000, b"")
    await until(lambda: len(got) == 7)
    assert all(frames.read(message).kind == "error" for message in got)
    assert {frames.read_error(message.data).code for message in got} == {"wire.bad_envelope", "wire.not_json"}
    assert all(message.headers["Nats-Service-Error-Code"] == "422" for message in got)
    got.clear()
    sent(b'"plain"', b"")
    sent(b'"\xc3\xa9"', b"NATS/1.0\r\ntraceparent: \xff\xfe;\x00\r\nX: y\r\n\r\n")
    sent(b"5", b"NATS/1.0\r\nKnot-Call: \xff;;\xfe;\xfd;\xfc;1;%ff%00\r\n\r\n")
    await until(lambda: len(got) == 3)
    refused, *answers = got  # nobody knows that boundary
    assert frames.read_error(refused.data).code == "policy.forbidden"
    assert [message.data for message in answers] == [b'"plain"', b'"\xc3\xa9"']
    connection.send("agent.far.nobody", b"", reply)
    await until(lambda: len(got) == 4)
    assert frames.read_error(got[3].data).code == "agent.not_found"
    for odd in ("agent.far.>", "cancel.far.x", "cancel.far." + "x" * 500):
        connection.send(odd.replace(">", "a-b"), b"\xff")
    sent(b'"no reply"', b"", "")
    assert await invoke(near, "echo", 1) == 1
    assert far.connection.reconnects == 0


async def test_an_answer_is_never_sent_where_work_is_done(pair, invoke, until):
    """Whoever may only ask must not use our rights: the reply subject is his choice."""
    near, _far = await pair()
    for reply in ("$JS.API.STREAM.PURGE.KV_NODES", "agent.near.echo", "cancel.far.x", "$KV.NODES.far", "op.node.stop"):
        heard: list = []
        listening = await near.connection.listen(reply, heard.append)
        near.connection.send("agent.far.echo", b"{}", reply)
        near.connection.send("$SRV.PING", b"", reply)
        assert await invoke(near, "echo", 1) == 1
        await near.connection.round_trip()
        assert heard == []
        near.connection.unlisten(listening)
    assert set(near.directory.node_names()) == {"near", "far"}


async def test_ten_thousand_calls_at_once_are_all_answered(pair, invoke):
    near, far = await pair(keepalive_s=60.0)  # on a slow machine nobody gets a word in for long
    async with asyncio.timeout(180), asyncio.TaskGroup() as group:
        tasks = [group.create_task(invoke(near, "echo", n, timeout_s=180)) for n in range(10_000)]
    assert [task.result() for task in tasks] == list(range(10_000))
    assert far.node.calls == 10_000
    assert not near.calls._waiting
    assert near.directory.place("far", "echo").ours.now == 0
    assert not far.node.hosting.running()


async def test_a_call_by_capability_finds_the_agent_whose_schema_takes_it(pair, invoke):
    def fill(node):
        echo = mesh_member.echo
        node.agent("text", echo, ["do"], input_schema={"type": "string"})
        for name in ("one", "two"):
            node.agent(name, echo, ["do"], input_schema={"type": "integer"})

    near, far = await pair(fill)
    assert [await invoke(near, capability="do", value="a word") for _ in range(6)] == ["a word"] * 6
    assert [await invoke(near, capability="do", value=7) for _ in range(6)] == [7] * 6
    called = far.node.calls
    refused = await outcome(invoke(near, capability="do", value=[1]))
    assert (refused.code, refused.kind) == ("agent.bad_input", "invalid")
    assert "'string'" in refused.message
    assert "'integer'" in refused.message
    assert far.node.calls == called
    named = await outcome(invoke(near, "text", 7))
    assert named.code == "agent.bad_input"
