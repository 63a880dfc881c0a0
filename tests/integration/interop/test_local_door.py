"""What the key of the local door lets a plain NATS program do, and what it does not."""

import asyncio
import json

import nats
import pytest


async def counted(client, name):
    answer = await client.request(f"$SRV.STATS.{name}", b"", timeout=30)
    return json.loads(answer.data)["endpoints"][0]["num_requests"]


async def test_ops_are_plain_requests(client) -> None:
    answer = await client.request(
        "op.agents.invoke", json.dumps({"target": "echo", "input": "hi"}).encode(), timeout=30
    )
    assert answer.headers is None
    assert json.loads(answer.data)["output"] == "hi"
    answer = await client.request("op.node.status.lab", b"", timeout=30)
    assert json.loads(answer.data)["node"] == "lab"
    answer = await client.request("op.agents.invoke", b'{"target": "nobody"}', timeout=30)
    assert answer.headers["Nats-Service-Error-Code"] == "404"
    assert json.loads(answer.data)["code"] == "agent.not_found"


async def test_a_trace_goes_through_a_plain_request(client) -> None:
    trace = "4bf92f3577b34da6a3ce929d0e0e4736"
    answer = await client.request(
        "op.agents.invoke",
        b'{"target": "echo"}',
        timeout=30,
        headers={"traceparent": f"00-{trace}-00f067aa0ba902b7-01"},
    )
    assert json.loads(answer.data)["traceparent"].split("-")[1] == trace


@pytest.mark.parametrize(
    "subject", ["agent.lab.echo", "$JS.API.STREAM.LIST", "telemetry.spans", "agents.hb.a.b.c", "$KV.NODES.lab"]
)
async def test_agents_and_streams_are_out_of_reach(client, insider, subject) -> None:
    refused = asyncio.Event()

    async def on_error(error) -> None:
        if "permissions violation" in str(error).lower():
            refused.set()

    client._error_cb = on_error
    await client.publish(subject, b"{}")
    async with asyncio.timeout(30):
        await refused.wait()


ROADS = [
    ("agents.prompt.rehearsal.lab.echo", b"hello"),
    ("agents.prompt.rehearsal.lab.echo", b""),
    ("agents.status.rehearsal.lab.echo", b""),
    ("op.node.status", b""),
    ("op.node.status.lab", b""),
    ("op.no.such", b""),
    ("$SRV.INFO.echo", b""),
]


@pytest.mark.parametrize(("subject", "data"), ROADS)
async def test_an_answer_goes_to_an_inbox_and_nowhere_else(client, insider, subject, data) -> None:
    """The node answers with its own rights, so the sender may not choose a subject that is closed to it."""
    before = await counted(insider, "echo")
    seen = await insider.subscribe("telemetry.forged")
    for reply in ("$JS.API.STREAM.DELETE.TELEMETRY", "agent.lab.echo", "telemetry.forged"):
        await client.publish(subject, data, reply=reply)
    await client.flush()
    assert (await client.request("op.node.status", b"", timeout=30)).headers is None  # all of them were seen by now
    assert (await insider.jetstream().stream_info("TELEMETRY")).config.name == "TELEMETRY"
    assert await counted(insider, "echo") == before
    with pytest.raises(nats.errors.TimeoutError):
        await seen.next_msg(timeout=0.1)
    await seen.unsubscribe()
