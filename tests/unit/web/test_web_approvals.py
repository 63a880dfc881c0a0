"""Links by which people answer what a run asks: without a token, as a page and as JSON, and looking spends nothing."""

from __future__ import annotations

import httpx
import pytest

from knotwork.web import serve

PAGE = {"accept": "text/html,application/xhtml+xml"}


@pytest.fixture
async def client(node):
    async with (
        serve.run_web(serve.WebSettings(token="secret"), node) as door,
        httpx.AsyncClient(base_url=door.url, timeout=60, trust_env=False) as made,
    ):
        yield made


async def test_programs_are_shown_json(client):
    shown = await client.get("/approve/ok")
    assert (shown.status_code, shown.json()["state"], shown.json()["input"]) == (200, "waiting", {"a": "<b>"})
    said = await client.post("/approve/ok", json={"decision": "reject", "comment": "no"})
    assert (said.status_code, said.json()["state"], said.json()["comment"]) == (200, "rejected", "no")
    assert shown.headers["referrer-policy"] == "no-referrer"
    assert shown.headers["cache-control"] == "no-store"


async def test_json_is_taken_under_the_content_type_that_curl_gives_it(client):
    form = {"content-type": "application/x-www-form-urlencoded"}
    said = await client.post("/approve/ok", content=b' {"decision": "approve", "comment": "a=b&c"}', headers=form)
    assert (said.status_code, said.json()["state"], said.json()["comment"]) == (200, "approved", "a=b&c")
    assert (await client.post("/approve/ok", content=b'{"decision":', headers=form)).status_code == 422


async def test_people_are_shown_a_page_in_which_nothing_is_markup(client):
    shown = await client.get("/approve/ok", headers=PAGE)
    assert shown.headers["content-type"] == "text/html; charset=utf-8"
    assert "Ship &lt;it&gt;?" in shown.text
    assert "&lt;b&gt;" in shown.text
    assert "<b>" not in shown.text
    form = {"decision": "approve", "comment": "fine"}
    said = await client.post("/approve/ok", data=form, headers={**PAGE, "origin": str(client.base_url).rstrip("/")})
    assert (said.status_code, "approved it. fine" in said.text) == (200, True)


@pytest.mark.parametrize(("link", "status", "code"), [("late", 410, "flow.link_expired"), ("x", 404, "flow.no_link")])
async def test_a_link_that_does_not_hold(client, link, status, code):
    shown = await client.get(f"/approve/{link}")
    assert (shown.status_code, shown.json()["code"]) == (status, code)
    page = await client.post(f"/approve/{link}", json={"decision": "approve"}, headers=PAGE)
    assert (page.status_code, page.headers["content-type"]) == (status, "text/html; charset=utf-8")


async def test_what_decides_nothing(client):
    for body in (b"", b"[]", b'{"decision": "maybe"}', b'{"decision": "approve", "comment": 7}', b"\xff", b"{" * 9000):
        answer = await client.post("/approve/ok", content=body)
        assert (answer.status_code, answer.json()["code"]) == (422, "web.bad_decision"), body
    assert (await client.post("/approve/ok", content=b"x" * 20_000)).status_code == 413
    again = await client.post("/approve/ok", json={"decision": "approve", "comment": "again"})
    assert (again.status_code, again.json()["code"]) == (409, "flow.answered")
    assert (await client.put("/approve/ok")).status_code == 405
    assert (await client.get("/approve/a/b")).status_code == 404
    evil = {"origin": "https://evil.example"}
    assert (await client.post("/approve/ok", json={"decision": "approve"}, headers=evil)).status_code == 403


async def test_the_description_has_it(client):
    path = (await client.get("/openapi.json")).json()["paths"]["/approve/{link}"]
    assert set(path) == {"get", "post"}
    assert {"200", "404", "409", "410"} <= set(path["post"]["responses"])
