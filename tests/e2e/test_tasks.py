"""Durable tasks asked for at the shell and over HTTP, on two real nodes: what every state looks like and how it is reached."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any

import pytest
from tests.e2e.conftest import until

HUB = """
[node]
name = "hub"
[work]
lease_s = 6
[mesh]
heartbeat_s = 1
[executors.script]
type = "rehearsal"
script_from_input = true
concurrency = 20
[executors.one-by-one]
type = "rehearsal"
script_from_input = true
concurrency = 1
queue_max = 1
[executors.shout]
type = "process"
command = ["tr", "a-z", "A-Z"]
[executors.sleeper]
type = "process"
command = ["sh", "-c", "echo $$$$ >> pids; exec sleep 600"]
cwd = "{folder}"
concurrency = 3
[executors.wary]
type = "rehearsal"
capabilities = ["wary-work"]
boundaries = ["personal"]
"""
FAR = """
[node]
name = "{name}"
[nats]
mode = "join"
urls = ["{url}"]
nkey_seed = {{file = "{seed}"}}
[work]
lease_s = 6
[mesh]
heartbeat_s = 1
[executors.far]
type = "rehearsal"
script_from_input = true
concurrency = 20
"""
PATIENCE_S = 60.0


def up_hub(made, name: str = "hub"):
    node = made.node(name=name)
    node.write(HUB.replace("{folder}", str(node.folder)))
    return node.up()


def joined(hub, name: str) -> str:
    return FAR.format(name=name, url=hub.about["url"], seed=hub.data / "keys" / "node-default.nk")


def up_far(made, hub, name: str = "far"):
    node = made.node(name=name)
    node.write(joined(hub, name))
    node.up()
    until(lambda: "far" in hub.agents(), PATIENCE_S)
    return node


@pytest.fixture(scope="module")
def hub(shared_nodes):
    return up_hub(shared_nodes)


@pytest.fixture(scope="module")
def far(shared_nodes, hub):
    return up_far(shared_nodes, hub)


def submit(node, target: str, *steps, **fields) -> str:
    """Submit a script to an agent and return the task's id."""
    value = {"steps": list(steps)} if steps else fields.pop("input", "x")
    return node.ask("task.submit", target=target, input=value, **fields)["id"]


def ended(node, run: str):
    told = node.ask("task.await", id=run, timeout_s=PATIENCE_S)
    assert told["ended"], told
    return told


def state(node, run: str) -> str:
    return node.ask("task.get", id=run)["state"]


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return "Z" not in Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]


# -- submit, get, await --------------------------------------------------------------------------------------------------


def test_a_task_is_submitted_here_done_there_and_awaited_anywhere(hub, far):
    code, out, _ = hub.run("task", "submit", "far", '{"hello": 1}', "--labels", "team=red", "-p", "9")
    run = out.strip()
    assert code == 0
    assert hub.run("task", "await", run)[:2] == (0, '{\n  "hello": 1\n}\n')
    told = far.json("task", "get", run)
    assert (told["state"], told["worker"], told["labels"], told["priority"]) == (
        "completed",
        "far/far",
        {"team": "red"},
        9,
    )
    assert ended(hub, run)["output"] == {"hello": 1}  # again
    assert ended(far, run)["ended_at"] == told["ended_at"]
    assert far.run("submit", "hub/shout", "back", "--wait")[:2] == (0, "BACK\n")


def test_an_await_begun_before_the_end_answers_when_it_comes(hub, far):
    run = submit(hub, "far", {"delay_s": 1.0}, {"done": 7})
    waiting = far.start("task", "await", run)
    assert ended(hub, run)["output"] == 7
    out, _ = waiting.communicate(timeout=PATIENCE_S)
    assert (waiting.returncode, out) == (0, "7\n")


@pytest.mark.parametrize(
    ("steps", "fields", "code", "ends"),
    [
        ([{"done": "fine"}], [], 0, "completed"),
        ([{"fail": "no"}], [], 1, "failed"),
        ([{"fail": "no", "retriable": True}], ["--max-attempts", "2", "--retry-delay", "10ms"], 1, "dead"),
        ([{"delay_s": 60}], ["--attempt-timeout", "200ms"], 75, "timed-out"),
        ([{"delay_s": 60}], ["--deadline", "1s"], 75, "timed-out"),
        ([{"delay_s": 60}], ["--timeout", "3s"], 75, "running"),
    ],
)
def test_exit_codes_say_how_it_ended(hub, steps, fields, code, ends):
    got, out, err = hub.run("submit", "script", json.dumps({"steps": steps}), "--wait", *fields)
    assert got == code, err
    assert (out == "fine\n") == (code == 0)
    going = ("running", "pending") if ends == "running" else ()  # a slow machine may not have begun it by then
    if code:
        assert any(word in err for word in (ends, *going)), err
    got, out, _ = hub.run("submit", "script", json.dumps({"steps": steps}), "--wait", *fields, "-o", "json")
    told = json.loads(out)
    assert told["state"] in (ends, *going)
    assert (got, told["ended"]) == (code, not going)
    assert (told["error"] is None) == (ends in ("completed", "running"))
    hub.ask("task.cancel", all=True)


def test_everything_that_is_wrong_is_said_at_once(hub):
    code, error = hub.refused(
        "submit", "two words", "x", "-c", "Cap", "-p", "11", "--deadline", "tomorrow", "-l", "nokey", "--max-attempts",
        "0", "--key", "k" * 300, "--multiplier", "0.5", "--blob", "sha256-1",
    )  # fmt: skip
    assert code == 2
    wrong = {problem["field"] for problem in error["detail"]["problems"]}
    assert wrong == {
        "target", "capability", "priority", "deadline", "labels.0", "max_attempts", "key", "multiplier", "blob"
    }  # fmt: skip
    for fields in ({}, {"target": "a", "capability": "b"}):
        assert "target or capability" in hub.call("task.submit", **fields).json["detail"]
    assert "over already" in hub.call("task.submit", target="a", deadline="2001-01-01T00:00:00Z").json["detail"]
    assert "no such field" in hub.call("task.submit", target="a", prioritty=3).json["detail"]
    assert hub.refused("task", "get", "no-such")[0] == 2
    assert hub.refused("task", "await", "t0000000000000000")[1]["code"] == "work.not_found"


def test_what_nobody_can_do_now_is_accepted_with_a_note_and_done_when_somebody_comes(hub, nodes):
    code, run, err = hub.run("submit", "-c", "rare-thing", "x")
    assert (code, "Nobody is there to do it now" in err) == (0, True)
    run = run.strip()
    why = hub.ask("task.why", id=run)
    assert (why["state"], why["agents"]) == ("pending", [])
    assert "nobody who is there offers capability rare-thing" in why["why"]
    late = nodes.node(name="late")
    late.write(joined(hub, "late").replace("[executors.far]", '[executors.rare]\ncapabilities = ["rare-thing"]'))
    late.up()
    assert ended(hub, run)["worker"] == "late/rare"


def test_a_node_that_was_never_there_is_refused_and_one_that_is_away_is_waited_for(hub, nodes):
    code, error = hub.refused("submit", "atlantis/x", "y")
    assert (code, error["code"]) == (1, "work.no_such_node")
    away = nodes.node(name="away")
    away.write(joined(hub, "away"))
    away.up().stop()
    until(
        lambda: [row["state"] for row in hub.ask("nodes.list")["nodes"] if row["name"] == "away"] == ["offline"],
        PATIENCE_S,
    )
    run = submit(hub, "away/far", input="hello")
    assert "node away is away" in hub.ask("task.why", id=run)["why"]
    away.up()
    assert ended(hub, run)["worker"] == "away/far"


# -- attempts ------------------------------------------------------------------------------------------------------------


def test_retries_pause_and_remember(hub):
    run = submit(
        hub, "script", {"fail": "not yet", "retriable": True, "code": "x.y", "attempts": [1, 2]}, {"done": "at last"},
        max_attempts=5, backoff="linear", retry_delay_s=2, no_jitter=True,
    )  # fmt: skip
    waiting = until(lambda: (told := hub.ask("task.get", id=run))["state"] == "waiting" and told, PATIENCE_S)
    assert (waiting["code"], bool(waiting["due_at"])) == ("x.y", True)
    assert "not yet (x.y)" in hub.ask("task.why", id=run)["why"]
    told = ended(hub, run)
    assert (told["output"], told["attempt"]) == ("at last", 3)
    assert [(one["attempt"], one["state"], one["code"]) for one in told["attempts"]] == [
        (1, "waiting", "x.y"),
        (2, "waiting", "x.y"),
        (3, "completed", ""),
    ]
    rows = hub.ask("task.history", id=run)["transitions"]
    assert [row["what"] for row in rows] == [
        "submitted", "started", "waiting", "started", "waiting", "started", "completed"
    ]  # fmt: skip
    times = [row["at"] for row in rows]
    assert times == sorted(times)
    assert all(row["worker"] == "hub/script" for row in rows[1:])


def test_only_listed_codes_are_tried_again(hub):
    steps = {"fail": "no", "retriable": True, "code": "a.b"}, {"done": 1}
    run = submit(hub, "script", *steps, max_attempts=5, retry_on=["c.d"])
    assert (ended(hub, run)["state"], ended(hub, run)["attempt"]) == ("failed", 1)
    run = submit(hub, "script", {**steps[0], "attempts": [1], "retriable": False}, steps[1], max_attempts=5,
                 retry_on=["a.b"], retry_delay_s=0)  # fmt: skip
    assert ended(hub, run)["output"] == 1


def test_a_loop_goes_on_until_it_is_done(hub):
    last = {"steps": [{"done": "round"}]}
    again = {"steps": [{"again": {"steps": [{"again": last}]}}]}
    run = submit(hub, "script", *again["steps"])
    told = ended(hub, run)
    assert (told["output"], told["iteration"]) == ("round", 2)
    what = [row["what"] for row in hub.ask("task.history", id=run)["transitions"] if row["what"] != "started"]
    assert what == ["submitted", "continued", "continued", "completed"]


def test_urgent_tasks_go_first(hub):
    blocker = submit(hub, "one-by-one", {"delay_s": 300})
    until(lambda: state(hub, blocker) == "running", PATIENCE_S)
    low, normal, high = (submit(hub, "one-by-one", input=level, priority=level) for level in (1, 5, 10))
    assert "all its places are taken" in hub.ask("task.why", id=low)["agents"][0]["why_not"]
    hub.ask("task.cancel", ids=[blocker])
    began = {run: ended(hub, run)["started_at"] for run in (low, normal, high)}
    assert began[high] <= began[normal] <= began[low]


def test_what_is_listed_or_cancelled_may_be_bound_by_priority(hub):
    blocker = submit(hub, "one-by-one", {"delay_s": 300})
    until(lambda: state(hub, blocker) == "running", PATIENCE_S)
    low, high = (submit(hub, "one-by-one", priority=level, labels={"batch": "levels"}) for level in (3, 8))
    listed = until(lambda: hub.ask("task.list", labels={"batch": "levels"}, priority_min=5)["tasks"], PATIENCE_S)
    assert [row["id"] for row in listed] == [high]
    told = hub.json("task", "cancel", "--priority-max", "4", "-l", "batch=levels")
    assert [row["id"] for row in told["tasks"]] == [low]
    assert (state(hub, low), state(hub, high)) == ("cancelled", "pending")
    hub.ask("task.cancel", ids=[blocker, high])


def test_a_task_says_how_many_are_before_it(hub):
    runs = [submit(hub, "one-by-one", {"delay_s": 30}) for _ in range(4)]
    until(lambda: state(hub, runs[0]) == "running", PATIENCE_S)
    found = [hub.ask("task.why", id=run)["before"] for run in runs]
    assert found[0] is None
    assert found[3] - found[2] == 1
    hub.ask("task.cancel", ids=runs)


def test_boundaries_are_explained(hub):
    run = hub.ask("task.submit", capability="wary-work", input="x", boundary="open-source")["id"]
    why = hub.ask("task.why", id=run)
    assert [(row["agent"], bool(row["why_not"])) for row in why["agents"]] == [("hub/wary", True)]
    assert "open-source" in why["agents"][0]["why_not"]
    assert "accepts open-source" in why["routed"]
    assert hub.ask("task.cancel", ids=[run])["changed"] == 1
    run = hub.ask("task.submit", capability="wary-work", input="y", boundary="personal")["id"]
    assert ended(hub, run)["output"] == "y"


# -- ending them ---------------------------------------------------------------------------------------------------------


def test_a_cancel_stops_what_runs_and_what_waits_never_starts(hub, figure):
    pids = hub.folder / "pids"
    pids.unlink(missing_ok=True)
    runs = [submit(hub, "sleeper", labels={"batch": "one"}) for _ in range(5)]
    until(lambda: pids.exists() and len(pids.read_text().splitlines()) == 3, PATIENCE_S)
    until(lambda: sum(state(hub, run) == "running" for run in runs) == 3, PATIENCE_S)  # a moment later it is on record
    running = [int(line) for line in pids.read_text().splitlines()]
    code, out, _ = hub.run("task", "cancel", runs[4], "--why", "not needed")
    assert (code, "cancelled" in out) == (0, True)
    began = time.monotonic()
    told = hub.ask("task.cancel", labels={"batch": "one"})
    assert told["changed"] == 4
    until(lambda: not any(map(alive, running)), PATIENCE_S)
    figure("cancel_to_gone_s", time.monotonic() - began)
    assert {state(hub, run) for run in runs} == {"cancelled"}
    assert "not needed" in hub.ask("task.get", id=runs[4])["error"]["message"]
    until(lambda: hub.ask("task.stats")["running_here"] == 0, PATIENCE_S)
    assert len(pids.read_text().splitlines()) == 3
    again = hub.ask("task.cancel", ids=runs)
    assert (again["changed"], {row["state"] for row in again["tasks"]}) == (0, {"cancelled"})


def test_what_waits_is_cancelled_before_what_runs_in_whatever_order_it_is_named(hub):
    pids = hub.folder / "pids"
    pids.unlink(missing_ok=True)
    runs = [submit(hub, "sleeper") for _ in range(6)]
    until(lambda: pids.exists() and len(pids.read_text().splitlines()) == 3, PATIENCE_S)
    until(lambda: sum(state(hub, run) == "running" for run in runs) == 3, PATIENCE_S)  # a moment later it is on record
    told = hub.ask("task.cancel", ids=[*runs, runs[0]])
    assert ([one["id"] for one in told["tasks"]], told["changed"]) == (runs, 6)
    # The place of one that was stopped is taken by none that is meant, too.
    until(lambda: hub.ask("task.stats")["running_here"] == 0, PATIENCE_S)
    assert len(pids.read_text().splitlines()) == 3


def test_nobody_did_what_was_cancelled_before_it_began(hub):
    run = hub.ask("task.submit", capability="nobody", input="x")["id"]
    hub.ask("task.cancel", ids=[run])
    told = hub.ask("task.get", id=run)
    assert (told["state"], told["worker"], told["attempts"]) == ("cancelled", "", []), "its node only wrote that down"


def test_a_cancel_needs_to_know_what_is_meant(hub):
    code, error = hub.refused("task", "cancel")
    assert (code, error["code"]) == (2, "work.filter_needed")
    told = hub.ask("task.cancel", ids=["t0000000000000000"])
    assert (told["changed"], told["tasks"][0]["why"]) == (0, "There is no task t0000000000000000.")


def test_what_a_task_belongs_to_must_be_there(hub):
    told = hub.call("task.submit", capability="nobody", parent="t0000000000000000").json
    assert (told["code"], "t0000000000000000" in told["detail"]) == ("work.not_found", True)
    parent = submit(hub, "script", {"done": 1})
    hub.ask("task.await", id=parent, timeout_s=PATIENCE_S)
    child = hub.ask("task.submit", target="script", input={"steps": [{"done": 2}]}, parent=parent)
    assert child["parent"] == parent
    hub.ask("task.await", id=child["id"], timeout_s=PATIENCE_S)


def test_a_retry_is_a_task_of_its_own(hub):
    run = submit(hub, "script", {"delay_s": 60})
    assert hub.call("task.retry", id=run).json["code"] == "work.not_ended"
    hub.ask("task.cancel", ids=[run])
    code, out, _ = hub.run("task", "retry", run)
    told = hub.ask("task.get", id=out.strip(), with_input=True)
    assert (code, told["parent"], told["input"]) == (0, run, {"steps": [{"delay_s": 60}]})
    hub.ask("task.cancel", ids=[out.strip()])


def test_dead_letters_come_back_or_go(hub):
    def die(label: str, *attempts: int) -> str:
        run = submit(
            hub, "script", {"fail": "no", "retriable": True, "code": "gone.bad", "attempts": list(attempts)}, {"done": 1},
            max_attempts=2, retry_delay_s=0, labels={"kind": label},
        )  # fmt: skip
        assert ended(hub, run)["state"] == "dead"
        until(lambda: hub.call("task.dead_list").json["dead"] and run in listed(), PATIENCE_S)
        return run

    def listed(**fields) -> list[str]:
        return [row["id"] for row in hub.ask("task.dead_list", **{"code": "gone.bad", **fields})["dead"]]

    back, lost, other = die("back", 1, 2), die("lost", 1, 2, 3, 4), die("other", 1, 2)
    assert listed(labels={"kind": "back"}) == [back]
    assert listed(code="another.code") == []
    first = hub.ask("task.dead_list", code="gone.bad", limit=1)
    assert listed(limit=10, cursor=first["next"]) == [lost, other]
    shown = hub.json("dead", "show", back)
    assert [(row["state"], row["code"]) for row in shown["attempts"]] == [("waiting", "gone.bad"), ("dead", "gone.bad")]
    assert shown["input"]["steps"][0]["fail"] == "no"
    assert hub.refused("dead", "redrive")[1]["code"] == "work.filter_needed"
    fine = submit(hub, "script", {"done": 1})
    assert ended(hub, fine)["state"] == "completed"
    code, wire = hub.refused("dead", "show", fine)
    assert (code, wire["code"]) == (1, "work.not_dead")
    unknown = "t0198c0ffee00d15ea5e0ddba11"
    redrive, drop = ("dead", "redrive"), ("dead", "drop")
    for words in ((*redrive, unknown), (*redrive, fine), (*drop, unknown), (*drop, fine), ("task", "cancel", unknown)):
        code, out, _ = hub.run(*words, "-o", "json")
        assert (code, json.loads(out)["changed"]) == (1, 0), words
    assert hub.run("task", "cancel", fine)[0] == 0  # it had ended; that is no failure
    assert hub.http("POST", f"/api/work/{unknown}/cancel", authorization=f"Bearer {hub.token}").status == 404

    dry = hub.json("dead", "redrive", "--code", "gone.bad", "--dry-run")
    assert (dry["changed"], len(dry["tasks"])) == (0, 3)
    assert len(listed()) == 3
    done = hub.json("dead", "redrive", "--labels", "kind=back")
    assert [(row["id"], row["attempt"], row["done"]) for row in done["tasks"]] == [(back, 3, True)]
    assert (ended(hub, back)["output"], ended(hub, back)["attempt"]) == (1, 3)

    began = time.monotonic()
    assert hub.ask("task.redrive", ids=[lost, other, back], rate=2)["changed"] == 2
    assert time.monotonic() - began >= 0.5
    assert ended(hub, other)["output"] == 1
    assert ended(hub, lost)["state"] == "dead"
    until(lambda: listed() == [lost], PATIENCE_S)
    assert hub.json("dead", "drop", lost)["ids"] == [lost]
    assert listed() == []
    assert hub.ask("task.drop", code="gone.bad")["changed"] == 0
    assert state(hub, lost) == "dead"
    assert hub.refused("dead", "show", lost)[1]["code"] == "work.not_dead", "a letter that was dropped is gone"
    assert hub.run("dead", "list", "--code", "gone.bad")[:2] == (0, "no dead\n")


def test_why_personal_work_is_left_by_executors(hub):
    wanted = {"steps": [{"done": 1}]}
    run = hub.ask("task.submit", capability="script", input=wanted, scope="personal")["id"]
    told = hub.ask("task.why", id=run)
    assert "executors of a node get no private or personal work" in told["why"]
    assert {row["why_not"] for row in told["agents"]} == {"executors of a node get no private or personal work"}
    assert hub.ask("task.cancel", ids=[run])["changed"] == 1


# -- looking on ----------------------------------------------------------------------------------------------------------


def test_watching_shows_progress_output_and_changes_of_state(hub):
    blocker = submit(hub, "one-by-one", {"delay_s": 300})
    until(lambda: state(hub, blocker) == "running", PATIENCE_S)
    run = submit(
        hub, "one-by-one", {"progress": 40, "text": "nearly"}, {"chunk": {"n": 1}}, {"chunk": "two"},
        {"delay_s": 0.4}, {"done": "end"},
    )  # fmt: skip
    watching = hub.start("task", "watch", run, "-o", "jsonl")
    assert watching.stdout is not None
    pieces = [json.loads(watching.stdout.readline())]
    assert pieces[0] == {"kind": "chunk", "data": {"state": "pending", "what": "seen", "attempt": 1}}
    hub.ask("task.cancel", ids=[blocker])  # now it begins, and somebody looks on
    out, _ = watching.communicate(timeout=PATIENCE_S)
    pieces += [json.loads(line) for line in out.splitlines()]
    assert watching.returncode == 0
    assert [piece["data"]["output"] for piece in pieces if "output" in piece.get("data", {})] == [{"n": 1}, "two"]
    assert [(piece["percent"], piece["text"]) for piece in pieces if piece["kind"] == "progress"] == [(40.0, "nearly")]
    assert "running" in {piece["data"].get("state") for piece in pieces if piece["kind"] == "chunk"}
    assert pieces[-2]["data"]["state"] == "completed"
    assert (pieces[-1]["kind"], pieces[-1]["output"]) == ("result", "end")
    code, out, err = hub.run("task", "watch", run)  # after the end: the end alone
    assert (code, out) == (0, "end\n"), err


def test_a_watch_that_is_left_leaves_the_task_alone(hub):
    run = submit(hub, "script", {"delay_s": 6}, {"done": 5})
    watching = hub.start("task", "watch", run)
    until(lambda: state(hub, run) == "running", PATIENCE_S)
    watching.terminate()
    watching.communicate(timeout=PATIENCE_S)
    assert ended(hub, run)["output"] == 5


def test_lists_and_figures(hub):
    runs = [submit(hub, "sleeper", labels={"list": "me"}) for _ in range(4)]
    until(lambda: [state(hub, run) for run in runs].count("running") == 3, PATIENCE_S)
    until(lambda: len(hub.ask("task.list", labels=["list=me"], state=["running"])["tasks"]) == 3, PATIENCE_S)
    until(lambda: len(hub.ask("task.list", labels=["list=me"])["tasks"]) == 4, PATIENCE_S)
    found = hub.ask("task.list", labels={"list": "me"})["tasks"]
    assert [row["id"] for row in found] == runs[::-1]
    assert len(hub.ask("task.list", labels=["list=me"], state=["pending"])["tasks"]) == 1
    page = hub.ask("task.list", labels={"list": "me"}, limit=3)
    assert [row["id"] for row in hub.ask("task.list", labels={"list": "me"}, cursor=page["next"])["tasks"]] == runs[:1]
    assert hub.ask("task.list", labels={"list": "me"}, agent="script")["tasks"] == []
    assert hub.ask("task.list", labels={"list": "me"}, until="1h")["tasks"] == []
    assert len(hub.ask("task.list", labels={"list": "me"}, since="1h", limit=2)["tasks"]) == 2

    def figures_of_three() -> Any:
        told = hub.ask("task.stats")
        return told if (told["taken"], told["running_here"], told["by_state"].get("running")) == (3, 3, 3) else None

    figures = until(figures_of_three, PATIENCE_S)
    row = next(row for row in figures["queues"] if row["route"] == "=sleeper")
    assert (row["waiting"], row["taken"], row["lane"]) == (1, 3, "normal")
    code, out, _ = hub.run("task", "list", "-l", "list=me", "-s", "running")
    assert (code, len(out.splitlines())) == (0, 4)
    assert hub.ask("task.cancel", labels={"list": "me"}, state=["pending", "running"])["changed"] == 4


def test_get_works_as_a_plain_address_too(hub):
    run = submit(hub, "shout", input="x")
    answer = hub.http("GET", f"/api/task/await?id={run}&timeout_s=30", authorization=f"Bearer {hub.token}")
    assert (answer.status, answer.json["output"]) == (200, "X")
