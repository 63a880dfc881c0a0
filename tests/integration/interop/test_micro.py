"""What `nats micro ls`, `info` and `stats` ask and are answered: bytes against ADR-32 and against nats-py's own service."""

import asyncio
import contextlib
import json
import re
from datetime import datetime

import pytest
from nats.errors import NoRespondersError
from nats.micro import ServiceConfig, add_service
from nats.micro.request import ServiceError
from nats.micro.service import ServiceInfo, ServicePing, ServiceStats

from knotwork.mesh import micro

SEMVER = re.compile(r"\d+\.\d+\.\d+(-[0-9A-Za-z-.]+)?(\+[0-9A-Za-z-.]+)?")
VERBS = ("PING", "INFO", "STATS")


async def asked(client, subject, wanted=1, quiet_s=0.3):
    """Ask everybody, as the nats CLI does: wait for `wanted` answers, and then take more until it is quiet."""
    inbox = client.new_inbox()
    subscription = await client.subscribe(inbox)
    await client.publish(subject, b"", reply=inbox)
    found = []
    with contextlib.suppress(TimeoutError):
        while True:
            message = await subscription.next_msg(timeout=30 if len(found) < wanted else quiet_s)
            assert not message.headers, message.headers
            found.append(json.loads(message.data))
    await subscription.unsubscribe()
    return found


@pytest.fixture
async def theirs(insider):
    """A service made with nats-py, to compare with."""

    async def double(request):
        if not request.data.isdigit():
            raise ServiceError("400", "no number")
        await request.respond(str(int(request.data) * 2).encode())

    config = ServiceConfig("theirs", "1.2.3", "doubles", {"node": "x"}, stats_handler=lambda _: {"running": 0})
    async with await add_service(insider, config) as service:
        await service.add_endpoint(name="double", handler=double, subject="theirs.double", metadata={"a": "b"})
        yield service


def shape(value):
    """Return keys and types all the way down."""
    if isinstance(value, dict):
        return {key: shape(one) for key, one in value.items()}
    return [shape(one) for one in value] if isinstance(value, list) else type(value)


def without_words(answer):
    """Leave out what belongs to the service, not to the protocol: the contents of metadata and of data."""
    answer = json.loads(json.dumps(answer))
    for part in (answer, *answer.get("endpoints", [])):
        for key in ("metadata", "data"):
            if key in part:
                part[key] = {}
    return answer


@pytest.mark.parametrize("verb", VERBS)
async def test_keys_and_types_are_those_of_nats_py(insider, theirs, verb) -> None:
    (reference,) = await asked(insider, f"$SRV.{verb}.theirs")
    (ours,) = await asked(insider, f"$SRV.{verb}.echo")
    assert shape(without_words(ours)) == shape(without_words(reference))
    assert ours["type"] == reference["type"]
    assert all(isinstance(text, str) for text in ours["metadata"].values())
    read = {"PING": ServicePing, "INFO": ServiceInfo, "STATS": ServiceStats}[verb].from_dict(ours)
    assert (read.name, read.id) == (ours["name"], ours["id"])
    assert SEMVER.fullmatch(read.version)


@pytest.mark.parametrize("verb", VERBS)
async def test_the_three_forms_of_the_question(client, lab, verb) -> None:
    everything = await asked(client, f"$SRV.{verb}", 2 * len(lab.agents()))
    named = [row for row in everything if row["name"] != "agents"]
    assert sorted(row["name"] for row in named) == sorted(lab.agents())
    assert len({row["id"] for row in everything}) == len(everything) == 2 * len(named)
    (echo,) = await asked(client, f"$SRV.{verb}.echo")
    assert echo["id"] == next(row["id"] for row in named if row["name"] == "echo")
    (same,) = await asked(client, f"$SRV.{verb}.echo.{echo['id']}")
    assert same["id"] == echo["id"]
    for nobody in ("never", "nobody", f"echo.{echo['id']}x", f"agents.{echo['id']}", f"echo.{echo['id']}.more"):
        assert await asked(client, f"$SRV.{verb}.{nobody}", 0, 0.1) == []


async def test_info_says_where_and_how(client) -> None:
    (info,) = await asked(client, "$SRV.INFO.echo")
    assert info["description"] == "Says what it hears"
    assert info["metadata"] == {"node": "lab", "capabilities": "repeat,parrot"}
    assert info["endpoints"] == [
        {
            "name": "invoke",
            "subject": "agent.lab.echo",
            "queue_group": "lab",
            "metadata": {"executor": "rehearsal", "tags": "fast"},
        }
    ]


async def test_stats_count_requests_errors_and_time(insider, lab) -> None:
    (before,) = await asked(insider, "$SRV.STATS.silent")
    started = datetime.fromisoformat(before["started"])
    assert started.tzinfo is not None and started.timestamp() > 0
    answer = await insider.request("agent.lab.silent", b"null", timeout=30)
    assert answer.headers["Nats-Service-Error-Code"] == "502"
    (after,) = await asked(insider, "$SRV.STATS.silent")
    was, now = before["endpoints"][0], after["endpoints"][0]
    assert (now["num_requests"], now["num_errors"]) == (was["num_requests"] + 1, was["num_errors"] + 1)
    assert now["last_error"] == "could not"
    assert now["processing_time"] >= was["processing_time"] + 45_000_000  # a timer of 50 ms may be a little early
    assert now["average_processing_time"] == now["processing_time"] // now["num_requests"]
    assert now["data"] == {"running": 0, "queued": 0}


async def test_a_busy_answer_counts_as_an_error(insider, lab) -> None:
    async def running() -> int:
        (found,) = await asked(insider, "$SRV.STATS.slow", quiet_s=0.05)
        return found["endpoints"][0]["data"]["running"]

    inbox = insider.new_inbox()
    await insider.subscribe(inbox)
    async with asyncio.timeout(60):
        while await running():  # for a caller of another test, who is gone: it ends soon
            pass
        await insider.publish("agent.lab.slow", b"1", reply=inbox, headers={"Knot-Call": "busy-test;;;;;1;"})
        while not await running():
            pass
    answer = await insider.request("agent.lab.slow", b"2", timeout=30)
    assert answer.headers["Nats-Service-Error-Code"] == "429"
    (stats,) = await asked(insider, "$SRV.STATS.slow")
    assert "is busy" in stats["endpoints"][0]["last_error"]
    await insider.publish("cancel.lab.busy-test", b"")


async def test_a_plain_request_gets_plain_json(insider, theirs) -> None:
    answer = await insider.request("agent.lab.echo", b'{"a": [1, "\xc3\xa4"]}', timeout=30)
    assert (json.loads(answer.data), answer.headers) == ({"a": [1, "ä"]}, None)
    streamed = await insider.request("agent.lab.talker", b"null", timeout=30)
    assert json.loads(streamed.data)["text"] == "Good morning!"
    assert (await insider.request("theirs.double", b"21", timeout=30)).data == b"42"


async def test_an_error_has_the_two_headers_of_the_protocol(insider, theirs) -> None:
    reference = await insider.request("theirs.double", b"x", timeout=30)
    ours = await insider.request("agent.lab.echo", b"{", timeout=30)
    assert set(reference.headers) <= set(ours.headers)
    assert ours.headers["Nats-Service-Error-Code"] == "422"
    assert "not JSON" in ours.headers["Nats-Service-Error"]
    assert json.loads(ours.data)["code"] == "wire.not_json"
    two_lines = await insider.request("agent.lab.broken", b"1", timeout=30)
    assert "it broke badly" in two_lines.headers["Nats-Service-Error"]
    missing = await insider.request("agent.lab.nobody", b"1", timeout=30)
    assert missing.headers["Nats-Service-Error-Code"] == "404"
    with pytest.raises(NoRespondersError):
        await insider.request("agent.elsewhere.echo", b"1", timeout=30)


@pytest.mark.parametrize(
    ("version", "shown"),
    [
        ("0.1.0", "0.1.0"),
        ("1.2", "1.2.0"),
        ("1.2.dev3", "1.2.0-dev3"),
        ("1.2.3rc1+local.5", "1.2.3-rc1-local-5"),
        ("?", "0.0.0"),
    ],
)
def test_versions_are_semantic(version, shown) -> None:
    assert micro.semver(version) == shown
    assert SEMVER.fullmatch(shown)
