"""Plugins whose import ends, hangs or eats the process it happens in: neither the node nor a command suffers."""

from __future__ import annotations

import json
import signal
import time

import psutil
import pytest
from tests.e2e.conftest import WAIT_S, marked, several, until

SHOUT = '[executors.shout]\ntype = "process"\ncommand = ["tr", "a-z", "A-Z"]\n'
PATIENT = "[plugins]\nstart_timeout_s = 300.0\n" + SHOUT
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
    return shared_nodes.node(PATIENT, "running").up()


def test_fatal_imports_at_the_start(nodes):
    wanted = {f"own{number}": (False, *one) for number, one in enumerate(FATAL.values())}
    wanted |= {f"apart{number}": (True, *one) for number, one in enumerate(FATAL.values())}
    node = nodes.node(SHOUT + "".join(table(name, hosted) for name, (hosted, _, _) in wanted.items()))
    for name, (_, text, _) in wanted.items():
        node.write(plugin(text), f"{name}.py")
    checked = node.json("config", "check")
    assert checked["ok"] is True  # a node starts with this
    told = {row["key"]: row for row in checked["warnings"]}
    assert len(told) == len(wanted)
    for number, (name, (_, _, reason)) in enumerate(wanted.items()):
        row = told[f"executors.{name}.type"]
        assert reason in row["message"]
        assert (row["file"], row["line"]) == (str(node.file), 4 + 1 + number * 5)
    node.up()
    assert node.invoke("shout", "well") == "WELL"
    assert node.agents() == ["shout"]
    for name, (_, _, reason) in wanted.items():
        slot = node.slot(name)
        assert slot["state"] in ("waiting", "starting", "quarantined")
        assert reason in until(lambda name=name: node.slot(name)["why"])
    assert psutil.Process(node.pid).memory_info().rss < 400 * 1024**2
    assert len([row for row in node.ask("plugin.list")["plugins"] if row["broken"]]) == len(wanted)


@pytest.mark.parametrize("hosted", [False, True])
@pytest.mark.parametrize("how", FATAL)
def test_fatal_imports_at_a_reload_change_nothing(running, how, hosted):
    text, reason = FATAL[how]
    before = running.status()
    running.write(plugin(text), "own.py")
    running.write(PATIENT + table(hosted=hosted))
    verdict = running.verdict(before["last_reload"], "refused")
    assert reason in verdict["message"]
    after = running.status()
    assert (after["pid"], after["revision"]) == (before["pid"], before["revision"])
    assert [slot["id"] for slot in after["slots"]] == [slot["id"] for slot in before["slots"]]
    assert running.invoke("shout", "well") == "WELL"
    running.write(PATIENT)
    running.verdict(verdict)


def test_a_hosted_plugin_is_never_imported_in_the_node_nor_by_a_command(nodes):
    node = nodes.node(SHOUT + table(hosted=True, more='length = 5\nkey = { env = "OWN_KEY" }'))
    node.env["OWN_KEY"] = "its-secret-value"
    node.write(plugin(WHO), "own.py")
    for words in (("config", "check"), ("config", "schema"), ("config", "example"), ("plugin", "docs", "./own.py")):
        process = node.start(*words)
        out, err = process.communicate(timeout=WAIT_S)
        assert process.returncode == 0, err
        assert process.pid not in imported_by(node)
    assert "how much of it" in out
    assert len(imported_by(node)) == 4  # each looked once, in a process made for that
    node.up()
    until(lambda: "own" in node.agents())
    assert node.invoke("own") in imported_by(node)
    assert node.invoke("own", "key") == "its-secret-value"
    assert node.invoke("own") != node.pid
    schema = node.ask("plugin.info", type="own")["config_schema"]
    assert schema["properties"]["length"]["description"] == "how much of it"
    tried = len(imported_by(node))
    node.write(SHOUT.replace("a-z", "a-y") + table(hosted=True, more='length = 5\nkey = { env = "OWN_KEY" }'))
    assert node.verdict(result="applied")["changed"] == ["executors.shout"]
    assert node.run("config", "plan")[0] == 0
    assert len(imported_by(node)) == tried  # neither file nor table changed: nothing is tried again
    assert node.pid not in imported_by(node)


def test_the_table_of_a_hosted_plugin_is_judged_like_any_other(nodes):
    said, commands = [], []
    for hosted in (False, True):
        node = nodes.node(
            table(hosted=hosted, more='lenght = 1\nlength = 0\nword = "x"\nkey = "plain"'), f"node-{hosted}"
        )
        node.write(plugin(), "own.py")
        commands += [(node, ("config", "check", "-o", "json"), {}), (node, ("up",), {})]
    told = several(*commands)
    for (code, _, wire), (started, _, log) in zip(told[::2], told[1::2], strict=True):
        assert (code, started) == (78, 78)
        said.append([{**row, "file": ""} for row in json.loads(wire.splitlines()[-1])["detail"]["problems"]])
        assert "own.lenght" in log or "unknown key lenght in [executors.own]" in log
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
def test_a_hanging_import_is_told_long_before_the_time_to_start_is_over(running, how, hosted):
    before = running.status()["last_reload"]
    running.write(plugin(HANGS[how]), "own.py")
    running.write(PATIENT + table(hosted=hosted))
    answered = 0
    while (verdict := running.status()["last_reload"]) == before:
        assert running.invoke("shout", "well") == "WELL"
        answered += 1
        time.sleep(0.2)  # each call starts a process, and a few are enough
    assert verdict["result"] == "refused"
    assert "still importing after" in verdict["message"]
    assert "offers nothing" not in verdict["message"]
    assert answered > 0  # nobody waited for it
    assert running.agents() == ["shout"]
    if how == "sleeps":
        _, wire = running.refused("reload")  # asked again: the same reason, not what is left of the first time
        assert "still importing after" in wire["message"]
    until(lambda: not [line for line in marked(running.mark).values() if "tried_child" in line])
    verdict = running.status()["last_reload"]
    running.write(PATIENT)
    running.verdict(verdict)


def test_one_that_hangs_at_the_start_is_tried_again_until_it_does_not(nodes):
    node = nodes.node("[plugins]\nstart_timeout_s = 60.0\n" + SHOUT + table("own") + table("apart", hosted=True))
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
    assert {row["type"]: row["broken"] for row in node.ask("plugin.list")["plugins"] if row["type"] == "own"} == {
        "own": ""
    }
    node.write(
        "[plugins]\nstart_timeout_s = 60.0\n" + SHOUT + table("own", more="length = 7") + table("apart", hosted=True)
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
    # on a slow machine the first is given up before the last one begins, but never one before the next
    until(lambda: len(set(imported_by(node)) & set(marked(nodes.mark))) > 1)
    out, err = process.communicate(timeout=WAIT_S)
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
