"""The Synadia Agent Protocol v0.3, spoken to a real node by its official Python client and by plain NATS."""

import asyncio
import base64
import json
import re

import pytest
from synadia_ai.agents import Agents, Attachment, DiscoverFilter, ProtocolError
from synadia_ai.agents.messages import ResponseChunk, StatusChunk, decode_chunk


@pytest.fixture
async def agents(client):
    made = Agents(nc=client)
    yield made
    await made.close()


async def one(agents, name):
    found = []
    async with asyncio.timeout(30):
        while not found:  # its time-out is how long it listens
            found = await agents.discover(timeout=0.3, filter=DiscoverFilter(session_name=name))
    assert len(found) == 1, found
    return found[0]


async def said(agent, prompt, **options):
    return "".join([piece.text async for piece in agent.prompt(prompt, **options) if isinstance(piece, ResponseChunk)])


async def raw(client, subject, data, headers=None):
    """Return every message of an answer up to its end, as plain NATS sees them."""
    inbox = client.new_inbox()
    subscription = await client.subscribe(inbox)
    await client.publish(subject, data, reply=inbox, headers=headers)
    found = []
    while not found or found[-1].data or found[-1].headers:
        found.append(await subscription.next_msg(timeout=30))
    await subscription.unsubscribe()
    return found


async def test_every_agent_that_may_be_called_is_discovered(agents, lab) -> None:
    found = {}
    async with asyncio.timeout(30):
        while sorted(found) != sorted(set(lab.agents())):
            found = {agent.session_name: agent for agent in await agents.discover(timeout=0.3)}
    assert "never" not in found
    echo = found["echo"]
    assert (echo.agent, echo.owner, echo.protocol_version) == ("rehearsal", "lab", "0.3")
    assert dict(echo.metadata) == {
        "agent": "rehearsal", "owner": "lab", "session": "echo", "protocol_version": "0.3"
    }  # fmt: skip
    assert echo.description == "Says what it hears"
    assert echo.prompt_subject == "agents.prompt.rehearsal.lab.echo"
    assert echo.prompt_endpoint.queue_group == "agents"
    assert echo.prompt_endpoint.max_payload_bytes == 8 * 1024 * 1024
    assert echo.prompt_endpoint.attachments_ok is True
    assert [endpoint.name for endpoint in echo.endpoints] == ["prompt", "status"]
    assert found["lines"].agent == "process"
    assert await agents.ping(echo.instance_id, timeout=30)
    assert not await agents.ping("nobody", timeout=0.2)


async def test_a_prompt_is_answered(agents) -> None:
    echo = await one(agents, "echo")
    pieces = [piece async for piece in echo.prompt("Grüße\n{aus} Köln")]
    assert isinstance(pieces[0], StatusChunk) and pieces[0].status == "ack"
    assert [piece.text for piece in pieces[1:]] == ["Grüße\n{aus} Köln"]


async def test_a_stream_is_said_once(agents) -> None:
    pieces = [piece async for piece in (await one(agents, "talker")).prompt("hello")]
    assert [piece.text for piece in pieces if isinstance(piece, ResponseChunk)] == ["Good ", "morning", "!"]


@pytest.mark.parametrize(
    ("name", "whole"),
    [
        ("more", "beginning and end"),
        ("lines", "one\ntwo\n"),
        ("rows", '{"n":1}\n{"n":2}\n'),
        ("turns", "I look. It is fine."),
        ("steps", 'one{"two":2}\n'),
        ("other", "thinkingthe answer"),
    ],
)
async def test_nothing_is_said_twice(client, lab, name, whole) -> None:
    kind = "process" if name in ("lines", "rows") else "rehearsal"
    found = await raw(client, f"agents.prompt.{kind}.lab.{name}", b"hello")
    pieces = [decode_chunk(message.data) for message in found[:-1]]
    assert "".join(piece.text for piece in pieces if isinstance(piece, ResponseChunk)) == whole


async def test_a_prompt_belongs_to_the_trace_of_its_sender(client) -> None:
    trace = "4bf92f3577b34da6a3ce929d0e0e4736"
    headers = {"traceparent": f"00-{trace}-00f067aa0ba902b7-01"}
    found = await raw(client, "agents.prompt.process.lab.traced", b"hello", headers)
    assert decode_chunk(found[1].data).text.split("-")[1] == trace


async def test_json_output_comes_as_its_text(agents) -> None:
    assert json.loads(await said(await one(agents, "number"), "?")) == {"answer": 42, "list": [1, 2]}


async def test_attachments_reach_the_agent(agents) -> None:
    echo = await one(agents, "echo")
    heard = json.loads(await said(echo, "look", attachments=[Attachment.from_bytes("a.bin", b"\x00\xff" * 100)]))
    assert heard["prompt"] == "look"
    assert [one["filename"] for one in heard["attachments"]] == ["a.bin"]
    assert base64.b64decode(heard["attachments"][0]["content"]) == b"\x00\xff" * 100
    picky = json.loads(await said(await one(agents, "picky"), "look", attachments=[Attachment.from_bytes("a", b"")]))
    assert picky["attachments"] == [{"filename": "a", "content": ""}]


async def test_a_long_answer_comes_in_pieces(agents, client) -> None:
    found = await raw(client, "agents.prompt.rehearsal.lab.large", b"go")
    assert len(found) > 4
    assert all(len(message.data) < 512 * 1024 for message in found)
    texts = [decode_chunk(message.data).text for message in found[1:-1]]
    assert "".join(texts) == "x" * 300_000


@pytest.mark.parametrize(
    ("name", "code", "words"),
    [
        ("silent", 500, "could not"),
        ("broken", 500, "it broke"),
        ("brief", 500, "did not finish"),
        ("huge", 400, "the limit is"),
        ("picky", 400, "schema"),
    ],
)
async def test_a_failure_is_an_error_frame_and_an_end(agents, client, name, code, words) -> None:
    with pytest.raises(ProtocolError, match=f"service error {code}: .*{words}"):
        await said(await one(agents, name), "hello")
    found = await raw(client, f"agents.prompt.rehearsal.lab.{name}", b"hello")
    assert json.loads(found[0].data) == {"type": "status", "data": "ack"}
    error = found[-2]
    assert error.headers["Nats-Service-Error-Code"] == str(code)
    assert json.loads(error.data)["code"].startswith(("agent.", "call.", "bus."))
    assert found[-1].data == b"" and not found[-1].headers


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"{",
        b'{"attachments": []}',
        b'{"prompt": ""}',
        b'{"prompt": 5}',
        b'{"prompt": "x", "attachments": {}}',
        b'{"prompt": "x", "attachments": [5]}',
        b'{"prompt": "x", "attachments": [{"filename": "", "content": "eA=="}]}',
        b'{"prompt": "x", "attachments": [{"filename": "a", "content": "e-_="}]}',
        b'{"prompt": "x", "attachments": [{"filename": "a", "content": "eA"}]}',
        b"\xff\xfe",
        b"{" * 100_000,
    ],
)
async def test_a_malformed_prompt_is_refused_without_an_ack(client, data) -> None:
    error, end = await raw(client, "agents.prompt.rehearsal.lab.echo", data)
    assert error.headers["Nats-Service-Error-Code"] == "400"
    assert json.loads(error.data)["code"] == "prompt.malformed"
    assert end.data == b"" and not end.headers


async def test_unknown_fields_and_white_space_before_json_are_fine(client) -> None:
    found = await raw(
        client, "agents.prompt.rehearsal.lab.echo", b' \n{"prompt": "hi", "future": 1, "attachments": null}'
    )
    assert decode_chunk(found[1].data).text == "hi"


@pytest.mark.parametrize("subject", ["rehearsal.lab.nobody", "process.lab.echo"])
async def test_nobody_there(client, subject) -> None:
    error, _ = await raw(client, f"agents.prompt.{subject}", b"hello")
    assert error.headers["Nats-Service-Error-Code"] == "404"
    answer = await client.request(f"agents.status.{subject}", b"", timeout=30)
    assert answer.headers["Nats-Service-Error-Code"] == "404"


async def test_an_agent_that_could_not_start(client) -> None:
    found = await raw(client, "agents.prompt.rehearsal.lab.never", b"hello")
    assert found[-2].headers["Nats-Service-Error-Code"] == "500"
    assert json.loads(found[-2].data)["retry_after_s"] > 0


async def test_a_busy_agent_says_so_and_keeps_who_waits_awake(agents, client, lab) -> None:
    slow = await one(agents, "slow")
    stream = slow.prompt("work")
    acks = asyncio.Event()

    async def listen() -> None:
        async for piece in stream:
            assert isinstance(piece, StatusChunk)
            acks.set()

    async with asyncio.TaskGroup() as group:
        listening = group.create_task(listen())
        async with asyncio.timeout(30):
            await acks.wait()
        error, _ = await raw(client, slow.prompt_subject, b"me too")
        assert error.headers["Nats-Service-Error-Code"] == "429"
        assert json.loads(error.data)["code"] == "agent.busy"
        listening.cancel()


async def test_status_and_heartbeat_say_the_same(agents, client) -> None:
    echo = await one(agents, "echo")
    status = await echo.status(timeout_s=30)
    assert (status.agent, status.owner, status.session) == ("rehearsal", "lab", "echo")
    assert status.instance_id == echo.instance_id
    assert (status.interval_s, status.protocol_version) == (30, "0.3")
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", status.ts)
    prompt = status.endpoints["prompt"]
    assert (prompt.subject, prompt.metadata) == (echo.prompt_subject, dict(echo.prompt_endpoint.metadata))


async def test_statistics_count_prompts_and_errors(agents, client) -> None:
    async def counted(name):
        agent = await one(agents, name)
        answer = await client.request(f"$SRV.STATS.agents.{agent.instance_id}", b"", timeout=30)
        return next(row for row in json.loads(answer.data)["endpoints"] if row["name"] == "prompt")

    before = await counted("silent")
    with pytest.raises(ProtocolError):
        await said(await one(agents, "silent"), "hello")
    after = await counted("silent")
    assert after["num_requests"] == before["num_requests"] + 1
    assert after["num_errors"] == before["num_errors"] + 1
    assert "could not" in after["last_error"]
    assert after["processing_time"] - before["processing_time"] >= 45_000_000


async def test_a_hundred_prompts_at_once(agents) -> None:
    echo = await one(agents, "echo")
    async with asyncio.TaskGroup() as group:
        asked = [group.create_task(said(echo, f"number {number}")) for number in range(60)]
    assert [task.result() for task in asked] == [f"number {number}" for number in range(60)]
