"""The routes for workers in any language: what each action means, what is told, and that the description is true."""

from __future__ import annotations

import asyncio
import json

import httpx
import jsonschema
import pytest

from knotwork.ops import table
from knotwork.sdk.errors import NotFound
from knotwork.web import openapi, routes, serve, workers

TOKEN = "open-sesame"
RUN = "t0198c0ffee00d15ea5e0ddba11"


async def _metrics():
    raise NotFound("None.")


@pytest.fixture
def claims(node):
    return node.claims("default")


@pytest.fixture
async def client(node, claims):
    async with (
        serve.run_web(serve.WebSettings(token=TOKEN), node, _metrics) as door,
        httpx.AsyncClient(
            base_url=door.url, headers={"authorization": f"Bearer {TOKEN}"}, timeout=30, trust_env=False
        ) as made,
    ):
        yield made


ACTIONS = [
    ("complete", {"output": 1}, ("complete", 1)),
    ("continue", {"output": 1}, ("go_on", 1)),
    ("fail", {"message": "no"}, ("fail", "no", "agent.failed", False, None)),
    ("retry", {}, ("fail", workers.RETRY["message"], "agent.failed", True, None)),
    ("retry", {"retry_after_s": 3, "message": "busy"}, ("fail", "busy", "agent.failed", True, 3.0)),
    ("heartbeat", {"lease_s": 30}, ("extend", 30.0)),
    ("heartbeat", {}, ("extend", None)),
    ("progress", {"percent": 5, "text": "x"}, ("progress", 5.0, "x")),
    ("stream", {"data": [1]}, ("stream", [1])),
    ("checkpoint", {"data": {"a": 1}}, ("save", {"a": 1})),
    ("checkpoint", {"read": True}, ("saved",)),
    ("release", {"why": "x"}, ("release", "x")),
]


@pytest.mark.parametrize(("action", "fields", "meant"), ACTIONS)
async def test_an_action_is_an_op(client, claims, action, fields, meant):
    answer = await client.post(f"/v1/tasks/{RUN}/resolve", json={"action": action, "claim": "c", **fields})
    assert answer.status_code == 200, answer.text
    (asked,) = claims.asked
    assert (asked[0], *asked[2:]) == meant
    assert (asked[1].claim, asked[1].id) == ("c", RUN)


async def test_signals_need_no_claim(client, claims):
    path = f"/v1/tasks/{RUN}/resolve"
    await client.post(path, json={"action": "signal", "name": "go", "data": 1})
    await client.post(path, json={"action": "wait_signal", "name": "go", "wait_s": 2})
    assert claims.asked == [("signal", RUN, "go", 1), ("wait_signal", RUN, "go", 2.0)]


async def test_the_id_in_the_path_counts(client, claims):
    body = {"action": "complete", "claim": "c", "id": "t9999999999999999"}
    await client.post(f"/v1/tasks/{RUN}/resolve", json=body)
    assert claims.asked[0][1].id == RUN


async def test_polling_is_claiming(client, claims):
    body = {"worker": "me", "capabilities": ["a"], "max_tasks": 2, "wait_s": 1, "lease_s": 9}
    answer = await client.post("/v1/tasks/poll", json=body)
    assert answer.json()["tasks"][0]["claim"] == "c"
    assert claims.asked == [("me", ("a",), 2, 1.0, 9.0)]


async def test_the_line_says_what_happens_and_that_it_lives(client, claims, monkeypatch):
    monkeypatch.setattr(routes, "KEEPALIVE_S", 0.05)
    claims.stays = True
    seen = []
    async with client.stream("POST", "/v1/workers/connect", json={"worker": "me"}) as answer:
        assert answer.headers["content-type"] == "text/event-stream"
        async for line in answer.aiter_lines():
            seen.append(line)
            if line == "event: heartbeat":
                break
    assert seen[:6] == [
        "event: connected", 'data: {"worker":"me"}', "", "event: lost", f'data: {{"id":"{RUN}","why":"ended"}}', "",
    ]  # fmt: skip
    async with asyncio.timeout(30):
        await claims.gone.wait()  # who hangs up is gone


async def test_a_refusal_is_a_problem(client):
    answer = await client.post(f"/v1/tasks/{RUN}/resolve", json={"action": "complete", "claim": "late"})
    assert (answer.status_code, answer.json()["code"]) == (409, "claim.superseded")
    assert answer.headers["content-type"] == "application/problem+json"


@pytest.mark.parametrize("body", ["", "[]", "1", '"complete"', "{}", '{"action": null}', '{"action": "work.complete"}'])
async def test_no_action_is_refused(client, claims, body):
    answer = await client.post(f"/v1/tasks/{RUN}/resolve", content=body)
    assert (answer.status_code, answer.json()["code"]) == (422, "web.bad_action")
    assert claims.asked == []


def test_every_action_is_described_as_it_is():
    schema = openapi.document("0")["paths"]["/v1/tasks/{id}/resolve"]["post"]["requestBody"]["content"]
    body = schema["application/json"]["schema"]
    for action, fields, _ in ACTIONS:
        jsonschema.validate({"action": action, "claim": "c", **fields}, body)
    for wrong in ({"action": "complete"}, {"action": "nothing", "claim": "c"}, {"action": "signal", "claim": "c"}):
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate(wrong, body)
    assert {one["title"] for one in body["oneOf"]} == workers.ACTIONS.keys()
    assert set(workers.ACTIONS.values()) <= table.TABLE.keys()
    assert json.dumps(body)
