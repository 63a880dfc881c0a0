"""Does the front page tell the truth? Its shell blocks are run, in order, and what they print is what it says.

Blocks marked `<!-- on: second -->` run as on another machine: another home, with stand-ins for ssh and scp. The line
that installs and the one that tests are compared with the files they use; `.ci/run` runs them for real.
"""

from __future__ import annotations

import os
import re
import shutil
import socket
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from tests.free_port import free_port

ROOT = Path(__file__).parents[2]
README = ROOT / "README.md"
PAGES = ("README.md", "docs/getting-started.md")
BLOCK_TIMEOUT_S = 150
PORTS = ("4222", "8080")
_FENCE = re.compile(r"(?:^<!-- (?P<mark>[^>]*) -->\n)?^```(?P<kind>\w*)\n(?P<text>.*?)^```$", re.MULTILINE | re.DOTALL)
_STANDINS = {
    "scp": '#!/bin/sh\n# scp -q first:PATH FOLDER\ncp "$FIRST_HOME/${2#first:}" "$3"\n',
    "ssh": "#!/bin/sh\n# ssh -fNL PORT:127.0.0.1:PORT first: both machines are this one, so the port is there already\n"
    'test "$1" = -fNL && test "$3" = first\n',
}
_CURL = """#!/usr/bin/env python3
import sys, urllib.request
words, headers, data, url = sys.argv[1:], {}, None, ""
while words:
    word = words.pop(0)
    if word == "-H":
        name, _, value = words.pop(0).partition(": ")
        headers[name] = value
    elif word == "-d":
        data = words.pop(0).encode()
    elif not word.startswith("-"):
        url = word
sys.stdout.write(urllib.request.urlopen(urllib.request.Request(url, data, headers), timeout=20).read().decode())
"""


class Block(NamedTuple):
    """One fenced block; `mark` is the comment right above it."""

    mark: str
    kind: str
    text: str


def blocks(page: str) -> list[Block]:
    text = (ROOT / page).read_text(encoding="utf-8")
    return [Block(found["mark"] or "", found["kind"], found["text"]) for found in _FENCE.finditer(text)]


def marked(mark: str) -> str:
    found = [block.text.strip() for block in blocks("README.md") if block.mark == mark]
    assert len(found) == 1, f"README.md has {len(found)} blocks marked {mark!r}"
    return found[0]


class Machines:
    """Two homes on this machine; each remembers the folder its last block ended in."""

    def __init__(self, folder: Path, mark: tuple[str, str]) -> None:
        self.ports = {shown: str(free_port()) for shown in PORTS}
        self.tools = folder / "tools"
        self.tools.mkdir()
        curl = {} if shutil.which("curl") else {"curl": _CURL}
        for name, text in {**_STANDINS, **curl}.items():
            (self.tools / name).write_text(text)
            (self.tools / name).chmod(0o755)
        self.homes = {name: folder / name for name in ("first", "second")}
        self.cwd: dict[str, Path] = {}
        self.mark = mark
        for name, home in self.homes.items():
            (home / ".venv" / "bin").mkdir(parents=True)
            (home / ".venv" / "bin" / "activate").write_text("# the page activates one; the test's is on PATH\n")
            self.cwd[name] = home

    def env(self, name: str) -> dict[str, str]:
        kept = {key: value for key, value in os.environ.items() if not key.startswith(("KNOTWORK", "XDG_"))}
        return {
            **kept,
            "HOME": str(self.homes[name]),
            "FIRST_HOME": str(self.homes["first"]),
            "PATH": os.pathsep.join([str(self.tools), str(Path(sys.executable).parent), os.environ["PATH"]]),
            "NO_COLOR": "1",
            self.mark[0]: self.mark[1],
        }

    def moved(self, text: str) -> str:
        """Return the text with ports that are free here."""
        for shown, port in self.ports.items():
            text = text.replace(shown, port)
        return text

    def run(self, name: str, script: str) -> str:
        """Run one block as a person would type it, stopping at the first command that fails; return what it prints."""
        ended_in = self.homes[name] / ".ended-in"
        text = self.moved(script)
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", f"trap 'pwd > {ended_in}' EXIT\n{text}"],
            cwd=self.cwd[name],
            env=self.env(name),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=BLOCK_TIMEOUT_S,
            check=False,
        )
        assert done.returncode == 0, f"{text}\n{done.stdout}\n{done.stderr}"
        self.cwd[name] = Path(ended_in.read_text().strip())
        return done.stdout


def tidy(text: str, known: dict[str, str]) -> list[str]:
    """Return lines without what differs from run to run: names of machines, folders, numbers, widths of columns."""
    for word, shown in known.items():
        text = re.sub(rf"(?<![\w-]){re.escape(word)}(?![\w-])", shown, text)
    text = re.sub(r"knotwork-demo-\w+", "knotwork-demo-x", text)
    text = re.sub(r'"longest": ".*"', '"longest": "x"', text)  # a word of this very page, so it cannot stand on it
    text = re.sub(r"\bo?[0-9a-f]{16,32}\b", "#", text)
    text = re.sub(r"\d[\d.:TZ-]*", "#", text)
    return [" ".join(line.split()) for line in text.strip().splitlines() if line.strip()]


def same(shown: str, printed: str, known: dict[str, str], *, end: bool) -> None:
    wanted, got = tidy(shown, known), tidy(printed, known)
    assert sorted(got[-len(wanted) :] if end else got) == sorted(wanted)  # tables are sorted by names, which differ


def node_name(home: Path) -> str:
    found = re.search(r'"name": "([^"]+)"', (home / ".local/share/knotwork/identity.json").read_text())
    assert found
    return found[1]


@pytest.mark.skipif(sys.platform != "linux", reason="the page's paths are Linux's")
@pytest.mark.timeout(900)
@pytest.mark.parametrize("page", PAGES)
def test_everything_on_the_page_works(page: str, tmp_path: Path, nodes: Any) -> None:
    machines = Machines(tmp_path, ("XDG_KNOTWORK_TEST", nodes.mark))
    printed, host = "", socket.gethostname()
    ran = 0
    try:
        for block in blocks(page):
            if block.mark.startswith("file: "):
                (machines.cwd["first"] / block.mark.removeprefix("file: ")).write_text(machines.moved(block.text))
            elif block.kind == "sh" and block.mark not in ("demo", "tests"):
                printed = machines.run("second" if block.mark == "on: second" else "first", block.text)
                ran += 1
            elif block.kind == "text" and ran and not block.mark.startswith("picture"):
                names = {node_name(machines.homes["first"]): "NODE", "laptop-98d9": "NODE"}
                known = {**names, host: "HOST", "laptop": "HOST", "tower": "HOST"}
                same(block.text, printed, known, end=block.mark == "ends with")
    finally:
        for name in reversed(machines.homes):
            subprocess.run(
                ["knotwork", "stop", "--now"], env=machines.env(name), cwd=tmp_path, check=False, capture_output=True
            )
    assert ran >= 4


@pytest.mark.timeout(330)
def test_the_demo_prints_what_the_page_shows(tmp_path: Path) -> None:
    # from a copy: the demo counts the words of the files where it stands, and README.md changes while we write
    for name in ("README.md", "CHANGELOG.md", "LICENSE"):
        shutil.copy(ROOT / name, tmp_path)
    done = subprocess.run(
        [sys.executable, "-m", "knotwork", "demo"],
        cwd=tmp_path, capture_output=True, text=True, timeout=300, check=False,
        env={**os.environ, "XDG_STATE_HOME": str(tmp_path / "state")},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert not (tmp_path / "state").exists()  # nor does it leave anything with the user
    shown = marked("output of: knotwork demo")
    same(shown, done.stdout, {str(tmp_path): "~/knotwork", "/tmp/": "/tmp/"}, end=False)


def test_two_commands_do_everything_and_each_is_one_line() -> None:
    demo, tests = marked("demo"), marked("tests")
    assert "\n" not in demo
    assert "\n" not in tests
    assert demo.endswith("&& .venv/bin/knotwork demo")
    assert tests.endswith("&& .venv/bin/python -m pytest")
    for line, pins in ((demo, "packaging/constraints.txt"), (tests, "packaging/constraints-dev.txt")):
        assert f"--require-hashes -r {pins} " in line
        assert (ROOT / pins).is_file()


def test_ci_runs_the_page_s_own_test_line() -> None:
    script = ROOT / ".ci" / "run"
    assert script.stat().st_mode & stat.S_IXUSR
    # it reads the line from README.md by its marker: let it do so, and print instead of run
    text = script.read_text(encoding="utf-8")
    assert marked("tests") in text or "<!-- tests -->" in text
    if marked("tests") not in text:
        picked = re.search(r"^line=\$\((.*)\)$", text, re.MULTILINE)
        assert picked, "how does .ci/run find the line?"
        found = subprocess.run(
            ["bash", "-c", picked[1]], cwd=ROOT, capture_output=True, text=True, timeout=60, check=True
        )
        assert found.stdout.strip() == marked("tests")


def test_pins_have_hashes_and_no_addresses() -> None:
    for name in ("constraints.txt", "constraints-dev.txt"):
        text = (ROOT / "packaging" / name).read_text(encoding="utf-8")
        assert not re.search(r"https?://|--index-url|--find-links", text), name
        pins = re.findall(r"^[A-Za-z0-9_.\[\]-]+==", text, re.MULTILINE)
        assert pins
        assert text.count("--hash=sha256:") >= len(pins), name
