"""A hosted plugin may crash, hang, hog memory and print garbage: the node and the neighbours do not notice."""

import asyncio
import functools
import logging
import sys
import time
from contextlib import asynccontextmanager
from pathlib import Path

import psutil
import pytest

from knotwork.sdk import Done
from knotwork.sdk.testing import attempt, make_context
from knotwork.sockets import catalog, loading
from knotwork.sockets.output import LINES_A_SECOND
from knotwork.sockets.pace import Pace
from knotwork.sockets.slot import Instance
from knotwork.sockets.slots import Slots

HERE = Path(__file__).parent
GIB = 1024**3


@functools.cache  # what was found never changes, and finding it starts a process
def entry():
    settings = catalog.CatalogSettings(files=("./hosted_plugin.py",), base=HERE, group="knotwork-tests", patience_s=60)
    return loading.load(settings).find("executors", "./hosted_plugin.py")


def instance(name="sample", memory_mb=0, hosted=True, **config):
    found = entry()
    return Instance("executors", name, found, found.factory.config(**config), hosted=hosted, memory_mb=memory_mb)


@asynccontextmanager
async def running(tmp_path, *instances, pace=None):
    def context_for(one):
        return make_context(id=one.id, folder=tmp_path, log=logging.getLogger("kt.hosted"))

    seen = []
    """What became of the plugin, and why: states that are over before anybody looks are among them."""

    def on_change(slot):
        if slot.instance.id == "sample":
            seen.append((slot.state, slot.why))

    async with asyncio.TaskGroup() as group:
        slots = Slots(group, context_for, on_change, pace=pace or Pace(first_s=0.01, most_s=0.02))
        prepared = await slots.prepare([*instances, instance("neighbour", hosted=False)], lenient=True)
        prepared.commit()
        neighbour = slots.get("executors", "neighbour")
        before = neighbour.plugin
        sample = slots.get("executors", "sample")
        sample.seen = seen
        await sample.reached(("running", "waiting", "quarantined"), 60)  # a slow machine: it is not waited for for ever
        yield sample
        assert neighbour.plugin is before
        assert await before.execute(attempt(["echo", 1])) == Done(1)
        assert await slots.close(0.0) == []


async def crashed(slot):
    """Return why it crashed, when it has; by then it may be there again."""
    async with asyncio.timeout(30):
        while not (found := [why for state, why in slot.seen if state == "waiting"]):
            await asyncio.sleep(0.01)
    return found[0]


async def begun(mark):
    async with asyncio.timeout(30):
        while not mark.exists():
            await asyncio.sleep(0.01)


async def ended(pid):
    """Return whether a process ends; one that nobody has reaped has."""
    async with asyncio.timeout(30):
        while psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE:
            await asyncio.sleep(0.02)
    return True


@pytest.mark.parametrize(
    ("how", "told"), [("die", "exit code 3"), ("segfault", "SIGSEGV"), ("exit_behind", "exit code 70")]
)
async def test_a_crash_fails_the_calls_and_it_comes_back(tmp_path, how, told):
    async with running(tmp_path, instance()) as slot:
        async with asyncio.TaskGroup() as group:
            sleeping = group.create_task(slot.plugin.execute(attempt(["sleep", "mark"])))
            await begun(tmp_path / "mark")
            dying = group.create_task(slot.plugin.execute(attempt([how])))
        for call in (sleeping, dying):
            outcome = call.result()
            assert (outcome.code, outcome.retriable) == ("plugin.crashed", True)
        assert told in await crashed(slot)
        assert await slot.reached(("running",), 30) == "running"
        assert await slot.plugin.execute(attempt(["echo", 2])) == Done(2)


async def test_a_process_that_it_forked_does_not_hide_its_end(tmp_path):
    async with running(tmp_path, instance()) as slot:
        forked = await slot.plugin.execute(attempt(["fork"]))
        async with asyncio.timeout(30):
            outcome = await slot.plugin.execute(attempt(["die"]))
        assert (outcome.code, outcome.retriable) == ("plugin.crashed", True)
        assert "exit code 3" in await crashed(slot)
        assert await ended(forked.output)


async def test_a_process_that_it_forked_answers_nothing(tmp_path):
    async with running(tmp_path, instance()) as slot:
        forked = await slot.plugin.execute(attempt(["fork_on"]))
        assert forked.output > 0
        async with asyncio.timeout(30):
            for number in range(50):
                assert await slot.plugin.execute(attempt(["echo", number])) == Done(number)
        assert await ended(forked.output)
        assert slot.starts == 1


async def test_five_crashes_end_in_quarantine(tmp_path):
    async with running(tmp_path, instance(start="dies")) as slot:
        assert await slot.reached(("quarantined",), 60) == "quarantined"
        assert slot.starts == 5
        assert "exit code 9" in slot.why


async def test_a_crash_in_the_background_there_is_a_crash_here(tmp_path):
    async with running(tmp_path, instance(start="breaks off")) as slot:
        assert "the background broke" in await crashed(slot)
        assert slot.failure is None or slot.failure.code == "plugin.crashed"


async def test_two_gigabytes_are_refused_there(tmp_path):
    async with running(tmp_path, instance(memory_mb=300)) as slot:
        outcome = await slot.plugin.execute(attempt(["allocate", 2 * GIB]))
        assert (outcome.code, outcome.message) == ("agent.crashed", "MemoryError")
        assert await slot.plugin.execute(attempt(["allocate", 100_000_000])) == Done(100_000_000)
        assert slot.starts == 1


async def test_garbage_on_stdout_is_logged_and_forges_nothing(tmp_path, caplog):
    began_s = time.monotonic()
    with caplog.at_level(logging.DEBUG, logger="kt.hosted"):
        async with running(tmp_path, instance()) as slot:
            assert await slot.plugin.execute(attempt(["garbage"])) == Done("fine")
            assert await slot.plugin.execute(attempt(["echo", 1])) == Done(1)
    took_s = time.monotonic() - began_s
    lines = [record.getMessage() for record in caplog.records if record.name == "kt.hosted"]
    assert any("forged" in line for line in lines)
    assert 10 < len(lines) < (LINES_A_SECOND + 1) * (took_s + 2)
    assert max(len(line) for line in lines) < 10_000
    assert all(line.replace("\t", " ").isprintable() for line in lines)


async def test_a_blocked_process_is_found_out_and_replaced(tmp_path, monkeypatch):
    monkeypatch.setattr("knotwork.sockets.hosted_process.PONG_S", 1.0)
    async with running(tmp_path, instance()) as slot:
        async with asyncio.TaskGroup() as group:
            call = group.create_task(slot.plugin.execute(attempt(["block", "mark"])))
            await begun(tmp_path / "mark")
            call.cancel()
            await asyncio.wait([call], timeout=30)
        assert call.done()  # it would have blocked for a minute
        assert "hung" in await crashed(slot)
        assert await slot.reached(("running",), 30) == "running"


async def test_one_that_does_not_end_is_killed(tmp_path, monkeypatch):
    monkeypatch.setattr("knotwork.sockets.hosted_process.CLOSE_S", 0.3)
    async with running(tmp_path, instance(start="stays")) as slot:
        async with asyncio.timeout(30):
            assert await slot.stop()


async def test_breaking_the_protocol_is_a_crash(tmp_path):
    async with running(tmp_path, instance()) as slot:
        outcome = await slot.plugin.execute(attempt(["forge"]))
        assert (outcome.code, outcome.retriable) == ("plugin.crashed", True)
        assert "not a frame" in await crashed(slot)


async def test_nothing_survives_a_killed_node():
    """Not even a plugin whose loop is blocked, nor what it started."""
    node = await asyncio.create_subprocess_exec(
        sys.executable, str(HERE / "hosted_node.py"), stdout=asyncio.subprocess.PIPE
    )
    async with asyncio.timeout(60):
        pids = [int(word) for word in (await node.stdout.readline()).split()]
    assert len(pids) == 2
    assert all(psutil.pid_exists(pid) for pid in pids)
    node.kill()
    await node.wait()
    assert all([await ended(pid) for pid in pids])
