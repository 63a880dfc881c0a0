"""What does the node hand to a plugin? A `Context`: everything it may ask for, nothing of NATS or the node itself."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from knotwork.bus import child, clock, codec, kv, subjects, wire
from knotwork.config import secrets
from knotwork.sdk import Context
from knotwork.sdk.errors import NotFound, TooLarge
from knotwork.sdk.ports import no_buckets

if TYPE_CHECKING:
    from knotwork.bus.connection import Connection
    from knotwork.bus.kv import Bucket
    from knotwork.host.layout import Layout
    from knotwork.sdk import Buckets
    from knotwork.sockets.slot import Instance
    from knotwork.telemetry.emitter import Emitter

KEPT_MAX_BYTES = 512 * 1024
Connected = Callable[[str], "Connection"]
"""The connection of a project, of the first one for no name; raises `Unavailable` while there is none, `NotFound`."""
BUCKET = subjects.SETTINGS


class Clock:
    """The real time (`sdk.Clock`)."""

    def time_ns(self) -> int:
        """Return nanoseconds since 1970."""
        return clock.now_ns()

    def monotonic_s(self) -> float:
        """Return seconds that only grow."""
        return time.monotonic()


class Kept:
    """A plugin's own corner of the SETTINGS bucket (`sdk.KeyValue`)."""

    def __init__(self, connection: Callable[[], Connection], corner: str) -> None:
        """Keep everything below `corner`; the connection may come later than the plugin."""
        self._connection = connection
        self._corner = corner
        self._opened: tuple[Connection, Bucket] | None = None

    async def get(self, key: str) -> Any:
        """Return the value, None when there is none."""
        bucket = await self._bucket()
        entry = await bucket.get(self._name(key))
        return None if entry is None or entry.value is None else codec.decode(entry.value)

    async def put(self, key: str, value: Any) -> None:
        """Store the value durably; raises `TooLarge` over 512 KiB."""
        data = codec.encode(value)
        if len(data) > KEPT_MAX_BYTES:
            raise TooLarge(f"The value of {key} has {len(data)} bytes; the limit is {KEPT_MAX_BYTES}.")
        bucket = await self._bucket()
        await bucket.put(self._name(key), data)

    async def delete(self, key: str) -> None:
        """Remove the key; no error when it is not there."""
        bucket = await self._bucket()
        with contextlib.suppress(NotFound):
            await bucket.delete(self._name(key))

    async def _bucket(self) -> Bucket:
        connection = self._connection()
        if self._opened is None or self._opened[0] is not connection:
            self._opened = (connection, await kv.open_bucket(connection, BUCKET))
        return self._opened[1]

    def _name(self, key: str) -> str:
        return f"{self._corner}.{subjects.token(key, 'key')}"


class Telling:
    """Publish to the TELEMETRY stream (`sdk.Stream`)."""

    def __init__(self, connection: Connected) -> None:
        """Publish over whatever connection there is at the time."""
        self._connection = connection

    async def publish(self, topic: str, payload: bytes, project: str = "") -> None:
        """Send bytes to `telemetry.<topic>` of a project; no answer is awaited. Raises `Unavailable`, `NotFound`."""
        self._connection(project).send(subjects.telemetry(topic), payload, "", wire.header(("Knot-Schema", "1")))
        await asyncio.sleep(0)


def maker(
    layout: Layout,
    node: str,
    emitter: Emitter,
    connection: Connected,
    folder: Callable[[], Path],
    *,
    buckets: Buckets = no_buckets,
) -> Callable[[Instance], Context]:
    """Return what makes the context of an instance; `folder` is where relative paths of the configuration start.

    `buckets` are what memory plugins get, and nobody else.
    """

    def resolve(reference: Any) -> str:
        return secrets.resolve(reference, folder=folder(), child_env=child.clean_env)

    def make(instance: Instance) -> Context:
        return Context(
            id=instance.id,
            node=node,
            log=logging.getLogger(f"knotwork.plugin.{instance.kind}.{instance.id}"),
            folder=layout.plugin(instance.kind, instance.id),
            emit=emitter,
            clock=Clock(),
            keep=Kept(lambda: connection(""), f"{instance.kind}.{instance.id}"),
            stream=Telling(connection),
            secrets=resolve,
            child_env=child.clean_env,
            base=folder(),
            buckets=buckets if instance.kind == "memories" else no_buckets,
        )

    return make
