"""Which streams are there, and how are they made? One declaration each, applied again and again without harm."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from knotwork.bus import clock, codec, patterns, publisher, subjects
from knotwork.sdk.errors import Internal, KnotworkError, NotFound, Unreachable

if TYPE_CHECKING:
    from knotwork.bus.connection import Connection

NS = 1_000_000_000
KEY_S = 86400
"""How long the server remembers the idempotency keys that people and agents give what they say and publish."""
_STREAM_NOT_FOUND, MESSAGE_NOT_FOUND = 10059, 10037
_TELLS_TIME = ("STREAM.", "CONSUMER.INFO.")
"""Whose answer holds the time of now; that of CONSUMER.CREATE has the time at which the consumer was made."""


@dataclass(frozen=True, slots=True)
class StreamSpec:
    """A stream as we want it. `settings` are fields of the server's stream config, as in its JSON API."""

    name: str
    subjects: tuple[str, ...]
    settings: dict[str, Any] = field(default_factory=dict)

    def body(self) -> dict[str, Any]:
        """Return the config the server is asked for."""
        defaults = {"retention": "limits", "storage": "file", "num_replicas": 1, "allow_direct": True}
        return {"name": self.name, "subjects": list(self.subjects), **defaults, **self.settings}


async def api(connection: Connection, verb: str, body: Any = None, *, timeout_s: float = 5.0) -> dict[str, Any]:
    """Ask JetStream's API; raises `NotFound` for an unknown stream or message, else what `publisher.refusal` says.

    Raises `Unreachable` (`bus.no_responders`) where there is no JetStream, and what `Connection.request` raises.
    """
    payload = codec.encode(body) if body is not None else b""
    asked = clock.steady_ns()
    try:
        message = await connection.request(f"$JS.API.{verb}", payload, timeout_s=timeout_s, patient=False)
    except Unreachable as away:
        if away.code != "bus.no_responders":
            raise
        raise Unreachable(
            "JetStream does not answer on this NATS.", code=away.code, retry_after_s=1.0,
            hint="Is it enabled there (`jetstream` in its configuration), and for this account? One that starts needs a moment.",
        ) from None  # fmt: skip
    answered = clock.steady_ns()
    answer = codec.decode(message.data)
    if not isinstance(answer, dict):
        raise Internal("unreadable answer from JetStream's API", code="bus.bad_answer")
    error = answer.get("error")
    if isinstance(error, dict):
        number = int(error.get("err_code", 0))
        if number in {_STREAM_NOT_FOUND, MESSAGE_NOT_FOUND}:
            raise NotFound(str(error.get("description", "not found")), code="bus.not_found", detail={"nats": number})
        raise publisher.refusal(error)
    if verb.startswith(_TELLS_TIME) and (server_ns := clock.read(str(answer.get("ts", "")))):
        clock.SHARED.heard(server_ns, asked, answered)
    return answer


async def ensure(connection: Connection, spec: StreamSpec) -> None:
    """Create the stream, or bring an existing one to this shape; safe to repeat and to race."""
    body = spec.body()
    try:
        await api(connection, f"STREAM.CREATE.{spec.name}", body)
    except KnotworkError as error:
        if error.detail.get("nats") != 10058:  # noqa: PLR2004  (the name is in use with another shape)
            raise
        await api(connection, f"STREAM.UPDATE.{spec.name}", body)


def telemetry_stream(size_max_bytes: int = 256 * 1024 * 1024) -> StreamSpec:
    """Return the TELEMETRY stream: capped by size and age, the oldest go first; losing some is allowed here."""
    return StreamSpec(
        subjects.TELEMETRY,
        (patterns.TELEMETRY,),
        {"max_bytes": size_max_bytes, "max_age": 7 * 24 * 3600 * NS, "discard": "old", "compression": "s2"},
    )
