"""A wrong configuration: before the start it ends with 78 and all that is wrong; at a reload it changes nothing."""

from __future__ import annotations

import json
import os
from typing import Any

import pytest
from tests.e2e.conftest import several, until

GOOD = """
[executors.shout]
type = "process"
command = ["tr", "a-z", "A-Z"]
"""

BAD = {
    "broken TOML, two lines": (
        "[node]\nname = \n[executors.a]\ntype = \"process\"\ncommand = ['x']\ndescription = bare words\n",
        [":2:", ":6:"],
    ),
    "unknown key": ("[node]\nnmae = 'x'\n", [":2:1: ", 'Did you mean "name"?']),
    "wrong type": ("[node]\ndrain_s = 'long'\n", [":2:11: node.drain_s must be a number"]),
    "duplicate id": (GOOD + GOOD, [":6:1: duplicate", "line 2"]),
    "missing environment variable": ('[node]\nname = "${NO_SUCH_NAME}"\n', [":2:8: ", "NO_SUCH_NAME is not set"]),
    "line break in a variable": ('[node]\nname = "${TWO_LINES}"\n', [":2:8: "]),
    "unknown plugin type": ('[executors.a]\ntype = "proces"\n', [":2:8: ", 'Did you mean "process"?']),
    "no command": (
        '[executors.a]\ntype = "process"\ncomand = ["x"]\n',
        ["a.command is missing", ":3:1: ", '"command"?'],
    ),
    "core and plugin tables together": (
        '[node]\nnmae = 1\n[executors.a]\ntype = "process"\ncomand = ["x"]\n[executors.b]\ntype = "proces"\n',
        [":2:1: ", ":3:1: executors.a.command", ":5:1: ", ":7:8: "],
    ),
}


@pytest.fixture(scope="module")
def running(shared_nodes):
    return shared_nodes.node(GOOD, "running").up(TWO_LINES="a\nb")


@pytest.fixture(params=[pytest.param(one, id=name) for name, one in BAD.items()])
def bad(request):
    return request.param


def ended_78(node, **env: str) -> str:
    """Return what a node said that could not start because of its configuration."""
    node.up(wait_s=0, **env)
    assert node.ended() == 78, node.log
    assert "Traceback" not in node.log
    assert not (node.data / "run" / "node.json").exists()
    return node.log


def all_ended_78(*starts, **env: str) -> list[str]:
    """Return what each of many nodes said that could not start because of its configuration."""
    said = []
    for node, (code, _, told) in zip(starts, several(*((node, ("up",), env) for node in starts)), strict=True):
        assert code == 78, told
        assert "Traceback" not in told
        assert not (node.data / "run" / "node.json").exists()
        said.append(told)
    return said


def test_before_the_start_everything_is_told(nodes):
    starts = [nodes.node(text, f"node{number}") for number, (text, _) in enumerate(BAD.values())]
    for node, said, (text, told) in zip(starts, all_ended_78(*starts, TWO_LINES="a\nb"), BAD.values(), strict=True):
        for part in told:
            assert part in said, (text, said)
        assert str(node.file) + ":" in said


def test_a_node_that_is_started_like_that_says_the_same(nodes):
    text, told = BAD["core and plugin tables together"]
    said = ended_78(nodes.node(text))
    for part in told:
        assert part in said, said


def test_at_a_reload_nothing_changes(running, bad):
    text, told = bad
    before = running.status()
    pids = (before["bus"]["server_pid"], before["pid"])
    with running.watching("config.*") as events:
        running.write(text)
        verdict = running.verdict(before["last_reload"], "refused")
        until(lambda: any(event["name"] == "config.refused" for event in events))
    places = [
        f"{row['file']}:{row['line']}:{row['column']}: {row['message']} {row['hint']}" for row in verdict["problems"]
    ]
    for part in told:
        assert part in "\n".join(places)
    answer = running.call("node.reload")
    assert (answer.status, answer.json["kind"]) == (422, "config_invalid")
    after = running.status()
    assert (after["bus"]["server_pid"], after["pid"]) == pids
    assert after["revision"] == before["revision"]
    assert [(slot["id"], slot["starts"], slot["since"]) for slot in after["slots"]] == [
        (slot["id"], slot["starts"], slot["since"]) for slot in before["slots"]
    ]
    assert running.invoke("shout", "still here") == "STILL HERE"


def test_a_file_that_is_not_utf8(nodes):
    wrong = (GOOD.encode("utf-16"), GOOD.encode("utf-16-be"), b"\x00\xff\xfe\x01", b"[node]\nname='\xe4'\n")
    starts = [nodes.node(name=f"node{number}") for number, _ in enumerate(wrong)]
    for node, raw in zip(starts, wrong, strict=True):
        node.file.write_bytes(raw)
    for said, raw in zip(all_ended_78(*starts), wrong, strict=True):
        assert "UTF-" in said, (raw, said)


def test_a_file_that_cannot_be_read(nodes):
    starts = [nodes.node(GOOD, how) for how in ("folder", "missing", "mode")]
    if os.geteuid() == 0:  # root reads files of any mode; the other two cases are told the same way
        del starts[2:]
    else:
        starts[2].file.chmod(0)
    for node in starts[:2]:
        node.file.unlink()
    starts[0].file.mkdir()
    for node, said in zip(starts, all_ended_78(*starts), strict=True):
        assert str(node.file) in said


def test_a_file_that_cannot_be_read_any_more_or_says_nothing_changes_nothing(nodes):
    node = nodes.node()
    # a file of comments means the defaults, but only at the start
    node.file.write_bytes(b"\xef\xbb\xbf# nothing yet\n")
    node.up().follow()
    assert node.agents() == []
    node.file.write_bytes(b"\xef\xbb\xbf" + GOOD.encode())  # and a byte order mark is fine
    assert node.verdict(result="applied")["added"] == ["executors.shout"]
    for nothing in ("", "\n  \n# only a comment\n"):
        # a file caught while an editor or a full disk has truncated it must not take every agent away
        before = node.status()["last_reload"]
        node.file.write_text(nothing)
        node.verdict(before, "refused")
        assert node.agents() == ["shout"]
    before = node.status()["last_reload"]
    node.file.unlink()
    back = node.verdict(before, "refused")
    assert node.agents() == ["shout"]
    node.write(GOOD + '[executors.more]\ntype = "process"\ncommand = ["cat"]\n')
    assert node.verdict(back, "applied")["added"] == ["executors.more"]
    assert node.agents() == ["more", "shout"]


def test_an_empty_file_was_not_meant(nodes):
    empty = ("", "\n \t\n", "\ufeff\n")
    starts = [nodes.node(name=f"node{number}") for number, _ in enumerate(empty)]
    for node, nothing in zip(starts, empty, strict=True):
        node.file.write_text(nothing, encoding="utf-8")
    for said in all_ended_78(*starts):
        assert "knotwork.toml:1:1: the file is empty" in said, said
    checks = []
    for node in starts:
        other = node.write("[node]\nnmae = 1\n", "other.toml")  # and all else that is wrong is told as well
        words = ("config", "check", "--config", str(node.file), "--config", str(other), "-o", "json")
        checks.append((node, words, {}))
    for code, _, said in several(*checks):
        assert code == 78, said
        assert {one["code"] for one in problems(said)} == {"config.empty", "config.unknown_key"}


def problems(said: str) -> list[dict[str, Any]]:
    """Return the problems in the JSON error of a command."""
    found: list[dict[str, Any]] = json.loads(said.strip().splitlines()[-1])["detail"]["problems"]
    return found


def test_one_command_tells_everything_without_a_node(nodes):
    node = nodes.node(BAD["core and plugin tables together"][0])
    node.write("import no_such_module_anywhere\n", "own.py")
    with node.file.open("a") as file:
        file.write('[executors.c]\ntype = "./own.py"\n')
    code, wire = node.refused("config", "check")
    assert (code, wire["kind"]) == (78, "config_invalid")
    rows = wire["detail"]["problems"]
    assert [row["line"] for row in rows] == [2, 3, 5, 7, 9]
    assert all(row["column"] > 0 and row["file"] == str(node.file) for row in rows)
    assert "no_such_module_anywhere" in rows[-1]["message"]
    code, _, err = node.run("config", "check")
    assert code == 78
    assert err.count(str(node.file) + ":") == 5


def test_duplicate_ids_among_the_files_of_a_folder(nodes):
    node = nodes.node()
    node.write(GOOD, "conf.d/10-first.toml")
    node.write(GOOD, "conf.d/20-second.toml")
    node.up("--config-dir", "conf.d", wait_s=0)
    assert node.ended() == 78
    assert "20-second.toml:2:" in node.log
    assert "10-first.toml:2" in node.log


def test_layers_and_their_origins(nodes):
    node = nodes.node(
        '[node]\nname = "from-file"\nlabels = { a = "1" }\n[mesh]\nheartbeat_s = 5.0\nkeepalive_s = 1.0\n'
    )
    shown = json.loads(
        node.run(
            "config",
            "show",
            "--origin",
            "--set",
            "mesh.keepalive_s=2.5",
            "-o",
            "json",
            KNOTWORK__MESH__HEARTBEAT_S="7.5",
        )[1]
    )
    rows = {row["key"]: (row["value"], row["origin"]) for row in shown["settings"]}
    assert rows["node.name"][0] == "from-file"
    assert rows["node.name"][1].endswith("knotwork.toml:2")
    assert rows["mesh.heartbeat_s"] == (7.5, "env KNOTWORK__MESH__HEARTBEAT_S")
    assert rows["mesh.keepalive_s"] == (2.5, "--set")
    assert rows["node.drain_s"] == (30.0, "default")


def test_init_example_schema_and_fmt_belong_together(nodes):
    import jsonschema

    node = nodes.node()
    node.file.unlink()
    made, shown, checked, again = several(
        (node, ("init", str(node.file)), {}),
        (node, ("config", "schema"), {}),
        (node, ("config", "check", "-o", "json"), {}),
        (node, ("init", str(node.file)), {}),
    )
    assert made[0] == 0, made
    text = node.file.read_text()
    assert len(text.splitlines()) <= 25
    assert "#" in text
    named = text.splitlines()[0].partition("#:schema ")[2]
    beside = json.loads((node.file.parent / named).read_text())
    assert named and beside == json.loads(shown[1])
    jsonschema.Draft202012Validator.check_schema(beside)
    assert json.loads(checked[1])["ok"] is True
    assert again[0] == 1  # never overwritten unasked
    node.write('"""A plugin of mine."""\n' + PLUGIN, "own.py")
    node.write('[executors.mine]\ntype = "./own.py"\nlength = 3\n')
    shown, example = several((node, ("config", "schema"), {}), (node, ("config", "example"), {}))
    schema = json.loads(shown[1])
    jsonschema.Draft202012Validator.check_schema(schema)
    validator = jsonschema.Draft202012Validator(schema)
    assert not list(validator.iter_errors({"executors": {"mine": {"type": "./own.py", "length": 3}}}))
    assert list(validator.iter_errors({"executors": {"mine": {"type": "./own.py", "length": "3"}}}))
    assert list(validator.iter_errors({"node": {"nmae": "x"}}))
    assert "[executors." in example[1]


PLUGIN = """
from contextlib import asynccontextmanager
from knotwork.sdk import Done, Factory, PluginConfig, hookimpl


class Settings(PluginConfig):
    length: int = 1


class Mine:
    def __init__(self, length):
        self.length = length

    async def execute(self, attempt):
        return Done(str(attempt.input)[: self.length])


@asynccontextmanager
async def open_mine(config, context):
    yield Mine(config.length)


@hookimpl
def executors():
    yield Factory("mine", Settings, open_mine)
"""


HOLDER = """
from contextlib import asynccontextmanager
from knotwork.sdk import Done, Factory, PluginConfig, SecretRef, hookimpl


class Settings(PluginConfig):
    key: SecretRef | None = None


class Holder:
    async def execute(self, attempt):
        return Done(attempt.input)


@asynccontextmanager
async def open_holder(config, context):
    yield Holder()


@hookimpl
def executors():
    yield Factory("holder", Settings, open_holder, "Holds a secret.")
"""
SECRETS = """
[executors.call]
type = "http"
url = "http://127.0.0.1:9/"
headers = { Authorization = { env = "NOT_SET_ONE" }, X-Team = { file = "nowhere/team" } }

[executors.run]
type = "process"
command = ["cat"]
env = { KEY = { env = "NOT_SET_TWO" }, PLAIN = "x" }

[executors.here]
type = "./holder.py"
key = { file = "empty" }

[executors.apart]
type = "./holder.py"
hosted = true
key = { env = "NOT_SET_THREE" }

[executors.asks]
type = "./holder.py"
key = { cmd = ["false"] }

[executors.off]
type = "./holder.py"
enabled = false
key = { env = "NOT_SET_FOUR" }
"""
MISSING = [(5, "NOT_SET_ONE"), (5, "nowhere/team"), (10, "NOT_SET_TWO"), (14, "empty"), (19, "NOT_SET_THREE")]


def test_secrets_that_cannot_be_had_are_all_told_before_anything_is_started(nodes):
    alone, mistaken = nodes.node(SECRETS, "alone"), nodes.node(SECRETS + "[node]\nnmae = 1\n", "mistaken")
    for node in (alone, mistaken):
        node.write(HOLDER, "holder.py")
        node.write("\n", "empty")
    check = ("config", "check", "-o", "json")
    told, with_another, start = several((alone, check, {}), (mistaken, check, {}), (mistaken, ("up",), {}))
    assert (told[0], json.loads(told[2])["code"]) == (78, "config.missing_secret")
    rows = problems(told[2])
    assert [row["line"] for row in rows] == [line for line, _ in MISSING]
    assert all(row["column"] > 0 and row["file"] == str(alone.file) for row in rows)
    for row, (_, what) in zip(rows, MISSING, strict=True):
        assert what in row["message"]
    said = ended_78(alone)
    for line, what in MISSING:
        assert any(f"knotwork.toml:{line}:" in told and what in told for told in said.splitlines()), (what, said)
    assert with_another[0] == 78  # with another mistake they are still told
    assert [row["line"] for row in problems(with_another[2])] == [*(line for line, _ in MISSING), 30]
    assert start[0] == 78, start


def test_a_secret_that_goes_missing_changes_nothing(nodes):
    node = nodes.node(SECRETS)
    node.write(HOLDER, "holder.py")
    for name in ("empty", "nowhere/team"):
        node.write("a-secret-value\n", name)
    given = {f"NOT_SET_{number}": "another-secret-value" for number in ("ONE", "TWO", "THREE")}
    assert node.json("config", "check", **given)["warnings"] == []
    node.up(**given)
    until(lambda: {"apart", "here"} <= set(node.agents()))
    agents = node.agents()
    before = node.status()
    (node.folder / "empty").write_text("")
    code, wire = node.refused("reload")
    assert (code, wire["code"]) == (78, "config.missing_secret")
    assert [row["line"] for row in wire["detail"]["problems"]] == [14]
    node.write(SECRETS.replace("NOT_SET_TWO", "NOT_SET_AT_ALL"))
    verdict = node.verdict(node.status()["last_reload"], "refused")
    assert [row["line"] for row in verdict["problems"]] == [10, 14]
    code, wire = node.refused("config", "plan")
    assert code == 78
    after = node.status()
    assert (after["revision"], node.agents()) == (before["revision"], agents)
    assert "secret-value" not in node.log + json.dumps(after)


def test_credentials_of_the_node_itself_are_looked_up(nodes):
    joining = '[nats]\nmode = "join"\nurls = ["nats://127.0.0.1:9"]\ntoken = { env = "NOT_SET" }\n'
    node = nodes.node(joining + '[projects.lab]\nnkey_seed = { file = "nowhere" }\n')
    (code, _, wire), (started, _, said) = several((node, ("config", "check", "-o", "json"), {}), (node, ("up",), {}))
    assert (code, started) == (78, 78)
    assert [row["line"] for row in problems(wire)] == [4, 6]
    assert "NOT_SET" in said
    assert "nowhere" in said


BROKEN_PLUGINS = {
    "import error": "import no_such_module_anywhere\n",
    "no plugin at all": "x = 1\n",
    "syntax error": "def broken(:\n",
    "another interface": "knotwork_api = 99\n",
    "missing": None,
    "leaves": "import os\nos._exit(3)\n",
}


def with_broken_plugins(nodes, *policies: str):
    """Return a node with a broken plugin of each sort under each policy, and the line of each agent's type."""
    text, lines = GOOD + '[plugins]\nfolders = ["plugins"]\n', {}
    node = nodes.node()
    node.write('name = "torn"\nkind = "executor"\nentry = "torn.py"\n', "plugins/torn/plugin.toml")
    node.write("1 / 0\n", "plugins/torn/torn.py")
    for number, broken in enumerate(BROKEN_PLUGINS.values()):
        if broken is not None:
            node.write(broken, f"own{number}.py")
    types = [*(f"./own{number}.py" for number in range(len(BROKEN_PLUGINS))), "torn"]
    for policy in policies:
        for number, type_name in enumerate(types):
            name = f"own-{number}-{policy}"
            lines[name] = len(text.splitlines()) + 2
            text += f'[executors.{name}]\ntype = "{type_name}"\non_start_error = "{policy}"\n'
    node.write(text)
    return node, lines


def test_the_check_and_the_start_agree_about_broken_plugins(nodes):
    node, lines = with_broken_plugins(nodes, "retry", "ignore")
    (code, out, _), (plain, table, err) = several(
        (node, ("config", "check", "-o", "json"), {}), (node, ("config", "check"), {})
    )
    checked = json.loads(out)
    assert (code, plain, checked["ok"]) == (0, 0, True)
    told = {row["line"]: row for row in checked["warnings"]}
    assert sorted(told) == sorted(lines.values())
    assert {(row["file"], row["code"]) for row in told.values()} == {(str(node.file), "config.broken_plugin")}
    for name, line in lines.items():
        assert f"warning: {node.file}:{line}:8: executors.{name}" in err
    assert "warning" not in table
    node.up()
    assert node.agents() == ["shout"]
    for name, line in lines.items():
        wanted = "failed" if name.endswith("ignore") else "waiting"
        slot = until(lambda name=name, wanted=wanted: (found := node.slot(name))["state"] == wanted and found)
        assert slot["why"].rstrip(".") in told[line]["message"]


def test_the_check_and_the_start_agree_about_broken_plugins_that_must_not_be(nodes):
    node, lines = with_broken_plugins(nodes, "fail")
    (code, _, wire), (started, _, said) = several(
        (node, ("config", "check", "-o", "json"), {}), (node, ("up", "-o", "json"), {})
    )
    assert (code, started) == (78, 78)
    rows = problems(wire)
    assert problems(said) == rows  # before it stands the log
    assert {row["code"] for row in rows} == {"config.broken_plugin"}
    assert [(row["file"], row["line"]) for row in rows] == [(str(node.file), line) for line in lines.values()]
    for name, line in lines.items():
        assert f"{node.file}:{line}:8: executors.{name}" in said


def test_only_the_first_cause_of_an_unset_variable_is_told(nodes):
    texts = (
        '[executors.a]\ntype = "http"\nurl = "https://${NO_SUCH_NAME}/v1"\n',
        '[executors.a]\ntype = "http"\nurl = "${NO_SUCH_NAME}"\nmethod = "GET"\n',
        '[executors.a]\ntype = "http"\nurl = "http://h/"\nheaders = { X = { file = "${NO_SUCH_NAME}/x" } }\n',
        '[executors.a]\ntype = "mcp"\nurl = "${NO_SUCH_NAME}"\ntool = "x"\n',
        '[nats]\nmode = "join"\nurls = ["${NO_SUCH_NAME}"]\n',
        '[telemetry.a]\ntype = "otlp"\nendpoint = "${NO_SUCH_NAME}"\n',
    )
    made = [nodes.node(text, f"node{number}") for number, text in enumerate(texts)]
    for (code, _, said), text in zip(
        several(*((node, ("config", "check", "-o", "json"), {}) for node in made)), texts, strict=True
    ):
        assert (code, json.loads(said)["code"]) == (78, "config.missing_variable"), text
        assert len(problems(said)) == 1, text
