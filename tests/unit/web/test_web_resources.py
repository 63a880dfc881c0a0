"""Paths named after things, ETags, links to the next page, and the feed, under a real uvicorn."""

from __future__ import annotations

import json
import re
from pathlib import Path

import httpx
import pytest

from knotwork.ops import fields, pages, table
from knotwork.sdk.errors import Invalid
from knotwork.web import etag, resources, serve

TOKEN = "open-sesame"
BEARER = {"authorization": f"Bearer {TOKEN}"}
RUN = "t0198c0ffee00d15ea5e0ddba11"
PAGE = (Path(__file__).parents[3] / "docs" / "rest.md").read_text(encoding="utf-8")


@pytest.fixture
async def client(node):
    settings = serve.WebSettings(token=TOKEN, allowed_origins=("https://console.example",))
    async with (
        serve.run_web(settings, node) as door,
        httpx.AsyncClient(base_url=door.url, headers=BEARER, timeout=60, trust_env=False) as made,
    ):
        yield made


# -- the table -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("row", resources.RESOURCES, ids=lambda row: f"{row.method} {row.path}")
def test_each_row_is_an_op_and_fills_fields_of_its_request(row):
    op = table.TABLE[row.op]
    assert set(row.parts.values()) <= set(op.request.model_fields)
    assert row.method == "POST" or op.effect == "read"
    assert not row.each or row.each in op.reply.model_fields
    assert not row.created or {"id", "new"} <= set(op.reply.model_fields)
    if row.of_node:  # the query parameter hides no field of the op
        assert resources.NODE not in op.request.model_fields
        assert "/" in str(fields.of(op) and op.request.model_json_schema()["properties"])


def test_no_two_rows_are_the_same_and_none_hides_an_op():
    rows = [(row.method, row.path) for row in resources.RESOURCES]
    assert len(rows) == len(set(rows))
    assert not {f"/api/{op.room}/{op.verb}" for op in table.TABLE.values()} & {path for _, path in rows}


def test_the_page_names_every_row_and_its_op_and_no_other():
    told = re.findall(r"^\| `(GET|POST) (/api/\S+?)` \|.*?\| `(\w+\.\w+)` \|$", PAGE, re.MULTILINE)
    assert sorted(told) == sorted((row.method, row.path, row.op) for row in resources.RESOURCES)


def test_the_page_says_where_each_endpoint_of_weft_is():
    rows = re.findall(
        r"^\| `(GET|POST|PUT|DELETE) (/\S+)` \| (.+) \|$", PAGE.partition("## Beside Weft")[2], re.MULTILINE
    )
    assert len(rows) == len({row[:2] for row in rows}) == 27
    here = {(row.method, row.path) for row in resources.RESOURCES}
    for method, path, said in rows:
        named = set(re.findall(r"`(GET|POST|PUT|DELETE) (/api/\S+)`", said))
        assert named <= here, said
        assert not said.startswith("the same") or (method, path) in here
        assert (method, path) not in here or said.startswith("the same")


async def test_the_description_has_every_row(client):
    document = (await client.get("/openapi.json")).json()
    for row in resources.RESOURCES:
        operation = document["paths"][row.path][row.method.lower()]
        named = {one["name"] for one in operation["parameters"] if one.get("in") == "path"}
        assert named == set(row.parts)
        assert ("201" in operation["responses"]) == bool(row.created)
    body = document["paths"]["/api/work/{id}/complete"]["post"]["requestBody"]["content"]["application/json"]["schema"]
    assert set(body["properties"]) == {"claim", "output"}
    assert body["required"] == ["claim"]


# -- what is asked -------------------------------------------------------------------------------------------------------


async def test_a_part_of_the_path_is_a_field_of_the_op(client, node):
    assert (await client.get(f"/api/work/{RUN}", params={"with_input": "true"})).json()["input"] == "in"
    assert (await client.get("/api/agents/echo", params={"node": "here"})).json()["name"] == "here/echo"
    assert (await client.get("/api/agents/echo", params={"node": "there"})).status_code == 404
    called = await client.post("/api/agents/echo/invoke", params={"node": "here"}, json={"input": 7})
    assert called.json()["output"] == 7
    assert node.one_mesh.calls[0][0].target == "here/echo"
    switched = await client.post("/api/targets/gpu-box/enable", params={"node": "here"})
    assert switched.json()["already"] == ["here/here/gpu-box"]  # the stand-in says what it was asked


async def test_what_is_new_is_201_with_its_place(client):
    made = await client.post("/api/work", json={"capability": "talk"})
    assert (made.status_code, made.headers["location"]) == (201, "/api/work/t0000000000000001")
    again = await client.post(f"/api/work/{RUN}/retry")
    assert (again.status_code, again.headers["location"]) == (201, "/api/work/t0000000000000002")


async def test_one_that_is_cancelled_is_the_answer_or_its_error(client):
    done = await client.post(f"/api/work/{RUN}/cancel", json={"why": "enough"})
    assert (done.status_code, done.json()["id"], done.json()["why"]) == (200, RUN, "enough")
    unknown = await client.post("/api/work/x0000000000000001/cancel")
    assert (unknown.status_code, unknown.json()["code"]) == (404, "work.not_found")
    assert unknown.headers["content-type"] == "application/problem+json"
    many = await client.post("/api/work/cancel-batch", json={"ids": [RUN, "x0000000000000001"]})
    assert (many.status_code, len(many.json()["tasks"])) == (200, 2)


@pytest.mark.parametrize("path", ["/api/work/list/cancel", f"/api/work/{RUN}%2f../cancel", "/api/work/%F0%9F%92%A9"])
async def test_hostile_names_are_refused(client, path):
    answer = await (client.post(path) if path.endswith("cancel") else client.get(path))
    assert (answer.status_code, answer.json()["code"]) in {(422, "ops.bad_request"), (404, "web.no_such_path")}


@pytest.mark.parametrize("path", ["/api/work/cancel-batch", "/api/task/cancel", "/v1/tasks/t0000000000000001/resolve"])
async def test_a_field_in_the_query_of_a_post_is_not_ignored(client, path):
    answer = await client.post(path, params={"dry_run": "true"}, json={})
    assert (answer.status_code, answer.json()["code"]) == (422, "web.said_in_query")
    assert "dry_run" in answer.json()["detail"]


async def test_a_field_of_the_path_may_not_be_said_otherwise(client):
    answer = await client.post(f"/api/work/{RUN}/complete", json={"id": "t0000000000000001", "claim": "c"})
    assert (answer.status_code, answer.json()["code"]) == (422, "web.said_twice")
    same = await client.get(f"/api/work/{RUN}", params={"id": RUN})
    assert same.status_code == 200


@pytest.mark.parametrize("body", [b"{", b"[]", b"7", b"\xff", b"[" * 50_000])
async def test_garbage_in_a_body_is_a_problem(client, body):
    answer = await client.post(f"/api/work/{RUN}/complete", content=body)
    assert answer.status_code == 422
    assert answer.headers["content-type"] == "application/problem+json"


@pytest.mark.parametrize(
    ("method", "path", "allow"),
    [
        ("DELETE", "/api/work", {"GET", "HEAD", "POST"}),
        ("PUT", f"/api/work/{RUN}", {"GET", "HEAD"}),
        ("GET", "/api/work/cancel-batch", {"POST"}),
        ("GET", "/api/work/complete", {"POST"}),  # the verb of an op is no id
        ("POST", "/api/events", {"GET", "HEAD"}),
        ("DELETE", "/api/targets/gpu-box", {"GET", "HEAD"}),
    ],
)
async def test_a_wrong_method_is_refused(client, method, path, allow):
    answer = await client.request(method, path)
    assert (answer.status_code, answer.headers["content-type"]) == (405, "application/problem+json")
    assert set(re.split(r", *", answer.headers["allow"])) == allow


# -- etags and pages -----------------------------------------------------------------------------------------------------


async def test_an_etag_changes_with_the_answer_and_only_then(client, node):
    first = await client.get("/api/agents")
    tag = first.headers["etag"]
    assert re.fullmatch(r'"[0-9a-f]{32}"', tag)
    for known in (tag, f"W/{tag}", f'"other", {tag}', "*"):
        same = await client.get("/api/agents", headers={"if-none-match": known})
        assert (same.status_code, same.content, same.headers["etag"]) == (304, b"", tag)
        assert same.headers["x-content-type-options"] == "nosniff"
    for other in ('"other"', tag.strip('"'), "", "W/"):
        assert (await client.get("/api/agents", headers={"if-none-match": other})).status_code == 200
    node.one_mesh.known.pop()
    changed = await client.get("/api/agents", headers={"if-none-match": tag})
    assert changed.status_code == 200
    assert changed.headers["etag"] != tag


async def test_the_old_paths_have_etags_and_what_is_posted_has_none(client):
    tag = (await client.get("/api/task/list")).headers["etag"]
    assert (await client.get("/api/task/list", headers={"if-none-match": tag})).status_code == 304
    posted = await client.post("/api/task/list", headers={"if-none-match": tag})
    assert posted.status_code == 200
    assert "etag" not in posted.headers


async def test_errors_have_no_etag(client):
    answer = await client.get("/api/agents/nobody", headers={"if-none-match": "*"})
    assert answer.status_code == 404
    assert "etag" not in answer.headers


async def test_pages_follow_one_another_by_link_and_by_next(client):
    path, seen = "/api/agents?limit=1&tags=&all=true".replace("tags=&", ""), []
    while path:
        answer = await client.get(path)
        seen += [row["agent"] for row in answer.json()["agents"]]
        assert ("link" in answer.headers) == bool(answer.json()["next"])
        path = answer.links.get("next", {}).get("url")
        assert path is None or ("limit=1" in path and "all=true" in path)
    assert seen == ["echo", "slow", "full"]


@pytest.mark.parametrize("cursor", ["x", "!!", "0", "é", "a" * 257, pages._write("a")[:-1] + "~"])
async def test_an_unknown_cursor_is_refused(client, cursor):
    answer = await client.get("/api/agents", params={"cursor": cursor})
    assert (answer.status_code, answer.json()["code"]) in {(422, "ops.bad_cursor"), (422, "ops.bad_request")}


def test_pages_hold_whatever_comes_and_goes():
    rows = [f"r{number:02}" for number in range(10)]
    first, cursor = pages.page(rows, str, "", 4)
    rows = [row for row in rows if row != first[-1]] + ["r005"]  # the last one seen goes, an earlier place is filled
    second, cursor = pages.page(rows, str, cursor, 4)
    third, end = pages.page(rows, str, cursor, 4)
    assert (first, second, third, end) == (
        ["r00", "r01", "r02", "r03"],
        ["r04", "r05", "r06", "r07"],
        ["r08", "r09"],
        "",
    )
    assert pages.page([], str, "", 1) == ([], "")
    with pytest.raises(Invalid, match="no cursor"):
        pages.page(rows, str, "bm9uZQ", 4)


def test_a_next_that_is_no_text_is_no_link():
    assert etag._page.decode(b'{"next": "c", "x": [1]}').next == "c"
    assert etag.has(' "a" ,W/"b"', '"b"')
    assert not etag.has("", '"b"')


# -- figures and the feed ------------------------------------------------------------------------------------------------


async def test_a_state_that_no_target_has_is_refused(client):
    for answer in (
        await client.get("/api/targets?state=cooling"),
        await client.post("/api/targets/disable-batch", json={"state": "cooling"}),
    ):
        assert (answer.status_code, answer.json()["problems"][0]["field"]) == (422, "state")


async def test_figures(client):
    one = (await client.get("/api/stats")).json()
    assert (one["project"], one["waiting"], one["agents"], one["launches"]) == ("default", 1, {"online": 3}, {"up": 1})
    every = (await client.get("/api/stats/projects")).json()
    assert every["projects"] == [one]
    assert every["totals"] == {key: value for key, value in one.items() if key not in ("project", "why")}


def blocks(text):
    """Return (event, id, data) of a stream."""
    found = []
    for block in text.split("\n\n"):
        lines = dict(line.split(": ", 1) for line in block.split("\n") if line)
        if lines:
            found.append((lines["event"], lines.get("id", ""), json.loads(lines["data"])))
    return found


async def test_the_feed_names_events_after_topics_and_tells_back_where_the_caller_was(client):
    answer = await client.get("/api/events?topics=work,agents&topics=stats&limit=3", headers={"last-event-id": "s-0"})
    assert answer.headers["content-type"] == "text/event-stream"
    opened, work, missed, end = blocks(answer.text)
    assert opened[:2] == ("feed", "s-1")
    assert opened[2]["data"] == {"topics": ["agents", "stats", "work"], "after": "s-0"}
    assert work[:2] == ("work", "s-2")
    assert (work[2]["what"], work[2]["data"]["id"]) == ("completed", "t0000000000000001")
    assert missed[2]["data"]["count"] == 4
    assert end == ("end", "", {"count": 3, "dropped": 4})


async def test_a_feed_of_nothing_known_is_refused(client):
    answer = await client.get("/api/events?topics=weather")
    assert (answer.status_code, answer.json()["code"]) == (422, "ops.bad_request")
    assert answer.headers["content-type"] == "application/problem+json"
    assert [one["field"] for one in answer.json()["problems"]] == ["topics.0"]


async def test_pages_of_others_may_use_what_is_new(client):
    origin = {"origin": "https://console.example"}
    asked = await client.options("/api/events", headers=origin)
    assert {"if-none-match", "last-event-id"} <= set(asked.headers["access-control-allow-headers"].split(", "))
    got = await client.get("/api/work", headers=origin)
    assert "etag" in got.headers["access-control-expose-headers"]
    assert (await client.get("/api/events", headers={"origin": "https://evil.example"})).status_code == 403
