"""Agents from outside on real nodes: they come in, are found, ask in their own name, and are missed when they die."""

from __future__ import annotations

import contextlib
import json
import threading
from collections.abc import Iterator
from typing import Any

from tests.e2e.conftest import WAIT_S, Answer, Node, until


class Agent:
    """An agent with an open session, over HTTP."""

    def __init__(self, node: Node, project: str = "", **fields: Any) -> None:
        self.node, self.told = node, []
        self.project = {"knotwork-project": project} if project else {}
        self.connection = node.connect()
        body = json.dumps({"host": "laptop", "path": "/srv/app", "type": "claude-code", **fields})
        headers = {"authorization": f"Bearer {node.token}", "accept": "text/event-stream", **self.project}
        self.connection.request("POST", "/api/session/open", body, headers)
        self.response = self.connection.getresponse()
        self.reader = threading.Thread(target=self._read, daemon=True)
        self.reader.start()
        opened = until(lambda: self.told and self.told[0], what="no session")
        assert opened.get("event") == "opened", opened
        self.id, self.handle, self.secret = opened["id"], opened["handle"], opened["session"]
        self.parent_key = opened["parent_key"]

    def _read(self) -> None:
        with contextlib.suppress(OSError, ValueError, AttributeError):
            for line in self.response:
                if line.startswith(b"data: "):
                    self.told.append(json.loads(line[6:]).get("data") or json.loads(line[6:]))

    def call(self, op: str, **fields: Any) -> Answer:
        return self.node.http(
            "POST", f"/api/{op.replace('.', '/')}", json.dumps(fields).encode(),
            authorization=f"Bearer {self.node.token}", content_type="application/json", knotwork_session=self.secret,
            **self.project,
        )  # fmt: skip

    def ask(self, op: str, **fields: Any) -> Any:
        answer = self.call(op, **fields)
        assert answer.status == 200, answer.body
        return answer.json

    def die(self) -> None:
        """Be gone without a word."""
        with contextlib.suppress(OSError, AttributeError):
            self.connection.sock.shutdown(2)
        self.reader.join(WAIT_S)
        self.response.close()
        self.connection.close()


@contextlib.contextmanager
def agent(node: Node, **fields: Any) -> Iterator[Agent]:
    made = Agent(node, **fields)
    try:
        yield made
    finally:
        made.die()


def starts_nobody(one: Agent, run: str) -> str:
    """Return why a task waits once it is told that no target starts an agent for it, "" before."""
    why = str(one.ask("task.why", id=run)["why"])
    return why if "No target" in why else ""


def status(node: Node, name: str) -> str:
    return node.ask("session.get", agent=name)["status"]


def test_agents_come_in_are_found_and_come_back_as_themselves(nodes):
    node = nodes.node().up()
    with agent(node, capabilities=["review"]) as first, agent(node, label="2") as second:
        assert (first.handle, second.handle) == ("claude-code", "claude-code-2")
        assert first.ask("session.get", agent=second.handle)["id"] == second.id
        assert [row["handle"] for row in node.ask("session.list")["agents"]] == ["claude-code"]
        row = second.ask("session.update", handle="helper", capabilities=["test"], status="busy")
        assert (row["handle"], row["status"], row["me"]) == ("helper", "busy", True)
        assert {one["handle"] for one in first.ask("session.list", capability="test")["agents"]} == {"helper"}
        assert first.call("session.update", handle="helper").json["code"] == "session.handle_taken"
        assert "helper" in node.agents()
    until(lambda: status(node, "helper") == "stale")
    assert second.call("session.update", status="online").json["code"] == "session.unknown"
    with agent(node, label="2") as again:
        assert (again.id, again.handle) == (second.id, "helper")
        assert again.ask("session.close")["id"] == again.id
        until(lambda: again.told[-1].get("why") == "it was closed")


def test_an_agent_is_not_called_as_what_a_node_runs_and_gets_its_work(nodes):
    node = nodes.node('[executors.claude-code]\ntype = "rehearsal"\n').up()
    with agent(node, capabilities=["review"]) as one:
        assert one.handle == "claude-code-2"
        refused = one.call("session.update", handle="claude-code").json
        assert (refused["code"], "a node or its agents" in refused["detail"]) == ("session.handle_taken", True)
        run = node.ask("task.submit", capability="review", input=1)["id"]
        claimed = one.ask("work.claim", worker=one.handle, capabilities=["review"], wait_s=30.0)
        assert [task["id"] for task in claimed["tasks"]] == [run]


def test_an_agent_whose_type_is_like_a_person_is_called_otherwise(nodes):
    node = nodes.node().up()
    with agent(node, type="person-ann") as one, agent(node, type="all", label="2") as other:
        assert (one.handle, other.handle) == ("agent", "all-2")


def test_an_agent_asks_in_its_own_name_and_runs_nothing(nodes):
    node = nodes.node().up()
    with agent(node, capabilities=["review"]) as one, agent(node, label="2") as other:
        node.ask("task.submit", capability="review", input=1)
        assert one.call("work.claim", worker=other.handle, capabilities=["review"]).json["code"] == "claim.not_you"
        assert one.call("node.stop").json["code"] == "ops.denied"
        assert one.call("node.drain").status == 403
        hidden = one.ask("session.update", scope="private")
        assert hidden["scope"] == "private"
        assert other.call("session.get", agent=one.id).json["code"] == "agent.not_found"
        assert one.id not in {row["id"] for row in other.ask("session.list")["agents"]}
        stolen = node.http(
            "POST", "/api/session/list", b"{}", authorization=f"Bearer {node.token}", knotwork_session="x"
        )
        assert stolen.json["code"] == "session.unknown"


def test_what_a_dead_agent_held_goes_to_another(nodes):
    node = nodes.node().up()
    run = node.ask("task.submit", capability="review", input="x")["id"]
    with agent(node, capabilities=["review"]) as one:
        (held,) = one.ask("work.claim", worker=one.handle, lease_s=3600, wait_s=30)["tasks"]
        assert held["id"] == run
    with agent(node, label="2", capabilities=["review"]) as other:
        (task,) = until(lambda: other.ask("work.claim", worker=other.handle, wait_s=30)["tasks"])
        assert task["id"] == run
        other.ask("work.complete", claim=task["claim"], output="done by another")
    assert node.ask("task.await", id=run, timeout_s=30)["output"] == "done by another"


def test_agents_are_known_again_after_their_node_was_killed(nodes):
    node = nodes.node().up()
    with agent(node, capabilities=["review"], handle="chief") as one:
        node.process.kill()
        node.ended()
        node.up()
        assert status(node, "chief") in ("stale", "offline")
    with agent(node) as again:
        assert (again.id, again.handle) == (one.id, "chief")
        assert again.ask("session.get", agent="chief")["capabilities"] == ["review"]


def test_an_agent_that_may_not_be_seen_reads_and_behaves_as_if_it_were_not_there(nodes):
    node = nodes.node().up()
    with agent(node, handle="anna", capabilities=["merger-lawyer"]) as anna, agent(node, label="2") as other:
        until(lambda: anna.call("agents.show", target=anna.id).status == 200)
        named = node.ask("task.submit", target=anna.id, input="by id")  # ids are understood as names are
        assert not named.get("note")
        (held,) = anna.ask("work.claim", worker="anna", wait_s=30)["tasks"]
        assert held["id"] == named["id"]
        anna.ask("work.complete", claim=held["claim"], output=1)
        forged = node.call("work.claim", worker="anna", wait_s=0)
        assert (forged.json["code"], forged.status) == ("claim.not_you", 403)

        anna.ask("session.update", scope="private")
        for name, nobody in (("anna", "nemo"), (anna.id, "outis")):
            known, missing = (other.ask("task.submit", target=one, input=1) for one in (name, nobody))
            assert known["note"] == missing["note"].replace(nobody, name)
            both = (known["id"], missing["id"])  # once it was seen that nobody can start one
            whys = [until(lambda run=run: starts_nobody(other, run)) for run in both]
            assert whys[0] == whys[1].replace(nobody, name)
        for op, wrong in (("invoke", "merger-lawyr"), ("why", "merger-lawyr")):
            refused = other.call(f"agents.{op}", capability=wrong).json
            assert "merger-lawyer" not in str(refused)
            assert "anna" not in str(other.call(f"agents.{op}", target="ann").json["hint"])
        plan = other.ask("crew.assess", task="- merger-lawyer: read the contract\n- tests: write tests")
        assert "merger-lawyer" not in {part["capability"] for part in plan["parts"]}
        assert other.ask("task.submit", capability="merger-lawyer", input=1)["note"]
        anna.ask("task.submit", capability="signs-mergers", scope="private", input=1)
        until(lambda: any(one["wanted"] == "signs-mergers" for one in anna.ask("targets.list")["missing"]))
        assert "signs-mergers" not in str(other.ask("targets.list")["missing"])
        assert anna.ask("task.stats")["waiting"] == other.ask("task.stats")["waiting"] + 1
        assert [one.ask("nodes.list")["nodes"][0]["agents"] for one in (anna, other)] == [1, 0]
        assert not anna.ask("work.claim", worker="anna", capabilities=["none"], wait_s=0)["tasks"]
        anna.ask("session.update", scope="team")
        (late,) = anna.ask("work.claim", worker="anna", capabilities=["none"], wait_s=30)["tasks"]
        assert late["id"] != named["id"]


def work_of(one: Agent, name: str, **more: Any) -> list[dict[str, Any]]:
    return [dict(task) for task in one.ask("work.claim", worker=name, wait_s=0, **more)["tasks"]]


def test_no_way_to_name_an_agent_that_may_not_be_seen_reaches_it(nodes):
    node = nodes.node().up()
    with agent(node, handle="anna") as anna, agent(node, label="2", handle="eve") as eve:
        early = eve.ask("task.submit", target="rosa", input=1)["id"]  # nobody is called so yet
        given = node.ask("task.submit", target="anna", input="from whoever may see her")["id"]
        (held,) = anna.ask("work.claim", worker="anna", wait_s=30)["tasks"]
        assert held["id"] == given
        anna.ask("work.complete", claim=held["claim"], output=1)
        anna.ask("session.update", scope="private", handle="rosa")
        workflow = {"name": "named", "steps": {"a": {"kind": "task", "agent": "rosa"}}}
        node.ask("workflow.register", definition=workflow)
        run = eve.ask("run.start", workflow="named")["id"]
        eve.ask("run.fork", id=run, step="a")
        eve.ask("task.retry", id=given)
        crew = eve.ask("crew.assess", task="1. write 2. test", capabilities=[])["id"]
        parts = [{"id": "a", "agent": "rosa"}, {"id": "b", "agent": "anna"}]
        eve.ask("crew.spawn", id=crew, parts=parts)
        until(lambda: node.ask("task.stats")["waiting"] == 6)  # both parts, both runs, both tasks
        mine = anna.ask("run.start", workflow="named")["id"]
        found = until(lambda: work_of(anna, "rosa", max_tasks=10))
        assert [one["id"] for one in found] == [mine]
        assert not work_of(anna, "rosa", max_tasks=10)
        anna.ask("work.complete", claim=found[0]["claim"], output="by herself")
        assert node.ask("run.await", id=mine, timeout_s=30)["state"] == "completed"
        plan = {"task": "1. sell 2. buy", "planner_capability": "nobody-can", "timeout_s": 1}
        anna.ask("crew.assess", scope="private", **plan)  # whoever is asked for a plan of it is asked in private
        assert "crew-plan" not in {one["workflow"] for one in eve.ask("run.list")["runs"]}
        eve.ask("crew.assess", **plan)
        assert "crew-plan" in {one["workflow"] for one in eve.ask("run.list")["runs"]}
        anna.ask("session.update", scope="team")  # now everybody sees her, and what waited for one of her name is hers
        assert {one["id"] for one in until(lambda: work_of(anna, "rosa", max_tasks=10))} >= {early}


def test_work_for_an_agent_by_name_reaches_it_under_its_new_name(nodes):
    node = nodes.node().up()
    with agent(node, label="2") as other:
        with agent(node, handle="bob", capabilities=["review"]) as bob:
            held = node.ask("task.submit", capability="review", input=1)["id"]
            assert [one["id"] for one in until(lambda: work_of(bob, "bob", lease_s=3600))] == [held]
            named = node.ask("task.submit", target="bob", input=2)["id"]
            bob.ask("session.update", handle="robert")
            (task,) = until(lambda: work_of(bob, "robert"))
            assert task["id"] == named
            bob.ask("work.complete", claim=task["claim"], output=2)
            other.ask("session.update", handle="bob")
            later = node.ask("task.submit", target="bob", input=3)["id"]
            assert not work_of(bob, "robert")  # the name is somebody else's now
            (task,) = until(lambda: work_of(other, "bob"))
            assert task["id"] == later
            other.ask("session.update", handle="carl")
        free = until(lambda: work_of(other, "carl", capabilities=["review"]))  # what bob claimed, who died as robert
        assert [one["id"] for one in free] == [held]


def test_an_agent_is_meant_by_the_name_that_its_messages_bear(nodes):
    node = nodes.node().up()
    with agent(node, label="1", handle="bob") as bob, agent(node, label="2", handle="anna") as anna:
        bob.ask("channel.send", channel="errors", text="the parser fails")
        bob.ask("session.update", handle="robert")
        (found,) = anna.ask("message.search", query="parser", sender="bob")["messages"]
        assert found["sender"] == "bob"
        assert anna.ask("session.get", agent="bob")["handle"] == "robert"
        sent = anna.ask("message.send", to="bob", text="which one?")["id"]
        assert [one["id"] for one in bob.ask("message.inbox")["messages"]] == [sent]
        anna.ask("session.update", handle="bob")  # whoever has the name now is meant by it
        assert anna.ask("message.search", query="parser", sender="bob")["messages"] == []
        anna.ask("session.update", handle="anna", scope="private")
        assert bob.call("session.get", agent="bob").status == 404  # two were called so: what is said counts
        assert bob.ask("message.search", query="parser", sender="bob")["messages"] == [found]
        assert bob.ask("channel.read", channel="errors", sender="bob")["messages"] == [found]
        assert bob.ask("channel.read", channel="errors", sender="nobody")["messages"] == []


def test_what_an_agent_claimed_stays_its_own_whoever_takes_its_old_name(nodes):
    node = nodes.node().up()
    with agent(node, label="1") as bob, agent(node, label="2") as third:
        with agent(node, label="3") as other:
            bob.ask("session.update", handle="bob")
            node.ask("task.submit", capability="review", input=1)
            (held,) = until(lambda: work_of(bob, "bob", capabilities=["review"], lease_s=3600))
            bob.ask("session.update", handle="robert")
            other.ask("session.update", handle="bob")
            node.ask("task.submit", capability="mend", input=2)
            (its,) = until(lambda: work_of(other, "bob", capabilities=["mend"], lease_s=3600))
        (again,) = until(lambda: work_of(third, third.handle, capabilities=["mend"]))  # the new bob is missed
        assert again["id"] == its["id"]
        assert bob.ask("work.extend", claim=held["claim"], lease_s=3600)["id"] == held["id"]
        with agent(node, label="3") as back:  # one called bob is there again
            assert back.handle == "bob"
            bob.die()
            (free,) = until(lambda: work_of(third, third.handle, capabilities=["review"]))  # found by who held it
        assert free["id"] == held["id"]
