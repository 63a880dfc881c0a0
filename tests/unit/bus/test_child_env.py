import asyncio
import os
import signal
import sys

import pytest

from knotwork.bus import child


@pytest.fixture
def frozen(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    monkeypatch.setattr(sys, "frozen", True, raising=False)
    monkeypatch.setattr(sys, "_MEIPASS", "/tmp/_MEI123", raising=False)
    monkeypatch.setenv("LD_LIBRARY_PATH", "/tmp/_MEI123")
    monkeypatch.setenv("_PYI_ARCHIVE_FILE", "/opt/knotwork")
    monkeypatch.setenv("SSL_CERT_FILE", "/tmp/_MEI123/cacert.pem")
    return monkeypatch


def test_only_what_every_program_needs_is_passed_on(monkeypatch: pytest.MonkeyPatch):
    for name in ("LC_ALL", "https_proxy", "SSL_CERT_DIR", "TERM"):
        monkeypatch.setenv(name, "kept")
    for name in ("KNOTWORK_TOKEN", "AWS_SECRET_ACCESS_KEY", "PYTHONPATH", "PYTHONHOME", "_PYI_X", "NATS_SEED"):
        monkeypatch.setenv(name, "secret")
    env = child.clean_env({"MINE": "1"})
    assert env["PATH"] == os.environ["PATH"]
    assert {name for name, value in env.items() if value == "kept"} >= {"LC_ALL", "https_proxy", "SSL_CERT_DIR", "TERM"}
    assert "secret" not in env.values()
    assert env["MINE"] == "1"


def test_the_ward_token_cannot_be_overridden():
    assert child.clean_env({"KNOTWORK_WARD": "x"})["KNOTWORK_WARD"] == child.ward_token()
    assert len(child.ward_token()) == 32


def test_an_unpacked_executable_leaves_no_trace(frozen: pytest.MonkeyPatch):
    env = child.clean_env()
    assert not [name for name, value in env.items() if "_MEI" in value or name.startswith("_PYI")]
    frozen.setenv("LD_LIBRARY_PATH_ORIG", "/usr/lib/mine")
    assert child.clean_env()["LD_LIBRARY_PATH"] == "/usr/lib/mine"


def test_the_same_executable_keeps_its_place(frozen: pytest.MonkeyPatch):
    env = child.self_env({"A": "b"})
    assert env["_PYI_ARCHIVE_FILE"] == "/opt/knotwork"
    assert env["LD_LIBRARY_PATH"] == "/tmp/_MEI123"
    assert env["KNOTWORK_WARD"] == child.ward_token()


def test_outside_of_an_executable_the_library_path_is_the_operators(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("LD_LIBRARY_PATH", "/opt/cuda")
    assert child.clean_env()["LD_LIBRARY_PATH"] == "/opt/cuda"


async def test_a_child_gets_that_environment_and_its_own_session():
    script = "import os; print(os.environ['KNOTWORK_WARD'], os.environ['X'], os.getsid(0) == os.getpid())"
    process = await child.spawn(sys.executable, "-c", script, env={"X": "y"}, stdout=asyncio.subprocess.PIPE)
    said, _ = await process.communicate()
    assert said.decode().split() == [child.ward_token(), "y", "True"]


async def test_stop_asks_first():
    script = "import signal, sys; signal.signal(15, lambda *a: sys.exit(7)); print('up', flush=True); signal.pause()"
    process = await child.spawn(sys.executable, "-c", script, stdout=asyncio.subprocess.PIPE)
    assert process.stdout
    await process.stdout.readline()
    assert await child.stop(process, grace_s=60) == 7
    assert await child.stop(process, grace_s=60) == 7


async def test_stop_kills_who_does_not_listen():
    script = "import signal; signal.signal(15, signal.SIG_IGN); print('up', flush=True)\nwhile True: signal.pause()"
    process = await child.spawn(sys.executable, "-c", script, stdout=asyncio.subprocess.PIPE)
    assert process.stdout
    await process.stdout.readline()
    assert await child.stop(process, grace_s=0.05) == -signal.SIGKILL


async def test_a_cancelled_stop_kills():
    script = "import signal; signal.signal(15, signal.SIG_IGN); print('up', flush=True)\nwhile True: signal.pause()"
    process = await child.spawn(sys.executable, "-c", script, stdout=asyncio.subprocess.PIPE)
    assert process.stdout
    await process.stdout.readline()
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.05):
            await child.stop(process, grace_s=30)
    async with asyncio.timeout(30):
        assert await process.wait() == -signal.SIGKILL
