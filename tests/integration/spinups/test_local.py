"""Agents as processes on this machine: real ones are started, lose their node, and are ended."""

import asyncio
import json
import os
import secrets
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil
import pytest

from knotwork.sdk import Condition, Conflict, Invalid, Launched, LaunchRequest, NotFound, SpinUp, Unavailable
from knotwork.sdk.testing import host
from knotwork_plugins.spinups.local import life
from knotwork_plugins.spinups.local.plugin import FACTORY

pytestmark = pytest.mark.timeout(120)
WAIT_S = 60.0
SLEEP = ["sleep", "1000"]
LAUNCH = f"launch-{secrets.token_hex(4)}"  # of this process: what runs beside it must not be taken for it


def request(launch: str = LAUNCH, **env: str) -> LaunchRequest:
    return LaunchRequest(
        launch, "here", "default", "review", "personal", "task-1", {"KNOTWORK_TOKEN": "hush-hush-7", **env}
    )


@pytest.fixture(autouse=True)
def _nothing_is_left() -> Iterator[None]:
    yield
    left = carriers(LAUNCH)
    for process in left:
        process.kill()
    assert not left


@asynccontextmanager
async def opened(tmp_path: Path, command: Any, **given: Any) -> AsyncIterator[SpinUp]:
    context = {name: given.pop(name) for name in ("node", "child_env", "base") if name in given}
    async with host(FACTORY, {"command": command, **given}, folder=tmp_path / "kept", **context) as spinup:
        yield spinup


async def ended(spinup: SpinUp, launched: Launched) -> Condition:
    async with asyncio.timeout(WAIT_S):
        while (condition := await spinup.condition(launched.ref)).state == "running":
            await asyncio.sleep(0.02)
    return condition


def carriers(launch: str) -> list[psutil.Process]:
    """Return the living processes of a launch by its id in their environment, wherever they are."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.environ().get("KNOTWORK_LAUNCH") == launch and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
        except psutil.Error:
            continue
    return found


async def until_carriers(launch: str, count: int, *, ended: int = 0) -> list[psutil.Process]:
    """Return the processes of a launch as soon as there are so many, and the one with the number `ended` is none of them."""
    async with asyncio.timeout(WAIT_S):
        while len(found := carriers(launch)) != count or any(one.pid == ended for one in found):
            await asyncio.sleep(0.02)
    return found


async def test_a_command_that_exits_at_once_is_failed_with_its_last_lines(tmp_path):
    command = ["sh", "-c", "echo first; echo 'no such agent' >&2; echo $KNOTWORK_TOKEN; exit 3"]
    async with opened(tmp_path, command) as spinup:
        launched = await spinup.launch(request())
        condition = await ended(spinup, launched)
    assert condition.state == "failed"
    assert condition.why == "it ended with exit code 3; its last lines:\nfirst\nno such agent\n[hidden]"


@pytest.mark.parametrize(("command", "state", "words"), [
    (["false"], "failed", "exit code 1, without a word"),
    (["true"], "gone", "exit code 0"),
    (["sh", "-c", "kill -9 $$"], "failed", "signal 9"),
])  # fmt: skip
async def test_how_it_ended_is_told(tmp_path, command, state, words):
    async with opened(tmp_path, command) as spinup:
        launched = await spinup.launch(request())
        condition = await ended(spinup, launched)
        assert (condition.state, words in condition.why) == (state, True), condition
    async with opened(tmp_path, command) as again:  # the node was restarted: it is known still
        assert await again.condition(launched.ref) == condition


async def test_how_it_ended_is_known_still_when_another_was_started_before_anybody_asked(tmp_path):
    async with opened(tmp_path, ["sh", "-c", "kill -9 $$"]) as spinup:
        first = await spinup.launch(request())
        await until_carriers(LAUNCH, 0)
        await ended(spinup, await spinup.launch(request(f"{LAUNCH}-2")))
        condition = await spinup.condition(first.ref)
    assert (condition.state, "signal 9" in condition.why) == ("failed", True), condition


async def test_it_gets_the_environment_of_the_target_and_of_the_launch(tmp_path, monkeypatch):
    monkeypatch.setenv("PASSED_ON", "yes")
    monkeypatch.setenv("OF_THE_NODE", "secret of the node")
    monkeypatch.setenv("THE_KEY", "from the node's environment")
    env = {"PLAIN": "a 'plain' one", "KEY": {"env": "THE_KEY"}, "KNOTWORK_TOKEN": "the launch wins"}
    made: dict[str, str] = {}

    def child_env(extra: dict[str, str]) -> dict[str, str]:
        made.update(extra)
        return {"PATH": os.environ["PATH"], "KNOTWORK_WARD": "w", **extra}

    command = "pwd; env; exit 1"
    (tmp_path / "work").mkdir()
    given = {"cwd": "work", "env": env, "pass_env": ["PASSED_ON"], "shell": True}
    async with opened(tmp_path, command, base=tmp_path, child_env=child_env, **given) as spinup:
        launched = await spinup.launch(request(MANY="two\nlines"))
        assert (await ended(spinup, launched)).state == "failed"
        said = (tmp_path / "kept" / "launches" / LAUNCH / "output.log").read_text()
    for line in (
        str(tmp_path / "work"), "PASSED_ON=yes", "PLAIN=a 'plain' one", "KEY=from the node's environment",
        "KNOTWORK_TOKEN=hush-hush-7", "MANY=two\nlines", f"KNOTWORK_LAUNCH={LAUNCH}", "KNOTWORK_WARD=w",
    ):  # fmt: skip
        assert f"{line}\n" in said
    assert "secret of the node" not in said


async def test_all_of_it_is_gone_after_stop(tmp_path):
    """A shell that minds no SIGTERM, its child, and one that left its group and session."""
    command = "trap '' TERM; sleep 1000 & setsid sleep 1000 & wait; sleep 1000"
    async with opened(tmp_path, command, shell=True) as spinup:
        launched = await spinup.launch(request())
        before = await until_carriers(LAUNCH, 3)
        async with asyncio.timeout(WAIT_S):  # forked is not yet of a session of its own
            while {os.getsid(process.pid) for process in before} == {launched.ref["pid"]}:
                await asyncio.sleep(0.02)
        await spinup.stop(launched.ref, 0.1)
        assert carriers(LAUNCH) == []
        assert not any(process.is_running() and process.status() != psutil.STATUS_ZOMBIE for process in before)
    assert [*(tmp_path / "kept" / "launches").iterdir()] == []


async def test_stop_is_gentle_first(tmp_path):
    done = tmp_path / "done"
    command = f"trap 'echo bye >{done}; exit 0' TERM; echo up; while :; do sleep 0.05; done"
    async with opened(tmp_path, command, shell=True) as spinup:
        launched = await spinup.launch(request())
        async with asyncio.timeout(WAIT_S):
            while not (tmp_path / "kept" / "launches" / LAUNCH / "output.log").read_text():
                await asyncio.sleep(0.02)
        await spinup.stop(launched.ref, WAIT_S)
    assert done.read_text() == "bye\n"


async def test_a_group_whose_first_process_ended_runs_on_and_can_be_stopped(tmp_path):
    async with opened(tmp_path, "sleep 1000 & exit 0", shell=True) as spinup:
        launched = await spinup.launch(request())
        await until_carriers(LAUNCH, 1, ended=launched.ref["pid"])
        assert (await spinup.condition(launched.ref)).state == "running"
        await spinup.stop(launched.ref, 1.0)
        assert carriers(LAUNCH) == []


async def test_a_number_that_is_somebody_elses_by_now_is_left_alone(tmp_path):
    stranger = subprocess.Popen(SLEEP, start_new_session=True)
    try:
        async with opened(tmp_path, SLEEP) as spinup:
            launched = await spinup.launch(request())
            await spinup.stop(launched.ref, 1.0)
            ref = {**launched.ref, "pid": stranger.pid, "started": life.started(stranger.pid) - 1}  # born a tick ago
            assert (await spinup.condition(ref)).state == "gone"
            await spinup.stop(ref, 0.0)
            assert stranger.poll() is None
            ref["started"] = life.started(stranger.pid)
            ref["boot"] = "another start of the machine"
            assert (await spinup.condition(ref)).state == "gone"
            await spinup.stop(ref, 0.0)
            assert stranger.poll() is None
    finally:
        stranger.kill()
        stranger.wait(WAIT_S)


async def test_one_that_was_started_but_not_noted_is_found_by_its_mark(tmp_path):
    async with opened(tmp_path, SLEEP) as spinup:
        launched = await spinup.launch(request())
        await until_carriers(LAUNCH, 1)  # for a moment after exec the system shows no environment
        (tmp_path / "kept" / "launches" / LAUNCH / "record.json").unlink()
    async with opened(tmp_path, SLEEP) as after:
        assert await after.launch(request()) == launched
        assert len(carriers(LAUNCH)) == 1
        await after.stop(launched.ref, 1.0)


async def test_a_launch_of_another_node_is_its_own(tmp_path):
    async with opened(tmp_path, SLEEP, node="one") as one:
        launched = await one.launch(request())
        async with opened(tmp_path, SLEEP, node="two") as two:
            for asked in (two.condition(launched.ref), two.stop(launched.ref, 0.0)):
                with pytest.raises(Conflict, match="node 'one'") as refused:
                    await asked
                assert refused.value.code == "launch.elsewhere"
        await one.stop(launched.ref, 1.0)


@pytest.mark.parametrize(("given", "code"), [
    ({"command": ["no-such-command-anywhere"]}, "launch.no_command"),
    ({"command": ["./not-there"]}, "launch.no_command"),
    ({"command": SLEEP, "cwd": "not-there"}, "launch.no_folder"),
])  # fmt: skip
async def test_what_is_missing_is_said_before_and_at_a_launch(tmp_path, given, code):
    with pytest.raises(NotFound) as unwell:
        async with opened(tmp_path, base=tmp_path, **given):
            raise AssertionError("it says that it is well")
    assert unwell.value.code == code
    assert unwell.value.hint
    async with FACTORY.open(FACTORY.config(**given), await bare(tmp_path)) as spinup:
        with pytest.raises(NotFound) as refused:
            await spinup.launch(request())
    assert refused.value.code == code


async def test_a_program_is_looked_for_where_the_target_says(tmp_path):
    program = tmp_path / "my-agent"
    program.write_text("#!/bin/sh\necho started >&2; exit 3\n")
    program.chmod(0o700)
    path = f"{tmp_path}:{os.environ['PATH']}"
    async with opened(tmp_path, ["my-agent"], env={"PATH": path}) as spinup:
        assert "started" in (await ended(spinup, await spinup.launch(request()))).why


async def bare(tmp_path: Path) -> Any:
    from knotwork.sdk.testing import make_context

    return make_context(folder=tmp_path / "kept", base=tmp_path)


async def test_what_is_no_program_cannot_be_started(tmp_path):
    odd = tmp_path / "odd"
    odd.write_bytes(b"\x7fELF nonsense")
    odd.chmod(0o755)
    async with opened(tmp_path, [str(odd)]) as spinup:
        with pytest.raises(Invalid) as refused:
            await spinup.launch(request())
        assert refused.value.code == "launch.not_started"
    assert [*(tmp_path / "kept" / "launches").iterdir()] == []


@pytest.mark.parametrize("launch", ["../x", "", "a/b", "x" * 200, "a.b"])
async def test_an_id_never_becomes_a_path(tmp_path, launch):
    async with opened(tmp_path, SLEEP) as spinup:
        with pytest.raises(Invalid) as refused:
            await spinup.launch(request(launch))
    assert refused.value.code == "launch.bad_id"


async def test_a_folder_that_cannot_be_written_is_for_later(tmp_path):
    (tmp_path / "kept").write_text("a file")
    async with opened(tmp_path, SLEEP) as spinup:
        with pytest.raises(Unavailable) as refused:
            await spinup.launch(request())
    assert refused.value.code == "launch.not_kept"


async def test_its_output_does_not_grow_for_ever(tmp_path):
    done = tmp_path / "done"
    lines = "i=0; while [ $i -lt 40000 ]; do echo line $i; i=$((i+1)); done"
    command = f"{lines}; touch {done}; while [ -e {done} ]; do sleep 0.02; done; echo more; touch {done}; sleep 1000"
    async with opened(tmp_path, command, shell=True, output_max_bytes=65_536) as spinup:
        launched = await spinup.launch(request())
        output = tmp_path / "kept" / "launches" / LAUNCH / "output.log"
        await until_there(done)
        assert output.stat().st_size > 65_536
        await spinup.condition(launched.ref)
        assert output.stat().st_size == 65_536
        done.unlink()
        await until_there(done)
        assert output.read_bytes().endswith(b"line 39999\nmore\n"), "it went on where it was, or lost the end"
        assert output.stat().st_mode & 0o077 == 0
        await spinup.stop(launched.ref, 1.0)


async def until_there(file: Path) -> None:
    async with asyncio.timeout(WAIT_S):
        while not file.exists():
            await asyncio.sleep(0.02)


async def test_an_environment_that_no_process_can_have_is_refused(tmp_path):
    async with opened(tmp_path, SLEEP) as spinup:
        for env in ({"A=B": "x"}, {"ZERO": "a\0b"}):
            with pytest.raises(Invalid) as refused:
                await spinup.launch(replace(request(), env=env))
            assert refused.value.code == "launch.bad_environment"


NODE = """
import asyncio, json, sys
from pathlib import Path
from knotwork.bus import child
from knotwork.sdk import LaunchRequest
from knotwork.sdk.testing import host
from knotwork_plugins.spinups.local.plugin import FACTORY

async def node():
    table, launch = json.loads(sys.argv[2]), sys.argv[3]
    async with child.guard(), host(FACTORY, table, folder=Path(sys.argv[1]), child_env=child.clean_env) as spinup:
        launched = await spinup.launch(LaunchRequest(launch, "here", "default", "", "", "", {"A": "b"}))
        print(json.dumps(dict(launched.ref)), flush=True)
        await asyncio.Event().wait()

asyncio.run(node())
"""


@pytest.mark.parametrize("detached", [True, False], ids=["detached", "with-the-node"])
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM], ids=["kill", "term"])
async def test_it_outlives_the_node_only_when_asked(tmp_path, detached, number):
    """The node is killed: what is detached lives and is found again, all else goes with it."""
    launch = f"{LAUNCH}-{int(detached)}-{int(number)}"
    table = {"command": "sleep 1000 & sleep 1000; :", "shell": True, "detached": detached}
    node = await asyncio.create_subprocess_exec(
        sys.executable, "-c", NODE, str(tmp_path / "kept"), json.dumps(table), launch, stdout=asyncio.subprocess.PIPE
    )
    assert node.stdout is not None
    async with asyncio.timeout(WAIT_S):
        ref = json.loads(await node.stdout.readline())
    await until_carriers(launch, 3)
    node.send_signal(number)
    async with asyncio.timeout(WAIT_S):
        await node.wait()
    if not detached:
        await until_carriers(launch, 0)
    async with host(FACTORY, table, folder=tmp_path / "kept") as after:
        condition = await after.condition(ref)
        assert condition.state == ("running" if detached else "gone"), condition
        await after.stop(ref, 0.5)
        assert (await after.condition(ref)).state == "gone"
    assert carriers(launch) == []
