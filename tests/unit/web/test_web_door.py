"""The HTTP door under a real uvicorn: ops, streams, errors, who may come in."""

from __future__ import annotations

import asyncio
import gzip
import json
import os
import socket
import threading

import httpx
import jsonschema
import pytest

from knotwork.ops import table
from knotwork.sdk.errors import ConfigInvalid, Conflict
from knotwork.web import openapi, serve

TOKEN = "open-sesame"
BEARER = {"authorization": f"Bearer {TOKEN}"}


async def _metrics():
    return "text/plain; version=0.0.4", b"up 1\n"


@pytest.fixture
async def web(node):
    settings = serve.WebSettings(
        token=TOKEN, allowed_hosts=("node.example",), allowed_origins=("https://console.example",)
    )
    async with serve.run_web(settings, node, _metrics) as door:
        yield door


@pytest.fixture
async def client(web):
    async with httpx.AsyncClient(base_url=web.url, headers=BEARER, timeout=60, trust_env=False) as made:
        yield made


def events(text):
    """Return (event, data) of a server-sent event stream."""
    blocks = [dict(line.split(": ", 1) for line in block.split("\n")) for block in text.split("\n\n") if block]
    return [(block["event"], json.loads(block["data"])) for block in blocks]


async def raw(web, request: bytes) -> bytes:
    reader, writer = await asyncio.open_connection("127.0.0.1", web.port)
    try:
        writer.write(request)
        writer.write_eof()
        async with asyncio.timeout(30):
            return await reader.read()
    finally:
        writer.close()


async def test_post_and_get(client):
    posted = await client.post("/api/agents/list", json={"capability": "talk"})
    got = await client.get("/api/agents/list", params={"capability": "talk", "limit": "5", "all": "true"})
    assert posted.status_code == got.status_code == 200
    assert posted.json() == got.json()
    assert [row["agent"] for row in got.json()["agents"]] == ["echo"]
    assert posted.headers["content-type"] == "application/json"


async def test_a_list_in_the_query(client):
    answer = await client.get("/api/agents/list", params={"tags": ["fast", "none"]})
    assert answer.json()["agents"] == []
    twice = await client.get("/api/agents/list", params={"capability": ["a", "b"]})
    assert (twice.status_code, twice.json()["code"]) == (422, "ops.bad_request")


async def test_a_body_may_be_left_out(client):
    assert (await client.post("/api/nodes/list")).status_code == 200


async def test_writing_ops_take_no_get(client):
    answer = await client.get("/api/node/stop")
    assert (answer.status_code, answer.json()["code"]) == (405, "web.no_such_path")
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.headers["allow"] == "POST"


async def test_invoke_answers_with_its_result_alone(client):
    answer = await client.post("/api/agents/invoke", json={"target": "echo", "input": {"a": 1}, "stream": True})
    assert answer.json()["output"] == {"a": 1}


async def test_invoke_streams_when_asked(client):
    answer = await client.post(
        "/api/agents/invoke",
        json={"target": "echo", "input": "two\nlines", "stream": True},
        headers={"accept": "text/event-stream"},
    )
    assert answer.headers["content-type"] == "text/event-stream"
    found = events(answer.text)
    assert [kind for kind, _ in found] == ["progress", "chunk", "result"]
    assert found[-1][1]["output"] == "two\nlines"


async def test_an_error_in_a_stream_is_its_last_event(client):
    answer = await client.post("/api/agents/invoke", json={"target": "full"}, headers={"accept": "text/event-stream"})
    assert [(kind, data["code"]) for kind, data in events(answer.text)] == [("error", "agent.busy")]


async def test_a_request_that_is_wrong_in_itself_is_refused_before_the_first_event(client):
    answer = await client.post("/api/agents/invoke", json={"no": 1}, headers={"accept": "text/event-stream"})
    assert (answer.status_code, answer.json()["code"]) == (422, "ops.bad_request")
    assert answer.headers["content-type"] == "application/problem+json"


async def test_events_stream_and_are_refused_without_one(client):
    answer = await client.get(
        "/api/node/events", params={"limit": 2, "names": "node.*"}, headers={"accept": "text/event-stream"}
    )
    assert [kind for kind, _ in events(answer.text)] == ["chunk", "chunk", "result"]
    refused = await client.get("/api/node/events")
    assert refused.json()["code"] == "web.stream_only"


@pytest.mark.parametrize("accept", ["text/event-stream", "application/json"])
async def test_a_caller_that_goes_away_cancels_the_work(client, node, accept):
    async with asyncio.timeout(30), asyncio.TaskGroup() as group:
        asking = group.create_task(
            client.post("/api/agents/invoke", json={"target": "slow"}, headers={"accept": accept})
        )
        while not node.one_mesh.calls:
            await asyncio.sleep(0.005)
        asking.cancel()
    async with asyncio.timeout(30):
        await node.one_mesh.cancelled.wait()


async def test_problems(client):
    answer = await client.post("/api/agents/invoke", json={"target": "a.b", "no": 1})
    problem = answer.json()
    assert answer.status_code == problem["status"] == 422
    assert answer.headers["content-type"] == "application/problem+json"
    assert problem["type"] == "urn:knotwork:error:ops.bad_request"
    assert problem["title"].startswith("Unprocessable")
    assert {found["field"] for found in problem["problems"]} == {"target", "no"}
    busy = await client.post("/api/agents/invoke", json={"target": "full"})
    assert (busy.status_code, busy.headers["retry-after"], busy.json()["kind"]) == (429, "2", "busy")
    bug = await client.post("/api/agents/invoke", json={"target": "broken"})
    assert (bug.status_code, bug.json()["kind"]) == (500, "internal")


async def test_a_refused_reload_tells_every_problem(client, node):
    node.reload_problems = [{"file": "knotwork.toml", "line": 1, "column": 2, "message": "no"}]
    answer = await client.post("/api/node/reload")
    assert (answer.status_code, answer.json()["problems"]) == (422, node.reload_problems)


@pytest.mark.parametrize(
    "path", ["/", "/api/config/nothing", "/api/agents/list/", "/api", "/%00", "/api/../openapi.json/x"]
)
async def test_unknown_paths_are_problems(client, path):
    answer = await client.get(path)
    assert (answer.status_code, answer.json()["code"]) == (404, "web.no_such_path")


async def test_the_project_and_the_trace_travel(client, node):
    trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    await client.post("/api/agents/invoke", json={"target": "echo"}, headers={"traceparent": trace})
    await client.post("/api/agents/invoke", json={"target": "echo"}, headers={"traceparent": "nonsense"})
    assert [caller.traceparent for _, caller in node.one_mesh.calls] == [trace, ""]
    other = await client.get("/api/nodes/list", headers={"knotwork-project": "other"})
    assert other.json()["code"] == "project.not_found"
    bad = await client.get("/api/nodes/list", headers={"knotwork-project": "a.b"})
    assert bad.json()["code"] == "web.bad_project"


async def test_without_the_token_nobody_comes_in(web, client, node):
    for header in (
        {},
        {"authorization": "Bearer wrong"},
        {"authorization": f"Basic {TOKEN}"},
        {"authorization": TOKEN},
        {"authorization": "Bearer"},
        {"authorization": b"Bearer \xff\xfe"},
    ):
        async with httpx.AsyncClient(base_url=web.url, headers=header, trust_env=False) as stranger:
            answer = await stranger.post("/api/node/stop")
            assert (answer.status_code, answer.json()["code"]) == (401, "web.no_token")
            assert answer.headers["www-authenticate"].startswith("Bearer")
            assert (await stranger.get("/metrics")).status_code == 401
            assert (await stranger.get("/no/such/path")).status_code == 401
            assert (await stranger.get("/livez")).status_code == 200
    assert node.asked == []


async def test_an_empty_token_lets_nobody_in(node):
    async with (
        serve.run_web(serve.WebSettings(token=""), node) as door,
        httpx.AsyncClient(base_url=door.url, trust_env=False) as stranger,
    ):
        for header in ({}, {"authorization": "Bearer"}, {"authorization": "Bearer x"}):
            assert (await stranger.get("/api/nodes/list", headers=header)).status_code == 401


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("evil.example", 421),
        ("127.0.0.1.evil.example", 421),
        ("", 421),
        ("[bad", 421),
        ("node.example", 200),
        ("NODE.example:81", 200),
        ("localhost", 200),
        ("[::1]:5", 200),
    ],
)
async def test_the_host_is_checked(client, host, status):
    answer = await client.get("/api/nodes/list", headers={"host": host})
    assert answer.status_code == status
    if status == 421:
        assert answer.json()["code"] == "web.bad_host"


async def test_the_origin_is_checked(web, client):
    for origin, status in (
        ("https://evil.example", 403),
        ("null", 403),
        (web.url, 200),
        ("https://console.example", 200),
    ):
        answer = await client.get("/api/nodes/list", headers={"origin": origin})
        assert answer.status_code == status, origin
        allowed = answer.headers.get("access-control-allow-origin")
        assert allowed == (origin if origin == "https://console.example" else None)
    asked = await client.options("/api/nodes/list", headers={"origin": "https://console.example"})
    assert (asked.status_code, asked.headers["access-control-allow-methods"]) == (204, "GET, POST, DELETE")
    assert (await client.options("/api/nodes/list", headers={"origin": "https://evil.example"})).status_code == 403


async def test_allowed_names_change_while_the_door_is_open(web, client):
    web.allow(("other.example",), ())
    assert (await client.get("/api/nodes/list", headers={"host": "other.example"})).status_code == 200
    assert (await client.get("/api/nodes/list", headers={"host": "node.example"})).status_code == 421
    assert (await client.get("/api/nodes/list", headers={"origin": "https://console.example"})).status_code == 403


async def test_every_response_carries_the_safe_headers(client):
    for path in ("/livez", "/api/nodes/list", "/nothing"):
        headers = (await client.get(path)).headers
        assert headers["x-content-type-options"] == "nosniff"
        assert "default-src 'none'" in headers["content-security-policy"]
        assert headers["cache-control"] == "no-store"
        assert "server" not in headers


async def test_a_body_over_the_limit_is_refused(web, client):
    big = b"x" * (8 * 1024 * 1024 + 1)
    announced = await client.post("/api/agents/invoke", content=big)
    assert (announced.status_code, announced.json()["code"]) == (413, "ops.request_too_large")

    async def parts():
        for _ in range(9):
            yield b"y" * 1024 * 1024

    chunked = await client.post("/api/agents/invoke", content=parts())
    assert chunked.status_code == 413
    lying = await raw(
        web,
        b"POST /api/agents/invoke HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer open-sesame\r\n"
        b"Connection: close\r\nContent-Length: 99999999999999999999999\r\n\r\n",
    )
    assert lying.split(b" ", 2)[1] in (b"400", b"413")


async def test_a_packed_body_is_refused_as_such(client):
    packed = gzip.compress(b"{}")
    answer = await client.post("/api/node/status", content=packed, headers={"content-encoding": "gzip"})
    assert (answer.status_code, answer.json()["code"]) == (422, "web.encoding")
    plain = await client.post("/api/node/status", content=b"{}", headers={"content-encoding": "identity"})
    assert plain.status_code == 200


async def test_garbage_does_not_close_the_door(web, client):
    for junk in (
        b"\x00\x01\x02\r\n\r\n",
        b"GET\r\n\r\n",
        b"\x16\x03\x01\x00\xa5\x01\r\n\r\n",
    ):
        answer = await raw(web, junk)
        assert answer == b"" or answer.startswith(b"HTTP/1.1 400"), junk
    for body in (b"{", b"[]", b"\xff", b"[" * 50_000):
        assert (await client.post("/api/agents/invoke", content=body)).status_code == 422
    assert (await client.get("/livez")).status_code == 200


async def test_health(client, node):
    assert (await client.get("/readyz")).json()["ready"] is True
    node.ready = False
    assert (await client.get("/readyz")).status_code == 503
    assert (await client.get("/livez")).status_code == 200


async def test_metrics(client, node):
    answer = await client.get("/metrics")
    assert (answer.text, answer.headers["content-type"]) == ("up 1\n", "text/plain; version=0.0.4; charset=utf-8")
    async with (
        serve.run_web(serve.WebSettings(token=TOKEN), node) as door,
        httpx.AsyncClient(base_url=door.url, headers=BEARER, trust_env=False) as other,
    ):
        assert (await other.get("/metrics")).json()["code"] == "web.no_metrics"


def resolved(document, reference):
    found = document
    for part in reference.removeprefix("#/").split("/"):
        found = found[part]
    return found


def references(value):
    if isinstance(value, dict):
        if isinstance(value.get("$ref"), str):
            yield value["$ref"]
        for part in value.values():
            yield from references(part)
    elif isinstance(value, list):
        for part in value:
            yield from references(part)


async def test_the_description_covers_every_op_and_is_sound(client):
    document = (await client.get("/openapi.json")).json()
    assert document["openapi"] == "3.1.0"
    for op in table.TABLE.values():
        path = document["paths"][f"/api/{op.room}/{op.verb}"]
        assert path["post"]["operationId"] == op.name
        assert ("get" in path) == (op.effect == "read")
    for reference in references(document):
        assert resolved(document, reference)
    ids = [
        operation["operationId"]
        for path in document["paths"].values()
        for operation in path.values()
        if "operationId" in operation
    ]
    assert len(ids) == len(set(ids))
    for schema in document["components"]["schemas"].values():
        jsonschema.Draft202012Validator.check_schema(schema)


async def test_answers_and_errors_match_the_description(client):
    document = (await client.get("/openapi.json")).json()

    def check(value, name):
        jsonschema.validate(value, {**document, "$ref": f"#/components/schemas/{name}"})

    check((await client.post("/api/agents/list")).json(), "AgentList")
    check((await client.post("/api/node/status")).json(), "NodeStatus")
    check((await client.post("/api/agents/invoke", json={})).json(), "Problem")
    with pytest.raises(jsonschema.ValidationError):
        check({"agents": 1}, "AgentList")


async def test_a_taken_port_is_named(web, node):
    with pytest.raises(Conflict, match=str(web.port)) as caught:
        async with serve.run_web(serve.WebSettings(token=TOKEN, port=web.port), node):
            pass
    assert caught.value.code == "web.port_in_use"
    assert caught.value.detail["pid"] == os.getpid()
    assert f"in use by process {os.getpid()}" in caught.value.message


@pytest.mark.parametrize("host", ["192.0.2.1", "nobody.invalid"])
async def test_an_address_that_is_not_ours_is_told_as_such(node, tmp_path, host):
    settings = serve.WebSettings(token=TOKEN, host=host, port_file=tmp_path / "port")
    with pytest.raises(ConfigInvalid, match="HTTP cannot listen on") as caught:
        async with serve.run_web(settings, node):
            pass
    assert caught.value.code == "web.cannot_listen"
    assert "web.host" in caught.value.hint


async def test_the_door_closes_with_requests_running_and_passes_errors_on(node):
    settings = serve.WebSettings(token=TOKEN)
    async with asyncio.TaskGroup() as group:
        with pytest.raises(ZeroDivisionError):
            async with (
                serve.run_web(settings, node) as door,
                httpx.AsyncClient(base_url=door.url, headers=BEARER) as one,
            ):

                async def slow():
                    with pytest.raises((httpx.HTTPError, ExceptionGroup)):
                        (await one.post("/api/agents/invoke", json={"target": "slow"})).raise_for_status()

                running = group.create_task(slow())
                async with asyncio.timeout(30):
                    while not node.one_mesh.calls:
                        await asyncio.sleep(0.005)
                raise ZeroDivisionError
        async with asyncio.timeout(30):
            await running
    assert node.one_mesh.cancelled.is_set()
    with pytest.raises(OSError, match=r"."), socket.create_connection(("127.0.0.1", door.port), 1):
        pass


async def test_a_cancelled_owner_is_cancelled(node):
    opened = asyncio.Event()

    async def own():
        async with serve.run_web(serve.WebSettings(token=TOKEN), node):
            opened.set()
            await asyncio.Event().wait()

    async with asyncio.TaskGroup() as group:
        owner = group.create_task(own())
        async with asyncio.timeout(30):
            await opened.wait()
            owner.cancel()
            with pytest.raises(asyncio.CancelledError):
                await owner


async def test_the_description_is_made_once_and_holds_nobody_up(client, monkeypatch):
    """The first asker needs no token, and to load every op takes most of a second."""
    asked, go = [], threading.Event()

    def document(version):
        asked.append(version)
        return {"went_on": go.wait(60)}

    monkeypatch.setattr(openapi, "document", document)

    async def others():
        async with asyncio.timeout(50):
            while not asked:
                await asyncio.sleep(0.01)
        assert (await client.get("/livez")).status_code == 200
        go.set()

    async with asyncio.TaskGroup() as group:
        askers = [group.create_task(client.get("/openapi.json")) for _ in range(3)]
        group.create_task(others())
    assert [one.result().json() for one in askers] == [{"went_on": True}] * 3
    assert len(asked) == 1
