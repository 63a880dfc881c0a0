"""Do the scripts for the far side mean the same to every shell there is here, and nothing when they arrive in part?"""

import os
import secrets
import shutil
import subprocess
import time
from pathlib import Path

import pytest

from knotwork_plugins.spinups.ssh import far

SHELLS = [["sh"], ["bash"], ["busybox", "sh"], ["ksh"], ["mksh"]]
HERE = [shell for shell in SHELLS if shutil.which(shell[0])]
WAIT_S = 30.0
LAUNCH = f"launch-{secrets.token_hex(4)}"  # of this process: what runs beside it must not be taken for it
ODD = "'\"$(false) `x` \\ @HOME@ ü\nsecond line"


def tell(shell: list[str], script: str) -> far.Said:
    done = subprocess.run([*shell, "-s"], input=script.encode(), capture_output=True, timeout=WAIT_S, check=False)
    assert done.returncode == 0, done.stderr
    return far.read(done.stdout)


def launch(folder: Path, command: list[str], name: str = LAUNCH) -> str:
    return far.launch(launch=name, folder=str(folder), cwd="/", command=command, program=command[0], env={"ODD": ODD})


def condition(folder: Path, name: str = LAUNCH, output_max_bytes: int = 65_536) -> str:
    return far.condition(launch=name, folder=str(folder), tail_bytes=1000, output_max_bytes=output_max_bytes)


def until(shell: list[str], script: str, word: str) -> far.Said:
    until_s = time.monotonic() + WAIT_S
    while (said := tell(shell, script)).word != word:
        assert time.monotonic() < until_s, said
        time.sleep(0.02)
    return said


@pytest.fixture(params=HERE, ids="-".join)
def shell(request: pytest.FixtureRequest) -> list[str]:
    return request.param


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "a 'folder'"


def test_a_launch_lives_is_found_and_is_ended(shell, folder):
    first = tell(shell, launch(folder, ["sleep", "1000"]))
    assert first.word == "launched"
    pid, since = first.rest.split()
    assert tell(shell, launch(folder, ["sleep", "1000"])) == first
    assert os.getpgid(int(pid)) == os.getsid(int(pid)) == int(pid)
    assert tell(shell, condition(folder)) == far.Said("running", pid)
    assert tell(shell, far.stop(launch=LAUNCH, folder=str(folder), grace_s=5)).word == "gone"
    assert tell(shell, condition(folder)).word == "gone"
    assert tell(shell, far.stop(launch=LAUNCH, folder=str(folder), grace_s=5)).word == "gone"
    assert since.isdigit()
    assert not [*folder.iterdir()]


def test_one_that_minds_no_gentle_word_is_ended_by_force(shell, folder):
    command = ["sh", "-c", "trap '' TERM; sleep 1000 & echo up; while :; do sleep 1000; done"]
    pid = int(tell(shell, launch(folder, command)).rest.split()[0])
    until_s = time.monotonic() + WAIT_S
    while b"up" not in (folder / LAUNCH / "output").read_bytes():
        assert time.monotonic() < until_s
        time.sleep(0.02)
    assert tell(shell, far.stop(launch=LAUNCH, folder=str(folder), grace_s=0.2)).word == "gone"
    with pytest.raises(ProcessLookupError):
        until_s = time.monotonic() + WAIT_S
        while time.monotonic() < until_s:  # whoever adopts orphans here reaps them when it likes
            os.killpg(pid, 0)
            time.sleep(0.02)


def test_how_it_ended_and_what_it_said_is_told(shell, folder):
    tell(shell, launch(folder, ["sh", "-c", 'printf "%s\\n" "$ODD"; exit 7']))
    said = until(shell, condition(folder), "ended")
    assert (said.rest, said.output.decode()) == ("7", ODD + "\n")


def test_an_output_that_grew_too_long_loses_its_beginning(shell, folder):
    tell(shell, launch(folder, ["sh", "-c", "i=0; while [ $i -lt 20000 ]; do echo line $i; i=$((i+1)); done"]))
    until(
        shell, condition(folder, output_max_bytes=1_000_000), "ended"
    )  # cut while it prints it may lose a line or two
    assert tell(shell, condition(folder)).output.endswith(b"line 19999\n")
    assert (folder / LAUNCH / "output").stat().st_size == 65_536
    assert tell(shell, condition(folder)).output.endswith(b"line 19999\n")


def test_the_number_of_somebody_else_is_left_alone(shell, folder):
    stranger = subprocess.Popen(["sleep", "1000"], start_new_session=True)
    try:
        own = folder / LAUNCH
        own.mkdir(parents=True)
        (own / "pid").write_text(f"{stranger.pid} 12345\n")
        assert tell(shell, condition(folder)).word == "killed"
        assert tell(shell, far.stop(launch=LAUNCH, folder=str(folder), grace_s=0)).word == "gone"
        assert stranger.poll() is None
    finally:
        stranger.kill()
        stranger.wait(WAIT_S)


def test_what_is_missing_there_is_named(shell, folder):
    assert tell(shell, launch(folder, ["no-such-command"])).fault == "no_command"
    assert tell(shell, far.probe(folder=str(folder), cwd="/", program="sleep", env={})).word == "well"
    said = tell(shell, far.probe(folder=str(folder), cwd="/not there", program="sleep", env={}))
    assert (said.fault, said.rest) == ("no_folder", "/not there")
    assert tell(shell, far.probe(folder="/dev/null/x", cwd="/", program="sleep", env={})).fault == "no_state"
    assert not [*folder.iterdir()]


def test_the_path_of_the_target_counts(shell, folder, tmp_path):
    (tmp_path / "only-here").write_text("#!/bin/sh\nsleep 1000\n")
    (tmp_path / "only-here").chmod(0o755)
    env = {"PATH": f"{tmp_path}:{os.environ['PATH']}"}
    assert tell(shell, far.probe(folder=str(folder), cwd="/", program="only-here", env=env)).word == "well"
    script = far.launch(launch=LAUNCH, folder=str(folder), cwd="", command=["only-here"], program="only-here", env=env)
    assert tell(shell, script).word == "launched"
    assert tell(shell, far.stop(launch=LAUNCH, folder=str(folder), grace_s=5)).word == "gone"


def test_a_script_that_is_cut_off_does_nothing(folder):
    script = launch(folder, ["sleep", "1000"])
    for end in range(0, len(script.rstrip()) - len("main\nexit 0"), 97):
        subprocess.run(["sh", "-s"], input=script[:end].encode(), capture_output=True, timeout=WAIT_S, check=False)
    assert not folder.exists()


def test_noise_of_a_login_is_passed_over():
    said = far.read(b"Welcome!\nknotwork:ended 3\nknotwork:output\nknotwork:running 1\nbye\n")
    assert said == far.Said("ended", "3", "", b"knotwork:running 1\nbye\n")
    assert far.read(b"knotwork:fault no_folder /a b\n") == far.Said("fault", "/a b", "no_folder")
    assert far.read(b"This account is not available.\n") == far.Said()
