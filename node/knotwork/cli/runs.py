"""What can be typed about runs beyond their ops? To look on while one goes on, and to stop looking without stopping it."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import click

from knotwork.cli import options, remote, waiting
from knotwork.cli.options import Shared
from knotwork.sdk.errors import Cancelled, Invalid

LOOKS = frozenset({"run.watch", "run.await"})
WEEK_S = 7 * 86400.0
Piece = Callable[[Any], None]
Reply = dict[str, Any]


def params(op: str) -> list[click.Option]:
    """Return the options that a command has beside the fields of its op."""
    if op != "run.start":
        return []
    return [click.Option(["--watch"], is_flag=True, default=None, help="show it until it ends, as `run watch` does")]


def take(op: str, values: dict[str, Any]) -> bool:
    """Take these options out of a command's values; return whether somebody wants to look on."""
    looks = op == "run.start" and bool(values.pop("watch", None))
    if looks and (values.get("at") or values.get("in_s")):
        raise Invalid("What starts later cannot be watched now.", code="flow.bad_start", hint="Leave --watch out.")
    return looks


def own(op: str, request: dict[str, Any], shared: Shared, piece: Piece, *, looks: bool) -> Callable[[], Reply] | None:
    """Return how a command about runs is carried out that is more than one question; None for any other."""
    if looks or op in LOOKS:
        return lambda: _looked(op, request, shared, piece, starts=looks)
    if op not in ("run.export", "run.import"):
        return None
    from knotwork.cli import copies  # for these two alone

    if op == "run.export":
        return lambda: copies.export(shared, request)
    return lambda: copies.bring_in(shared, str(request.get("run") or "-"))


def _looked(op: str, request: dict[str, Any], shared: Shared, piece: Piece, *, starts: bool) -> Reply:
    """Return a run when it has ended, and show it meanwhile; who stops looking is told that it goes on."""
    wait_s = float(request.get("wait_s") or request.get("timeout_s") or shared.timeout_s or WEEK_S)

    def look(run: str) -> Reply:
        return _until_the_end(op if op in LOOKS else "run.watch", run, shared, piece, wait_s)

    if not starts:
        return look(str(request["id"]))
    start_s = min(options.TIMEOUT_S, shared.timeout_s or options.TIMEOUT_S)
    return waiting.start(shared, "run.start", request, wait_s=wait_s, timeout_s=start_s, look=look)


def _until_the_end(op: str, run: str, shared: Shared, piece: Piece, wait_s: float) -> Reply:
    request: dict[str, Any] = {"id": run, "timeout_s": wait_s}
    timeout_s = wait_s + remote.SLACK_S
    try:
        from knotwork.cli import live  # for those who wait

        if op == "run.watch" and live.wanted(shared):
            with live.Drawing(shared) as drawing:
                return waiting.ask(shared, op, request | {"tree": True}, drawing, timeout_s=timeout_s)
        if op == "run.watch" and shared.shape == "jsonl":
            request["tree"] = True
        return waiting.ask(shared, op, request, piece, timeout_s=timeout_s)
    except (KeyboardInterrupt, Cancelled):
        told = f"{run} goes on: look again with `knotwork run watch {run}`, stop it with `knotwork run cancel {run}`"
        print(f"\n{told}", file=sys.stderr, flush=True)
        raise
