"""Processes of the program that need not import it: copies of one that has, made by fork.

Importing is most of what a command and half of what the start of a node costs, and the tests make a thousand of each.
A copy is a process like every other: a session, an environment, standard streams and a command line of its own, with
signals, memory and an end of its own. What it does not prove is that the program comes up by itself, so tests about
starting do without (`program=PROGRAM`), and so does whatever starts itself: `up --detach`, agents, plugins, the demo.
"""

from __future__ import annotations

import contextlib
import json
import os
import queue
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

MOTHER = """
import gc, json, os, secrets, select, signal, socket, sys

import knotwork
from knotwork.bus import child as children
from knotwork.cli import app, config, files, main, trouble, up, verbs
from knotwork.config import instances, load, schema
from knotwork.host import ground, node, rooms
from knotwork.web import serve as web
from knotwork.ops import listed

def serve(asked):
    # Copies itself for each request; returns in the copy, with what was asked.
    ended, bell = os.pipe()
    os.set_blocking(ended, False)
    os.set_blocking(bell, False)
    signal.set_wakeup_fd(bell, warn_on_full_buffer=False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    copies = set()
    while True:
        ready, _, _ = select.select([asked, ended], [], [])
        if ended in ready:
            os.read(ended, 4096)
            while True:
                try:
                    pid, status = os.waitpid(-1, os.WNOHANG)
                except ChildProcessError:
                    break
                if not pid:
                    break
                copies.discard(pid)
                asked.send(json.dumps([pid, os.waitstatus_to_exitcode(status)]).encode())
        if asked in ready:
            line, streams, _, _ = socket.recv_fds(asked, 1 << 20, 3)
            if not line:  # whoever asked is gone: at the end, or because it was killed
                for pid in copies:
                    os.kill(pid, signal.SIGKILL)
                os._exit(0)
            pid = os.fork()
            if not pid:
                signal.set_wakeup_fd(-1)
                signal.signal(signal.SIGCHLD, signal.SIG_DFL)
                os.close(ended)
                os.close(bell)
                asked.close()
                return json.loads(line), streams
            for stream in streams:
                os.close(stream)
            copies.add(pid)
            asked.send(json.dumps([pid, None]).encode())

gc.collect()
gc.freeze()
told, streams = serve(socket.socket(fileno=int(sys.argv[1])))
os.setsid()
os.environ.clear()
os.environ.update(told["env"])
os.chdir(told["cwd"])
for number, stream in enumerate(streams):
    os.dup2(stream, number)
    os.close(stream)
# the copied ones remember that they could seek, which a pipe cannot
sys.stdout = open(1, "w", errors=sys.stdout.errors, closefd=False)
sys.stderr = open(2, "w", buffering=1, errors=sys.stderr.errors, closefd=False)
children._TOKEN = secrets.token_hex(16)  # made when it was imported, and the children of each node carry one of their own
sys.path[0] = told["cwd"]
sys.argv[:] = [os.path.join(os.path.dirname(knotwork.__file__), "__main__.py"), *told["words"]]
sys.exit(main.main())
"""
"""Each message on its socket is a request (a JSON object, with three descriptors) or an answer: `[pid, null]` for a copy
that has begun, `[pid, code]` for one that has ended."""


@dataclass
class _Copy:
    """What its mother has told about a copy."""

    pid: int
    code: int | None = None
    ended: threading.Event = field(default_factory=threading.Event)


class _Mother:
    """The process that is copied, and who reads its answers."""

    def __init__(self) -> None:
        self._socket, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-c", MOTHER, str(theirs.fileno())],
                pass_fds=[theirs.fileno()], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, start_new_session=True,
            )  # fmt: skip
        self._begun: queue.Queue[_Copy | None] = queue.Queue()
        self._asking = threading.Lock()
        threading.Thread(target=self._read, name="copies", daemon=True).start()

    def _read(self) -> None:
        copies: dict[int, _Copy] = {}
        with contextlib.suppress(OSError):
            while said := self._socket.recv(4096):
                pid, code = json.loads(said)
                if code is None:
                    copies[pid] = _Copy(pid)
                    self._begun.put(copies[pid])
                else:
                    ended = copies.pop(pid)
                    ended.code = code
                    ended.ended.set()
        self._begun.put(None)

    def copy(self, words: Sequence[str], cwd: Path, env: Mapping[str, str], streams: Sequence[int]) -> _Copy:
        """Begin a copy; `streams` are its standard input, output and error."""
        asked = json.dumps({"words": list(words), "cwd": str(cwd), "env": dict(env)}).encode()
        with self._asking:
            socket.send_fds(self._socket, [asked], list(streams))
            made = self._begun.get()
        assert made is not None, "the process that is copied has ended"
        return made

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        self._process.wait()
        self._socket.close()


_mothers: list[_Mother] = []
_begun: list[Forked] = []


def living() -> list[Forked]:
    """Return the copies that have not ended."""
    _begun[:] = [one for one in _begun if one.poll() is None]
    return list(_begun)


def _mother() -> _Mother:
    """Return the process that is copied for this one; it is started when it is first asked for."""
    if not _mothers:
        _mothers.append(_Mother())
    return _mothers[0]


def close() -> None:
    """End the process that is copied, when there is one, and the copies that are left."""
    while _mothers:
        _mothers.pop().close()


class Forked:
    """A copy, with what the tests use of `subprocess.Popen[str]`. It reads nothing, and is no child of this process."""

    def __init__(self, words: Sequence[str], *, cwd: Path, env: Mapping[str, str], stdout: int, stderr: int) -> None:
        self.args = [sys.executable, "-m", "knotwork", *words]
        self.env = dict(env)
        self.stdin = None
        given, ours = [os.open(os.devnull, os.O_RDWR)], []
        for wanted in (stdout, stderr):
            reading, writing = os.pipe() if wanted == subprocess.PIPE else (None, given[0])
            ours.append(None if reading is None else os.fdopen(reading, encoding="utf-8"))
            given.append(writing)
        self.stdout, self.stderr = ours
        try:
            self._copy = _mother().copy(words, cwd, env, given)
        finally:
            for one in set(given):
                os.close(one)
        _begun.append(self)
        self._said = ["", ""]
        self._readers: list[threading.Thread] = []

    @property
    def pid(self) -> int:
        return self._copy.pid

    @property
    def returncode(self) -> int | None:
        return self._copy.code

    def poll(self) -> int | None:
        return self._copy.code

    def wait(self, timeout: float | None = None) -> int:
        if not self._copy.ended.wait(timeout):
            raise subprocess.TimeoutExpired(self.args, timeout or 0.0)
        assert self._copy.code is not None
        return self._copy.code

    def communicate(self, timeout: float | None = None) -> tuple[str, str]:
        if not self._readers:
            for number, stream in enumerate((self.stdout, self.stderr)):
                if stream is not None:
                    self._readers.append(threading.Thread(target=self._collect, args=(number, stream), daemon=True))
                    self._readers[-1].start()
        self.wait(timeout)
        for reader in self._readers:
            reader.join(timeout)  # a child of its own may hold the stream for longer
            if reader.is_alive():
                raise subprocess.TimeoutExpired(self.args, timeout or 0.0)
        return self._said[0], self._said[1]

    def _collect(self, number: int, stream: object) -> None:
        with stream as said:
            self._said[number] = said.read()

    def send_signal(self, number: int) -> None:
        if self._copy.code is None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, number)

    def terminate(self) -> None:
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)
