"""What triggers serve by HTTP: without a token, bounded, by path and method."""

from __future__ import annotations

import httpx
import pytest

from knotwork.web import serve


@pytest.fixture
async def client(node):
    async with (
        serve.run_web(serve.WebSettings(token="secret"), node) as door,
        httpx.AsyncClient(base_url=door.url, timeout=60, trust_env=False) as made,
    ):
        yield made


async def test_a_hook_needs_no_token(client):
    answer = await client.post("/hooks/in", content=b'{"a": 1}')
    assert (answer.status_code, answer.json(), answer.headers["knotwork-run"][0]) == (202, {"a": 1}, "w")
    assert (await client.get("/run/a/b?q=1")).status_code == 202
    assert answer.headers["x-content-type-options"] == "nosniff"


async def test_what_is_refused(client):
    refused = await client.post("/hooks/in", headers={"x-wrong": "yes"})
    assert (refused.status_code, refused.json()["code"]) == (401, "trigger.bad_signature")
    assert "www-authenticate" not in refused.headers
    wrong = await client.get("/hooks/in")
    assert (wrong.status_code, wrong.headers["allow"], wrong.json()["code"]) == (405, "POST", "trigger.wrong_method")
    assert (await client.delete("/run/a/b")).headers["allow"] == "GET, POST"
    for path in ("/hooks/out", "/run/in", "/hooks/", "/run/a", "/run/../api/node/status", "/hooks/%2e%2e/livez"):
        assert (await client.post(path)).status_code in (404, 401), path
    assert (await client.post("/hooks/in", content=b"x" * 101)).status_code == 413
    assert (await client.post("/hooks/in", headers={"host": "evil.example"})).status_code == 421
    assert (await client.post("/hooks/in", headers={"origin": "https://evil.example"})).status_code == 403
    assert (await client.get("/api/node/status")).status_code == 401


@pytest.mark.parametrize("status", [204, 205, 304])
async def test_a_status_that_has_no_body_ends_no_connection(client, status):
    """What follows such an answer on its connection is taken for the beginning of the next one."""
    for _ in range(3):
        answer = await client.post("/run/a/b", content=b'{"a": 1}', headers={"x-status": str(status)})
        assert (answer.status_code, answer.content, answer.headers["knotwork-run"][0]) == (status, b"", "w")
    assert (await client.post("/run/a/b", content=b'{"a": 1}')).json() == {"a": 1}


async def test_a_run_that_fails_or_is_late_is_told_by_a_problem_document(client):
    late = await client.post("/run/a/b", headers={"x-late": "yes"})
    assert (late.status_code, late.headers["content-type"]) == (504, "application/problem+json")
    told = late.json()
    assert (told["status"], told["code"], told["kind"]) == (504, "trigger.timeout", "timed_out")
    assert told["run"] == told["data"]["id"] == late.headers["knotwork-run"]


async def test_the_description_names_what_triggers_serve(client):
    paths = (await client.get("/openapi.json")).json()["paths"]
    hook, run = paths["/hooks/{path}"], paths["/run/{path}"]
    assert set(hook) == {"post"}
    assert set(run) == {"get", "head", "post", "put", "patch", "delete"}
    for operation in (*hook.values(), *run.values()):
        assert operation["security"] == []
        assert [one["name"] for one in operation["parameters"]] == ["path"]
    assert set(hook["post"]["responses"]) == {"202", "401", "413", "422", "default"}
    assert {"405", "500", "503", "504"} <= set(run["post"]["responses"])
    assert "requestBody" not in run["get"]
