"""What a plugin may ask of the node: small protocols, implemented by the host."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from knotwork.sdk.telemetry import Record


class Clock(Protocol):
    """Time, handed in so that tests can move it."""

    def time_ns(self) -> int:
        """Return nanoseconds since 1970."""
        ...

    def monotonic_s(self) -> float:
        """Return seconds that only grow."""
        ...


class Emit(Protocol):
    """Tell telemetry something; never blocks and never raises."""

    def __call__(self, record: Record) -> None:
        """Hand one record to every sink."""
        ...


class KeyValue(Protocol):
    """A small durable store of the plugin's own: keys are tokens, values any JSON value up to 512 KiB."""

    async def get(self, key: str) -> Any:
        """Return the value, None when there is none."""
        ...

    async def put(self, key: str, value: Any) -> None:
        """Store the value durably."""
        ...

    async def delete(self, key: str) -> None:
        """Remove the key; no error when it is not there."""
        ...


class Stream(Protocol):
    """Publish to the TELEMETRY stream of a project: what happened in one is nothing to another."""

    async def publish(self, topic: str, payload: bytes, project: str = "") -> None:
        """Send bytes to `telemetry.<topic>` of a project, by default the node's first one.

        Raises `Unavailable` when the bus is away, `NotFound` for a project that the node does not serve.
        """
        ...


class Secrets(Protocol):
    """Resolve a secret reference (`{env = "X"}`, `{file = "…"}`, `{cmd = "…"}`) as late as possible."""

    def __call__(self, reference: Any) -> str:
        """Return the secret; raises `Unavailable` when it cannot be had. Its value is redacted from logs from now on."""
        ...
