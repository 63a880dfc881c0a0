"""How does a command go on waiting when its node is restarted? It asks again, as often as needed in its own time.

Waiting for the end of a task or a run changes nothing, so it may be repeated. What starts one may not: it is asked
once, its id is told, and the waiting is a question of its own.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from typing import Any

from knotwork.cli import remote, show
from knotwork.cli.options import Shared
from knotwork.sdk.errors import KnotworkError, NotFound, Unavailable

AWAITS = frozenset({"task.await", "task.watch", "run.await", "run.watch", "crew.watch"})
STARTS = {"task.submit": ("wait", "task.await"), "run.start": ("wait_s", "run.await")}
"""Ops that start something and can wait for it: the field that says so, and the op that waits."""
PAUSE_S = 0.5
ANSWER_S = 60.0
"""How long a node that shows that it lives may take, once the time is over, to put together what is to be told of it."""
_LOST = frozenset({"node.lost", "bus.lost", "bus.disconnected", "bus.closed"})

Request = dict[str, Any]
Reply = dict[str, Any]


def splits(op: str, request: Request) -> bool:
    """Return whether a request both starts something and waits for it; a start at a later time waits for nothing."""
    return op in STARTS and bool(request.get(STARTS[op][0])) and not (request.get("at") or request.get("in_s"))


def start(
    shared: Shared,
    op: str,
    request: Request,
    *,
    wait_s: float,
    timeout_s: float,
    look: Callable[[str], Reply] | None = None,
) -> Reply:
    """Start something within `timeout_s` seconds, tell its id on standard error, and wait `wait_s` for its end.

    Who wants to see it meanwhile gives how to `look` on until the end of what has an id.

    Raises what `remote.ask` does; once it is started, `Unreachable` only when the node stays away for all that time.
    """
    field, awaits = STARTS[op]
    asked = {name: value for name, value in request.items() if name not in (field, "timeout_s")}
    started: Reply = json.loads(remote.ask(shared, op, json.dumps(asked).encode(), _unheard, timeout_s=timeout_s))
    if not shared.quiet:
        said = str(started["id"]) if shared.shape == "table" else show.compact({"id": started["id"]})
        print(said, file=sys.stderr, flush=True)
    if look is not None:
        return look(str(started["id"])) | {name: started[name] for name in ("new", "note") if name in started}
    waiting = {"id": started["id"], "timeout_s": wait_s}
    ended = ask(shared, awaits, waiting, _unheard, timeout_s=wait_s + remote.SLACK_S, begun=True)
    return ended | {name: started[name] for name in ("new", "note") if name in started}


def ask(
    shared: Shared, op: str, request: Request, on_piece: Callable[[Any], None], *, timeout_s: float, begun: bool = False
) -> Reply:
    """Return the answer of an op that waits, over any restarts of the node, within `timeout_s` seconds.

    A node that was never there raises at once, unless the waiting has `begun` already.
    """
    until = time.monotonic() + timeout_s
    asked = request
    while True:
        try:
            left_s = max(until - time.monotonic(), PAUSE_S)
            raw = remote.ask(
                shared, op, json.dumps(asked).encode(), on_piece, timeout_s=left_s, patient=False, answer_s=ANSWER_S
            )
        except KnotworkError as error:
            if not _passes(error, begun=begun) or time.monotonic() + PAUSE_S >= until:
                raise
            if not begun and not shared.quiet and shared.shape == "table":
                print("note: the node went away; waiting for it to come back", file=sys.stderr, flush=True)
            begun = True
        else:
            answer: Reply = json.loads(raw)
            return answer
        time.sleep(PAUSE_S)
        left_s = until - time.monotonic() - remote.SLACK_S
        asked = request | {"timeout_s": max(left_s, 0.0)}


def _passes(error: KnotworkError, *, begun: bool) -> bool:
    """Return whether an error may pass when we ask again: what we waited for was there a moment ago."""
    if not begun:
        return error.code in _LOST
    return isinstance(error, Unavailable) or (isinstance(error, NotFound) and error.code == "node.not_found")


def _unheard(_: Any) -> None:
    """Take no pieces."""
