import os
import shutil
import socket
from pathlib import Path

import pytest

from knotwork.bus import binary
from knotwork.bus.server import run_server
from knotwork.sdk.errors import Conflict, Denied, Invalid, Unavailable


async def test_a_busy_port_names_who_holds_it(place):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(Conflict) as caught:
            async with run_server(place.but(port=port)):
                pytest.fail("it must not start")
    assert caught.value.code == "bus.port_in_use"
    assert caught.value.detail["pid"] == os.getpid()
    assert str(port) in str(caught.value)
    async with run_server(place.but(port=port)) as server:  # nothing was left behind
        assert server.port == port


async def test_a_store_in_use_names_its_owner(place):
    async with run_server(place.but(server_name="alpha")) as server:
        with pytest.raises(Conflict, match="alpha") as caught:
            async with run_server(place.but(server_name="beta")):
                pytest.fail("it must not start")
        assert caught.value.code == "bus.store_locked"
        assert caught.value.detail["pid"] == os.getpid()
        assert server.state == "running"


@pytest.mark.parametrize("what", ["jetstream", "ports", "nats-server.conf", "nats-server.out"])
async def test_a_store_that_cannot_be_used_is_told(place, what):
    place.settings.store_dir.mkdir()
    if what in ("jetstream", "ports"):
        (place.settings.store_dir / what).write_text("a file where a folder should be")
    else:
        (place.settings.store_dir / what).mkdir()
    with pytest.raises(Denied) as caught:
        async with run_server(place.settings):
            pytest.fail("it must not start")
    assert caught.value.code == "bus.store_unreadable"
    assert str(place.settings.store_dir) in str(caught.value)


@pytest.mark.skipif(os.getuid() == 0, reason="nothing is closed to root")
@pytest.mark.parametrize("what", ["", "jetstream"])
async def test_a_store_that_is_closed_to_us_is_told(place, what):
    closed = place.settings.store_dir / what
    closed.mkdir(parents=True)
    closed.chmod(0)
    try:
        with pytest.raises(Denied) as caught:
            async with run_server(place.settings):
                pytest.fail("it must not start")
    finally:
        closed.chmod(0o700)
    assert caught.value.code == "bus.store_unreadable"


async def test_settings_that_are_wrong_are_refused_before_anything_starts(place):
    with pytest.raises(Invalid) as caught:
        async with run_server(place.but(server_name="no spaces allowed", max_payload=-1)):
            pytest.fail("it must not start")
    assert len(caught.value.detail["problems"]) == 2
    assert not (place.settings.store_dir / "jetstream").exists()


async def test_a_server_that_ends_at_once_is_quoted(place, tmp_path, monkeypatch):
    fake(tmp_path, monkeypatch, "echo 'nats-server: no such luck'; exit 3")
    with pytest.raises(Unavailable, match="no such luck") as caught:
        async with run_server(place.settings):
            pytest.fail("it must not start")
    assert caught.value.code == "bus.server_failed"
    assert caught.value.detail["exit_code"] == 3


async def test_a_server_that_cannot_be_run_is_told(place, tmp_path, monkeypatch):
    fake(tmp_path, monkeypatch, "")
    (tmp_path / "bin" / "nats-server").write_bytes(b"\x7fELF not for this machine")
    with pytest.raises(Unavailable, match="cannot be run") as caught:
        async with run_server(place.settings):
            pytest.fail("it must not start")
    assert caught.value.code == "bus.server_failed"


async def test_a_server_that_never_gets_ready_is_ended(place, tmp_path, monkeypatch):
    fake(tmp_path, monkeypatch, f"echo $$ > {tmp_path / 'pid'}; sleep 300")
    with pytest.raises(Unavailable, match=r"not ready after 3 s"):
        async with run_server(place.but(start_timeout_s=3.0)):
            pytest.fail("it must not start")
    assert not Path(f"/proc/{(tmp_path / 'pid').read_text().strip()}").exists()


def fake(tmp_path, monkeypatch, script: str) -> None:
    path = tmp_path / "bin" / "nats-server"
    path.parent.mkdir()
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    monkeypatch.setattr(binary, "find", lambda: binary.Binary(path, "9.9.9", "path"))


async def test_a_store_that_vanishes_does_not_end_the_node(place, until):
    async with run_server(place.settings) as server:
        shutil.rmtree(place.settings.store_dir)
        os.kill(server.pid, 9)
        await until(lambda: server.state == "restarting" and "cannot be used" in server.why)
        place.settings.store_dir.mkdir()
        await server.wait_running(30)
