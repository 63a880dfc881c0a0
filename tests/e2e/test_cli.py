"""The command line against a node: exit codes, JSON everywhere, completion, and what environment variables decide."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from tests.e2e.conftest import WAIT_S

CONFIG = """
[node]
name = "one"
[projects.default]
[projects.side]
path = ["{side}"]
[executors.shout]
type = "process"
command = ["tr", "a-z", "A-Z"]
capabilities = ["loud"]
projects = ["default"]
[executors.whom]
type = "python"
function = "./whom.py:whom"
projects = ["side"]
[executors.sleeper]
type = "process"
command = ["sleep", "600"]
projects = ["default"]
[executors.lines]
type = "python"
function = "./whom.py:lines"
projects = ["default"]
"""
WHOM = "def whom(value, attempt):\n    return attempt.caller\n\n\ndef lines(value):\n    yield from ('a', 'b')\n"


@pytest.fixture(scope="module")
def node(shared_nodes):
    made = shared_nodes.node()
    side = made.folder / "side"
    side.mkdir()
    made.write(WHOM, "whom.py")
    made.write(CONFIG.format(side=side))
    return made.up()


VERBS = [
    ("status",), ("health",), ("nodes",), ("agents",), ("agents", "show", "shout"), ("invoke", "shout", "x"),
    ("reload",), ("config", "show"), ("config", "show", "--origin"), ("config", "plan"), ("config", "revisions"),
    ("config", "check"), ("config", "fmt", "--check"), ("config", "schema"), ("plugin", "list"),
    ("plugin", "info", "process"), ("plugin", "docs", "process"), ("version",), ("drain", "--resume"),
]  # fmt: skip


def test_json_everywhere(node):
    def one(words):
        return words, node.run(*words, "-o", "json")

    with ThreadPoolExecutor(2) as pool:
        for words, (code, out, err) in pool.map(one, VERBS):
            # formatting is a question, too: 1 says that something would change
            assert code == 0 or words[:2] == ("config", "fmt"), (words, err)
            assert isinstance(json.loads(out), dict), words
    assert node.json("plugin", "restart", "executors", "shout")["state"] == "running"  # nobody is called meanwhile


@pytest.mark.parametrize(
    ("code", "kind", "words", "env"),
    [
        (1, "not_found", ("agents", "show", "nobody"), {}),
        (1, "not_found", ("nodes", "--project", "nowhere"), {}),
        (2, "invalid", ("invoke", "-c", "a.b", "x"), {}),
        (2, "invalid", ("invoke", "-c", ">", "x"), {}),
        (2, "invalid", ("invoke", "shout", "{not json"), {}),
        (2, "invalid", ("no-such-verb",), {}),
        (2, "invalid", ("status", "--no-such-flag"), {}),
        (2, "invalid", ("agents", "--node", "x" * 10_000), {}),
        (69, "unreachable", ("status",), {"KNOTWORK_DATA_DIR": "/nonexistent/knotwork"}),
        (69, "unreachable", ("nodes", "--url", "nats://127.0.0.1:1"), {}),
        (2, "invalid", ("nodes", "--url", "ftp://127.0.0.1:1"), {}),
        (75, "timed_out", ("invoke", "sleeper", "x", "--timeout", "200ms"), {}),
        (78, "config_invalid", ("config", "check", "--set", "node.nmae=x"), {}),
        (78, "config_invalid", ("config", "check", "missing.toml"), {}),
    ],
)
def test_exit_codes(node, code, kind, words, env):
    found, wire = node.refused(*words, **env)
    assert (found, wire["kind"]) == (code, kind)
    assert wire["exit_code"] == code
    assert wire["message"]
    assert wire["code"].count(".") == 1


def test_wrong_keys_are_77(node):
    code, wire = node.refused("nodes", "--url", node.about["url"])
    assert (code, wire["kind"]) == (77, "denied")
    node.write("SUAEJLVAMNLOGVX5XGDXGBJWBV7MQQZSWYJ2XGBRMDCBAHXTUMPHVXMYHM\n", "other.nk")
    code, wire = node.refused("nodes", "--url", node.about["url"], "--creds", str(node.folder / "other.nk"))
    assert code in (2, 77), wire


def test_an_address_and_a_key_instead_of_the_folder(node):
    about = node.about
    words = ("nodes", "--url", about["url"], "--creds", about["seed_file"])
    found = node.json(*words, KNOTWORK_DATA_DIR="/nonexistent/knotwork")
    assert [row["node"] for row in found["nodes"]] == ["one"]


def test_the_folder_decides_the_project(node):
    side = str(node.folder / "side")
    rows = node.json("agents", KNOTWORK_PROJECT_PATH=side)["agents"]
    assert [row["agent"] for row in rows] == ["whom"]
    rows = node.json("agents", KNOTWORK_PROJECT_PATH=side + "/deeper/than/that")["agents"]
    assert [row["agent"] for row in rows] == ["whom"]
    rows = node.json("agents", KNOTWORK_PROJECT_PATH="/")["agents"]
    assert "whom" not in [row["agent"] for row in rows]
    here = subprocess.run(
        [sys.executable, "-m", "knotwork", "agents", "-o", "json"],
        cwd=side, env=node.env, capture_output=True, text=True, timeout=WAIT_S, check=True,
    )  # fmt: skip
    assert [row["agent"] for row in json.loads(here.stdout)["agents"]] == ["whom"]
    assert node.json("agents", "--project", "side")["agents"][0]["agent"] == "whom"


def test_the_label_of_an_agent_arrives(node):
    words = ("invoke", "whom", "x", "--project", "side")
    assert (
        node.run(*words, KNOTWORK_AGENT="claude/review")[1].strip() == "nats/local (claude/review)"
    )  # who it is, then what it calls itself
    code, wire = node.refused(*words, KNOTWORK_AGENT="two words\n")
    assert (code, wire["code"]) == (2, "cli.bad_agent_label")


def test_the_configuration_is_found_by_its_variable(node):
    node.write("[node]\nname = 'elsewhere'\n", "other.toml")
    shown = node.json(
        "config",
        "show",
        "node.name",
        KNOTWORK_CONFIG=str(node.folder / "other.toml"),
        KNOTWORK_DATA_DIR="/nonexistent/k",
    )
    assert shown["settings"][0]["value"] == "elsewhere"
    shown = node.json("config", "show", "node.name", "--config", str(node.folder / "other.toml"))
    assert shown["settings"][0]["value"] == "elsewhere"


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion(node, shell):
    code, script, _ = node.run("completion", shell)
    assert code == 0
    assert "_KNOTWORK_COMPLETE" in script
    if shell == "bash":
        subprocess.run(["bash", "-n"], input=script, text=True, check=True, timeout=WAIT_S)
    env = {"_KNOTWORK_COMPLETE": f"{shell}_complete", "COMP_WORDS": "knotwork sta", "COMP_CWORD": "1"}
    if shell == "fish":
        env["COMP_CWORD"] = "sta"
    assert "status" in node.run(**env)[1]


def test_the_pieces_of_an_answer_come_as_lines(node):
    code, out, err = node.run("invoke", "lines", "x", "--stream", "-o", "jsonl")
    assert code == 0, err
    rows = [json.loads(line) for line in out.splitlines()]
    assert [row["data"] for row in rows if row["kind"] == "chunk"] == ["a", "b"]
    assert rows[-1]["kind"] == "result"


def test_tables_for_people_and_nothing_but_the_answer(node):
    assert node.run("agents")[1].splitlines()[0].split()[0] == "NAME"
    assert node.run("-q", "invoke", "shout", "quiet") == (0, "QUIET\n", "")
    assert "\x1b" not in node.run("status", NO_COLOR="1")[1]


def test_how_long_commands_take_is_written_down(node, figure):
    for name, words in {"version_s": ("--version",), "client_verb_s": ("status",)}.items():
        began_s = time.perf_counter()
        assert node.run(*words)[0] == 0
        figure(name, round(time.perf_counter() - began_s, 3))
