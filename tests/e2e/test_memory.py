"""Memory on real nodes: agents in their own name, over projects and nodes, through a reload and kill -9."""

from __future__ import annotations

import json
import signal

from tests.e2e.conftest import until
from tests.e2e.test_sessions import agent

ONE = """
[node]
name = "one"
owner = "ann"

[projects.shop]
[projects.blog]
"""
TWO = """
[node]
name = "two"
owner = "ann"

[nats]
mode = "join"
urls = ["{url}"]

[nats.commons]
nkey_seed = {{ file = "{keys}/node-COMMONS.nk" }}

[projects.blog]
nkey_seed = {{ file = "{keys}/node-blog.nk" }}
"""


def remember(who, content, **fields):
    return who.ask("memory.remember", content=content, **fields)["id"]


def contents(told, scope):
    return [row["content"] for row in told[scope]]


def test_personal_memory_follows_its_owner_to_another_project_and_node(nodes):
    one = nodes.node(ONE, "one").up()
    two = nodes.node(TWO.format(url=one.about["url"], keys=one.data / "keys"), "two").up()
    with agent(one, label="a") as here, agent(two, label="b") as there:
        made = remember(here, "My owner writes British English.", scope="personal", category="core")
        told = until(lambda: (found := there.ask("memory.recall", search="british"))["personal"] and found)
        assert contents(told, "personal") == ["My owner writes British English."]
        assert told["personal"][0]["author_id"] == here.id
        assert told["personal"][0]["node"] == "one"
        remember(here, "for the shop alone", scope="team")
        remember(here, "for me alone")
        told = there.ask("memory.recall")
        assert (told["team"], told["private"]) == ([], [])
        assert there.call("memory.get", id=made).status == 200
        blog = until(lambda: (found := one.ask("memory.recall", project="blog"))["personal"] and found)
        assert contents(blog, "personal") == ["My owner writes British English."]


def test_agents_see_what_they_may_and_are_who_the_node_says(nodes):
    node = nodes.node().up()
    with (
        agent(node, label="a") as first,
        agent(node, label="b") as second,
        agent(node, label="c", parent=first.parent_key) as child,
    ):
        private = remember(first, "my own plan", category="tasks")
        team = remember(first, "we use PostgreSQL", scope="team", category="decisions")
        assert contents(second.ask("memory.recall"), "private") == []
        assert contents(child.ask("memory.recall"), "private") == ["my own plan"]
        row = second.ask("memory.get", id=team)
        assert (row["author"], row["author_id"]) == (first.handle, first.id)
        for op, fields in (
            ("memory.get", {}), ("memory.forget", {"force": True}), ("memory.commit", {}), ("memory.history", {}),
            ("memory.share", {}), ("memory.revert", {}),
        ):  # fmt: skip
            refused = second.call(op, id=private, **fields)
            assert (refused.status, refused.json["code"]) == (404, "memory.not_found"), op
        assert second.call("memory.forget", id=team).json["code"] == "memory.not_yours"
        assert second.call("memory.quarantine", author=first.id).json["code"] == "ops.denied"
        assert node.ask("memory.quarantine", author=first.handle)["hidden"][0]["author_id"] == first.id
        assert contents(second.ask("memory.recall"), "team") == []
        node.ask("memory.quarantine", author=first.handle, release=True)
        assert contents(second.ask("memory.recall"), "team") == ["we use PostgreSQL"]


def test_what_was_remembered_outlives_kill_9(nodes):
    node = nodes.node().up()
    ids = {remember(node, f"thing {number}", scope=("private", "public")[number % 2]): number for number in range(20)}
    node.signal(signal.SIGKILL)
    node.ended()
    node.up()
    for made, number in ids.items():
        assert node.ask("memory.get", id=made)["content"] == f"thing {number}"
    assert node.ask("memory.recall")["counts"]["total"] == 20


def test_another_store_is_used_after_a_reload_and_a_bad_one_changes_nothing(nodes):
    node = nodes.node().up()
    remember(node, "in nats", category="longterm")
    node.write('[memory]\nprivate = "local"\nsecrets = "redact"\n[memories.local]\ntype = "sqlite"\n')
    first = node.verdict(result="applied")
    assert "memories.local" in first["added"]
    until(lambda: contents(node.ask("memory.recall"), "private") == [])
    made = remember(node, "on this machine, ghp_" + "a1B2" * 9, category="longterm")
    assert node.ask("memory.get", id=made)["content"] == "on this machine, [github-token removed]"
    assert (node.data / "plugins" / "memories.local" / "memories.db").exists()
    node.write('[memory]\nprivate = "nowhere"\n')
    refused = node.verdict(first, "refused")
    assert [problem["code"] for problem in refused["problems"]] == ["config.unknown_id"]
    assert node.ask("memory.get", id=made)["id"] == made
    node.write("[memory]\n")
    node.verdict(refused, "applied")
    until(lambda: contents(node.ask("memory.recall"), "private") == ["in nats"])


def test_at_a_shell(nodes):
    node = nodes.node().up()
    code, out, _ = node.run("remember", "Tests need a database.", "--scope", "team", "--tags", "tests")
    assert code == 0
    assert "Tests need a database." in node.run("recall", "databases")[1]
    assert node.run("memory", "get", out.strip())[1].strip() == "Tests need a database."
    assert node.json("memory", "export", "all.jsonl")["exported"] == 1
    line = json.loads((node.data / "exports" / "default" / "all.jsonl").read_text())
    assert (line["content"], line["tags"]) == ("Tests need a database.", ["tests"])
    assert node.json("memory", "import", "all.jsonl")["duplicates"] == 1
    assert node.refused("memory", "export", "../../out.jsonl")[1]["code"] == "memory.outside"
    assert node.refused("remember", "x" * 33_000)[1]["code"] == "memory.too_large"
    code, bulk, err = node.run("memory", "remember-bulk", '{"content":"one"}', '{"content":""}', "-o", "json")
    assert (code, json.loads(bulk)["stored"], json.loads(bulk)["failed"], err) == (1, 1, 1, "")
    code, bulk, err = node.run("memory", "forget-bulk", "none", "-o", "json")
    assert (code, json.loads(bulk)["failed"], err) == (1, 1, "")
    assert node.run("forget", out.strip())[0] == 0
    assert node.refused("memory", "get", out.strip())[0] == 1
    assert node.run("memory", "revert", out.strip())[0] == 0
    assert node.json("memory", "cleanup")["deleted"] == 0
    assert node.json("memory", "stats")["total"] == 2
    assert [row["content"] for row in node.json("memory", "search", "database")["memories"]] == [
        "Tests need a database."
    ]


def test_nothing_is_lost_in_a_file_that_was_taken_away(nodes):
    node = nodes.node().up()
    node.write('[memory]\nprivate = "local"\n[memories.local]\ntype = "sqlite"\n')
    node.verdict(result="applied")
    remember(node, "before", category="longterm")
    for file in (node.data / "plugins" / "memories.local").glob("memories.db*"):
        file.unlink()

    def kept() -> str:
        answer = node.call("memory.remember", content="after", category="longterm")
        assert answer.status == 200 or answer.json["code"] in ("memory.store_failed", "plugin.not_running"), answer.json
        return answer.json["id"] if answer.status == 200 else ""

    made = until(kept)
    node.stop()
    node.up()
    assert until(lambda: node.call("memory.get", id=made).status == 200)


def test_what_is_said_better_stays_what_it_was(nodes):
    node = nodes.node().up()
    with agent(node) as ann:
        fields = {"category": "longterm", "tags": ["db"], "priority": 3, "source": "notes.md"}
        made = remember(ann, "We use PostgreSQL.", **fields)
        told = ann.ask("memory.remember", content="We use PostgreSQL 17.", replaces=made)
        assert (told["category"], told["expires_at"], told["version"]) == ("longterm", "", 2)
        row = ann.ask("memory.get", id=made)
        assert {name: row[name] for name in fields} == fields
        ann.ask("memory.remember", content="We use PostgreSQL 18.", replaces=made, tags=[], priority=1)
        row = ann.ask("memory.get", id=made)
        assert (row["content"], row["tags"], row["priority"], row["source"]) == (
            "We use PostgreSQL 18.",
            [],
            1,
            "notes.md",
        )
        core = remember(ann, "I am Ann.", scope="personal", category="core")
        assert ann.ask("memory.remember", content="I am Ann, a writer.", replaces=core)["category"] == "core"
        passing = ann.ask("memory.remember", content="an hour", category="longterm", ttl_s=3600)
        again = ann.ask("memory.remember", content="the same hour", replaces=passing["id"])
        assert again["expires_at"] == passing["expires_at"] != ""
    _, out, _ = node.run("remember", "Drafts are read on Friday.", "-s", "team", "-c", "decisions", "-t", "drafts")
    assert node.run("remember", "Drafts are read on Monday.", "--replaces", out.strip())[0] == 0
    row = node.json("memory", "get", out.strip())
    assert (row["scope"], row["category"], row["tags"]) == ("team", "decisions", ["drafts"])
