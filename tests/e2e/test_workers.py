"""Workers over HTTP, in any language: real nodes, killed and frozen, and the examples of docs/workers.md as they stand."""

from __future__ import annotations

import contextlib
import http.server
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.e2e.conftest import WAIT_S, Answer, Node, until
from tests.e2e.test_task_faults import kill_everything

PAGE = (Path(__file__).parents[2] / "docs" / "workers.md").read_text(encoding="utf-8")
JOINED = """
[node]
name = "far"
[nats]
mode = "join"
urls = ["{url}"]
nkey_seed = {{file = "{seed}"}}
"""


def say(node: Node, path: str, timeout_s: float = WAIT_S, **body: Any) -> Answer:
    """Post to `/v1`."""
    data = json.dumps(body).encode()
    return node.http(
        "POST", f"/v1/{path}", data, timeout_s, authorization=f"Bearer {node.token}", content_type="application/json"
    )


def polled(node: Node, worker: str = "laptop", *capabilities: str, **fields: Any) -> list[dict[str, Any]]:
    answer = say(node, "tasks/poll", worker=worker, capabilities=capabilities, **{"wait_s": 60, **fields})
    assert answer.status == 200, answer.body
    return answer.json["tasks"]


def poll(node: Node, worker: str = "laptop", capability: str = "do", **fields: Any) -> dict[str, Any]:
    """Return the one task that a worker gets."""
    (task,) = until(lambda: polled(node, worker, capability, **fields))
    return task


def resolve(node: Node, task: dict[str, Any], action: str, **fields: Any) -> Answer:
    return say(node, f"tasks/{task['id']}/resolve", action=action, claim=task["claim"], **fields)


def resolved(node: Node, task: dict[str, Any], action: str, **fields: Any) -> Any:
    answer = resolve(node, task, action, **fields)
    assert answer.status == 200, answer.body
    return answer.json


def code(answer: Answer) -> tuple[int, str]:
    assert answer.status >= 400, answer.body
    return answer.status, answer.json["code"]


def submit(node: Node, capability: str = "do", **fields: Any) -> str:
    return node.ask("task.submit", capability=capability, **fields)["id"]


def state(node: Node, run: str) -> str:
    return node.ask("task.get", id=run)["state"]


def ended(node: Node, run: str) -> dict[str, Any]:
    return node.ask("task.await", id=run, timeout_s=50)


class Line:
    """A connection of a worker, and the events on it."""

    def __init__(self, node: Node, **fields: Any) -> None:
        self.connection = node.connect()
        body = json.dumps(fields)
        self.connection.request("POST", "/v1/workers/connect", body, {"authorization": f"Bearer {node.token}"})
        self.response = self.connection.getresponse()
        self.events: list[tuple[str, Any]] = []
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        name = ""
        with contextlib.suppress(OSError, ValueError, AttributeError):
            for line in self.response:
                if line.startswith(b"event: "):
                    name = line[7:].strip().decode()
                elif line.startswith(b"data: "):
                    self.events.append((name, json.loads(line[6:])))

    def close(self) -> None:
        with contextlib.suppress(OSError):
            if self.connection.sock is not None:
                self.connection.sock.shutdown(socket.SHUT_RDWR)
        self.connection.close()
        self._reader.join(WAIT_S)


@contextlib.contextmanager
def connected(node: Node, **fields: Any) -> Iterator[Line]:
    line = Line(node, **fields)
    try:
        yield line
    finally:
        line.close()


@pytest.fixture(scope="module")
def one(shared_nodes):
    return shared_nodes.node('[node]\nname = "one"\n[executors.hosted]\ntype = "rehearsal"\n', "one").up()


def pair(nodes) -> tuple[Node, Node]:
    """Return a hub, and a node that joined it."""
    hub = nodes.node('[node]\nname = "hub"\n', "hub").up()
    far = nodes.node(name="far")
    far.write(JOINED.format(url=hub.about["url"], seed=hub.data / "keys" / "node-default.nk"))
    return hub, far.up()


# -- the page ------------------------------------------------------------------------------------------------------------


def block(mark: str) -> str:
    found = re.search(rf"<!-- {re.escape(mark)} -->\n```\w+\n(.*?)```", PAGE, re.DOTALL)
    assert found, f"docs/workers.md has no block {mark}"
    return found[1]


def environment(node: Node) -> dict[str, str]:
    return {**os.environ, "KNOTWORK_URL": node.about["http"], "KNOTWORK_TOKEN": node.token}


def test_the_worker_on_the_page_works(one, tmp_path):
    text = block("file: worker.py")
    assert len([line for line in text.splitlines() if line.strip()]) <= 30
    (tmp_path / "worker.py").write_text(text)
    worker = subprocess.Popen(
        [sys.executable, "worker.py"], cwd=tmp_path, env=environment(one), stdout=subprocess.PIPE, text=True
    )
    try:
        good, bad = submit(one, "shout", input="hello"), submit(one, "shout", input=17)
        assert (ended(one, good)["state"], ended(one, good)["output"]) == ("completed", "HELLO")
        assert ended(one, bad)["error"]["message"] == "only texts can be shouted"
        large = submit(one, "shout", input="\u0390" * 500_000)  # three capitals each: 9 MB when they are sent
        assert "is too large" in ended(one, large)["error"]["message"]
        assert "one/shouter" in [row["name"] for row in one.ask("agents.list")["agents"]]
    finally:
        worker.kill()
        out, _ = worker.communicate(timeout=WAIT_S)
    assert f"{good} completed" in out


class Broken(http.server.BaseHTTPRequestHandler):
    """A proxy in trouble: each answer is another sort of garbage."""

    bodies = (b"Internal Server Error", b"", b"<html>bad gateway</html>", b"\xff\xfe")
    asked = 0

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["content-length"]))
        number = Broken.asked = Broken.asked + 1
        self.send_response(200 if number % 5 == 0 else 500)
        self.end_headers()
        self.wfile.write(self.bodies[number % len(self.bodies)])

    def log_message(self, *_: object) -> None:
        """Say nothing."""


def test_the_worker_on_the_page_survives_answers_that_are_no_json(tmp_path):
    (tmp_path / "worker.py").write_text(block("file: worker.py").replace("time.sleep(1)", "time.sleep(0.01)"))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Broken) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        env = {**os.environ, "KNOTWORK_URL": f"http://127.0.0.1:{server.server_port}", "KNOTWORK_TOKEN": "x"}
        worker = subprocess.Popen([sys.executable, "worker.py"], cwd=tmp_path, env=env, stdout=subprocess.DEVNULL)
        try:
            until(lambda: Broken.asked > 10 or worker.poll() is not None)
            assert worker.poll() is None
        finally:
            worker.kill()
            worker.wait(WAIT_S)
            server.shutdown()


def test_the_shell_on_the_page_works(one, tmp_path):
    if shutil.which("curl") is None:
        pytest.skip("no curl on this machine")
    run = submit(one, "greet", input={"to": "you"})
    done = subprocess.run(
        ["sh", "-eu"], input=block("curl"), cwd=tmp_path, env=environment(one), capture_output=True, text=True,
        timeout=WAIT_S, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert ended(one, run)["output"] == "hello"


# -- the usual way -------------------------------------------------------------------------------------------------------


def test_every_action(one):
    run = submit(one, "act", input={"n": 1}, labels=["team=red"], max_attempts=3, retry_delay_s=0.1, key="act-1")
    task = poll(one, capability="act")
    assert (task["id"], task["input"], task["labels"], task["key"]) == (run, {"n": 1}, {"team": "red"}, "act-1")
    assert resolved(one, task, "heartbeat", lease_s=600)["lease_s"] == 600
    assert resolved(one, task, "progress", percent=12.5, text="begun")["id"] == run
    assert resolved(one, task, "stream", data=["a", "piece"])["id"] == run
    assert resolved(one, task, "checkpoint", data={"page": 2})["data"] == {"page": 2}
    assert resolved(one, task, "checkpoint", read=True)["data"] == {"page": 2}
    assert state(one, run) == "running"
    assert one.ask("task.get", id=run)["worker"] == "one/laptop"
    retry = resolved(one, task, "retry", retry_after_s=0.2)
    assert (retry["state"], bool(retry["due_at"])) == ("waiting", True)

    task = poll(one, capability="act")
    assert (task["attempt"], task["checkpoint"]) == (2, {"page": 2})
    assert resolved(one, task, "release", why="for the other one")["id"] == run
    task = poll(one, "other", capability="act")
    assert task["attempt"] == 2
    assert resolved(one, task, "continue", output={"n": 2})["state"] == "continued"

    task = poll(one, capability="act")
    assert (task["iteration"], task["input"]) == (1, {"n": 2})
    assert say(one, f"tasks/{run}/resolve", action="signal", name="go", data=7).json["name"] == "go"
    waited = say(one, f"tasks/{run}/resolve", action="wait_signal", name="go", wait_s=20).json
    assert (waited["sent"], waited["data"]) == (True, 7)
    assert not say(one, f"tasks/{run}/resolve", action="wait_signal", name="stop", wait_s=0.2).json["sent"]
    assert resolved(one, task, "complete", output="all")["state"] == "completed"
    assert resolved(one, task, "complete", output="all")["already"]
    assert code(resolve(one, task, "complete", output="more")) == (409, "claim.ended")
    assert code(resolve(one, task, "fail", message="no")) == (409, "claim.ended")
    told = ended(one, run)
    assert (told["state"], told["output"], told["worker"]) == ("completed", "all", "one/laptop")


def test_progress_reaches_whoever_watches(one):
    run = submit(one, "watched")
    task = poll(one, capability="watched")
    watching = one.start("task", "watch", run, "-o", "jsonl")
    try:
        said: list[str] = []

        def told() -> bool:  # whoever watches may have begun to a moment later
            resolved(one, task, "progress", percent=40, text="half way")
            return any("half way" in line for line in said)

        threading.Thread(target=lambda: said.extend(watching.stdout), daemon=True).start()
        until(told)
        resolved(one, task, "complete", output=None)
        assert watching.wait(WAIT_S) == 0
    finally:
        watching.kill()
        watching.communicate(timeout=WAIT_S)


@pytest.mark.timeout(180)
def test_the_command_line_can_do_the_same(one):
    run = one.json("task", "submit", "-c", "typed", '{"a": 1}')["id"]
    (task,) = one.json("work", "claim", "laptop", "-c", "typed", "--wait", "30s", "--lease", "5m")["tasks"]
    assert (task["id"], task["input"], task["lease_s"]) == (run, {"a": 1}, 300)
    assert one.json("work", "checkpoint", task["claim"], '{"p": 1}')["data"] == {"p": 1}
    assert one.json("work", "checkpoint", task["claim"], "--read")["data"] == {"p": 1}
    assert one.json("work", "complete", task["claim"], '{"ok": true}')["state"] == "completed"
    assert one.json("task", "await", run)["output"] == {"ok": True}
    status, error = one.refused("work", "extend", task["claim"], "--lease", "10m")
    assert (status, error["code"]) == (1, "claim.ended")


def test_the_ops_can_do_the_same(one):
    run = submit(one, "asked", input=1)

    def claimed() -> Any:
        me = {"worker": "laptop", "capabilities": ["asked"]}
        (task,) = until(lambda: one.ask("work.claim", **me, wait_s=30)["tasks"])
        return task

    claim = claimed()["claim"]
    assert one.ask("work.extend", claim=claim, lease_s=600)["lease_s"] == 600
    assert one.ask("work.progress", claim=claim, percent=50, text="half")["id"] == run
    assert one.ask("work.stream", claim=claim, data="line")["id"] == run
    assert not one.ask("work.signal", id=run, name="go", data=17)["already"]
    assert one.ask("work.wait_signal", id=run, name="go")["data"] == 17
    assert one.ask("work.release", claim=claim, why="lunch")["id"] == run
    assert one.ask("work.continue", claim=claimed()["claim"], output={"a": 2})["state"] == "continued"
    assert one.ask("work.fail", claim=claimed()["claim"], message="cannot be done")["state"] == "failed"
    assert ended(one, run)["error"]["message"] == "cannot be done"


def test_what_somebody_holds_is_shown_to_him_again(one):
    runs = [submit(one, "held", input=number) for number in range(3)]
    given = [poll(one, "holder", "held", lease_s=600) for _ in runs]
    assert sorted(task["id"] for task in given) == sorted(runs)
    resolved(one, given[1], "checkpoint", data={"done": 5})
    shown = one.json("work", "claimed", "holder")
    assert [(task["id"], task["input"], task["lease_s"]) for task in shown["tasks"]] == [
        (task["id"], task["input"], 600) for task in given
    ]
    assert [task["checkpoint"] for task in shown["tasks"]] == [None, {"done": 5}, None]
    first = one.ask("work.claimed", worker="holder", limit=2)
    rest = one.ask("work.claimed", worker="holder", limit=2, cursor=first["next"])
    assert ([len(first["tasks"]), len(rest["tasks"])], rest["next"]) == ([2, 1], "")
    assert [task["id"] for task in one.ask("work.claimed", worker="holder", id=given[2]["id"])["tasks"]] == [
        given[2]["id"]
    ]
    assert one.json("work", "claimed", "somebody-else")["tasks"] == []
    for task in shown["tasks"]:
        assert one.ask("work.complete", claim=task["claim"], output=1)["state"] == "completed"
    until(lambda: one.json("work", "claimed", "holder")["tasks"] == [])


def test_coming_in_by_the_command_line(one):
    coming = one.start("work", "connect", "guest", "-c", "visit", "-o", "jsonl")
    try:
        assert json.loads(coming.stdout.readline())["event"] == "connected"
        assert "guest" in one.agents()
    finally:
        coming.kill()
        coming.communicate(timeout=WAIT_S)
    until(lambda: "guest" not in one.agents())


# -- the line ------------------------------------------------------------------------------------------------------------


def test_who_is_connected_is_shown_and_told(one):
    with connected(one, worker="desk", capabilities=["paint"], max_tasks=2, description="paints") as line:
        assert line.response.getheader("content-type") == "text/event-stream"
        until(lambda: line.events)
        assert line.events == [("connected", {"worker": "desk"})]
        (row,) = [row for row in one.ask("agents.list", capability="paint")["agents"] if row["agent"] == "desk"]
        assert (row["name"], row["executor"], row["concurrency"]) == ("one/desk", "attached", 2)
        refused = one.call("agents.invoke", target="desk", input=1)
        assert refused.status == 404, "it takes tasks, and cannot be called"

        runs = [submit(one, "paint", input=number) for number in range(3)]
        tasks: list[dict[str, Any]] = []
        until(lambda: tasks.extend(polled(one, "desk", wait_s=1, max_tasks=5)) or len(tasks) == 2)
        none = say(one, "tasks/poll", worker="desk", wait_s=1, max_tasks=5).json
        assert (none["tasks"], "You hold 2 tasks" in none["why"]) == ([], True), "it said that it can do two"
        until(lambda: one.ask("agents.show", target="desk")["running"] == 2)

        one.ask("task.cancel", ids=[tasks[0]["id"]])
        until(lambda: ("lost", {"id": tasks[0]["id"], "why": "ended"}) in line.events)
        assert code(resolve(one, tasks[0], "heartbeat")) == (499, "claim.cancelled")
        assert code(resolve(one, tasks[0], "complete", output=1)) == (499, "claim.cancelled")
        resolved(one, tasks[1], "complete", output=1)
        (last,) = until(lambda: polled(one, "desk", wait_s=5))
        resolved(one, last, "complete", output=1)
        assert {tasks[0]["id"], tasks[1]["id"], last["id"]} == set(runs)
    with connected(one, worker="desk", capabilities=["paint"]) as line:
        until(lambda: line.events)
    assert sorted(row["agent"] for row in one.ask("agents.list")["agents"] if row["agent"] == "hosted") == ["hosted"]


def test_a_name_of_ours_is_taken(one):
    with connected(one, worker="hosted", capabilities=["x"]) as line:
        until(lambda: line.events)
        assert (line.events[0][0], line.events[0][1]["code"]) == ("error", "claim.name_taken")
    assert code(say(one, "tasks/poll", worker="hosted", wait_s=0)) == (409, "claim.name_taken")


def test_who_hangs_up_while_waiting_loses_nothing(one):
    waiting = one.connect()
    body = json.dumps({"worker": "gone", "capabilities": ["quick"], "wait_s": 60, "lease_s": 3600})
    waiting.request("POST", "/v1/tasks/poll", body, {"authorization": f"Bearer {one.token}"})
    until(lambda: "gone" in one.agents())
    waiting.sock.shutdown(socket.SHUT_RDWR)
    waiting.close()
    run = submit(one, "quick")
    task = poll(one, "here", "quick")
    assert task["id"] == run
    resolved(one, task, "complete", output=None)
    assert ended(one, run)["worker"] == "one/here"


def test_a_command_that_is_killed_while_it_waits_loses_nothing(one):
    waiting = one.start("work", "claim", "killed", "-c", "slow", "--wait", "60s", "--lease", "10h")
    until(lambda: "killed" in one.agents())
    waiting.kill()
    waiting.communicate(timeout=WAIT_S)
    run = submit(one, "slow")
    task = poll(one, "here", "slow")
    assert task["id"] == run
    resolved(one, task, "complete", output=None)


def test_the_rules_of_boundaries_hold_for_them_too(one):
    run = submit(one, "ruled", boundary="corporate")
    assert polled(one, "stranger", "ruled", wait_s=2) == []
    assert polled(one, "claude", "ruled", wait_s=2, kind="claude-code") == []
    assert polled(one, "picky", "ruled", wait_s=2, kind="copilot", boundaries=["personal"]) == []
    task = poll(one, "pilot", "ruled", kind="copilot", boundaries=["corporate"])
    assert (task["id"], task["boundary"]) == (run, "corporate")
    resolved(one, task, "complete", output=None)
    typo = {"worker": "typo", "capabilities": ["ruled"], "boundaries": ["corprate"]}  # it would wait for ever
    assert code(say(one, "tasks/poll", **typo, wait_s=0)) == (422, "policy.unknown_boundary")
    with connected(one, **typo) as line:
        until(lambda: line.events)
        assert (line.events[0][0], line.events[0][1]["code"]) == ("error", "policy.unknown_boundary")


# -- what goes wrong -----------------------------------------------------------------------------------------------------


def test_requests_that_are_wrong(one):
    run = submit(one, "wrong")
    task = poll(one, capability="wrong")
    other = submit(one, "wrong")
    path = f"tasks/{run}/resolve"
    assert code(say(one, path, claim=task["claim"])) == (422, "web.bad_action")
    assert code(say(one, path, claim=task["claim"], action="destroy")) == (422, "web.bad_action")
    assert code(say(one, path, claim=task["claim"], action=["complete"])) == (422, "web.bad_action")
    assert code(say(one, path, action="complete")) == (422, "ops.bad_request")
    assert code(say(one, path, action="complete", claim="kc1.x.y", output=1)) == (422, "claim.invalid")
    assert code(say(one, path, action="complete", claim="x" * 5000)) == (422, "ops.bad_request")
    assert code(say(one, path, action="progress", claim=task["claim"], percent=101)) == (422, "ops.bad_request")
    assert code(say(one, path, action="heartbeat", claim=task["claim"], lease_s=1)) == (422, "ops.bad_request")
    assert code(say(one, path, action="heartbeat", claim=task["claim"], lease_s=1e9)) == (422, "ops.bad_request")
    assert code(say(one, path, action="complete", claim=task["claim"], surprise=1)) == (422, "ops.bad_request")
    assert code(say(one, f"tasks/{other}/resolve", action="complete", claim=task["claim"])) == (422, "claim.invalid")
    assert code(say(one, f"tasks/{'x' * 10_000}/resolve", action="complete", claim=task["claim"]))[0] in (414, 422)
    assert code(say(one, "tasks/..%2f..%2fetc/resolve", action="complete", claim=task["claim"]))[0] in (404, 422)
    altered = task["claim"][:-1] + ("A" if task["claim"][-1] != "A" else "B")
    assert code(say(one, path, action="complete", claim=altered, output=1)) == (422, "claim.invalid")
    assert code(say(one, "tasks/poll")) == (422, "ops.bad_request")
    assert code(say(one, "tasks/poll", worker="No Name")) == (422, "ops.bad_request")
    assert code(say(one, "tasks/poll", worker="w", max_tasks=0)) == (422, "ops.bad_request")
    assert code(say(one, "tasks/poll", worker="w", wait_s=61)) == (422, "ops.bad_request")
    assert code(say(one, "tasks/poll", worker="w", capabilities=["a.>"])) == (422, "ops.bad_request")
    for body in (b"", b"[]", b"nonsense", b'{"action": "complete"', b"\xff", b"[" * 100_000):
        answer = one.http("POST", f"/v1/{path}", body, authorization=f"Bearer {one.token}")
        assert answer.status == 422, (body[:20], answer.body)
    huge = b'{"action": "complete", "output": "' + b"x" * 9_000_000 + b'"}'
    with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # it may be refused before all of it is sent
        assert one.http("POST", f"/v1/{path}", huge, authorization=f"Bearer {one.token}").status == 413
    assert one.http("POST", f"/v1/{path}", b"{}").status == 401
    assert one.http("GET", f"/v1/{path}", authorization=f"Bearer {one.token}").status == 405
    assert state(one, run) == "running", "none of this changed anything"
    resolved(one, task, "complete", output="x" * 5_000_000)
    assert len(ended(one, run)["output_blob"]) > 10 or len(ended(one, run)["output"]) == 5_000_000
    one.ask("task.cancel", ids=[other])


def test_an_agent_that_goes_away_loses_its_task(one):
    run = submit(one, "silent")
    start_s = time.monotonic()
    first = poll(one, "first", "silent", lease_s=5)
    second = poll(one, "second", "silent")
    assert second["id"] == run
    assert time.monotonic() - start_s >= 5
    assert code(resolve(one, first, "complete", output="late")) == (409, "claim.superseded")
    assert code(resolve(one, first, "heartbeat")) == (409, "claim.superseded")
    resolved(one, second, "complete", output="in time")
    assert code(resolve(one, first, "complete", output="late")) == (409, "claim.superseded")
    assert (ended(one, run)["output"], ended(one, run)["worker"]) == ("in time", "one/second")


@pytest.mark.timeout(180)
def test_everything_is_killed_between_poll_and_resolve(nodes):
    hub = nodes.node('[node]\nname = "hub"\n', "hub").up()
    run, held = submit(hub), []
    held.append(poll(hub, lease_s=600))
    more = [submit(hub, "more") for _ in range(5)]
    held += [poll(hub, capability="more", lease_s=600) for _ in more]
    kill_everything(nodes)
    hub.up()
    assert state(hub, run) == "running"
    assert polled(hub, "thief", "do", "more", wait_s=12, max_tasks=10) == [], "it is held for its agent"
    assert resolved(hub, held[0], "heartbeat", lease_s=600)["id"] == run
    for task in held:
        assert not resolved(hub, task, "complete", output="after the crash")["already"]
        assert resolved(hub, task, "complete", output="after the crash")["already"]
    for task in held:
        told = ended(hub, task["id"])
        assert (told["state"], told["output"], told["worker"]) == ("completed", "after the crash", "hub/laptop")
    assert polled(hub, "thief", "do", "more", wait_s=2, max_tasks=10) == []


@pytest.mark.timeout(180)
def test_the_node_that_gave_it_is_killed_and_another_takes_the_word(nodes):
    hub, far = pair(nodes)
    run = submit(hub)
    task = poll(far, lease_s=600)
    assert task["id"] == run
    far.signal(signal.SIGKILL)
    far.ended()
    # the delivery comes again when its lease on the queue is over; whoever asks then must not get it
    assert polled(hub, "thief", "do", wait_s=20) == []
    assert resolved(hub, task, "heartbeat", lease_s=600)["id"] == run
    assert not resolved(hub, task, "complete", output=1)["already"]
    assert ended(hub, run)["state"] == "completed"


@pytest.mark.timeout(180)
def test_the_node_that_gave_it_is_frozen(nodes):
    hub, far = pair(nodes)
    run = submit(hub)
    task = poll(far, "first", lease_s=5)
    far.signal(signal.SIGSTOP)
    second = poll(hub, "second", lease_s=600)
    assert second["id"] == run
    far.signal(signal.SIGCONT)
    late = until(lambda: (told := resolve(far, task, "complete", output="late")).status < 500 and told)  # it wakes up
    assert code(late) == (409, "claim.superseded")
    assert resolved(hub, second, "heartbeat", lease_s=600)["id"] == run, "who woke up late took nothing away"
    resolved(hub, second, "complete", output="in time")
    assert ended(hub, run)["output"] == "in time"
