"""Plugins that fail in every way: the node, their neighbours and the command line go on."""

from __future__ import annotations

import json
import sys
import textwrap
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psutil
import pytest
from tests import plugin_tests
from tests.e2e.conftest import WAIT_S, marked, until

SHOUT = '[executors.shout]\ntype = "process"\ncommand = ["tr", "a-z", "A-Z"]\n'
HEAD = """
import asyncio, os, sys, time
from contextlib import asynccontextmanager
from knotwork.sdk import Done, Factory, PluginConfig, hookimpl
"""
FOOT = """

@hookimpl
def executors():
    yield Factory("{name}", PluginConfig, open_it)
"""


def plugin(work: str = "return Done(attempt.input)", *, start: str = "", name: str = "own") -> str:
    """Return a plugin of one file."""
    inside = textwrap.indent(textwrap.dedent(work), "        ")
    opened = textwrap.indent(textwrap.dedent(start) or "yield Own()", "    ")
    return (
        f"{HEAD}\nclass Own:\n    async def execute(self, attempt):\n{inside}\n\n\n"
        f"@asynccontextmanager\nasync def open_it(config, context):\n{opened}\n" + FOOT.format(name=name)
    )


def table(name: str = "own", **more: object) -> str:
    lines = [f"{key} = {str(value).lower() if isinstance(value, bool) else value}" for key, value in more.items()]
    return "\n".join([f'[executors.{name}]\ntype = "./{name}.py"', *lines, ""])


BROKEN = {
    "import error": ("import no_such_module_anywhere\n", "no_such_module_anywhere"),
    "syntax error": ("def broken(:\n", "invalid syntax"),
    "exit at import": ("raise SystemExit(3)\n", "SystemExit"),
    "another interface": ("knotwork_api = 99\n" + plugin(), "interface 99"),
    "hook with a typing error": (plugin().replace("def executors", "def executers"), "executors"),
    "no plugin at all": ("x = 1\n", "offers nothing"),
    "fails to open": (plugin(start="raise OSError('no luck today')\nyield None"), "no luck today"),
}


@pytest.fixture(params=[pytest.param(one, id=name) for name, one in BROKEN.items()])
def broken(request):
    return request.param


@pytest.fixture(scope="module")
def running(shared_nodes):
    return shared_nodes.node("[plugins]\nstart_timeout_s = 60.0\n" + SHOUT, "running").up()


def test_broken_at_a_reload_changes_nothing(running, broken):
    text, reason = broken
    before = running.status()
    running.write(text, "own.py")
    running.write("[plugins]\nstart_timeout_s = 60.0\n" + SHOUT + table())
    verdict = running.verdict(before["last_reload"])
    assert verdict["result"] == "refused"
    assert reason in verdict["message"]
    assert running.invoke("shout", "well") == "WELL"
    assert [slot["id"] for slot in running.status()["slots"]] == [slot["id"] for slot in before["slots"]]
    running.write("[plugins]\nstart_timeout_s = 60.0\n" + SHOUT)
    running.verdict(verdict)


def test_all_of_them_at_the_start(nodes):
    names = [f"own{number}" for number, _ in enumerate(BROKEN)]
    node = nodes.node("[plugins]\nstart_timeout_s = 60.0\n" + SHOUT + "".join(table(name) for name in names))
    for name, (text, _) in zip(names, BROKEN.values(), strict=True):
        node.write(text, f"{name}.py")
    node.up()
    assert node.invoke("shout", "well") == "WELL"
    assert node.agents() == ["shout"]
    for name, (_, reason) in zip(names, BROKEN.values(), strict=True):
        slot = until(lambda name=name: (found := node.slot(name))["state"] == "waiting" and found)
        assert reason in slot["why"]
    listed = node.run("plugin", "list")[1]
    assert "no_such_module_anywhere" in listed
    assert "process" in listed
    assert "own0" in node.run("status")[1]


def test_hanging_at_import(nodes):
    node = nodes.node("[plugins]\nstart_timeout_s = 60.0\n" + SHOUT)
    node.write("import pathlib, time\npathlib.Path('begun').touch()\ntime.sleep(3600)\n", "own.py")
    node.up()
    node.write("[plugins]\nstart_timeout_s = 60.0\n" + SHOUT + table())
    until((node.folder / "begun").exists)
    answered = 0
    with ThreadPoolExecutor(1) as pool:
        verdict = pool.submit(node.verdict)
        while not verdict.done():
            assert node.invoke("shout", "well") == "WELL"
            answered += 1
            time.sleep(0.1)  # each call starts a process, and a few are enough
    assert verdict.result()["result"] == "refused"
    assert "still importing after " in verdict.result()["message"]
    assert answered > 0  # nothing waited for the import
    node.stop()
    node.up()  # and the start is held up by it no longer than that
    assert "still importing" in node.slot("own")["why"]
    assert node.agents() == ["shout"]


CRASHING = """
    while (context.base / "hold").exists():
        await asyncio.sleep(0.02)

    async def crash():
        while not (context.base / "crash").exists():
            await asyncio.sleep(0.02)
        (context.base / "crash").unlink()
        raise ValueError("no more")

    async with asyncio.TaskGroup() as group:
        task = group.create_task(crash())
        yield Own()
        task.cancel()
"""
GREEDY = """
    if attempt.input == "much":
        kept = bytearray(2 * 1024 ** 3)
        kept[:: 4096] = b"x" * len(kept[:: 4096])
        return Done(len(kept))
    return Done(os.getpid())
"""
NOISY = """
    print("not the protocol", attempt.input)
    os.write(1, b"\\x00\\xff\\x1b[31m{{{" * 20)
    os.write(1, b"y" * 3_000_000)
    os.write(2, b"\\n")
    return Done(attempt.input)
"""
DYING = """
    if attempt.input == "die":
        os.kill(os.getpid(), 9)
    await asyncio.sleep(30 if attempt.input == "wait" else 0)
    return Done(os.getpid())
"""


@pytest.fixture(scope="module")
def unruly(shared_nodes):
    """A node with one agent that behaves, and four that do not, each in its own way."""
    node = shared_nodes.node(
        SHOUT
        + table("crashing")
        + table("greedy", hosted=True, memory_mb=200)
        + table("noisy", hosted=True, concurrency=4)
        + table("dying", hosted=True, concurrency=4),
        "unruly",
    )
    node.write(plugin(start=CRASHING, name="crashing"), "crashing.py")
    for name, work in (("greedy", GREEDY), ("noisy", NOISY), ("dying", DYING)):
        node.write(plugin(work, name=name), f"{name}.py")
    node.up()
    until(lambda: len(node.agents()) == 5)  # a node does not wait long for its plugins
    return node


def test_a_background_task_that_crashes_is_contained_and_tried_again(unruly):
    node = unruly
    assert node.invoke("crashing", 1) == 1
    with node.watching("plugin.*") as events:

        def told(state: str) -> bool:
            found = [row["data"] for row in events if row["data"]["id"] == "crashing"]
            return bool(found) and found[-1]["state"] == state

        (node.folder / "hold").touch()  # it does not come back before we have looked around
        (node.folder / "crash").touch()
        until(lambda: any("no more" in json.dumps(row["data"]) for row in events))
        until(lambda: node.slot("crashing")["state"] == "starting")
        until(lambda: "crashing" not in node.agents())  # nobody is sent to it meanwhile
        assert node.invoke("shout", "well") == "WELL"
        assert node.call("agents.invoke", target="crashing", input=1).status in (404, 503)
        (node.folder / "hold").unlink()
        until(lambda: node.slot("crashing")["state"] == "running")
        until(lambda: "crashing" in node.agents())
        assert node.invoke("crashing", 2) == 2
        assert node.slot("crashing")["starts"] == 2
        until(lambda: told("running"))


def test_two_gigabytes_are_too_much_when_hosted(unruly):
    node = unruly
    assert node.invoke("greedy") != node.pid
    assert node.slot("greedy")["hosted"] is True
    answer = node.call("agents.invoke", target="greedy", input="much")
    assert answer.status in (502, 503), answer.body
    assert "MemoryError" in answer.json["detail"] or answer.json["code"] == "plugin.crashed"
    assert node.invoke("shout", "well") == "WELL"
    until(lambda: node.call("agents.invoke", target="greedy", input="x").status == 200)
    assert psutil.Process(node.pid).memory_info().rss < 300 * 1024**2


def test_garbage_on_stdout_disturbs_nobody(unruly):
    node = unruly
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(lambda number: node.invoke("noisy", number), range(12))) == list(range(12))
    assert node.slot("noisy")["starts"] == 1
    until(lambda: "not the protocol" in node.log)
    assert max(map(len, node.lines)) < 20_000
    assert "\x1b" not in node.log


def test_a_hosted_plugin_that_dies_takes_its_calls_along_and_comes_back(unruly):
    node = unruly
    first = node.invoke("dying")
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(node.call, "agents.invoke", target="dying", input="wait")
        until(lambda: node.status()["running"] == 1)
        died = node.call("agents.invoke", target="dying", input="die")
        both = [died.json, waiting.result(WAIT_S).json]
    assert [one["code"] for one in both] == ["plugin.crashed"] * 2
    assert first not in marked(node.mark)
    again = until(lambda: (found := node.call("agents.invoke", target="dying", input="")).status == 200 and found)
    assert again.json["output"] != first


SOON = """
import functools, sys
from knotwork.sockets import pace, slots
slots.Pace = functools.partial(pace.Pace, first_s=0.02, most_s=0.05)  # the pauses alone: the rule stays
from knotwork.cli.main import main
sys.exit(main(sys.argv[1:]))
"""


def test_a_crash_loop_ends_in_quarantine_until_somebody_restarts_it(nodes):
    start = 'if not (context.base / "healed").exists():\n    os._exit(7)\nyield Own()\n'
    node = nodes.node(SHOUT + table(hosted=True))
    node.write(plugin(start=start), "own.py")
    node.up(program=(sys.executable, "-c", SOON))
    slot = until(lambda: (found := node.slot("own"))["state"] == "quarantined" and found)
    assert slot["starts"] == 5
    assert "5 crashes in 600 s" in slot["why"]
    assert "exit code 7" in slot["why"]
    assert node.invoke("shout", "well") == "WELL"
    assert node.agents() == ["shout"]
    assert "quarantined" in node.run("status")[1]
    (node.folder / "healed").touch()
    until(lambda: not [line for line in marked(nodes.mark).values() if "hosted_child" in line])
    assert node.slot("own")["starts"] == 5  # it really stays there
    assert node.json("plugin", "restart", "executors", "own")["state"] == "running"
    until(lambda: node.agents() == ["own", "shout"])
    code, wire = node.refused("plugin", "restart", "executors", "nobody")
    assert (code, wire["kind"]) == (1, "not_found")


def test_safe_mode_starts_without_foreign_plugins(nodes):
    more = '[plugins]\nfolders = ["more"]\n'
    node = nodes.node(SHOUT + table() + more)
    node.write("import pathlib\npathlib.Path(__file__).with_name('imported').touch()\n" + plugin(), "own.py")
    node.up("--safe-mode")
    assert node.status()["safe_mode"] is True
    assert node.agents() == ["shout"]
    assert not (node.folder / "imported").exists()
    slot = node.slot("own")
    assert slot["state"] != "running"
    assert "safe mode" in slot["why"]
    loud = SHOUT.replace("[executors.shout]", "[executors.loud]")  # beside foreign ones that are new or changed
    node.write(plugin(), "other.py")
    node.write(SHOUT + loud + table("own", queue_max="3") + table("other") + more)
    until(lambda: node.agents() == ["loud", "shout"])
    assert node.run("reload")[0] == 0
    assert "safe mode" in node.slot("other")["why"]
    node.write(SHOUT + table() + more)
    until(lambda: node.agents() == ["shout"])
    node.stop()
    node.up()
    until(lambda: node.agents() == ["own", "shout"])


def test_safe_mode_starts_without_a_plugin_that_ends_every_start(nodes):
    node = nodes.node(SHOUT + table(on_start_error='"fail"'))
    node.write("import no_such_module_anywhere\n" + plugin(), "own.py")
    assert node.run("up")[0] == 78
    assert node.run("config", "check", "--safe-mode")[0] == 0
    node.up("--safe-mode")
    assert node.agents() == ["shout"]
    assert "safe mode" in node.slot("own")["why"]
    node.write(SHOUT + SHOUT.replace("[executors.shout]", "[executors.louder]") + table(on_start_error='"fail"'))
    until(lambda: node.agents() == ["louder", "shout"])
    assert node.run("reload")[0] == 0


def test_one_file_is_a_plugin_by_its_path(nodes):
    node = nodes.node('[executors.a]\ntype = "./two.py:first"\n[executors.b]\ntype = "two.py:second"\nhosted = true\n')
    text = plugin("import colorsys, os\nreturn Done(os.getpid())", name="first")
    text += '    yield Factory("second", PluginConfig, open_it)\n'
    node.write(text, "two.py")
    node.up()
    until(lambda: node.agents() == ["a", "b"])
    assert node.invoke("a") == node.pid
    assert node.invoke("b") != node.pid
    types = {(row["kind"], row["type"]) for row in node.json("plugin", "list")["plugins"]}
    assert {("executors", "first"), ("executors", "second"), ("routers", "capability")} <= types
    info = node.json("plugin", "info", "first")
    assert info["origin"].endswith("two.py")
    assert [slot["id"] for slot in info["slots"]] == ["a"]
    node.write(text.replace("os.getpid()", "'mended'"), "two.py")
    assert set(node.ask("node.reload")["changed"]) == {"executors.a", "executors.b"}
    assert [node.invoke("a"), node.invoke("b")] == ["mended", "mended"]


def test_a_scaffolded_plugin_passes_its_own_tests_and_runs(nodes):
    node = nodes.node()
    made = node.json("plugin", "new", "executor", "my-agent")["files"]
    assert {Path(path).name for path in made} >= {"pyproject.toml", "plugin.toml", "README.md"}
    folder = node.folder / "my-agent"
    plugin_tests.run(folder, env={**node.env, "PYTHONPATH": str(folder)})
    node.write('[plugins]\nfolders = ["."]\n[executors.mine]\ntype = "my-agent"\n')
    node.up()
    until(lambda: node.agents() == ["mine"])
    assert node.json("plugin", "new", "executor", "alone", "--single-file")["files"]
    code, out, err = node.run("plugin", "test", "./alone.py", "--input", "hello")
    assert code == 0, out + err
    assert "passed" in out
    node.write(plugin("return 'not an outcome'", name="bad"), "bad.py")
    code, out, err = node.run("plugin", "test", "./bad.py", "-o", "json")
    assert code == 1, err
    result = json.loads(out)
    assert result["passed"] < result["of"]
    assert "answers_with_an_outcome" in [row["name"] for row in result["results"] if not row["passed"]]
    docs = node.run("plugin", "docs", "process")[1]
    assert docs.startswith("#")
    assert "command" in docs
    code, wire = node.refused("plugin", "info", "proces")
    assert (code, wire["kind"]) == (1, "not_found")
    assert "process" in wire["message"] + wire["hint"]
