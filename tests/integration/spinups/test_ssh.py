"""Agents on a machine that takes SSH: a real sshd, started here with its own keys on a free port."""

import asyncio
import os
import secrets
import shutil
import socket
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest

from knotwork.sdk import (
    Condition,
    Denied,
    Invalid,
    Launched,
    LaunchRequest,
    NotFound,
    SpinUp,
    Unavailable,
    Unreachable,
)
from knotwork.sdk.testing import host, make_context
from knotwork_plugins.spinups.ssh.plugin import FACTORY

pytestmark = pytest.mark.timeout(180)  # many connections, on a machine that others use too
WAIT_S = 90.0
MARK = secrets.token_hex(4)  # of this process: what runs beside it must not be taken for it


def request(launch: str, **env: str) -> LaunchRequest:
    return LaunchRequest(launch, "far", "default", "review", "", "task-1", {"KNOTWORK_TOKEN": "hush-hush-7", **env})


@pytest.fixture
def table(sshd: Any, tmp_path: Path) -> dict[str, Any]:
    return {**sshd.table, "state_folder": str(tmp_path / "state")}


@asynccontextmanager
async def opened(table: dict[str, Any], **given: Any) -> AsyncIterator[SpinUp]:
    async with host(FACTORY, {**table, **given}, start_timeout_s=60) as spinup:
        yield spinup


async def refused(table: dict[str, Any], **given: Any) -> Any:
    """Return the error of a probe, which must be that of a launch too."""
    context = make_context()
    try:
        async with FACTORY.open(FACTORY.config(**{**table, **given}), context) as spinup:
            with pytest.raises(Exception) as probed:
                await spinup.probe()
            with pytest.raises(type(probed.value)) as launched:
                await spinup.launch(request(f"launch-refused-{MARK}"))
            assert probed.value.code == launched.value.code
            return probed.value
    finally:
        shutil.rmtree(context.folder)


async def ended(spinup: SpinUp, launched: Launched) -> Condition:
    async with asyncio.timeout(WAIT_S):
        while (condition := await spinup.condition(launched.ref)).state == "running":
            await asyncio.sleep(0.02)
    return condition


def carriers(launch: str) -> list[psutil.Process]:
    found = []
    for process in psutil.process_iter():
        try:
            if process.environ().get("KNOTWORK_LAUNCH") == launch and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
        except psutil.Error:
            continue
    return found


async def output_of(folder: Path, launch: str, lines: int) -> list[str]:
    async with asyncio.timeout(WAIT_S):
        while True:
            file = folder / launch / "output"
            said = file.read_text().splitlines() if file.exists() else []
            if len(said) >= lines:
                return said
            await asyncio.sleep(0.02)


async def test_the_environment_is_that_of_the_command_and_not_only_of_cd(table, tmp_path):
    (tmp_path / "it's work").mkdir()
    command = [
        "sh",
        "-c",
        'pwd; echo "$KNOTWORK_TOKEN"; echo "$ODD"; echo "$PLAIN $1"; umask; sleep 1000',
        "sh",
        "a  'b' $c",
    ]
    odd = "'\"$(reboot) `x` \\ @HOME@ ü"
    async with opened(table, cwd=str(tmp_path / "it's work"), command=command, env={"PLAIN": "x y"}) as spinup:
        launched = await spinup.launch(request(f"launch-env-{MARK}", ODD=odd))
        said = await output_of(tmp_path / "state", f"launch-env-{MARK}", 5)
        await spinup.stop(launched.ref, 1.0)
    ours = os.umask(0o022)
    os.umask(ours)
    assert said == [str(tmp_path / "it's work"), "hush-hush-7", odd, "x y a  'b' $c", f"{ours:04o}"]


async def test_an_agent_in_the_foreground_is_no_part_of_the_connection(table, sshd):
    """So no time-out of the connection, nor its end, is the end of the agent."""
    async with opened(table, command=["sleep", "1000"]) as spinup:
        launched = await spinup.launch(request(f"launch-long-{MARK}"))
        assert not [child for child in psutil.Process().children(recursive=True) if child.name() == "ssh"]
        leader = psutil.Process(int(launched.ref["pid"]))
        assert os.getsid(leader.pid) == leader.pid
        async with asyncio.timeout(WAIT_S):
            while sshd.process.pid in [parent.pid for parent in leader.parents()]:
                await asyncio.sleep(0.02)
        assert (await spinup.condition(launched.ref)).state == "running"
        await spinup.stop(launched.ref, 1.0)


@pytest.mark.parametrize(("command", "state", "why"), [
    (
        "echo first; echo 'no such agent' >&2; echo $KNOTWORK_TOKEN; exit 3", "failed",
        "it ended with exit code 3; its last lines:\nfirst\nno such agent\n[hidden]",
    ),
    ("exit 0", "gone", "it ended with exit code 0, without a word"),
    ("kill -9 $PPID $$", "failed", "it was killed, or its machine was restarted, without a word"),
])  # fmt: skip
async def test_how_it_ended_is_told(table, command, state, why):
    async with opened(table, command=command, shell=True) as spinup:
        launched = await spinup.launch(request(f"launch-end-{MARK}"))
        assert await ended(spinup, launched) == Condition(state, why)
        await spinup.stop(launched.ref, 0.0)
        assert (await spinup.condition(launched.ref)).state == "gone"


async def test_false_is_no_success(table):
    async with opened(table, command=["false"]) as spinup:
        launched = await spinup.launch(request(f"launch-false-{MARK}"))
        assert (await ended(spinup, launched)).state == "failed"
        await spinup.stop(launched.ref, 0.0)


async def test_all_of_it_is_gone_after_stop(table, tmp_path):
    command = "trap '' TERM; sleep 1000 & setsid sleep 1000 & echo up; wait; sleep 1000"
    async with opened(table, command=command, shell=True) as spinup:
        launched = await spinup.launch(request(f"launch-tree-{MARK}"))
        await output_of(tmp_path / "state", f"launch-tree-{MARK}", 1)
        before = carriers(f"launch-tree-{MARK}")
        assert len(before) >= 3
        await spinup.stop(launched.ref, 0.2)
        assert carriers(f"launch-tree-{MARK}") == []
    assert not (tmp_path / "state" / f"launch-tree-{MARK}").exists()


async def test_stop_is_gentle_first(table, tmp_path):
    command = f"trap 'echo bye >{tmp_path}/done; exit 0' TERM; echo up; while :; do sleep 0.05; done"
    async with opened(table, command=command, shell=True) as spinup:
        launched = await spinup.launch(request(f"launch-gentle-{MARK}"))
        await output_of(tmp_path / "state", f"launch-gentle-{MARK}", 1)
        await spinup.stop(launched.ref, 30.0)
    assert (tmp_path / "done").read_text() == "bye\n"


async def test_no_secret_reaches_a_command_line_or_a_file(table, tmp_path):
    seen: list[str] = []

    def look() -> None:
        for process in psutil.process_iter():
            try:
                seen.append(" ".join(process.cmdline()))
            except psutil.Error:
                continue

    async with opened(table) as spinup:
        async with asyncio.TaskGroup() as group:
            task = group.create_task(spinup.launch(request(f"launch-hush-{MARK}")))
            while not task.done():
                await asyncio.to_thread(look)
        launched = task.result()
        files = [path.read_bytes() for path in (tmp_path / "state").rglob("*") if path.is_file()]
        assert any("/bin/sh -s" in line for line in seen), "it was not seen at work"
        assert not [line for line in seen if "hush-hush-7" in line]
        assert not [data for data in files if b"hush-hush-7" in data]
        await spinup.stop(launched.ref, 1.0)


async def test_a_folder_of_a_start_that_broke_off_is_used(table, tmp_path):
    (tmp_path / "state" / f"launch-again-{MARK}").mkdir(parents=True)
    async with opened(table) as spinup:
        launched = await spinup.launch(request(f"launch-again-{MARK}"))
        assert (await spinup.condition(launched.ref)).state == "running"
        await spinup.stop(launched.ref, 1.0)


@pytest.mark.parametrize(("given", "error", "code"), [
    ({"command": ["no-such-command"]}, NotFound, "launch.no_command"),
    ({"cwd": "/no/such/folder"}, NotFound, "launch.no_folder"),
    ({"state_folder": "/dev/null/x"}, Unavailable, "launch.not_kept"),
    ({"user": "nobody-of-that-name"}, Denied, "launch.denied"),
    ({"options": {"NoSuchOption": "yes"}}, Invalid, "launch.refused"),
    ({"host": "no-such-host.invalid"}, Unreachable, "launch.unreachable"),
    ({"program": "no-such-ssh"}, Invalid, "launch.no_ssh"),
])  # fmt: skip
async def test_what_is_wrong_is_said_with_what_to_do(table, given, error, code):
    found = await refused(table, **given)
    assert (type(found), found.code) == (error, code), found
    assert found.hint
    assert "hush" not in str(found)


async def test_nobody_listens(table):
    with socket.socket() as taken:  # bound, and not listening
        taken.bind(("127.0.0.1", 0))
        found = await refused(table, port=taken.getsockname()[1])
    assert (type(found), found.code) == (Unreachable, "launch.unreachable")
    assert "Connection refused" in str(found)


async def test_somebody_listens_who_never_speaks(table):
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        found = await refused(table, port=silent.getsockname()[1], connect_timeout_s=1.0)
    assert isinstance(found, Unavailable)
    assert found.code in ("launch.unreachable", "launch.no_answer")


async def test_a_wrong_key_is_denied(table, tmp_path):
    key = tmp_path / "other_key"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", key], check=True, timeout=30)
    found = await refused(table, key_file=str(key))
    assert (type(found), found.code) == (Denied, "launch.denied")
    assert "authorized_keys" in found.hint


async def test_another_machine_behind_the_name_is_denied(table, tmp_path, sshd):
    key = (sshd.folder / "user_key.pub").read_text().split()[:2]
    known = tmp_path / "known hosts"
    known.write_text(f"[127.0.0.1]:{sshd.port} {' '.join(key)}\n")
    found = await refused(table, known_hosts=str(known))
    assert (type(found), found.code) == (Denied, "launch.host_key")
    found = await refused(table, known_hosts=str(tmp_path / "none"), host_keys="strict")
    assert (type(found), found.code) == (Denied, "launch.host_key")


async def test_an_odd_id_never_reaches_the_far_side(table):
    async with opened(table) as spinup:
        for launch in ("../x", "$(reboot)", "", "-x", "a b"):
            with pytest.raises(Invalid) as bad:
                await spinup.launch(request(launch))
            assert bad.value.code == "launch.bad_id"
