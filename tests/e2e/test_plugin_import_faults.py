"""Plugins whose import ends, hangs or eats the process it happens in: neither the node nor a command suffers."""

from __future__ import annotations

import json
import signal

import psutil
import pytest
from tests.e2e.conftest import marked, until

SHOUT = '[executors.shout]\ntype = "process"\ncommand = ["tr", "a-z", "A-Z"]\n'
PLUGIN = """
import asyncio, os, pathlib, sys, time
from contextlib import asynccontextmanager
from knotwork.sdk import Done, Factory, PluginConfig, SecretRef, hookimpl
from pydantic import Field, field_validator

HERE = pathlib.Path(__file__).parent
{at_import}

class Settings(PluginConfig):
    length: int = Field(default=3, ge=1, description="how much of it")
    key: SecretRef | None = None
    word: str = ""

    @field_validator("word")
    @classmethod
    def _no_x(cls, value):
        if "x" in value:
            raise ValueError("no x in it")
        return value


class Own:
    def __init__(self, config, context):
        self.config, self.context = config, context

    async def execute(self, attempt):
        if attempt.input == "key":
            return Done(self.context.secrets(self.config.key))
        return Done(os.getpid())


@asynccontextmanager
async def open_it(config, context):
    yield Own(config, context)


@hookimpl
def executors():
    yield Factory("own", Settings, open_it, "Does little.")
"""
FATAL = {
    "leaves": ("os._exit(3)", "exit code 3"),
    "leaves happily": ("os._exit(0)", "exit code 0"),
    "segfault": ("import ctypes\nctypes.string_at(0)", "SIGSEGV"),
    "kills itself": ("os.kill(os.getpid(), 9)", "SIGKILL"),
    "kills its group": ("os.killpg(0, 9)", "SIGKILL"),
    "2 GB": ("much = bytearray(2 * 1024**3)\nmuch[::4096] = b'x' * len(much[::4096])", "MemoryError"),
}
WHO = "with (HERE / 'imported').open('a') as file:\n    file.write(f'{os.getpid()}\\n')"


def plugin(at_import: str = "") -> str:
    return PLUGIN.replace("{at_import}", at_import)


def table(name: str = "own", hosted: bool = False, more: str = "") -> str:
    return f'[executors.{name}]\ntype = "./{name}.py"\nhosted = {str(hosted).lower()}\n{"memory_mb = 300" if hosted else ""}\n{more}\n'


def imported_by(node) -> list[int]:
    path = node.folder / "imported"
    return [int(line) for line in path.read_text().split()] if path.exists() else []


@pytest.fixture(scope="module")
def running(shared_nodes):
    return shared_nodes.node(SHOUT, "running").up()


@pytest.mark.parametrize("hosted", [False, True])
def test_fatal_imports_at_the_start(nodes, hosted):
    names = [f"own{number}" for number, _ in enumerate(FATAL)]
    node = nodes.node(SHOUT + "".join(table(name, hosted) for name in names))
    for name, (text, _) in zip(names, FATAL.values(), strict=True):
        node.write(plugin(text), f"{name}.py")
    checked = node.json("config", "check")
    assert checked["ok"] is True  # a node starts with this
    told = {row["key"]: row for row in checked["warnings"]}
    for number, (name, (_, reason)) in enumerate(zip(names, FATAL.values(), strict=True)):
        row = told[f"executors.{name}.type"]
        assert reason in row["message"]
        assert (row["file"], row["line"]) == (str(node.file), 4 + 1 + number * 5)
    code, _, err = node.run("config", "check")
    assert code == 0
    assert err.count("warning: ") == len(names)
    node.up()
    assert node.invoke("shout", "well") == "WELL"
    assert node.agents() == ["shout"]
    for name, (_, reason) in zip(names, FATAL.values(), strict=True):
        slot = node.slot(name)
        assert slot["state"] in ("waiting", "starting", "quarantined")
        assert reason in until(lambda name=name: node.slot(name)["why"])
    assert psutil.Process(node.pid).memory_info().rss < 400 * 1024**2
    listed = node.json("plugin", "list")
    assert len([row for row in listed["plugins"] if row["broken"]]) == len(names)


@pytest.mark.parametrize("hosted", [False, True])
@pytest.mark.parametrize("how", FATAL)
def test_fatal_imports_at_a_reload_change_nothing(running, how, hosted):
    text, reason = FATAL[how]
    before = running.status()
    running.write(plugin(text), "own.py")
    running.write(SHOUT + table(hosted=hosted))
    verdict = running.verdict(before["last_reload"], "refused")
    assert reason in verdict["message"]
    after = running.status()
    assert (after["pid"], after["revision"]) == (before["pid"], before["revision"])
    assert [slot["id"] for slot in after["slots"]] == [slot["id"] for slot in before["slots"]]
    assert running.invoke("shout", "well") == "WELL"
    running.write(SHOUT)
    running.verdict(verdict)


def test_a_hosted_plugin_is_never_imported_in_the_node_nor_by_a_command(nodes):
    node = nodes.node(SHOUT + table(hosted=True, more='length = 5\nkey = { env = "OWN_KEY" }'))
    node.env["OWN_KEY"] = "its-secret-value"
    node.write(plugin(WHO), "own.py")
    for words in (("config", "check"), ("config", "schema"), ("config", "example"), ("plugin", "docs", "./own.py")):
        process = node.start(*words)
        out, err = process.communicate(timeout=40)
        assert process.returncode == 0, err
        assert process.pid not in imported_by(node)
    assert "how much of it" in out
    assert len(imported_by(node)) == 4  # each looked once, in a process made for that
    node.up()
    assert node.invoke("own") in imported_by(node)
    assert node.invoke("own", "key") == "its-secret-value"
    assert node.invoke("own") != node.pid
    schema = node.json("plugin", "info", "own")["config_schema"]
    assert schema["properties"]["length"]["description"] == "how much of it"
    tried = len(imported_by(node))
    node.write(SHOUT.replace("a-z", "a-y") + table(hosted=True, more='length = 5\nkey = { env = "OWN_KEY" }'))
    assert node.verdict(result="applied")["changed"] == ["executors.shout"]
    assert node.run("config", "plan")[0] == 0
    assert len(imported_by(node)) == tried  # neither file nor table changed: nothing is tried again
    assert node.pid not in imported_by(node)


def test_the_table_of_a_hosted_plugin_is_judged_like_any_other(nodes):
    said = []
    for hosted in (False, True):
        node = nodes.node(
            table(hosted=hosted, more='lenght = 1\nlength = 0\nword = "x"\nkey = "plain"'), f"node-{hosted}"
        )
        node.write(plugin(), "own.py")
        code, wire = node.refused("config", "check")
        assert code == 78
        said.append([{**row, "file": ""} for row in wire["detail"]["problems"]])
        node.up(wait_s=0)
        assert node.ended(30) == 78
        assert "own.lenght" in node.log or "unknown key lenght in [executors.own]" in node.log
    assert [row["code"] for row in said[0]] == [
        "config.unknown_key", "config.bad_value", "config.bad_value", "config.plain_secret",
    ]  # fmt: skip
    assert said[0] == said[1]
    assert 'Did you mean "length"?' in said[1][0]["hint"]
    assert "no x in it" in said[1][2]["message"]


HANGS = {
    "sleeps": "time.sleep(3600)",
    "spins": "while True:\n    pass",
    "keeps the interpreter": "import ctypes\nctypes.PyDLL(None).sleep(3600)",
}


@pytest.mark.parametrize("how", HANGS)
@pytest.mark.parametrize("hosted", [False, True])
def test_a_hanging_import_is_told_long_before_the_time_to_start_is_over(nodes, how, hosted):
    limits = "[plugins]\nstart_timeout_s = 300.0\n"
    node = nodes.node(limits + SHOUT).up()
    node.write(plugin(HANGS[how]), "own.py")
    node.write(limits + SHOUT + table(hosted=hosted))
    answered = 0
    while node.status()["last_reload"] is None:
        assert node.invoke("shout", "well") == "WELL"
        answered += 1
    verdict = node.status()["last_reload"]
    assert verdict["result"] == "refused"
    assert "still importing after 2 s" in verdict["message"]
    assert "offers nothing" not in verdict["message"]
    assert answered > 0  # nobody waited for it
    assert node.agents() == ["shout"]
    _, wire = node.refused("reload")  # asked again: the same reason, not what is left of the first time
    assert "still importing after 2 s" in wire["message"]
    until(lambda: not [line for line in marked(nodes.mark).values() if "tried_child" in line])


def test_one_that_hangs_at_the_start_is_tried_again_until_it_does_not(nodes):
    node = nodes.node("[plugins]\nstart_timeout_s = 3.0\n" + SHOUT + table("own") + table("apart", hosted=True))
    hang = "while not (HERE / 'go').exists():\n    time.sleep(0.01)"
    node.write(plugin(hang), "own.py")
    node.write(plugin(hang).replace('"own"', '"apart"'), "apart.py")
    node.up()
    for name in ("own", "apart"):
        slot = node.slot(name)
        assert slot["state"] in ("waiting", "starting")
    assert until(lambda: "still importing after" in node.slot("own")["why"])
    assert node.agents() == ["shout"]
    (node.folder / "go").touch()
    until(lambda: node.agents() == ["apart", "own", "shout"])
    assert node.invoke("own") == node.pid
    assert node.invoke("apart") != node.pid
    assert {row["type"]: row["broken"] for row in node.json("plugin", "list")["plugins"] if row["type"] == "own"} == {
        "own": ""
    }
    node.write(
        "[plugins]\nstart_timeout_s = 3.0\n" + SHOUT + table("own", more="length = 7") + table("apart", hosted=True)
    )
    assert node.verdict(result="applied")["changed"] == ["executors.own"]  # it is a plugin like any other now
    assert node.agents() == ["apart", "own", "shout"]


def test_a_command_that_is_killed_while_a_plugin_hangs_leaves_nobody(nodes):
    node = nodes.node("".join(table(f"own{number}") for number, _ in enumerate(HANGS)))
    for number, text in enumerate(HANGS.values()):
        node.write(plugin(WHO + "\n" + text), f"own{number}.py")
    process = node.start("config", "check")
    until(lambda: len(imported_by(node)) == len(HANGS))
    process.send_signal(signal.SIGKILL)
    process.communicate(timeout=30)
    until(lambda: not marked(nodes.mark))


def test_many_are_tried_side_by_side(nodes):
    node = nodes.node("".join(table(f"own{number}") for number in range(6)))
    for number in range(6):
        node.write(plugin(WHO + "\ntime.sleep(3600)"), f"own{number}.py")
    process = node.start("config", "check", "-o", "json")
    until(lambda: len(set(imported_by(node)) & set(marked(nodes.mark))) == 6)
    out, err = process.communicate(timeout=40)
    assert process.returncode == 0, err
    assert len(json.loads(out)["warnings"]) == 6


def test_a_plugin_that_prints_and_forks_while_imported_forges_nothing(nodes):
    text = """
print('{"word": "survived"}', flush=True)
os.write(1, b'{"word": "survived"}\\n' * 100)
sys.stdin.read()
import subprocess
subprocess.Popen(["sleep", "600"])
os._exit(5)
"""
    node = nodes.node(SHOUT + table())
    node.write(plugin(text), "own.py")
    (row,) = node.json("config", "check")["warnings"]
    assert "exit code 5" in row["message"]
    until(lambda: not marked(nodes.mark))
