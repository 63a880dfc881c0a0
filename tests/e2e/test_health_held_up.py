"""A plugin that blocks the loop of its node: health is answered all the same, all else waits, and the log says where."""

from __future__ import annotations

import json
import threading

import pytest
from tests.e2e.conftest import WAIT_S, until

from knotwork.ops import replies

AGENT = """
import pathlib, time

async def hold(folder):
    (pathlib.Path(folder) / "holds").touch()
    while not (pathlib.Path(folder) / "enough").exists():
        time.sleep(0.05)  # without await: the mistake
    return "done"
"""
TABLE = '[executors.holder]\ntype = "python"\nfunction = "./holder.py:hold"\n'


@pytest.mark.timeout(180)
def test_health_answers_while_a_plugin_holds_up_the_loop(nodes, tmp_path):
    node = nodes.node()
    node.write(AGENT, "holder.py")
    node.write(TABLE)
    node.up()
    assert (node.get("/livez").json, node.get("/readyz").json) == ({"live": True}, {"ready": True})
    answers: dict[str, object] = {}
    holding = threading.Thread(target=lambda: answers.update(holder=node.invoke("holder", str(tmp_path))), daemon=True)
    asking = threading.Thread(target=lambda: answers.update(status=node.status()["state"]), daemon=True)
    try:
        holding.start()
        until((tmp_path / "holds").exists)
        asking.start()
        alive, ready = node.get("/livez"), node.get("/readyz")
        assert (alive.status, alive.json) == (200, {"live": True})
        assert (ready.status, ready.json) == (503, {"ready": False})
        assert alive.headers["cache-control"] == "no-store"
        until(lambda: "nothing has moved for" in node.log, what=node.log)
        assert "holder.py:7 in hold" in node.log
        code, out, _ = node.run("health", "--timeout", "2", "-o", "json")
        health = json.loads(out)
        replies.NodeHealth.model_validate(health)
        assert (code, health["live"], health["ready"]) == (75, True, False)
        assert "a plugin holds it up" in health["checks"][0]["why"]
        shown = node.json("status", "--timeout", "2")
        replies.NodeStatus.model_validate(shown)
        assert "a plugin holds it up" in shown["why"]
        assert not answers
    finally:
        (tmp_path / "enough").touch()
    for thread in (holding, asking):
        thread.join(WAIT_S)
    assert answers == {"holder": "done", "status": "running"}
    assert (node.get("/livez").json, node.get("/readyz").json) == ({"live": True}, {"ready": True})
    until(lambda: "all moves again" in node.log, what=node.log)
    assert node.stop() == 0
