"""A node that stops in good order answers whoever still waits over HTTP: it says so, and nothing breaks."""

from __future__ import annotations

import json
import signal
import threading

import pytest
from tests.e2e.conftest import WAIT_S, Answer, until


@pytest.mark.timeout(180)
def test_who_waits_is_told_that_the_node_stops(nodes):
    node = nodes.node().up()
    run = node.ask("task.submit", capability="none-such", input=1)["id"]
    asked = {
        "poll": ("POST", "/v1/tasks/poll", {"worker": "w", "capabilities": ["other"], "wait_s": 60}),
        "await": ("GET", f"/api/work/{run}/await?timeout_s=60", None),
        "events": ("POST", "/api/node/events", {}),
    }
    answers: dict[str, Answer] = {}
    sent = threading.Semaphore(0)

    def ask(name: str) -> None:
        method, path, body = asked[name]
        headers = {"authorization": f"Bearer {node.token}", "content-type": "application/json"}
        if name == "events":
            headers["accept"] = "text/event-stream"
        connection = node.connect(WAIT_S)
        try:
            connection.request(method, path, None if body is None else json.dumps(body), headers)
            sent.release()
            answers[name] = Answer(connection.getresponse())
        finally:
            connection.close()

    threads = [threading.Thread(target=ask, args=(name,), daemon=True) for name in asked]
    for thread in threads:
        thread.start()
    for _ in threads:
        assert sent.acquire(timeout=WAIT_S)
    until(lambda: node.status()["state"] == "running")  # asked after them: they are being answered
    node.signal(signal.SIGTERM)
    for thread in threads:
        thread.join(WAIT_S)
    assert node.ended() == 0
    for name in ("poll", "await"):
        answer = answers[name]
        assert (answer.status, answer.headers["content-type"]) == (503, "application/problem+json"), name
        assert answer.json["code"] == "node.stopping"
        assert answer.json["retry_after_s"] > 0
        assert answer.headers["retry-after"] == "1"
        assert answer.headers["x-content-type-options"] == "nosniff"
    assert b"event: error\n" in answers["events"].body
    assert b"node.stopping" in answers["events"].body
    assert "Traceback" not in node.log
