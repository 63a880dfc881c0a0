"""What can be asked of a node that is not ready yet? How it is, and to end; its own description has the answers."""

from __future__ import annotations

import contextlib
import os
import signal
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from knotwork.cli import local

if TYPE_CHECKING:
    from collections.abc import Callable

    from knotwork.cli.local import LocalNode
    from knotwork.cli.options import Shared

Reply = dict[str, Any]
HELD_UP = "a plugin holds it up: nothing moves until that is done; its log says where"


def answer(op: str, shared: Shared) -> Reply | None:
    """Return the reply of an op for a local node that cannot be asked yet, None for any other node or op."""
    made = ANSWERS.get(op)
    if made is None or shared.url or shared.on:
        return None
    folder = local.data_dir(shared.data_dir)
    node = local.read(folder)
    return made(node) | ({"data_dir": str(folder)} if op == "node.status" else {}) if node and node.early else None


def away(op: str, node: LocalNode, why: str) -> Reply:
    """Return the reply of `node.status` or `node.health` for a node that is up and cannot be asked, because of `why`."""
    if op == "node.health":
        return {"live": True, "ready": False, "checks": [{"name": "nats", "ok": False, "why": why}]}
    told = _status(node)
    return told | {"why": node.why or why, "bus": {**told["bus"], "state": "disconnected"}}


def held_up(op: str, node: LocalNode, *, live: bool) -> Reply:
    """Return the reply of `node.status` or `node.health` for a node whose process answers and whose loop does not."""
    if op == "node.health":
        return {"live": live, "ready": False, "checks": [{"name": "loop", "ok": False, "why": HELD_UP}]}
    told = _status(node)
    return told | {"why": HELD_UP, "bus": {**told["bus"], "state": "unknown"}}


def _status(node: LocalNode) -> Reply:
    said = node.said
    return {
        "node": node.node,
        "name": node.node,
        "version": str(said.get("version") or ""),
        "pid": node.pid,
        "state": "running" if node.state == "ready" else node.state,
        "why": node.why,
        "started_at": str(said.get("started_at") or ""),
        "uptime_s": _age_s(str(said.get("started_at") or "")),
        "projects": list(node.projects),
        "config_files": list(said.get("config_files") or []),
        "bus": {"mode": str(said.get("mode") or ""), "url": node.url, "state": "connecting"},
    }


def _health(node: LocalNode) -> Reply:
    return {"live": True, "ready": False, "checks": [{"name": node.state, "ok": False, "why": node.why}]}


def _stop(node: LocalNode) -> Reply:
    with contextlib.suppress(ProcessLookupError):  # gone meanwhile
        os.kill(node.pid, signal.SIGTERM)
    return {"pid": node.pid, "node": node.node, "running": 0}


def _age_s(since: str) -> float:
    try:
        return round((datetime.now(UTC) - datetime.fromisoformat(since)).total_seconds(), 1)
    except ValueError:
        return 0.0


ANSWERS: dict[str, Callable[[LocalNode], Reply]] = {
    "node.status": _status, "node.health": _health, "node.stop": _stop,
}  # fmt: skip
