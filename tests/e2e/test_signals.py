"""Signals at every moment: SIGHUP never kills a node, SIGTERM always ends it in time, and nothing is left behind."""

from __future__ import annotations

import random
import secrets
import signal
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from tests.e2e.conftest import PROGRAM, WAIT_S, Node, Nodes, marked, until

CONFIG = '[executors.shout]\ntype = "process"\ncommand = ["tr", "a-z", "A-Z"]\n'
HANGUP_HELD = ("sh", "-c", 'trap \'\' HUP; exec "$0" "$@"', *PROGRAM)
"""As the one-file launcher does it, and nohup, and a service manager: before Python runs nothing of ours can."""
PYTHON_RUNS_S = 0.2
"""In truth 30 ms; before that the launcher's part is tried, after it the node's own."""
AT_ONCE = 4


def holds_hangups(pid: int) -> bool:
    """Return whether the launcher, or the program, has begun: each is a process and needs its time, on a busy machine more."""
    try:
        status = dict(line.split(":\t", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
    except ProcessLookupError:
        return False
    return bool((int(status["SigIgn"], 16) | int(status["SigCgt"], 16)) & 1 << (signal.SIGHUP - 1))


def one_round(node: Node, number: int, delay_s: float) -> str:
    """Start a node, send it a signal after `delay_s` seconds; return what went wrong."""
    early = number == signal.SIGHUP and delay_s < PYTHON_RUNS_S
    node.lines.clear()
    node.up(wait_s=0, program=HANGUP_HELD if early else PROGRAM)
    if early:
        until(lambda: holds_hangups(node.pid))
    time.sleep(delay_s)  # the moment is what is tried
    if number == signal.SIGHUP:
        until(lambda: holds_hangups(node.pid))
    node.signal(number)
    if number == signal.SIGHUP:
        try:
            until(node._is_ready)
        except AssertionError as error:
            node.signal(signal.SIGKILL)  # the next round begins with none, whatever became of this one
            node.ended()
            return f"after SIGHUP: {error}"
        node.signal(signal.SIGTERM)
    code = node.ended()
    if code not in (0, -signal.SIGTERM, 143):
        return f"exit code {code}"
    if "Traceback" in node.log:
        return "a traceback"
    if number == signal.SIGHUP and code != 0:
        return f"a node that is ready ends with 0, not {code}"
    try:
        until(lambda: not marked(node.mark))
    except AssertionError:
        return f"left behind: {marked(node.mark)}"
    return ""


def rounds(folder, count: int) -> None:
    dice = random.Random(count)
    plan = [(signal.SIGHUP if turn % 5 < 2 else signal.SIGTERM, dice.uniform(0, 0.5)) for turn in range(count)]
    nodes = [Node(folder / f"n{place}", secrets.token_hex(8)) for place in range(AT_ONCE)]
    for node in nodes:
        node.write(CONFIG)

    def work(place: int) -> list[str]:
        wrong = []
        for number, delay_s in plan[place::AT_ONCE]:
            told = one_round(nodes[place], number, delay_s)
            if told:
                wrong.append(f"{signal.Signals(number).name} after {delay_s * 1000:.0f} ms: {told}\n{nodes[place].log}")
        return wrong

    with ThreadPoolExecutor(AT_ONCE) as pool:
        wrong = [told for part in pool.map(work, range(AT_ONCE)) for told in part]
    for node in nodes:
        node.stop()
    assert not wrong, "\n".join(wrong)


@pytest.mark.timeout(600)
def test_forty_signals_at_any_moment(tmp_path):
    rounds(tmp_path, 40)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_five_hundred_signals_at_any_moment(tmp_path):
    rounds(tmp_path, 500)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_ready_node_ends_with_0(nodes, number):
    node = nodes.node(CONFIG).up(program=PROGRAM)
    node.signal(number)
    assert node.ended() == 0
    assert not (node.data / "run" / "node.json").exists()
    assert not nodes.left()


def test_hangups_without_end_do_not_kill(nodes):
    node = nodes.node(CONFIG).up(program=PROGRAM)
    for _ in range(300):
        node.signal(signal.SIGHUP)
    assert node.invoke("shout", "alive") == "ALIVE"
    node.signal(signal.SIGTERM)
    while node.process.poll() is None:  # to the very end, when the interpreter takes itself apart
        node.signal(signal.SIGHUP)
        time.sleep(0.001)
    assert node.ended() == 0


def test_stopping_while_a_plugin_hangs_at_start(nodes):
    node = nodes.node('[executors.h]\ntype = "./hanging.py"\n')
    node.write(OPENS.format(start="await asyncio.sleep(3600)"), "hanging.py")
    node.up(wait_s=0, program=PROGRAM)
    until((node.data / "plugins" / "executors.h").exists)
    node.signal(signal.SIGTERM)
    assert node.ended() == 0


def test_stopping_while_a_plugin_hangs_at_import(nodes):
    node = nodes.node('[executors.h]\ntype = "./hanging.py"\n')
    node.write(
        "import time, pathlib\npathlib.Path(__file__).with_name('begun').touch()\ntime.sleep(3600)\n", "hanging.py"
    )
    node.up(wait_s=0, program=PROGRAM)
    until((node.folder / "begun").exists)
    node.signal(signal.SIGTERM)
    assert node.ended() == 0


def test_threads_that_never_end_do_not_hold_the_node(nodes):
    node = nodes.node('[executors.h]\ntype = "./threads.py"\n')
    start = "threading.Thread(target=time.sleep, args=(3600,), name='forever').start()\n"
    start += "    asyncio.get_running_loop().run_in_executor(None, time.sleep, 3600)"
    node.write(OPENS.format(start=start), "threads.py")
    node.up(program=PROGRAM)
    node.signal(signal.SIGTERM)
    assert node.ended() == 0
    assert "leaving without threads that do not end" in node.log
    assert "forever" in node.log


BLOCKING = """
import sys
from knotwork.host import signals
signals.NOW_S = signals.PATIENCE_S = 1.0
from knotwork.cli.main import main
sys.exit(main(sys.argv[1:]))
"""


@pytest.mark.parametrize("signals", ["one", "two"])
def test_a_blocked_loop_ends_by_force(nodes, signals):
    """The first signal gives the drain its time and some more, every further one no more than a moment."""
    drain_s = 0.0 if signals == "one" else 3600.0
    node = nodes.node(f'[node]\ndrain_s = {drain_s}\n[executors.h]\ntype = "./blocking.py"\n')
    node.write(OPENS.format(start="block_when_asked()") + BLOCKS, "blocking.py")
    node.up(program=(sys.executable, "-c", BLOCKING))
    server = node.status()["bus"]["server_pid"]
    (node.folder / "block").touch()
    until((node.folder / "blocked").exists)
    node.signal(signal.SIGTERM)
    if signals == "two":  # the system merges equal signals, so it takes a few until a second one arrives
        until(lambda: node.signal(signal.SIGTERM) or "ended by force" in node.log)
    assert node.ended() == 143
    assert "ended by force" in node.log
    until(lambda: server not in marked(nodes.mark))  # the warden's work


def test_a_plugin_that_refuses_to_close_does_not_hold_the_node(nodes):
    node = nodes.node('[node]\ndrain_s = 0.0\n[executors.h]\ntype = "./stubborn.py"\n')
    stubborn = "try:\n        yield None\n    finally:\n        while True:\n            "
    stubborn += "try:\n                await asyncio.sleep(3600)\n            except asyncio.CancelledError:\n                pass\n"
    node.write(OPENS.format(start=stubborn), "stubborn.py")
    node.up(program=(sys.executable, "-c", BLOCKING))
    node.signal(signal.SIGTERM)
    assert node.ended() in (0, 143)


def test_stopping_while_a_reload_waits_for_a_plugin(nodes):
    node = nodes.node(CONFIG).up(program=PROGRAM)
    node.write(OPENS.format(start="await asyncio.sleep(3600)"), "hanging.py")
    node.write(CONFIG + '[executors.h]\ntype = "./hanging.py"\n')
    until((node.data / "plugins" / "executors.h").exists)
    node.signal(signal.SIGTERM)
    assert node.ended() == 0
    assert "Traceback" not in node.log


BLOCKS = """

def block_when_asked():
    here = pathlib.Path(__file__)
    if here.with_name("block").exists():
        here.with_name("blocked").touch()
        time.sleep(3600)
    asyncio.get_running_loop().call_later(0.02, block_when_asked)
"""
OPENS = """
import asyncio, pathlib, threading, time
from contextlib import asynccontextmanager
from knotwork.sdk import Factory, PluginConfig, hookimpl


@asynccontextmanager
async def open_it(config, context):
    {start}
    yield None


@hookimpl
def executors():
    yield Factory("it", PluginConfig, open_it)
"""


def test_nothing_survives_kill_9(nodes: Nodes):
    node = nodes.node(CONFIG + '[executors.sleeper]\ntype = "process"\ncommand = ["sleep", "600"]\n').up()
    with ThreadPoolExecutor(1) as pool:
        call = pool.submit(node.call, "agents.invoke", target="sleeper", input="x")
        until(lambda: any(line.startswith("sleep 600") for line in marked(nodes.mark).values()))
        node.signal(signal.SIGKILL)
        assert node.ended() == -signal.SIGKILL
        assert isinstance(call.exception(WAIT_S), ConnectionError | OSError)
    assert not nodes.left()
    node.up()  # and the folder is as good as before
    assert node.invoke("shout", "again") == "AGAIN"
