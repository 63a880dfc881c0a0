"""Fixtures: a real sshd on a free port of the loopback, and stand-ins for the services that cannot run here."""

from __future__ import annotations

import getpass
import importlib
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from tests.free_port import free_port

READY_S = 30.0
sys.path.append(str(Path(__file__).parent / "standins"))


@dataclass
class Sshd:
    """A running sshd; `table` is what an operator would write to reach it."""

    folder: Path
    port: int
    process: subprocess.Popen[bytes]

    @property
    def table(self) -> dict[str, Any]:
        return {
            "host": "127.0.0.1",
            "port": self.port,
            "user": getpass.getuser(),
            "key_file": str(self.folder / "user_key"),
            "known_hosts": str(self.folder / "known_hosts"),
            "config_file": str(self.folder / "ssh_config"),
            "connect_timeout_s": 60,
            "command": ["sleep", "1000"],
        }


def find(program: str) -> str:
    return shutil.which(program) or shutil.which(program, path="/usr/sbin:/usr/local/sbin:/sbin") or ""


@pytest.fixture(scope="module")
def sshd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sshd]:
    for program in ("sshd", "ssh", "ssh-keygen"):
        if not find(program):
            pytest.skip(f"no {program} on this machine: install openssh-server and openssh-client to run this test")
    folder = tmp_path_factory.mktemp("sshd")
    for key in ("host_key", "user_key"):
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", folder / key], check=True, timeout=30)
    shutil.copy(folder / "user_key.pub", folder / "authorized_keys")
    (folder / "ssh_config").write_text("")
    port = free_port()
    (folder / "sshd_config").write_text(
        f"ListenAddress 127.0.0.1:{port}\nHostKey {folder}/host_key\nAuthorizedKeysFile {folder}/authorized_keys\n"
        "PidFile none\nStrictModes no\nUsePAM no\nPasswordAuthentication no\nPermitRootLogin yes\n"
        "MaxStartups 100\nLogLevel VERBOSE\n"
        f"SetEnv HOME={folder}\n"  # the shell's own files of whoever runs the tests say nothing, and take their time
        "KexAlgorithms curve25519-sha256\n"  # the newest default takes twenty times as long, for each of a hundred logins
    )
    if os.geteuid() == 0:
        Path("/run/sshd").mkdir(mode=0o755, parents=True, exist_ok=True)  # sshd wants it when it is started by root
    log = folder / "log"
    process = subprocess.Popen([find("sshd"), "-D", "-f", folder / "sshd_config", "-E", log], stdin=subprocess.DEVNULL)
    try:
        if why := not_up(process, port):
            pytest.skip(f"sshd cannot run here: {why}: {log.read_text(errors='replace') if log.exists() else ''}")
        made = Sshd(folder, port, process)
        if why := no_login(made):
            pytest.skip(f"sshd lets nobody in here: {why}: {log.read_text(errors='replace')[-2000:]}")
        yield made
    finally:
        process.terminate()
        process.wait(READY_S)


def not_up(process: subprocess.Popen[bytes], port: int) -> str:
    """Wait until it answers; return why it does not."""
    until_s = time.monotonic() + READY_S
    while time.monotonic() < until_s:
        if process.poll() is not None:
            return f"it ended with {process.returncode}"
        try:
            with socket.create_connection(("127.0.0.1", port), timeout=30) as one:
                one.settimeout(30)
                if one.recv(4) == b"SSH-":
                    return ""
        except OSError:
            time.sleep(0.05)
    return "it does not answer"


@pytest.fixture
def docker_api(tmp_path: Path) -> Iterator[Any]:
    made = importlib.import_module("docker_api").DockerApi(tmp_path / "docker.sock")
    yield made
    made.close()


@pytest.fixture
def cluster() -> Iterator[Any]:
    made = importlib.import_module("cluster").Cluster()
    yield made
    made.close()


@pytest.fixture
def github(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    module = importlib.import_module("github")
    monkeypatch.setenv("GITHUB_TOKEN", module.TOKEN)
    made = module.Github()
    yield made
    made.close()


@pytest.fixture
def receiver() -> Iterator[Any]:
    made = importlib.import_module("receiver").Receiver()
    yield made
    made.close()


def no_login(sshd: Sshd) -> str:
    """Return why the system's own client cannot log in, whatever we do: a locked account, for one."""
    table = sshd.table
    options = ("BatchMode=yes", "StrictHostKeyChecking=accept-new", f"UserKnownHostsFile={table['known_hosts']}")
    line = ["ssh", "-F", table["config_file"], "-i", table["key_file"], "-p", str(sshd.port), "-l", table["user"]]
    line += [word for option in options for word in ("-o", option)]
    done = subprocess.run([*line, "127.0.0.1", "true"], capture_output=True, text=True, timeout=60, check=False)
    return done.stderr if done.returncode else ""
