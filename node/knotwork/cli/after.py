"""What does a command do beyond its op? `stop` waits until the process is gone, and ends a node that NATS cannot reach."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import select
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any
from urllib.parse import urlsplit

from knotwork.cli import local, show
from knotwork.cli.local import LocalNode
from knotwork.cli.options import Shared
from knotwork.sdk.errors import KnotworkError, TimedOut, Unavailable, Unreachable

STOP_TIMEOUT_S = 120.0
DOOR_TIMEOUT_S = 5.0
SILENT = frozenset({"call.timed_out", "node.lost"})
"""Codes of errors of one who was asked and did not answer."""
RESCUED = frozenset({"node.stop", "node.status", "node.health"})
AT_ONCE = frozenset({"node.status", "node.health"})
"""Ops that a node answers at once, or not for long: it is held up, or hangs."""
_LOOK_EVERY_S = 0.05


class Departure:
    """A local process whose end can be waited for; made while it still runs, so that its number cannot be reused."""

    def __init__(self, pid: int) -> None:
        """Hold on to process `pid`."""
        self.pid = pid
        self._file: int | None = None
        try:
            self._file = os.pidfd_open(pid)
        except (AttributeError, OSError):  # not Linux, or gone already: asked by number below
            self._file = None

    def wait(self, timeout_s: float) -> bool:
        """Return whether it was gone within `timeout_s` seconds."""
        until = time.monotonic() + timeout_s
        if self._file is not None:
            gone = bool(select.select([self._file], [], [], timeout_s)[0])
            os.close(self._file)
            self._file = None
            return gone
        while local.alive(self.pid):
            if time.monotonic() > until:
                return False
            time.sleep(_LOOK_EVERY_S)
        return True


@dataclass(frozen=True)
class Leaving:
    """A node of this machine that is asked to stop, with `now` without mercy; made while it still runs."""

    node: LocalNode
    departure: Departure
    timeout_s: float
    now: bool

    def told(self) -> dict[str, Any]:
        """Return the reply in place of a node that cannot give one."""
        return {"pid": self.node.pid, "node": self.node.node, "running": 0}

    def signal(self) -> None:
        """Ask the process as a service manager does; a second signal means now, and no two equal ones are merged."""
        end(self.node.pid)
        if self.now:
            end(self.node.pid, signal.SIGINT)

    def wait(self, reply: dict[str, Any]) -> None:
        """Return when the process is gone."""
        if not self.departure.wait(self.timeout_s):
            raise TimedOut(
                f"Process {reply.get('pid', self.departure.pid)} still runs after {self.timeout_s:g} s.",
                code="cli.stop_timed_out",
                hint="It is finishing work: wait with --timeout, or use `knotwork stop --now`.",
            )


def watch(op: str, shared: Shared, request: dict[str, Any]) -> Leaving | None:
    """Return the node whose end is to be waited for, for `node.stop` of this machine's node; else None."""
    if op != "node.stop" or shared.url or shared.on:
        return None
    node = local.find(local.data_dir(shared.data_dir))
    timeout_s = shared.timeout_s or STOP_TIMEOUT_S + float(request.get("drain_s") or 0.0)
    return Leaving(node, Departure(node.pid), timeout_s, bool(request.get("now")))


def rescue(op: str, shared: Shared, error: Unreachable | TimedOut, leaving: Leaving | None) -> dict[str, Any]:
    """Return an answer got another way, else raise `error`: a node that hangs, or has no NATS, still takes a signal.

    One that was `leaving` by itself while it was asked to stop needs none. Of a node without NATS it can still be told
    how it is.
    """
    node: LocalNode | None = None
    if op in RESCUED and not shared.url and not shared.on:
        node = local.read(local.data_dir(shared.data_dir))
    if leaving is not None:
        if node is not None and node.pid == leaving.node.pid:
            leaving.signal()
        return leaving.told()
    if node is None or error.code == "node.not_running":
        raise error
    if error.code in SILENT and (live := _lives(node)) is not None:
        from knotwork.cli import early  # only for a node in trouble

        return early.held_up(op, node, live=live) | _of_folder(op, shared)
    if isinstance(error, TimedOut) or error.code.startswith("cli."):  # it hangs, or has no door to ask at
        raise error
    return _seen(op, node, shared, error)


def _lives(node: LocalNode) -> bool | None:
    """Return what the process of a node whose loop is held up says: is it alive? None when nothing says that it is held up."""
    address = urlsplit(node.http)
    if not address.hostname:  # it has no door
        return None
    connection = http.client.HTTPConnection(address.hostname, address.port, timeout=DOOR_TIMEOUT_S)
    try:
        connection.request("GET", "/livez")
        answer = connection.getresponse()
        return answer.status == HTTPStatus.OK if answer.headers["knotwork-held-up"] else None
    except (OSError, http.client.HTTPException):
        return None
    finally:
        connection.close()


def _seen(op: str, node: LocalNode, shared: Shared, error: Unreachable) -> dict[str, Any]:
    """Return how a node is whose NATS is away: as its HTTP door says it, else as it described itself."""
    from knotwork.cli import early, over_http  # only for a node in trouble

    heard: dict[str, bytes] = {}
    with contextlib.suppress(KnotworkError):
        over_http.ask(
            node, shared.project or node.project, op, b"{}", heard.__setitem__,
            timeout_s=min(DOOR_TIMEOUT_S, shared.timeout_s or DOOR_TIMEOUT_S),
        )  # fmt: skip
    if "result" in heard:
        told: dict[str, Any] = json.loads(heard["result"])
        return told
    return early.away(op, node, error.message) | _of_folder(op, shared)


def _of_folder(op: str, shared: Shared) -> dict[str, Any]:
    """Return what a status says beside what the node said of itself: where it keeps its data."""
    return {"data_dir": str(local.data_dir(shared.data_dir))} if op == "node.status" else {}


def end(pid: int, number: int = signal.SIGTERM) -> None:
    """Ask a process to stop, as a service manager does; no error when it is gone."""
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, number)


def leave(op: str, request: dict[str, Any], reply: dict[str, Any], shape: str = "table") -> None:
    """End with a code of its own when the reply means "not now" or "it failed", so that scripts can ask.

    What went wrong is told beside it, unless its `shape` is JSON, where it stands in the reply.
    """
    if op == "node.health" and not reply.get("ready"):
        sys.exit(Unavailable.exit_code)
    if op in TOLD and shape != "json":
        TOLD[op](reply)
    failed = FAILED.get(op)
    if failed is not None and failed(reply):
        sys.exit(1)
    awaits = op in ("task.await", "task.watch", "run.await", "run.watch")
    if awaits or (op == "task.submit" and request.get("wait")) or (op == "run.start" and request.get("wait_s")):
        _exit(ENDS.get(str(reply.get("state")), TimedOut.exit_code))
    if op == "crew.watch":
        _exit(PHASES.get(str(reply.get("phase")), TimedOut.exit_code))


def _exit(code: int) -> None:
    """End with a code, unless it says that all went well."""
    if code:
        sys.exit(code)


def _one_failed(reply: dict[str, Any]) -> bool:
    """Return whether one of the tasks that were meant is not there, or could not be done anything about."""
    if reply.get("dry_run"):
        return any(one.get("why") for one in reply.get("tasks", ()))
    return any(one.get("error") or not one.get("done", True) for one in reply.get("tasks", ()))


def _runs(reply: dict[str, Any]) -> list[dict[str, Any]]:
    return list(reply.get("runs", reply.get("failed", ())))


def _one_refused(reply: dict[str, Any]) -> bool:
    """Return whether it could not be done to one of the runs that were meant."""
    return any(one.get("code") for one in _runs(reply))


def _tell_of_runs(reply: dict[str, Any]) -> None:
    """Say to which runs it could not be done, and how to go on with more than were meant at once."""
    runs = _runs(reply)
    if reply.get("next"):
        print(f"there are more: go on with --cursor {show.plain(str(reply['next']))}", file=sys.stderr)
    for one in runs:
        if one.get("code"):
            where = f"line {one['line']}: " if "line" in one else ""
            print(f"error: {where}{one.get('id', '')} {show.plain(one.get('why', ''))}", file=sys.stderr)
    if reply.get("dry_run"):
        print(f"{len(runs)} runs are meant; nothing was done (dry run)", file=sys.stderr)


def _warn(reply: dict[str, Any]) -> None:
    """Say what may be meant so."""
    for one in reply.get("warnings", ()):
        print(f"warning: {show.plain(one)}", file=sys.stderr)


_OF_RUNS = ("run.cancel", "run.pause", "run.resume", "run.retry", "run.import", "run.export")
FAILED: dict[str, Callable[[dict[str, Any]], bool]] = {
    "workflow.check": lambda reply: not reply.get("ok"),
    "memory.remember_bulk": lambda reply: bool(reply.get("failed")),
    "memory.forget_bulk": lambda reply: bool(reply.get("failed")),
    "tool.call": lambda reply: bool(reply.get("is_error")),
    "targets.test": lambda reply: reply.get("health") == "unhealthy",
    "task.cancel": _one_failed,
    "task.redrive": _one_failed,
    "task.drop": lambda reply: bool(reply.get("missing")),
    **dict.fromkeys(_OF_RUNS, _one_refused),
}
"""Ops whose replies may mean that it failed, or that something is not there."""
TOLD: dict[str, Callable[[dict[str, Any]], None]] = {"workflow.check": _warn, **dict.fromkeys(_OF_RUNS, _tell_of_runs)}
"""Ops of whose replies more is told to people than is shown."""
ENDS = {"completed": 0, "failed": 1, "dead": 1, "cancelled": 1, "timed-out": TimedOut.exit_code}
"""Exit codes of a task by its state; one that has not ended is there to be asked again."""
PHASES = {"complete": 0, "failed": 1, "cancelled": 1}
"""The same of an orchestration, by its phase."""


def tell_task(reply: dict[str, Any], *, awaited: bool, quiet: bool) -> None:
    """Say on standard error what whoever submitted a task should know, or how one that was `awaited` ended.

    Those who want it `quiet` are told only what went wrong.
    """
    state, error = str(reply.get("state", "")), reply.get("error") or {}
    if reply.get("note") and not quiet:
        print(f"note: {show.plain(reply['note'])}", file=sys.stderr)
    if not awaited:
        return
    if state not in ENDS:
        print(f"{reply['id']} has not ended: it is {state}", file=sys.stderr)
    elif ENDS[state]:
        print(f"error: {show.plain(error.get('message') or state)}", file=sys.stderr)
        if error.get("hint"):
            print(f"  {show.plain(error['hint'])}", file=sys.stderr)
        print(f"  ({state}, {show.cell(error.get('code', ''))})", file=sys.stderr)
