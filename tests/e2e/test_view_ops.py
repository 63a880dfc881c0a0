"""The past of a real node, asked at every door: SQL, how the view stands, and making it anew."""

from __future__ import annotations

import json
import os
import signal
import time

from tests.e2e.conftest import until

CONFIG = """
[executors.echo]
type = "rehearsal"
capabilities = ["echo"]
"""


def test_the_past_can_be_asked_in_sql_and_comes_back_whatever_is_done_to_it(nodes):
    node = nodes.node(CONFIG).up()
    for number in range(5):
        node.ask("task.submit", capability="echo", input=number, labels=["team=red"], wait=True)
    query = "select state, count(*) as n from tasks group by state"
    until(lambda: _count(node, query) == 5)
    found = node.ask("view.sql", query=query)
    assert (found["columns"], found["rows"]) == (["state", "n"], [{"state": "completed", "n": 5}])
    assert node.json("sql", query)["rows"] == found["rows"]
    code, out, _ = node.run("sql", query)
    assert code == 0
    assert out.split() == ["STATE", "N", "completed", "5"]
    code, error = node.refused("sql", "delete from tasks")
    assert (code, error["code"]) == (2, "view.bad_sql")
    code, error = node.refused(
        "sql",
        "with recursive a(n) as (select 1 union all select n+1 from a) select count(*) from a",
        "--timeout",
        "0.2s",
    )
    assert (code, error["code"]) == (75, "view.slow")
    begin_s = time.monotonic()
    assert node.get("/livez").status == 200  # while somebody asks for ever, others are answered
    assert time.monotonic() - begin_s < 20

    status = node.ask("view.status")
    assert status["tasks"] == 5
    assert status["size_bytes"] > 0
    first = status["pid"]
    os.kill(first, signal.SIGKILL)
    until(lambda: node.ask("view.status")["pid"] not in (0, first))
    until(lambda: _count(node, query) == 5)

    until(lambda: node.ask("view.status")["state"] == "live")
    before = node.ask("view.status")["made"]
    assert node.ask("view.rebuild") == {"project": "default"}
    until(lambda: node.ask("view.status")["made"] > before)
    until(lambda: _count(node, query) == 5)
    assert node.json("view", "status")["project"] == "default"

    child = node.ask("view.status")["pid"]
    node.process.kill()
    until(lambda: not _lives(child), what="the process of the view outlived its node")


def _count(node, query):
    answer = node.call("view.sql", query=query)
    if answer.status != 200:
        assert json.loads(answer.body)["code"] in ("view.not_ready", "view.bad_sql")  # it is being made
        return 0
    return sum(row["n"] for row in answer.json["rows"])


def _lives(pid):
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:  # noqa: PTH123
            return file.read().rpartition(b")")[2].split()[0] not in (b"Z", b"X")
    except FileNotFoundError:
        return False
