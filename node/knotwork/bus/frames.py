"""How does one request get several answers? Frames: chunk, progress, alive, then exactly one result, continue or error.

A request that carries `Knot-Call` understands frames. One without it (any plain NATS client) gets one message back:
the result as plain JSON, or an error with the two headers of the NATS micro protocol. A result has no frame header.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, NamedTuple
from urllib.parse import quote, unquote

from knotwork.bus import codec, digits, wire
from knotwork.bus.connection import is_no_responders
from knotwork.sdk.errors import Internal, Invalid, KnotworkError, Unreachable, from_wire

if TYPE_CHECKING:
    from knotwork.bus.wire import Message

Kind = Literal["chunk", "progress", "alive", "result", "continue", "error"]

CALL = "Knot-Call"
SESSION = "Knot-Session"
FRAME = "Knot-Frame"
WINDOW, SENT = "Knot-Window", "Knot-Sent"
"""How many bytes may be under way to who asks; how many were sent to him, with this frame (`bus.credit`)."""
_KINDS: dict[str, Kind] = {
    "chunk": "chunk",
    "progress": "progress",
    "alive": "alive",
    "continue": "continue",
    "error": "error",
}
RESULT = b""
HEADS: dict[str, bytes] = {
    "result": RESULT,
    **{kind: wire.header((FRAME, kind)) for kind in ("chunk", "progress", "alive", "continue")},
}
"""The header block of every frame but an error, whose block tells about the error."""
LAST = frozenset({"result", "continue", "error"})


class Frame(NamedTuple):
    """One answer; `data` is JSON."""

    kind: Kind
    data: bytes


class Envelope(NamedTuple):
    """What comes with a call: its id, the time left in seconds (None: no limit), who asks, and the trace it belongs to.

    `number` counts the attempts of the same work, which share a `key`; `plain` marks a caller that knows no frames.
    `session` is the secret of the agent's session that it belongs to. `window` is how many bytes of an answer in pieces
    may be under way to him, 0 for one who does not say what he has used.
    """

    id: str = ""
    timeout_s: float | None = None
    caller: str = ""
    capability: str = ""
    boundary: str = ""
    number: int = 1
    key: str = ""
    traceparent: str = ""
    plain: bool = True
    session: str = ""
    window: int = 0

    def head(self) -> bytes:
        """Return the header block; one compact header keeps parsing cheap on the other side."""
        timeout = "" if self.timeout_s is None else str(max(1, int(self.timeout_s * 1000)))
        call = f"{self.id};{timeout};{self.caller};{self.capability};{self.boundary};{self.number};{quote(self.key) if self.key else ''}"
        text = f"NATS/1.0\r\n{CALL}: {call}\r\n"
        if self.traceparent:
            text += f"traceparent: {self.traceparent}\r\n"
        if self.session:
            text += f"{SESSION}: {self.session}\r\n"
        if self.window:
            text += f"{WINDOW}: {self.window}\r\n"
        return f"{text}\r\n".encode()


_PLAIN = Envelope()
_CALL_PARTS = 7
_WINDOW_MIN_BYTES, _WINDOW_MAX_BYTES, _WINDOW_DIGITS_MAX = 64 * 1024, 32 * 1024 * 1024, 12
_CALL_MAX = 1536  # a key of 256 characters, each three when quoted, and tokens
TIMEOUT_MAX_S = 7 * 24 * 3600.0


def read_envelope(headers: dict[str, str] | None) -> Envelope:
    """Return the envelope of a request; raises `Invalid` (`wire.bad_envelope`) for a malformed one."""
    if not headers:
        return _PLAIN
    traceparent = headers.get("traceparent", "")[:64]
    session = headers.get(SESSION, "")[:128]
    call = headers.get(CALL)
    if call is None:
        return Envelope(traceparent=traceparent, session=session) if traceparent or session else _PLAIN
    parts = call.split(";")
    if len(call) > _CALL_MAX or len(parts) != _CALL_PARTS:
        raise Invalid("The envelope of this call is malformed.", code="wire.bad_envelope")
    call_id, timeout, caller, capability, boundary, number, key = parts
    left_ms, count = digits.read(timeout, 10), digits.read(number, 4)
    if timeout and left_ms is None:
        raise Invalid("The time-out of this call is malformed.", code="wire.bad_envelope")
    if count is None:
        raise Invalid("The attempt number of this call is malformed.", code="wire.bad_envelope")
    return Envelope(
        call_id,
        None if left_ms is None else min(left_ms / 1000, TIMEOUT_MAX_S),
        caller,
        capability,
        boundary,
        count,
        unquote(key) if key else "",
        traceparent,
        plain=False,
        session=session,
        window=_window(headers.get(WINDOW, "")),
    )


def _window(text: str) -> int:
    """Return a window as it is kept to: one that is no number counts as none."""
    size = digits.read(text, _WINDOW_DIGITS_MAX)
    return 0 if size is None else min(max(size, _WINDOW_MIN_BYTES), _WINDOW_MAX_BYTES)


def error_head(error: KnotworkError) -> bytes:
    """Return the header block of an error: ours, and the two every NATS micro client understands."""
    return wire.header(
        (FRAME, "error"),
        ("Nats-Service-Error", wire.clean(error.message)),
        ("Nats-Service-Error-Code", str(error.http_status)),
    )


def error_body(error: KnotworkError) -> bytes:
    """Return the body of an error frame; detail that JSON cannot say is left out rather than lost with the error."""
    told = error.to_wire()
    try:
        return codec.encode(told)
    except Invalid:
        plain = {key: ascii(value)[1:-1] for key, value in told.items() if isinstance(value, str)}
        return codec.encode(plain)  # half a character in a message must not lose the error


def read(message: Message) -> Frame:
    """Return the frame in a message; nobody listening is an error frame."""
    headers = message.headers
    if headers is None:
        return Frame("result", message.data)
    if is_no_responders(message):
        return Frame("error", error_body(Unreachable("Nobody answers there.", code="bus.no_responders")))
    if "Nats-Service-Error" in headers and FRAME not in headers:
        return Frame("error", error_body(Internal(headers["Nats-Service-Error"], code="agent.foreign_error")))
    return Frame(_KINDS.get(headers.get(FRAME, ""), "result"), message.data)


def read_error(data: bytes) -> KnotworkError:
    """Return the error in the body of an error frame; never raises."""
    try:
        return from_wire(codec.decode(data))
    except (Invalid, OverflowError):
        return Internal("unreadable error from the other side", code="wire.malformed")
