"""Paths named after things, ETags and the feed, over real HTTP and a real node."""

from __future__ import annotations

import contextlib
import http.client
import json
import re
import socket
import sys
import threading
from collections.abc import Iterator
from typing import Any

import pytest
from tests.e2e.conftest import WAIT_S, Answer, Node, until

from knotwork.web import resources

CONFIG = """
[node]
name = "one"
[mesh]
heartbeat_s = 1.0
[executors.shout]
type = "process"
command = ["tr", "a-z", "A-Z"]
[executors.lazy]
type = "rehearsal"
{more}
[targets.here]
type = "local"
command = [{program}, "-m", "knotwork", "up", "--config", "{folder}/agent.toml", "--data-dir", "{folder}/launched"]
capabilities = ["whisper"]
idle_s = 600.0
cooldown_s = 0.5
[targets.there]
type = "local"
command = ["true"]
capabilities = ["nothing-asks-for-it"]
"""
AGENT = """
[web]
enabled = false
[mesh]
heartbeat_s = 1.0
[executors.whisper]
type = "process"
command = ["cat"]
"""


def config(node: Node, more: str = "") -> str:
    return CONFIG.format(program=json.dumps(sys.executable), folder=node.folder, more=more)


@pytest.fixture(scope="module")
def node(shared_nodes):
    made = shared_nodes.node(name="one")
    made.write(AGENT, "agent.toml")
    made.write(config(made))
    return made.up()


def ask(node: Node, method: str, path: str, body: Any = None, **headers: str) -> Answer:
    data = None if body is None else body if isinstance(body, bytes) else json.dumps(body).encode()
    return node.http(method, path, data, **{"authorization": f"Bearer {node.token}", **headers})


def got(node: Node, path: str, **headers: str) -> Any:
    answer = ask(node, "GET", path, **headers)
    assert answer.status == 200, answer.body
    return answer.json


def posted(node: Node, path: str, status: int = 200, **body: Any) -> Any:
    answer = ask(node, "POST", path, body)
    assert answer.status == status, answer.body
    return answer.json


def code(answer: Answer) -> tuple[int, str]:
    assert answer.headers["content-type"] == "application/problem+json", answer.body
    return answer.status, answer.json["code"]


class Told:
    """What the feed says, as it comes."""

    def __init__(self, connection: http.client.HTTPConnection, response: http.client.HTTPResponse) -> None:
        self.connection, self.response = connection, response
        self.events: list[tuple[str, str, Any]] = []
        self.over = threading.Event()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        name = number = ""
        with contextlib.suppress(OSError, ValueError, AttributeError, http.client.HTTPException):
            for line in self.response:
                key, _, text = line.decode().rstrip("\n").partition(": ")
                if key == "event":
                    name, number = text, ""
                elif key == "id":
                    number = text
                elif key == "data":
                    self.events.append((name, number, json.loads(text)))
        self.over.set()

    def find(self, topic: str, what: str, **data: Any) -> Any:
        """Return the data of the first event that is like this, as soon as it is there."""

        def look() -> Any:
            return next(
                (
                    event["data"]
                    for name, _, event in list(self.events)
                    if name == topic and event["what"] == what and data.items() <= event["data"].items()
                ),
                None,
            )

        return until(look, WAIT_S, f"no {topic} {what} {data} in {self.events}")

    def close(self) -> None:
        with contextlib.suppress(OSError):
            if self.connection.sock is not None:
                self.connection.sock.shutdown(socket.SHUT_RDWR)
        self.connection.close()
        self._reader.join(WAIT_S)


@contextlib.contextmanager
def feed(node: Node, query: str = "", **headers: str) -> Iterator[Told]:
    connection = node.connect()
    given = {name.replace("_", "-"): text for name, text in headers.items()}
    connection.request("GET", f"/api/events{query}", headers={"authorization": f"Bearer {node.token}", **given})
    response = connection.getresponse()
    assert response.status == 200, response.read()
    assert response.headers["content-type"] == "text/event-stream"
    told = Told(connection, response)
    try:
        told.find("feed", "opened")
        yield told
    finally:
        told.close()


# -- each path once ------------------------------------------------------------------------------------------------------


def test_work_from_submission_to_its_end(node):
    stored = ask(node, "POST", "/api/work", {"capability": "shout", "input": "hello", "key": "greeting"})
    assert stored.status == 201
    run = stored.json["id"]
    assert stored.headers["location"] == f"/api/work/{run}"
    again = ask(node, "POST", "/api/work", {"capability": "shout", "input": "hello", "key": "greeting"})
    assert (again.status, again.json["id"]) == (200, run)
    ended = got(node, f"/api/work/{run}/await?timeout_s=50")
    assert (ended["state"], ended["output"]) == ("completed", "HELLO")
    assert got(node, stored.headers["location"] + "?with_input=true")["input"] == "hello"
    assert got(node, f"/api/work/{run}/history")["transitions"][-1]["what"] == "completed"
    assert got(node, f"/api/work/{run}/why")["state"] == "completed"
    watched = ask(node, "GET", f"/api/work/{run}/watch", accept="text/event-stream")
    assert b"event: result" in watched.body
    late = posted(node, f"/api/work/{run}/cancel")
    assert (late["state"], late["changed"]) == ("completed", False)
    retried = ask(node, "POST", f"/api/work/{run}/retry", {})
    assert (retried.status, retried.json["parent"]) == (201, run)
    assert ask(node, "GET", retried.headers["location"]).status == 200


def claimed(node: Node, capability: str) -> tuple[str, dict[str, str]]:
    """Submit a task and claim it; return where it is, and what to show for it."""
    run = posted(node, "/api/work", 201, capability=capability, input=1)["id"]
    asked = {"worker": "laptop", "capabilities": [capability], "wait_s": 50}
    (task,) = until(lambda: posted(node, "/api/work/claim", **asked)["tasks"])
    assert task["id"] == run
    return f"/api/work/{run}", {"claim": task["claim"]}


def test_work_that_is_claimed(node):
    place, shown = claimed(node, "by-hand")
    assert posted(node, f"{place}/extend", **shown, lease_s=60)["lease_s"] == 60
    posted(node, f"{place}/progress", **shown, percent=50)
    posted(node, f"{place}/stream", **shown, data="line")
    assert posted(node, f"{place}/checkpoint", **shown, data={"page": 2})["data"] == {"page": 2}
    assert posted(node, f"{place}/signal", name="approved", data=True)["already"] is False
    posted(node, f"{place}/release", **shown)
    run = place.rpartition("/")[2]
    (task,) = until(
        lambda: posted(node, "/api/work/claim", worker="laptop", capabilities=["by-hand"], wait_s=50)["tasks"]
    )
    assert (task["id"], task["checkpoint"]) == (run, {"page": 2})
    posted(node, f"{place}/continue", claim=task["claim"], output=2)
    (task,) = until(
        lambda: posted(node, "/api/work/claim", worker="laptop", capabilities=["by-hand"], wait_s=50)["tasks"]
    )
    assert (task["id"], task["input"], task["iteration"]) == (run, 2, 1)
    assert posted(node, f"{place}/complete", claim=task["claim"], output=3)["state"] == "completed"
    assert got(node, f"{place}/await?timeout_s=50")["output"] == 3


def test_work_that_fails(node):
    place, shown = claimed(node, "by-hand-too")
    other, _ = claimed(node, "by-another")
    assert code(ask(node, "POST", f"{other}/fail", {**shown, "message": "no"})) == (422, "claim.invalid")
    assert posted(node, f"{place}/fail", **shown, message="no")["state"] == "failed"
    posted(node, f"{other}/cancel")


def test_many_are_cancelled_by_id_or_by_filter(node):
    runs = [posted(node, "/api/work", 201, capability="never", labels={"lot": lot})["id"] for lot in ("a", "a", "b")]
    assert code(ask(node, "POST", "/api/work/cancel-batch", {})) == (422, "work.filter_needed")
    first = posted(node, "/api/work/cancel-batch", labels={"lot": "a"}, why="enough")
    assert (first["changed"], {row["id"] for row in first["tasks"]}) == (2, set(runs[:2]))
    second = posted(node, "/api/work/cancel-batch", ids=[*runs, "t0000000000000000"])
    assert [row["changed"] for row in second["tasks"]] == [False, False, True, False]
    assert second["tasks"][3]["error"]["code"] == "work.not_found"
    assert code(ask(node, "POST", "/api/work/t0000000000000000/cancel")) == (404, "work.not_found")
    assert {got(node, f"/api/work/{run}")["state"] for run in runs} == {"cancelled"}


def test_lists_turn_pages_by_link(node):
    label = {"labels": {"book": "one"}}
    runs = {posted(node, "/api/work", 201, capability="never", **label)["id"] for _ in range(5)}
    first = "/api/work?labels=book%3Done&limit=2"
    until(lambda: got(node, "/api/work?labels=book%3Done&limit=9")["tasks"][4:])  # the view follows within a second
    path, seen = first, []
    while path:
        answer = ask(node, "GET", path)
        seen += [row["id"] for row in answer.json["tasks"]]
        link = re.fullmatch(r'<(/api/work\?[^>]+)>; rel="next"', answer.headers.get("link", ""))
        assert bool(link) == bool(answer.json["next"])
        path = link[1] if link else ""
    assert (len(seen), set(seen)) == (5, runs)
    posted(node, "/api/work/cancel-batch", labels={"book": "one"})


def test_agents_and_nodes(node):
    assert {row["agent"] for row in got(node, "/api/agents")["agents"]} >= {"shout", "lazy"}
    assert [row["agent"] for row in got(node, "/api/agents?capability=shout")["agents"]] == ["shout"]
    assert got(node, "/api/agents/shout?node=one")["name"] == "one/shout"
    assert posted(node, "/api/agents/shout/invoke?node=one", input="hi")["output"] == "HI"
    assert got(node, "/api/nodes")["nodes"][0]["node"] == "one"
    answer = ask(node, "GET", "/api/agents?limit=1")
    assert (len(answer.json["agents"]), "link" in answer.headers) == (1, True)
    assert code(ask(node, "GET", "/api/agents/nobody")) == (404, "agent.not_found")


def test_targets(node):
    assert {row["target"] for row in got(node, "/api/targets")["targets"]} == {"here", "there"}
    assert [row["target"] for row in got(node, "/api/targets?capability=whisper")["targets"]] == ["here"]
    assert got(node, "/api/targets?type=docker")["targets"] == []
    assert got(node, "/api/targets/there")["name"] == "one/there"
    assert posted(node, "/api/targets/there/test")["health"] == "healthy"
    assert posted(node, "/api/targets/there/disable")["changed"][0]["state"] == "disabled"
    assert code(ask(node, "POST", "/api/targets/there/spin-up", {})) == (409, "spinup.not_now")
    assert posted(node, "/api/targets/there/enable?node=one")["changed"][0]["state"] == "available"
    assert code(ask(node, "POST", "/api/targets/disable-batch", {})) == (422, "spinup.filter_needed")
    assert posted(node, "/api/targets/disable-batch", type="docker") == {"changed": [], "already": []}
    batch = posted(node, "/api/targets/disable-batch", capability="nothing-asks-for-it")
    assert [row["target"] for row in batch["changed"]] == ["there"]
    assert posted(node, "/api/targets/disable-batch", targets=["there"])["already"] == ["one/there"]
    assert {row["target"] for row in posted(node, "/api/targets/enable-batch", all=True)["changed"]} == {"there"}
    assert code(ask(node, "GET", "/api/targets/nowhere")) == (404, "spinup.no_target")


def test_channels(node):
    assert {row["name"] for row in got(node, "/api/channels")["channels"]} >= {"roadmap", "parallel-work", "errors"}
    told = [posted(node, "/api/channels/errors/messages", text=f"error {number}")["id"] for number in range(3)]
    page = got(node, "/api/channels/errors/messages?limit=2")
    assert [(row["id"], row["text"]) for row in page["messages"]] == [(told[1], "error 1"), (told[2], "error 2")]
    before = got(node, f"/api/channels/errors/messages?cursor={page['older']}")
    assert [row["text"] for row in before["messages"]] == ["error 0"]
    assert code(ask(node, "GET", "/api/channels/nowhere/messages"))[0] == 404
    answer = ask(node, "POST", "/api/channels/errors/messages", {"channel": "roadmap", "text": "x"})
    assert code(answer) == (422, "web.said_twice")


def test_figures_of_a_project_and_of_all(node):
    run = posted(node, "/api/work", 201, capability="counted")["id"]
    counted = until(lambda: next((now for now in [got(node, "/api/stats")] if now["tasks"].get("pending")), None))
    assert (counted["project"], counted["nodes"], counted["why"]) == ("default", {"online": 1}, "")
    assert counted["agents"]["online"] >= 2
    assert counted["targets"] == {"available": 2}
    (only,) = got(node, "/api/stats/projects")["projects"]
    assert only["project"] == "default"
    assert got(node, "/api/stats/projects")["totals"]["targets"] == {"available": 2}
    posted(node, f"/api/work/{run}/cancel")


def test_the_same_by_command_line(node):
    assert node.json("project", "stats")["project"] == "default"
    assert [row["project"] for row in node.json("project", "list")["projects"]] == ["default"]
    done, out, err = node.run("project", "watch", "stats", "--limit", "2", "-o", "jsonl")
    assert (done, err) == (0, ""), err
    assert [json.loads(line)["what"] for line in out.splitlines()][:2] == ["opened", "figures"]


# -- etags ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["/api/work", "/api/stats", "/api/task/list"])
def test_an_etag_holds_until_something_changes(node, path):
    def settled() -> str:
        """Return a tag that is the same twice: what other tests did has arrived in the view."""
        first, second = (ask(node, "GET", path).headers["etag"] for _ in range(2))
        return first if first == second and ask(node, "GET", path, if_none_match=first).status == 304 else ""

    tag = until(settled)
    run = posted(node, "/api/work", 201, capability="tagged")["id"]
    fresh = until(lambda: next((one for one in [ask(node, "GET", path, if_none_match=tag)] if one.status == 200), None))
    assert fresh.headers["etag"] != tag
    posted(node, f"/api/work/{run}/cancel")


# -- the feed ------------------------------------------------------------------------------------------------------------


def test_the_feed_tells_of_work(node):
    with feed(node, "?topics=work", last_event_id="gone-7") as told:
        opened = told.find("feed", "opened")
        assert opened == {"topics": ["work"], "after": "gone-7", "resumed": False}
        run = posted(node, "/api/work", 201, capability="shout", input="x", boundary="open-source")["id"]
        queued = told.find("work", "queued", id=run)
        assert (queued["route"], queued["boundary"], queued["attempt"]) == ("shout", "open-source", 1)
        assert told.find("work", "completed", id=run)["worker"] == "one/shout"
        other = posted(node, "/api/work", 201, capability="nobody")["id"]
        posted(node, f"/api/work/{other}/cancel")
        assert told.find("work", "cancelled", id=other)["state"] == "cancelled"
        assert {name for name, _, _ in told.events} == {"feed", "work"}
        ids = [number for _, number, _ in told.events]
        assert len(ids) == len(set(ids))


def test_the_feed_tells_of_agents_and_figures(node):
    with feed(node, "?topics=agents,stats") as told:
        assert told.find("stats", "figures")["project"] == "default"
        node.write(config(node, '[executors.newcomer]\ntype = "rehearsal"'))
        assert told.find("agents", "appeared", agent="newcomer")["name"] == "one/newcomer"
        node.write(config(node))
        told.find("agents", "gone", agent="newcomer")


def test_the_feed_tells_of_targets_and_launches(node):
    with feed(node, "?topics=targets&topics=spinups") as told:
        posted(node, "/api/targets/there/disable")
        told.find("targets", "changed", target="there", state="disabled")
        posted(node, "/api/targets/there/enable")
        launch = posted(node, "/api/targets/here/spin-up", capability="whisper")
        told.find("spinups", "appeared", id=launch["id"])

        def begun() -> Any:
            (found,) = got(node, "/api/launches?all=true")["launches"]
            return found if found["state"] != "starting" else None

        up = until(begun)
        assert (up["id"], up["state"] in ("up", "idle"), up["why"]) == (launch["id"], True, "")
        assert posted(node, f"/api/launches/{launch['id']}/stop")["state"] == "stopped"
        told.find("spinups", "changed", id=launch["id"], state="stopped")


def test_a_feed_ends_as_asked_and_when_the_caller_goes(node):
    ends = ask(node, "GET", "/api/events?topics=agents&wait_s=0.2")
    assert ends.body.rstrip().splitlines()[-2:] == [b"event: end", b'data: {"count":1,"dropped":0}']
    for _ in range(3):  # those who went without a word keep no place: one more is heard as well as the first
        with feed(node) as told:
            told.find("stats", "figures")
    assert node.get("/readyz").status == 200


# -- who may come in, and with what --------------------------------------------------------------------------------------


@pytest.mark.parametrize("row", resources.RESOURCES, ids=lambda row: f"{row.method} {row.path}")
def test_nobody_comes_in_without_the_token_or_from_a_foreign_page(node, row):
    path = re.sub(r"\{\w+\}", "x0000000", row.path)
    assert code(node.http(row.method, path)) == (401, "web.no_token")
    assert code(node.http(row.method, path, authorization="Bearer wrong")) == (401, "web.no_token")
    assert code(ask(node, row.method, path, origin="https://evil.example")) == (403, "web.bad_origin")
    assert code(ask(node, row.method, path, host="evil.example")) == (421, "web.bad_host")


@pytest.mark.parametrize("run", ["..%2f..%2fetc", "%00", "*", "T0198C0FFEE", "t" * 41, "a.b.c.d.e.f.g", "%3E"])
def test_ids_that_are_none_are_refused(node, run):
    assert code(ask(node, "GET", f"/api/work/{run}")) in {(422, "ops.bad_request"), (404, "web.no_such_path")}
    assert code(ask(node, "POST", f"/api/work/{run}/cancel")) in {(422, "ops.bad_request"), (404, "web.no_such_path")}


def test_what_is_too_large_unknown_or_wrong_is_refused(node):
    big = b'{"capability": "shout", "input": "' + b"x" * 9 * 1024 * 1024 + b'"}'
    # it is refused as soon as its length is told; who goes on sending all the same may find the line closed
    connection = node.connect()
    connection.putrequest("POST", "/api/work")
    connection.putheader("authorization", f"Bearer {node.token}")
    connection.putheader("content-length", str(len(big)))
    connection.endheaders()
    assert code(Answer(connection.getresponse())) == (413, "ops.request_too_large")
    connection.close()
    assert code(ask(node, "GET", "/api/work?cursor=nonsense")) == (422, "view.bad_cursor")
    assert code(ask(node, "GET", "/api/targets?cursor=nonsense")) == (422, "ops.bad_cursor")
    assert code(ask(node, "GET", "/api/work?no=1")) == (422, "ops.bad_request")
    for method, path in (("DELETE", "/api/work"), ("PUT", "/api/targets/here"), ("POST", "/api/stats")):
        refused = ask(node, method, path)
        assert code(refused) == (405, "web.no_such_path")
        assert "GET" in refused.headers["allow"]
    bad = ask(node, "GET", "/api/events?topics=weather")
    assert b'"code":"ops.bad_request"' in bad.body
    other = ask(node, "GET", "/api/stats", knotwork_project="elsewhere")
    assert code(other) == (404, "project.not_found")
