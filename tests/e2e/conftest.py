"""Real nodes as processes in folders of their own. A test gets `Nodes`; at its end nothing of theirs may be left."""

from __future__ import annotations

import contextlib
import http.client
import json
import logging
import os
import secrets
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlsplit

import pytest
from tests.e2e import forked

T = TypeVar("T")
PROGRAM = (sys.executable, "-m", "knotwork")
COPY: tuple[str, ...] = ()
"""For `program`: a copy of a process that has imported the program already, see `forked`."""
MARK = "XDG_KNOTWORK_TEST"
"""Every child of a node inherits it: a clean environment keeps XDG_* names."""
WAIT_S = 60.0
"""For something that comes within a second: the machine may be busy with much else, and a wait costs nothing when it ends."""


def until(found: Callable[[], T], timeout_s: float = WAIT_S, what: str = "") -> T:
    """Return the first true value of `found`; fails after `timeout_s` seconds.

    What has not come in a while is asked for less often: asking takes the time of those who are waited for.
    """
    began_s = time.monotonic()
    while True:
        value = found()
        if value:
            return value
        waited_s = time.monotonic() - began_s
        assert waited_s < timeout_s, what or "it did not come in time"
        if waited_s < 1:
            time.sleep(0.01)
        else:
            time.sleep(0.04)


def marked(mark: str) -> dict[int, str]:
    """Return every living process that carries the mark, with its command line."""
    found: dict[int, str] = {}
    wanted = f"{MARK}={mark}".encode()
    for folder in Path("/proc").iterdir():
        if not folder.name.isdigit() or int(folder.name) == os.getpid():
            continue
        try:
            if wanted not in (folder / "environ").read_bytes().split(b"\0"):
                continue
            if (folder / "stat").read_bytes().rpartition(b")")[2].split()[0] in (b"Z", b"X"):
                continue
            found[int(folder.name)] = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:
            continue
    # the system shows what they were copied from
    return found | {one.pid: " ".join(one.args) + " " for one in forked.living() if one.env.get(MARK) == mark}


def begin(
    program: tuple[str, ...], *words: str, cwd: Path, env: dict[str, str], stdout: int
) -> subprocess.Popen[str] | forked.Forked:
    """Start a command line of the program."""
    by_the_interpreter = ("PYTHON", "LC_", "LANG", "LD_", "TZ", "SSL_")  # what it reads before the program begins
    told = {name: value for name, value in env.items() if name.startswith(by_the_interpreter)}
    if not program and told == {
        name: value for name, value in os.environ.items() if name.startswith(by_the_interpreter)
    }:
        return forked.Forked(words, cwd=cwd, env=env, stdout=stdout, stderr=subprocess.PIPE)
    return subprocess.Popen(
        [*(program or PROGRAM), *words],
        stdin=subprocess.DEVNULL,
        stdout=stdout,
        stderr=subprocess.PIPE,
        text=True,
        cwd=cwd,
        env=env,
        start_new_session=True,
    )


def pytest_sessionfinish() -> None:
    forked.close()


_SEVERAL = """
import json, os, sys
from knotwork.cli import app, config, files, trouble, verbs
from knotwork.config import instances, load, schema
from knotwork.ops import listed
from knotwork.sockets import catalog

commands, codes = json.load(sys.stdin), []
if any(words[0] == "up" for _, _, words in commands):
    from knotwork.cli import up
    from knotwork.host import node
for number, (folder, env, words) in enumerate(commands):
    child = os.fork()
    if not child:
        os.environ.clear()
        os.environ.update(env)
        os.chdir(folder)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        for stream in (1, 2):
            os.dup2(os.open(os.path.join(sys.argv[1], f"{number}.{stream}"), os.O_WRONLY | os.O_CREAT, 0o600), stream)
        sys.argv[1:] = words
        from knotwork.cli.main import main
        code = main(words)
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    codes.append(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
print(json.dumps(codes))
"""


def several(*commands: tuple[Shell, tuple[str, ...], dict[str, str]]) -> list[tuple[int, str, str]]:
    """Run command lines one after the other, each in a process of its own, and return their codes and what they said.

    They are copies of one process that has imported the program, which is most of what a command costs: for many that
    tell about a configuration. That a command comes up by itself is proven wherever `Shell.run` is used.
    """
    told = [(str(shell.folder), {**shell.env, **env}, words) for shell, words, env in commands]
    with tempfile.TemporaryDirectory() as folder:
        process = subprocess.Popen(
            [sys.executable, "-c", _SEVERAL, folder], env=told[0][1], start_new_session=True, text=True,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )  # fmt: skip
        try:
            out, err = process.communicate(json.dumps(told), timeout=2 * WAIT_S)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.communicate()
            said = {path.name: path.read_text() for path in sorted(Path(folder).iterdir())}
            raise AssertionError(f"they did not all end in {2 * WAIT_S} s: {said}") from None
        assert process.returncode == 0, err
        codes = json.loads(out)
        return [(code, *((Path(folder) / f"{one}.{stream}").read_text() for stream in (1, 2)))
                for one, code in enumerate(codes)]  # fmt: skip


class Answer:
    """One HTTP answer."""

    def __init__(self, response: http.client.HTTPResponse) -> None:
        self.status = response.status
        self.headers = {name.lower(): value for name, value in response.getheaders()}
        self.body = response.read()

    @property
    def json(self) -> Any:
        return json.loads(self.body)


class Shell:
    """A folder with a configuration, and the environment of one node."""

    def __init__(self, folder: Path, mark: str) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self.data = folder / "data"
        self.file = folder / "knotwork.toml"
        self.mark = mark
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("KNOTWORK", "XDG_"))}
        self.env = {
            **kept,
            MARK: mark,
            "XDG_CONFIG_HOME": str(folder / "xdg"),
            "XDG_STATE_HOME": str(folder / "state"),
            "KNOTWORK_DATA_DIR": str(self.data),
            "KNOTWORK_CONFIG": str(self.file),
        }

    def write(self, text: str, name: str = "knotwork.toml") -> Path:
        """Write a file the way editors do: whole, by renaming."""
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        fresh = path.with_name(f".{path.name}.new")
        fresh.write_text(text)
        fresh.replace(path)
        return path

    def start(self, *words: str, program: tuple[str, ...] = COPY, **env: str) -> subprocess.Popen[str] | forked.Forked:
        return begin(program, *words, cwd=self.folder, env={**self.env, **env}, stdout=subprocess.PIPE)

    def run(self, *words: str, timeout_s: float = WAIT_S, **env: str) -> tuple[int, str, str]:
        """Run one command line to its end."""
        process = self.start(*words, **env)
        try:
            out, err = process.communicate(timeout=timeout_s)
        except subprocess.TimeoutExpired:
            process.kill()
            out, err = process.communicate()
            raise AssertionError(f"{words} did not end in {timeout_s} s\n{out}\n{err}") from None
        return process.returncode, out, err

    def json(self, *words: str, **env: str) -> Any:
        code, out, err = self.run(*words, "-o", "json", **env)
        assert code == 0, err
        return json.loads(out)

    def refused(self, *words: str, **env: str) -> tuple[int, dict[str, Any]]:
        """Return exit code and JSON error of a command that has to fail."""
        code, out, err = self.run(*words, "-o", "json", **env)
        assert code != 0, out
        return code, json.loads(err.strip().splitlines()[-1])


class Node(Shell):
    """One node process. Its ops are asked over HTTP, which takes a millisecond, unless a test is about the CLI."""

    def __init__(self, folder: Path, mark: str) -> None:
        super().__init__(folder, mark)
        self.process: subprocess.Popen[str] | forked.Forked | None = None
        self.lines: list[str] = []
        self._reader: threading.Thread | None = None
        self._following = contextlib.ExitStack()
        self._told: list[dict[str, Any]] | None = None

    def up(self, *words: str, wait_s: float = WAIT_S, program: tuple[str, ...] = COPY, **env: str) -> Node:
        """Start the node in this process's care; returns when it is ready (`wait_s` 0: at once)."""
        self.process = begin(program, "up", *words, cwd=self.folder, env={**self.env, **env}, stdout=subprocess.DEVNULL)
        self._reader = threading.Thread(target=self._read, args=(self.process,), daemon=True)
        self._reader.start()
        if wait_s:
            try:
                until(self._is_ready, wait_s, "not ready")
            except AssertionError as error:
                raise AssertionError(f"{error}\n{self.log}") from None
        return self

    def _read(self, process: subprocess.Popen[str] | forked.Forked) -> None:
        assert process.stderr is not None
        with process.stderr as said:
            for line in said:
                self.lines.append(line)

    def _is_ready(self) -> bool:
        assert self.process is not None
        if self.process.poll() is not None:
            self.finished_reading()
            raise AssertionError(f"ended with {self.process.returncode} instead of starting:\n{self.log}")
        with contextlib.suppress(OSError, ValueError, http.client.HTTPException):
            about = self.about
            ready = about["pid"] == self.process.pid and about["state"] == "ready"
            return ready and (not about["http"] or self.get("/readyz").status == 200)
        return False

    @property
    def log(self) -> str:
        return "".join(list(self.lines))

    def finished_reading(self) -> None:
        if self._reader is not None:
            self._reader.join(WAIT_S)

    @property
    def about(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads((self.data / "run" / "node.json").read_text())
        return found

    @property
    def pid(self) -> int:
        assert self.process is not None
        return self.process.pid

    # -- the HTTP door -----------------------------------------------------------------------------------------------

    @property
    def token(self) -> str:
        return (self.data / "keys" / "http.token").read_text().strip()

    def connect(self, timeout_s: float = WAIT_S) -> http.client.HTTPConnection:
        address = urlsplit(self.about["http"])
        return http.client.HTTPConnection(address.hostname or "", address.port, timeout=timeout_s)

    def http(
        self, method: str, path: str, body: bytes | None = None, timeout_s: float = WAIT_S, **headers: str
    ) -> Answer:
        """Ask with exactly these headers."""
        connection = self.connect(timeout_s)
        try:
            connection.request(method, path, body, {name.replace("_", "-"): text for name, text in headers.items()})
            return Answer(connection.getresponse())
        finally:
            connection.close()

    def get(self, path: str) -> Answer:
        return self.http("GET", path)

    def call(self, op: str, *, timeout_s: float = WAIT_S, project: str = "", **fields: Any) -> Answer:
        """Ask an op with the bearer token."""
        more = {"knotwork-project": project} if project else {}
        return self.http(
            "POST",
            f"/api/{op.replace('.', '/')}",
            json.dumps(fields).encode(),
            timeout_s,
            authorization=f"Bearer {self.token}",
            content_type="application/json",
            **more,
        )

    def ask(self, op: str, **fields: Any) -> Any:
        """Ask an op that has to succeed."""
        answer = self.call(op, **fields)
        assert answer.status == 200, answer.body
        return answer.json

    def invoke(self, target: str, value: Any = "x", **fields: Any) -> Any:
        return self.ask("agents.invoke", target=target, input=value, **fields)["output"]

    def status(self) -> Any:
        return self.ask("node.status")

    def slot(self, name: str, kind: str = "executors") -> Any:
        return next(slot for slot in self.status()["slots"] if (slot["kind"], slot["id"]) == (kind, name))

    def agents(self) -> list[str]:
        return sorted(row["agent"] for row in self.ask("agents.list")["agents"])

    def follow(self) -> Node:
        """Remember all verdicts on reloads from now on, for `verdict`: the status shows the newest alone."""
        self._told = self._following.enter_context(self.watching("config.*"))
        return self

    def verdict(
        self, after: dict[str, Any] | None = None, result: str = "", trigger: str = "", timeout_s: float = WAIT_S
    ) -> dict[str, Any]:
        """Return `last_reload` of the status once it is another one than `after`, and like `result` and `trigger`.

        A file that is written in place may be caught empty first, and a change be told again as `unchanged`: who waits
        for `applied` on a node that is followed gets it all the same.
        """

        def another() -> dict[str, Any] | None:
            if self._told is None:
                found = [self.status()["last_reload"]]
            else:
                since = after["at"] if after else ""  # events come a little later than the status tells of them
                found = [event["data"] for event in list(self._told) if event["data"]["at"] > since]
            wanted = (one for one in found if one and one != after and result in ("", one["result"]))
            return next((one for one in wanted if trigger in ("", one["trigger"])), None)

        found = until(another, timeout_s, f"no {result} verdict came")
        assert found is not None
        return found

    @contextlib.contextmanager
    def watching(self, *names: str) -> Iterator[list[dict[str, Any]]]:
        """Collect the node's events (over HTTP, as they happen) while the block runs."""
        connection = self.connect()
        seen: list[dict[str, Any]] = []
        connection.request(
            "POST",
            "/api/node/events",
            json.dumps({"names": list(names)}),
            {
                "authorization": f"Bearer {self.token}",
                "accept": "text/event-stream",
                "content-type": "application/json",
            },
        )
        response = connection.getresponse()
        assert response.status == 200
        sock = response.fp

        def read() -> None:
            with contextlib.suppress(OSError, ValueError, AttributeError, http.client.HTTPException):
                seen.extend(json.loads(line[6:])["data"] for line in response if line.startswith(b"data: "))

        reader = threading.Thread(target=read, daemon=True)
        reader.start()
        try:
            yield seen
        finally:
            with contextlib.suppress(OSError):
                if sock is not None and connection.sock is not None:
                    connection.sock.shutdown(2)
            reader.join(WAIT_S)
            connection.close()

    # -- the end -----------------------------------------------------------------------------------------------------

    def signal(self, number: int) -> None:
        assert self.process is not None
        self.process.send_signal(number)

    def ended(self, timeout_s: float = WAIT_S) -> int:
        """Return the exit code once it is gone; fails after `timeout_s` seconds."""
        assert self.process is not None
        try:
            code = self.process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"still there after {timeout_s} s:\n{self.log}") from None
        self.finished_reading()
        return code

    def stop(self) -> int:
        """End it as a service manager does, and without mercy for its work."""
        self._following.close()
        self._told = None
        if self.process is None:
            return 0
        said = len(self.lines)  # an earlier start has said it, too
        if self.process.poll() is None:
            self.signal(signal.SIGTERM)
            until(lambda: "stopping" in "".join(self.lines[said:]) or self.process.poll() is not None)
            if self.process.poll() is None:  # only now: the system merges equal signals
                self.signal(signal.SIGTERM)
        return self.ended()


class Nodes:
    """The nodes of one test."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.mark = secrets.token_hex(8)
        self.made: list[Node] = []

    def node(self, config: str = "", name: str = "node") -> Node:
        """Return a node that is not started, in a folder of its own, with its `knotwork.toml`."""
        made = Node(self.folder / name, self.mark)
        made.write(config or "# the defaults\n")
        self.made.append(made)
        return made

    def left(self, timeout_s: float = WAIT_S) -> dict[int, str]:
        """Return the processes that are still there after `timeout_s` seconds."""
        end_s = time.monotonic() + timeout_s
        while (found := marked(self.mark)) and time.monotonic() < end_s:
            time.sleep(0.02)
        return found

    def close(self) -> None:
        failures = []
        for node in self.made:
            try:
                node.stop()
            except AssertionError as error:
                failures.append(str(error))
                with contextlib.suppress(ProcessLookupError):
                    os.kill(node.pid, signal.SIGKILL)
                node.ended()
        found = self.left()
        for pid in found:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        assert not failures, failures
        assert not found, f"left behind: {found}"


@pytest.fixture
def nodes(tmp_path: Path) -> Iterator[Nodes]:
    made = Nodes(tmp_path)
    try:
        yield made
    finally:
        made.close()


@pytest.fixture(scope="module")
def shared_nodes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Nodes]:
    """Nodes for all tests of a module, which leave them as they found them."""
    made = Nodes(tmp_path_factory.mktemp("nodes"))
    try:
        yield made
    finally:
        made.close()


@pytest.fixture
def figure(request: pytest.FixtureRequest) -> Callable[[str, float], None]:
    """Write a measured figure down (JUnit properties, and the log shown with -rP); nothing depends on it."""

    def note(name: str, value: float) -> None:
        request.node.user_properties.append((name, value))
        logging.getLogger("figures").warning("%s = %s", name, value)

    return note
