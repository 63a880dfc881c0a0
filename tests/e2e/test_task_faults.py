"""Durable tasks when things go wrong: everything is killed, many submit at once, values are too large, the store is full."""

from __future__ import annotations

import json
import os
import signal
from concurrent.futures import ThreadPoolExecutor

import pytest
from tests.e2e.conftest import marked, until
from tests.e2e.test_tasks import PATIENCE_S, ended, joined, state, submit, up_far, up_hub


def kill_everything(nodes) -> None:
    """End every process of every node with kill -9, nats-server and executors included."""
    for pid in marked(nodes.mark):
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            continue
    for node in nodes.made:
        if node.process is not None:
            node.process.wait(PATIENCE_S)
    assert not nodes.left()


@pytest.mark.timeout(180)
def test_nothing_is_lost_when_everything_is_killed(nodes):
    hub = up_hub(nodes)
    far = up_far(nodes, hub)
    done = submit(hub, "script", {"done": "before"})
    assert ended(hub, done)["output"] == "before"
    running = submit(hub, "far", {"delay_s": 300, "attempts": [1]}, {"done": "never"}, deadline="1h", max_crashes=5)
    until(lambda: state(hub, running) == "running", PATIENCE_S)
    waiting = submit(hub, "script", {"fail": "no", "retriable": True, "attempts": [1]}, {"done": "second"},
                     max_attempts=3, retry_delay_s=8, no_jitter=True)  # fmt: skip
    until(lambda: state(hub, waiting) == "waiting", PATIENCE_S)
    queued = [submit(hub, "one-by-one", {"delay_s": 0.2}, {"done": number}) for number in range(10)]
    elsewhere = submit(hub, "far/far", input="for a node that is away")
    nobody = hub.ask("task.submit", capability="later", input=1)["id"]
    late = submit(hub, "script", {"fail": "x", "retriable": True, "attempts": [1]}, {"done": 1}, deadline="4s",
                  max_attempts=2, retry_delay_s=3600, no_jitter=True)  # fmt: skip

    kill_everything(nodes)
    hub.up()
    # when the lease is over that far cannot renew, which may be by now, it waits for somebody else
    why = hub.ask("task.why", id=running)
    assert state(hub, nobody) == "pending"
    assert why["state"] == "pending" or "far/far has it" in why["why"], why
    assert ended(hub, done)["output"] == "before"
    assert ended(hub, waiting)["output"] == "second"
    assert [ended(hub, run)["output"] for run in queued] == list(range(10))
    assert ended(hub, late)["state"] == "timed-out"
    assert hub.ask("task.submit", target="far/far", input="known, though nobody here saw it since")["id"]

    far.write(joined(hub, "far"))  # the hub's port is another when it had none of its own
    far.up()
    assert ended(hub, elsewhere)["worker"] == "far/far"
    until(lambda: hub.ask("task.get", id=running)["worker"] == "far/far", PATIENCE_S)
    what = [row["what"] for row in hub.ask("task.history", id=running)["transitions"]]
    assert what[:2] == ["submitted", "started"]
    assert hub.ask("task.cancel", ids=[running, nobody])["changed"] == 2


@pytest.mark.timeout(180)
def test_the_task_of_a_killed_node_goes_to_another(nodes):
    hub = up_hub(nodes)
    both = {f"{name}/far": up_far(nodes, hub, name) for name in ("first", "second")}
    run = submit(hub, "far", {"delay_s": 20}, {"done": "done after all"})
    taken = until(lambda: hub.ask("task.get", id=run)["worker"], PATIENCE_S)
    killed = both.pop(taken)
    killed.signal(signal.SIGKILL)
    killed.ended(PATIENCE_S)
    other = next(iter(both))
    told = ended(hub, run)
    assert (told["worker"], told["attempt"], told["output"]) == (other, 1, "done after all")
    rows = hub.ask("task.history", id=run)["transitions"]
    assert [(row["what"], row["worker"]) for row in rows] == [
        ("submitted", ""), ("started", taken), ("started", other), ("completed", other),
    ]  # fmt: skip


@pytest.mark.timeout(180)
def test_lists_and_counts_say_that_the_task_of_a_vanished_worker_waits(nodes):
    hub = up_hub(nodes)
    far = up_far(nodes, hub)
    run = submit(hub, "far", {"delay_s": 300})
    kept = submit(hub, "script", {"delay_s": 300})
    until(lambda: {state(hub, run), state(hub, kept)} == {"running"}, PATIENCE_S)

    def listed(wanted: str) -> set[str]:
        return {one["id"] for one in hub.ask("task.list", state=[wanted])["tasks"]}

    until(lambda: listed("running") == {run, kept}, PATIENCE_S)
    until(lambda: hub.ask("task.stats")["by_state"] == {"running": 2}, PATIENCE_S)
    far.signal(signal.SIGKILL)
    far.ended(PATIENCE_S)
    until(lambda: state(hub, run) == "pending", PATIENCE_S)
    until(lambda: (listed("pending"), listed("running")) == ({run}, {kept}), PATIENCE_S)
    (row,) = hub.ask("task.list", state=["pending", "waiting"])["tasks"]
    assert (row["state"], row["worker"], row["started_at"]) == ("pending", "", "")
    until(lambda: hub.ask("task.stats")["by_state"] == {"pending": 1, "running": 1}, PATIENCE_S)
    assert hub.ask("task.cancel", ids=[run, kept])["changed"] == 2


@pytest.fixture(scope="module")
def hub(shared_nodes):
    return up_hub(shared_nodes)


@pytest.mark.timeout(180)
def test_twenty_processes_with_one_key_make_one_task(hub):
    pids = hub.folder / "pids"
    pids.unlink(missing_ok=True)
    started = [hub.start("submit", "sleeper", "same work", "--key", "order-17") for _ in range(20)]
    with ThreadPoolExecutor(20) as pool:
        ended_in = list(pool.map(lambda process: process.communicate(timeout=150), started))
    assert {process.returncode for process in started} == {0}, ended_in
    runs = {out.strip() for out, _ in ended_in}
    assert len(runs) == 1
    run = runs.pop()
    until(lambda: pids.exists() and state(hub, run) == "running", PATIENCE_S)
    assert len(hub.ask("task.list", agent="sleeper")["tasks"]) == 1
    assert len(pids.read_text().splitlines()) == 1
    answer = hub.call("task.submit", target="sleeper", input="other work", key="order-17")
    assert (answer.status, answer.json["code"], answer.json["data"]["id"]) == (409, "work.key_reused", run)
    again = hub.ask("task.submit", target="sleeper", input="same work", key="order-17")
    assert (again["id"], again["new"], again["state"]) == (run, False, "running")
    hub.ask("task.cancel", ids=[run])
    assert hub.ask("task.submit", target="sleeper", input="same work", key="order-17")["state"] == "cancelled"


@pytest.mark.timeout(180)
def test_large_values_go_in_and_out_and_larger_ones_are_refused(hub):
    text = "0123456789" * 1_200_000
    (hub.folder / "large.json").write_text(json.dumps(text))
    code, out, err = hub.run("submit", "script", "@large.json", "--wait", timeout_s=120)
    assert (code, out == text + "\n") == (0, True), err[-500:]

    small = "x" * 700_000  # in one request, kept aside all the same
    told = hub.ask("task.submit", target="script", input=small)
    assert told["input_blob"].startswith("sha256-")
    assert ended(hub, told["id"])["output"] == small
    assert hub.ask("task.get", id=told["id"], with_input=True)["input"] == small

    told = hub.ask("task.submit", target="script", input={"steps": [{"output_bytes": 6_000_000}]})
    told = ended(hub, told["id"])
    assert (told["output"], told["output_bytes"]) == (None, 6_000_002)
    code, out, _ = hub.run("blob", "get", told["output_blob"])
    assert (code, json.loads(out)) == (0, "x" * 6_000_000)

    answer = hub.call("task.submit", target="script", input="y" * (8 * 1024 * 1024))
    assert (answer.status, answer.json["code"]) == (413, "ops.request_too_large")
    (hub.folder / "huge.json").write_text(json.dumps("z" * (64 * 1024 * 1024)))
    code, error = hub.refused("submit", "script", "@huge.json")
    assert (code, error["code"]) == (1, "blob.too_large")
    told = hub.ask("task.submit", target="script", input={"steps": [{"output_bytes": 65 * 1024 * 1024}]})
    assert ended(hub, told["id"])["error"]["code"] == "blob.too_large"

    for digest, status in (("sha256-" + "0" * 64, 404), ("nonsense", 422)):
        assert hub.call("task.submit", target="script", blob=digest).status == status
    (hub.folder / "no.json").write_text("this is no JSON")
    code, digest, _ = hub.run("blob", "put", "@no.json")
    assert code == 0
    assert hub.call("task.submit", target="script", blob=digest.strip()).json["code"] == "wire.not_json"
    assert hub.call("blob.put", data="not base64!").status == 422
