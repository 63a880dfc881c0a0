"""How a node stops without dropping work: nothing new at once, running work finishes, the rest ends with a typed error."""

from __future__ import annotations

import re
import signal
from concurrent.futures import ThreadPoolExecutor

from tests.e2e.conftest import WAIT_S, until

GATED = """
[node]
drain_s = {drain_s}
[executors.gated]
type = "process"
command = ["sh", "-c", "while [ ! -e go ]; do sleep 0.02; done; echo done"]
cwd = "{folder}"
concurrency = {concurrency}
"""


def gated(nodes, drain_s: float, concurrency: int = 3):
    return nodes.node(GATED.format(folder=nodes.folder, drain_s=drain_s, concurrency=concurrency))


def test_a_drain_tells_who_runs_takes_nothing_new_and_lets_work_finish(nodes):
    node = gated(nodes, 120.0).up()
    with ThreadPoolExecutor(2) as pool:
        call = pool.submit(node.call, "agents.invoke", target="gated", input="x")
        until(lambda: node.status()["running"] == 1)
        address = node.about["http"]
        connection = node.connect()
        connection.connect()
        node.signal(signal.SIGTERM)
        until(lambda: "stopping" in node.log)
        until(lambda: node.about["state"] == "stopping")
        assert address
        headers = {"authorization": f"Bearer {node.token}", "content-type": "application/json"}

        def ask(op: str, body: bytes = b"{}"):
            connection.request("POST", f"/api/{op}", body, headers)
            response = connection.getresponse()
            return response.status, response.read()

        status, body = ask("agents/invoke", b'{"target": "gated", "input": "y", "timeout_s": 5}')
        assert (status, b"drain" in body) == (503, True), body
        status, body = ask("node/reload")
        assert (status, b"node.stopping" in body) == (503, True)
        connection.request("GET", "/readyz", headers={})
        ready = connection.getresponse()
        assert (ready.status, ready.read()) == (503, b'{"ready":false}')
        until(lambda: "still running" in node.log)
        assert re.search(r"still running.*gated \(", node.log)
        assert re.search(r"still running.*\d+ s left", node.log)
        (nodes.folder / "go").touch()
        answer = call.result(WAIT_S)
        assert (answer.status, answer.json["output"].strip()) == (200, "done")
        connection.close()
    assert node.ended() == 0


def test_at_the_deadline_the_rest_ends_with_a_typed_error(nodes):
    node = gated(nodes, 0.5, concurrency=1).up()
    with ThreadPoolExecutor(2) as pool:
        calls = [pool.submit(node.call, "agents.invoke", target="gated", input="x") for _ in range(2)]
        until(lambda: (node.status()["running"], node.status()["queued"]) == (1, 1))
        node.signal(signal.SIGTERM)
        answers = [call.result(WAIT_S) for call in calls]
        assert node.ended() == 0
    for answer in answers:  # the waiting one, too
        assert (answer.status, answer.json["code"]) == (503, "node.stopping")
        assert answer.headers["retry-after"]
    assert "ending 2 calls: gated" in node.log


def test_a_second_signal_ends_now(nodes):
    node = gated(nodes, 3600.0).up()
    with ThreadPoolExecutor(1) as pool:
        call = pool.submit(node.call, "agents.invoke", target="gated", input="x")
        until(lambda: node.status()["running"] == 1)
        node.signal(signal.SIGTERM)
        until(lambda: "a second signal stops now" in node.log)
        assert node.process.poll() is None
        node.signal(signal.SIGTERM)
        assert node.ended() == 0
        answer = call.result(WAIT_S)
        assert (answer.status, answer.json["code"]) == (503, "node.stopping")


def test_drained_and_brought_back_by_command(nodes):
    node = gated(nodes, 120.0).up()
    with ThreadPoolExecutor(1) as pool:
        call = pool.submit(node.call, "agents.invoke", target="gated", input="x")
        until(lambda: node.status()["running"] == 1)
        drained = node.json("drain")
        assert (drained["state"], drained["running"]) == ("draining", 1)
        refused = node.call("agents.invoke", target="gated", input="y")
        assert (refused.status, refused.json["kind"]) == (503, "unavailable")
        assert node.get("/readyz").status == 503
        assert node.get("/livez").status == 200
        until(lambda: node.json("nodes")["nodes"][0]["state"] == "draining")
        (nodes.folder / "go").touch()
        assert call.result(WAIT_S).status == 200
        assert node.json("drain", "--resume")["state"] == "running"
        assert node.get("/readyz").status == 200
        until(lambda: node.call("agents.invoke", target="gated", input="z").status == 200)


def test_drain_for_so_long_and_not_longer(nodes):
    """`drain --deadline` ends at its deadline what still runs; the node stays."""
    node = gated(nodes, 120.0).up()
    with ThreadPoolExecutor(1) as pool:
        call = pool.submit(node.call, "agents.invoke", target="gated", input="x")
        until(lambda: node.status()["running"] == 1)
        node.ask("node.drain", deadline_s=0.3)
        answer = call.result(WAIT_S)
        assert (answer.status, answer.json["code"]) == (503, "node.draining")
    assert node.status()["state"] == "draining"
    node.ask("node.drain", resume=True)
    assert node.status()["state"] == "running"


def test_a_stop_by_command_drains_too(nodes):
    node = gated(nodes, 120.0).up()
    with ThreadPoolExecutor(2) as pool:
        call = pool.submit(node.call, "agents.invoke", target="gated", input="x")
        until(lambda: node.status()["running"] == 1)
        stop = pool.submit(node.run, "stop")
        until(lambda: node.about["state"] == "stopping")
        assert not stop.done()
        (nodes.folder / "go").touch()
        assert call.result(WAIT_S).status == 200
        code, _, err = stop.result(WAIT_S)
        assert (code, err) == (0, "")
    assert node.ended() == 0
