"""Why is nothing known of a run? There was none, or it was over and let go of: what can be told of that, and what cannot."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, NamedTuple

from knotwork.bus import clock, streams, subjects
from knotwork.sdk.errors import NotFound

if TYPE_CHECKING:
    from knotwork.bus.connection import Connection
    from knotwork.flow.history import Keeps

_BY_TIME = re.compile(r"w([0-9a-f]{12})[0-9a-f]{10}").fullmatch
"""The id of a run that was not derived from a key begins with the milliseconds since 1970."""
_BY_KEY = re.compile(r"w[a-z2-7]{22}").fullmatch
"""The id of a run that was: of one with a key, of one that another started, and of one that goes on for others."""
CODES = frozenset({"flow.no_run", "flow.forgotten"})
"""Errors that say that nothing is stored of a run; any other says that the store could not be asked."""
_DAY_S = 86400.0
_FAR_NS = 2**63


class Oldest(NamedTuple):
    """Whether runs that were over were let go of, and from when on those that were packed away are still there."""

    let_go: bool
    kept_ns: int


async def missing(connection: Connection, run: str, keeps: Keeps) -> NotFound:
    """Return the error of a run of which nothing is stored (`flow.no_run`, `flow.forgotten`)."""
    return told(run, keeps, clock.now_ns(), oldest(await streams.api(connection, f"STREAM.INFO.{subjects.HISTORY}")))


def oldest(info: dict[str, Any]) -> Oldest:
    """Return what the server says of the stream of the past tells about its oldest run (pure)."""
    state = info.get("state") or {}
    if not state.get("messages"):
        last_ns = clock.read(str(state.get("last_ts", "")))  # all that there was is gone: up to then, nothing later
        return Oldest(bool(state.get("last_seq")), last_ns if last_ns > 0 else _FAR_NS)
    return Oldest(int(state.get("first_seq", 0)) > 1, clock.read(str(state.get("first_ts", ""))))


def told(run: str, keeps: Keeps, now_ns: int, oldest: Oldest) -> NotFound:
    """Return the error of a run of which nothing is known: there was none, or it is not kept any more (pure).

    The id of a run that was not made of a key says when it began. Where nothing was ever let go of, there was none.
    """
    span = f"Runs that are over are kept for {_span(keeps.age_s)}"
    span += f", and in {keeps.max_bytes} bytes." if keeps.max_bytes else "."
    longer = "Keep them longer with keep_s and keep_max in [workflows], or write them down with `knotwork run export`."
    began = _BY_TIME(run)
    began_ns = int(began[1], 16) * 1_000_000 if began is not None else 0
    let_go = oldest.let_go and began_ns < oldest.kept_ns
    if began_ns and (let_go or began_ns < now_ns - int(keeps.age_s * 1e9)):
        return NotFound(
            f"The run {run!r} is not kept any more, if it ever was: it would have begun at"
            f" {datetime.fromtimestamp(began_ns / 1e9, UTC):%Y-%m-%dT%H:%M:%SZ}.",
            code="flow.forgotten", hint=f"{span} {longer}",
        )  # fmt: skip
    if let_go and _BY_KEY(run):
        return NotFound(
            f"There is no run {run!r}, or it is over and not kept any more: an id that was made of a key, or of another"
            " run, does not say when it began.",
            code="flow.forgotten", hint=f"{span} {longer}",
        )  # fmt: skip
    return NotFound(f"There is no run {run!r}.", code="flow.no_run", hint=f"See `knotwork run list`. {span}")


def _span(seconds: float) -> str:
    return f"{seconds / _DAY_S:g} days" if seconds >= _DAY_S else f"{seconds:g} s"
