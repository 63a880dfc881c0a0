"""Does the executable do what it must? `python packaging/selftest.py dist/knotwork`; needs nothing but Python.

It is run as a stranger would: an empty home, an empty cache, a folder with a configuration and a plugin in one file.
Every process it starts carries a mark in its environment, so whatever is left behind is found.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import json
import os
import random
import secrets
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

MARK = "XDG_KNOTWORK_SELFTEST"  # a clean environment keeps XDG_* names: children carry it, too
NOT_TRIED = {"antigravity", "this"}  # the one opens a browser when it is imported, the other prints a poem
WAIT_S = 60.0
"""For what comes within a second or two: the machine may be busy with much else, and a wait that ends costs nothing."""
CONFIG = """
[node]
name = "selftest"

[executors.odd]
type = "./odd.py"

[executors.apart]
type = "./odd.py"
hosted = true

[executors.env]
type = "process"
command = ["env"]
"""
PLUGIN = '''"""Says what it could import, and where it runs."""

import importlib
import os
import plistlib
import sqlite3
import warnings
import wsgiref.simple_server
import xmlrpc.client
from contextlib import asynccontextmanager

from knotwork.sdk import Done, Factory, PluginConfig, hookimpl


class Odd:
    async def execute(self, attempt):
        missing, names = [], attempt.input.get("import", []) if isinstance(attempt.input, dict) else []
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            for name in names:
                try:
                    importlib.import_module(name)
                except Exception as error:
                    missing.append(f"{name}: {error!r}")
        rows = sqlite3.connect(":memory:").execute("select 6 * 7").fetchone()
        return Done({"missing": missing, "rows": rows, "pid": os.getpid(), "xml": xmlrpc.client.dumps((1,))})


@asynccontextmanager
async def open_odd(config, context):
    yield Odd()


@hookimpl
def executors():
    yield Factory(name="odd", config=PluginConfig, open=open_odd, summary="Imports odd modules.")
'''


def until(found: Callable[[], Any], timeout_s: float, what: str) -> Any:
    """Return the first true value of `found`; raises AssertionError after `timeout_s` seconds."""
    end_s = time.monotonic() + timeout_s
    while not (value := found()):
        assert time.monotonic() < end_s, what
        time.sleep(0.01)
    return value


def importable() -> list[str]:
    """Return the modules of the standard library that this Python can import."""
    names = []
    inside = ["xml.etree.ElementTree", "wsgiref.simple_server", "email.mime.multipart", "concurrent.futures.process"]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for name in [*sorted(sys.stdlib_module_names - NOT_TRIED), *inside]:
            with contextlib.suppress(Exception):
                importlib.import_module(name)
                names.append(name)
    return names


class Trial:
    """The executable, and the folder of a stranger."""

    def __init__(self, program: Path, folder: Path) -> None:
        """Lay the folder out; nothing is started."""
        self.program, self.folder, self.mark = str(program), folder, secrets.token_hex(8)
        self.cache, self.temp, self.data = folder / "cache", folder / "tmp", folder / "data"
        for part in ("home", "tmp"):
            (folder / part).mkdir()
        (folder / "odd.py").write_text(PLUGIN, encoding="utf-8")
        self.config = folder / "knotwork.toml"
        self.config.write_text(CONFIG, encoding="utf-8")
        self.env = {
            "PATH": os.defpath, "HOME": str(folder / "home"), "TMPDIR": str(self.temp), "LANG": "C.UTF-8",
            "KNOTWORK_CACHE_DIR": str(self.cache), "KNOTWORK_DATA_DIR": str(self.data), MARK: self.mark,
        }  # fmt: skip

    def start(self, *words: str) -> subprocess.Popen[bytes]:
        """Start one command line in a session of its own."""
        with (self.folder / "said").open("ab") as said:
            return subprocess.Popen(
                [self.program, *words], cwd=self.folder, env=self.env, start_new_session=True,
                stdin=subprocess.DEVNULL, stdout=said, stderr=said,
            )  # fmt: skip

    def run(self, *words: str, code: int = 0, timeout_s: float = 60.0) -> str:
        """Run one command line to its end and return what it printed; raises AssertionError for another exit code."""
        done = subprocess.run(
            [self.program, *words], cwd=self.folder, env=self.env, stdin=subprocess.DEVNULL,
            capture_output=True, text=True, timeout=timeout_s, check=False,
        )  # fmt: skip
        assert done.returncode == code, f"{words} ended with {done.returncode}:\n{done.stdout}\n{done.stderr}"
        return done.stdout if code == 0 else done.stderr

    def invoke(self, agent: str, value: Any) -> Any:
        """Call an agent and return its answer."""
        return json.loads(self.run("invoke", agent, json.dumps(value), "-o", "json"))["output"]

    def about(self) -> dict[str, Any]:
        """Return what the running node says of itself, or nothing."""
        with contextlib.suppress(OSError, ValueError):
            found: dict[str, Any] = json.loads((self.data / "run" / "node.json").read_text(encoding="utf-8"))
            return found
        return {}

    def ready(self, pid: int) -> bool:
        """Say whether the node is ready, and is process `pid`."""
        about = self.about()
        return about.get("pid") == pid and about.get("state") == "ready"

    def left(self) -> dict[int, str]:
        """Return every living process that carries the mark."""
        found = {}
        for place in Path("/proc").iterdir():
            with contextlib.suppress(OSError, ValueError):
                if f"{MARK}={self.mark}".encode() not in (place / "environ").read_bytes().split(b"\0"):
                    continue
                if (place / "stat").read_bytes().rpartition(b")")[2].split()[0] not in (b"Z", b"X"):
                    found[int(place.name)] = (place / "cmdline").read_bytes().replace(b"\0", b" ").decode()
        return found

    def all_gone(self) -> None:
        """Wait until no process is left; raises AssertionError after `WAIT_S` seconds."""
        until(lambda: not self.left(), WAIT_S, "left behind: see below")


def first_start(trial: Trial) -> str:
    began_s = time.monotonic()
    trial.run("--version")
    return f"unpacked in {time.monotonic() - began_s:.2f} s"


def version_is_quick(trial: Trial) -> str:
    """Tell how long `--version` takes; that is the machine's business. What must hold: nothing is unpacked for it."""
    before = {path.name: path.stat().st_ino for path in trial.cache.iterdir()}
    took = []
    for _ in range(10):
        began_s = time.monotonic()
        trial.run("--version")
        took.append(time.monotonic() - began_s)
    assert {path.name: path.stat().st_ino for path in trial.cache.iterdir()} == before, "it was unpacked again"
    return f"{min(took) * 1000:.0f} ms, median {statistics.median(took) * 1000:.0f} ms of {len(took)}"


def a_damaged_file_is_refused(trial: Trial) -> str:
    raw = bytearray(Path(trial.program).read_bytes())
    raw[-1000] ^= 1
    broken = trial.folder / "broken"
    broken.write_bytes(raw)
    broken.chmod(0o755)
    env = {**trial.env, "KNOTWORK_CACHE_DIR": str(trial.folder / "other")}
    done = subprocess.run([broken, "--version"], env=env, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 1, done
    assert "damaged" in done.stderr, done
    assert not list((trial.folder / "other").iterdir()), "something was left of it"
    return ""


def local_verbs_work(trial: Trial) -> str:
    trial.run("config", "check")
    for words in (("config", "example"), ("config", "schema"), ("help", "exit-codes"), ("completion", "bash")):
        assert trial.run(*words).strip(), words
    kinds = trial.run("plugin", "list", "-o", "json")
    missing = [
        name for name in ("process", "claude-code", "mcp", "openai", "prometheus", "otlp") if f'"{name}"' not in kinds
    ]
    assert not missing, missing
    wrong = trial.folder / "wrong.toml"
    wrong.write_text('[node]\nnam = "x"\n', encoding="utf-8")
    assert "wrong.toml:2:1:" in trial.run("config", "check", str(wrong), code=78)
    trial.run("plugin", "test", "./odd.py", "--input", '{"import": []}', "--apart", timeout_s=240)
    trial.run("plugin", "new", "executor", "my-agent")
    return ""


@contextlib.contextmanager
def running(trial: Trial) -> Iterator[subprocess.Popen[bytes]]:
    """Run a node in the foreground while the block runs, and stop it then."""
    process = trial.start("up")
    try:
        until(lambda: trial.ready(process.pid) or process.poll() is not None, WAIT_S, "it does not start")
        assert process.poll() is None, f"it ended with {process.poll()}"
        until(
            lambda: json.loads(trial.run("status", "-o", "json"))["state"] != "starting",
            WAIT_S,
            "it does not get ready",
        )
        yield process
        trial.run("stop")
        assert process.wait(WAIT_S) == 0
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()


def a_node_works(trial: Trial) -> str:
    """Boot, call a plugin in one file, in process and apart, reload, stop."""
    names = importable()
    with running(trial) as process:
        here, apart = (trial.invoke(agent, {"import": names}) for agent in ("odd", "apart"))
        for answer in (here, apart):
            assert answer["rows"] == [42]
            assert not answer["missing"], answer["missing"]
        assert here["pid"] == process.pid, "the visible process is not the node"
        assert apart["pid"] != process.pid, "a hosted plugin runs in the node"
        told = trial.invoke("env", None)
        leaks = [line for line in str(told).splitlines() if line.startswith(("_PYI", "_MEI", "LD_LIBRARY_PATH"))]
        assert not leaks, leaks
        trial.config.write_text(CONFIG + '[executors.later]\ntype = "./odd.py"\n', encoding="utf-8")
        process.send_signal(signal.SIGHUP)
        until(
            lambda: '"later"' in trial.run("agents", "-o", "json") or "/later" in trial.run("agents"),
            WAIT_S,
            "no reload",
        )
        assert trial.invoke("later", {"import": []})["pid"] == process.pid
    trial.all_gone()
    return f"{len(names)} modules imported"


def in_the_background(trial: Trial) -> str:
    node = json.loads(trial.run("up", "--detach", "-o", "json"))
    trial.run("stop")
    trial.all_gone()
    return f"ready in {node['ready_s']} s"


def the_demo_runs(trial: Trial) -> str:
    began_s = time.monotonic()
    trial.run("demo", timeout_s=300)
    trial.all_gone()
    return f"{time.monotonic() - began_s:.1f} s"


def the_bench_runs(trial: Trial) -> str:
    found = json.loads(trial.run("bench", "invoke", "--for", "1s", "-o", "json", timeout_s=120))
    trial.all_gone()
    return f"ratio {found['ratio']}"


def holds_hangups(pid: int) -> bool:
    """Return whether the text in front of the program has begun: before that nothing of ours can hold any."""
    status = dict(line.split(":\t", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
    return bool((int(status["SigIgn"], 16) | int(status["SigCgt"], 16)) & 1 << (signal.SIGHUP - 1))


def hangups_never_kill(trial: Trial) -> str:
    """Ask a starting node to reload at moments spread over its start."""
    moments_s = (0.01, 0.06, 0.12, 0.2, 0.3, 0.45)
    for moment_s in moments_s:
        process = trial.start("up")
        until(lambda process=process: holds_hangups(process.pid), WAIT_S, "nothing holds hangups")  # type: ignore[misc]
        time.sleep(moment_s)
        process.send_signal(signal.SIGHUP)
        until(lambda process=process: trial.ready(process.pid), WAIT_S, "it did not start")  # type: ignore[misc]
        assert process.poll() is None
        process.send_signal(signal.SIGTERM)
        assert process.wait(WAIT_S) == 0
    trial.all_gone()
    return f"{len(moments_s)} times"


def kills_leave_nothing(trial: Trial, times: int) -> str:
    """Kill the visible process at random moments, half of the time while it unpacks; then look around."""
    chance = random.Random(times)  # the same moments each time
    slowest_s = 0.0
    for number in range(times):
        if number % 2:
            for folder in trial.cache.iterdir():
                subprocess.run(["rm", "-rf", folder], check=True, timeout=30)
        process = trial.start("up")
        time.sleep(chance.uniform(0.0, 1.5))
        began_s = time.monotonic()
        process.kill()
        process.wait()
        trial.all_gone()
        slowest_s = max(slowest_s, time.monotonic() - began_s)
    trial.run("--version")
    left = [path.name for path in trial.cache.iterdir()]
    assert len(left) == 1, f"in the cache: {left}"
    assert not left[0].startswith("."), left
    return f"{times} kills, gone after {slowest_s:.2f} s at most"


def a_double_kill_is_no_hindrance(trial: Trial) -> str:
    """Kill node and warden at the same moment: the server goes with them, the next start ends the rest."""
    process = trial.start("up")
    until(lambda: trial.ready(process.pid), WAIT_S, "it does not start")
    assert trial.invoke("apart", {"import": []})["rows"] == [42]  # a hosted plugin: a child that nobody ties to us
    warden = next(pid for pid, line in trial.left().items() if "--warden" in line)
    process.send_signal(signal.SIGSTOP)  # so that it cannot put another warden in the place of this one
    os.kill(warden, signal.SIGKILL)
    process.kill()
    process.wait()
    tied = shutil.which("setpriv") is not None
    until(
        lambda: not (tied and any("nats-server" in line for line in trial.left().values())), WAIT_S, "the server stays"
    )
    left = set(trial.left())
    with running(trial):
        until(lambda: not left & set(trial.left()), WAIT_S, "the next start leaves them")
    trial.all_gone()
    return f"{'no server' if tied else 'a server'} and {len(left)} others were left for the next start"


def no_temporary_files(trial: Trial) -> str:
    left = [str(path.relative_to(trial.temp)) for path in trial.temp.rglob("*")]
    assert not left, left
    return ""


def main() -> int:
    """Run every check and return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("program", type=Path)
    parser.add_argument("--kills", type=int, default=20)
    options = parser.parse_args()
    checks: list[tuple[str, Callable[[Trial], str]]] = [
        (check.__name__.replace("_", " "), check)
        for check in (first_start, version_is_quick, a_damaged_file_is_refused, local_verbs_work, a_node_works,
                      in_the_background, the_demo_runs, the_bench_runs, hangups_never_kill)
    ]  # fmt: skip
    checks += [("kills leave nothing", lambda trial: kills_leave_nothing(trial, options.kills))]
    checks += [("a double kill is no hindrance", a_double_kill_is_no_hindrance)]
    checks += [("no temporary files", no_temporary_files)]
    failed = 0
    with tempfile.TemporaryDirectory(prefix="knotwork-selftest-") as folder:
        trial = Trial(options.program.resolve(), Path(folder))
        for name, check in checks:
            try:
                print(f"ok      {name:<28} {check(trial)}", flush=True)
            except (AssertionError, OSError, ValueError, KeyError, subprocess.SubprocessError) as error:
                failed += 1
                print(f"FAILED  {name:<28} {error}\n{trial.left()}", flush=True)
                for pid in trial.left():
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(pid, signal.SIGKILL)
    print(f"{len(checks) - failed} passed, {failed} failed")
    return int(failed > 0)


if __name__ == "__main__":
    sys.exit(main())
