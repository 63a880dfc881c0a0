"""What a plugin may ask of the node: small protocols, implemented by the host."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from knotwork.sdk.errors import Unavailable

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


@dataclass(frozen=True, slots=True)
class BucketEntry:
    """One record of a bucket. `value` is None when the key is gone (deleted or expired)."""

    key: str
    value: bytes | None
    revision: int


class Bucket(Protocol):
    """A bucket of one project, the same on every node of it. Keys are tokens joined by dots.

    Every method raises `Unavailable` and what derives from it while NATS is away.
    """

    async def get(self, key: str) -> BucketEntry | None:
        """Return the record, None when there is none."""
        ...

    async def put(self, key: str, value: bytes, *, revision: int | None = None, ttl_s: int | None = None) -> int:
        """Store durably and return the revision; the server removes it after `ttl_s` whole seconds.

        `revision` is what must be there: 0 for nothing; raises `Conflict` when something else is.
        """
        ...

    async def delete(self, key: str, *, revision: int | None = None) -> int:
        """Remove the key and return the revision of that; raises `Conflict` like `put`."""
        ...

    async def all(self, beginning: str = "") -> dict[str, BucketEntry]:
        """Return every record whose key begins with these tokens."""
        ...

    async def latest(self) -> int:
        """Return the revision of the newest change."""
        ...

    async def watch(self, on_entry: Callable[[BucketEntry], None], on_current: Callable[[], None]) -> None:
        """Tell every record, then every change, for ever; `on_current` whenever the picture is complete."""
        ...


class Buckets(Protocol):
    """The buckets of memory plugins, one for each project."""

    def __call__(self, project: str) -> Bucket:
        """Return a project's bucket, for "" the one that projects have in common.

        Raises `Unavailable` while there is no connection, `NotFound` for a project that the node does not serve.
        """
        ...


def no_buckets(project: str) -> Bucket:
    """Stand where there are no buckets: in a process of its own, in a test."""
    raise Unavailable(f"There is no bucket for {project or 'all projects'} here.", code="plugin.no_bucket")
