"""Every error raised on purpose, sorted by what the one who catches it does.

    KnotworkError                 exit  http  what to do
    ├─ Invalid                       2   422  mend the request
    │  └─ ConfigInvalid             78   422  mend the file
    ├─ Denied                       77   403  ask for the right
    ├─ NotFound                      1   404  name something that exists
    ├─ Conflict                      1   409  look at the present state first
    ├─ TooLarge                      1   413  send less, or by reference
    ├─ Unavailable                  75   503  try again (retry_after_s says when)
    │  ├─ Busy                      75   429  try again, or somebody else
    │  └─ Unreachable               69   503  start it, or mend the link
    ├─ TimedOut                     75   504  allow more time, or try again
    ├─ Cancelled                     1   499  nothing: somebody asked for it
    ├─ Failed                        1   502  the agent's own work failed
    ├─ PluginFailed                  1   502  mend or replace the plugin
    └─ Internal                      1   500  our bug: report it

Each error carries a stable `code` (`room.reason`), a `message` that says what happened and why, a `hint` that says
what to do next, and `detail`, plain data for programs. `to_wire` and `from_wire` carry it whole between processes,
so an error keeps its class and code however many nodes it crosses. This table is the only place that maps errors to
exit codes and HTTP statuses.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Any, ClassVar, Self


class KnotworkError(Exception):
    """Base of all errors raised on purpose; `str()` is for people."""

    kind: ClassVar[str] = "error"
    exit_code: ClassVar[int] = 1
    http_status: ClassVar[int] = 500
    default_code: ClassVar[str] = "internal.error"
    retriable: ClassVar[bool] = False

    def __init_subclass__(
        cls,
        *,
        kind: str = "",
        exit_code: int = 0,
        http_status: int = 0,
        default_code: str = "",
        retriable: bool = False,
    ) -> None:
        """Keep what a class of errors stands for; whatever is left out is as in its base."""
        super().__init_subclass__()
        cls.kind, cls.default_code = kind or cls.kind, default_code or cls.default_code
        cls.exit_code, cls.http_status = exit_code or cls.exit_code, http_status or cls.http_status
        cls.retriable = retriable or cls.retriable

    def __init__(
        self,
        message: str,
        *,
        code: str = "",
        hint: str = "",
        detail: dict[str, Any] | None = None,
        retry_after_s: float | None = None,
    ) -> None:
        """Keep the parts; `code` defaults to the class's own, `retry_after_s` is in seconds."""
        super().__init__(message)
        self.message = message
        self.code: str = code or self.default_code
        self.hint = hint
        self.detail: dict[str, Any] = detail or {}
        self.retry_after_s = retry_after_s

    def __str__(self) -> str:
        """Return the message and, where there is one, the hint."""
        return sentence(self.message, self.hint)

    def to_wire(self) -> dict[str, Any]:
        """Return the error as plain data; `from_wire` gives an equal error back."""
        wire: dict[str, Any] = {"kind": self.kind, "code": self.code, "message": self.message}
        if self.hint:
            wire["hint"] = self.hint
        if self.detail:
            wire["detail"] = self.detail
        if self.retry_after_s is not None:
            wire["retry_after_s"] = self.retry_after_s
        return wire

    @classmethod
    def of(cls, error: BaseException) -> KnotworkError:
        """Return `error` itself when it is one of ours, else an `Internal` that names its type."""
        if isinstance(error, KnotworkError):
            return error
        return Internal(f"{type(error).__name__}: {error}")

    def with_detail(self, **detail: Any) -> Self:
        """Add to the detail and return the same error."""
        self.detail.update(detail)
        return self


class Invalid(KnotworkError, kind="invalid", exit_code=2, http_status=422, default_code="request.invalid"):
    """The request is wrong and will stay wrong; says everything that is wrong with it."""


class ConfigInvalid(Invalid, kind="config_invalid", exit_code=78, default_code="config.invalid"):
    """The configuration must be edited; `detail["problems"]` lists every problem with its place."""


class Denied(KnotworkError, kind="denied", exit_code=77, http_status=403, default_code="trust.denied"):
    """Known, but not allowed."""


class NotFound(KnotworkError, kind="not_found", http_status=404, default_code="request.not_found"):
    """The thing named does not exist."""


class Conflict(KnotworkError, kind="conflict", http_status=409, default_code="request.conflict"):
    """The state is not what the request assumes."""


class TooLarge(KnotworkError, kind="too_large", http_status=413, default_code="request.too_large"):
    """More bytes than may be moved or kept."""


class Unavailable(
    KnotworkError, kind="unavailable", exit_code=75, http_status=503, default_code="node.unavailable", retriable=True
):
    """Not now; the same request may succeed later."""


class Busy(Unavailable, kind="busy", http_status=429, default_code="agent.busy"):
    """All places are taken and the queue is full."""


class Unreachable(Unavailable, kind="unreachable", exit_code=69, default_code="node.unreachable"):
    """Nobody answers there: the node or the NATS server is away."""


class TimedOut(
    KnotworkError, kind="timed_out", exit_code=75, http_status=504, default_code="call.timed_out", retriable=True
):
    """The time allowed is over; the work was stopped."""


class Cancelled(KnotworkError, kind="cancelled", http_status=499, default_code="call.cancelled"):
    """Somebody asked for it to stop."""


class Failed(KnotworkError, kind="failed", http_status=502, default_code="agent.failed"):
    """The agent did its work and the work failed."""


class PluginFailed(KnotworkError, kind="plugin_failed", http_status=502, default_code="plugin.failed"):
    """A plugin broke its contract: it cannot be loaded, started or trusted."""


class Internal(KnotworkError, kind="internal", default_code="internal.error"):
    """Our own bug."""


ALL: tuple[type[KnotworkError], ...] = (
    Invalid, ConfigInvalid, Denied, NotFound, Conflict, TooLarge, Unavailable, Busy, Unreachable,
    TimedOut, Cancelled, Failed, PluginFailed, Internal,
)  # fmt: skip
RETRY_AFTER_MAX_S = 10**12  # what is larger does not fit everywhere, and means never anyway
_BY_KIND = {error.kind: error for error in ALL}


def sentence(message: str, hint: str) -> str:
    """Return message and hint as they are read one after the other."""
    if not hint:
        return message
    return f"{message} {hint}" if message.endswith((".", "!", "?", ":", "\n")) else f"{message}. {hint}"


def guess(word: str, known: Iterable[str]) -> str:
    """Return "Did you mean x?" with the known word most like `word`, "" when none is; at most 5000 are looked at."""
    from difflib import get_close_matches  # only on the error path

    near = get_close_matches(word[:256], list(islice(known, 5000)), 1)
    return f"Did you mean {near[0]}?" if near else ""


def leaves(error: BaseException) -> Iterator[BaseException]:
    """Yield what an exception group holds, however deep, or the error itself when it is none."""
    if isinstance(error, BaseExceptionGroup):
        for member in error.exceptions:
            yield from leaves(member)
    else:
        yield error


def from_wire(wire: Any) -> KnotworkError:
    """Return the error that `to_wire` described; anything malformed becomes an `Internal`, never a crash."""
    if not isinstance(wire, dict):
        return Internal("malformed error from the other side", code="wire.malformed")
    kind = _BY_KIND.get(str(wire.get("kind")), Internal)
    detail, asked = wire.get("detail"), wire.get("retry_after_s")
    sane = isinstance(asked, float) or (isinstance(asked, int) and abs(asked) <= RETRY_AFTER_MAX_S)
    return kind(
        str(wire.get("message", "no message")),
        code=str(wire.get("code", "")),
        hint=str(wire.get("hint", "")),
        detail=detail if isinstance(detail, dict) else None,
        retry_after_s=float(asked) if sane and asked is not None else None,
    )
