"""Where are small records kept that everybody may watch? Key-value buckets on JetStream, with a life time per key.

nats-py's own key-value watch needs 18 s to resume after a server restart; this one notices silence within three short
heartbeats and starts over with a full picture, telling what has vanished meanwhile.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
import re
import secrets
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from knotwork.bus import clock, codec, publisher, streams, subjects
from knotwork.bus.background import what_ended
from knotwork.bus.waits import set_within
from knotwork.sdk.errors import Conflict, Invalid, KnotworkError, NotFound, TimedOut

if TYPE_CHECKING:
    from knotwork.bus.connection import Connection
    from knotwork.bus.wire import Message

log = logging.getLogger(__name__)
_KEY = re.compile(r"[a-zA-Z0-9_=-]{1,64}(\.[a-zA-Z0-9_=-]{1,64}){0,15}")
HEARTBEAT_S = 1.0
READ_TIMEOUT_S = 10.0
SWAP_JITTER_S = 0.02
_GONE = {"DEL", "PURGE"}


@dataclass(frozen=True, slots=True)
class Entry:
    """One record. `value` is None when the key is gone (deleted or expired)."""

    key: str
    value: bytes | None
    revision: int
    at_ns: int = field(default=0, compare=False)
    """When it was stored, nanoseconds since 1970, where that was asked for (`get`)."""


class Bucket:
    """One bucket of one project; made by `open_bucket`."""

    def __init__(self, connection: Connection, name: str) -> None:
        """Use the stream of the bucket of this name."""
        self._connection = connection
        self.name = name
        self.stream = subjects.bucket_stream(name)
        self._prefix = subjects.bucket_key(name, "")

    def subject(self, key: str) -> str:
        """Return where a record lies on the wire; raises `Invalid` (`bus.bad_key`)."""
        if _KEY.fullmatch(key) is None:
            raise Invalid(f"{key[:80]!r} is not a valid key.", code="bus.bad_key")
        return self._prefix + key

    async def get(self, key: str) -> Entry | None:
        """Return the record, None when there is none."""
        subject = self.subject(key)
        message = await self._connection.request(f"$JS.API.DIRECT.GET.{self.stream}.{subject}", patient=False)
        found = message.headers or {}
        if found.get("Status") == "404" or _is_gone(found):
            return None
        if "Status" in found:
            raise publisher.odd_answer(found)
        at_ns = clock.read(found.get("Nats-Time-Stamp", ""))
        return Entry(key, message.data, int(found.get("Nats-Sequence", 0)), at_ns)

    async def put(self, key: str, value: bytes, *, ttl_s: int | None = None) -> int:
        """Store the record whatever was there; it expires after `ttl_s` whole seconds. Returns the revision."""
        head = publisher.head(publisher.ttl(ttl_s)) if ttl_s is not None else b""
        return (await publisher.publish(self._connection, self.subject(key), value, head=head)).seq

    async def create(self, key: str, value: bytes, *, ttl_s: int | None = None) -> int:
        """Store the record only when there is none; raises `Conflict` (`bus.wrong_revision`)."""
        try:
            return await self.update(key, value, 0, ttl_s=ttl_s)
        except Conflict:
            last = await self._last_revision(key)
            if last is None:
                raise
            return await self.update(key, value, last, ttl_s=ttl_s)  # only a marker of a key that is gone

    async def update(self, key: str, value: bytes, revision: int, *, ttl_s: int | None = None) -> int:
        """Store the record only when its revision is still this; raises `Conflict` (`bus.wrong_revision`)."""
        pairs = [publisher.expect_revision(revision)]
        if ttl_s is not None:
            pairs.append(publisher.ttl(ttl_s))
        return (await publisher.publish(self._connection, self.subject(key), value, head=publisher.head(*pairs))).seq

    async def swap(self, key: str, read: Entry | None, value: bytes, *, ttl_s: int | None = None) -> bool:
        """Store the record while it is as it was `read`; False, a moment later, when somebody else was faster: read again."""
        try:
            if read is None:
                await self.create(key, value, ttl_s=ttl_s)
            else:
                await self.update(key, value, read.revision, ttl_s=ttl_s)
        except Conflict:
            await asyncio.sleep(random.uniform(0, SWAP_JITTER_S))  # noqa: S311  (jitter)
            return False
        return True

    async def delete(self, key: str, *, revision: int | None = None, ttl_s: int | None = None) -> int:
        """Remove the record and return the revision of that; watchers are told.

        That it was there is forgotten after `ttl_s` whole seconds. With a `revision` that is not the record's any more
        it raises `Conflict` (`bus.wrong_revision`).
        """
        more = [publisher.ttl(ttl_s)] if ttl_s is not None else []
        if revision is not None:
            more.append(publisher.expect_revision(revision))
        head = publisher.head(("KV-Operation", "DEL"), *more)
        return (await publisher.publish(self._connection, self.subject(key), b"", head=head)).seq

    async def latest(self) -> int:
        """Return the revision of the newest change there is, 0 for none; for an empty bucket, too."""
        asked = codec.encode({"last_by_subj": f"{self._prefix}>"})
        message = await self._connection.request(f"$JS.API.DIRECT.GET.{self.stream}", asked, patient=False)
        return int((message.headers or {}).get("Nats-Sequence", 0))

    async def _last_revision(self, key: str) -> int | None:
        """Return the revision of the marker a removed key left, None while the key is alive."""
        subject = f"$JS.API.DIRECT.GET.{self.stream}.{self.subject(key)}"
        message = await self._connection.request(subject, patient=False)
        found = message.headers or {}
        return int(found.get("Nats-Sequence", 0)) if _is_gone(found) else None

    async def all(self, beginning: str = "") -> dict[str, Entry]:
        """Return every record there is now, of those whose key begins with these tokens.

        Raises `NotFound` without the bucket, `TimedOut` after ten seconds.
        """
        found: dict[str, Entry] = {}
        current = asyncio.Event()

        def on_entry(entry: Entry) -> None:
            if entry.value is not None:
                found[entry.key] = entry

        try:
            async with asyncio.timeout(READ_TIMEOUT_S), asyncio.TaskGroup() as group:
                watching = group.create_task(self.watch(on_entry, current.set, beginning))
                await current.wait()
                watching.cancel()
        except TimeoutError:
            raise TimedOut(f"Bucket {self.name} did not answer.", code="bus.no_answer") from None
        except BaseExceptionGroup as failed:
            raise what_ended(failed) from None
        return found

    async def watch(
        self, on_entry: Callable[[Entry], None], on_current: Callable[[], None], beginning: str = ""
    ) -> None:
        """Tell every record, then every change, for ever; of those whose key begins with the tokens of `beginning`.

        `on_current` is called whenever the picture is complete: after the first reading and after each new start
        (reconnect, missed message). What vanished during a gap is told as an entry without value before it.
        """
        known: set[str] = set()
        wanted = self.subject(beginning) + "." if beginning else self._prefix
        while True:
            reading = _Reading(self._prefix, on_entry, on_current, known)
            forget = self._connection.on_up(reading.missed)
            try:
                async with _consumer(self._connection, self.stream, wanted, reading.arrived) as pending:
                    reading.begin(pending)
                    await reading.ended()
            except NotFound:
                raise
            except KnotworkError:
                await asyncio.sleep(0.2)  # NATS is away: `wait_connected` below returns when it is back
            finally:
                forget()
            await self._connection.wait_connected()


class _Reading:
    """One consumer's worth of watching: from a full picture to the first sign that something was missed."""

    def __init__(
        self, prefix: str, on_entry: Callable[[Entry], None], on_current: Callable[[], None], known: set[str]
    ) -> None:
        self._skip = len(prefix)
        self._on_entry, self._on_current, self._known = on_entry, on_current, known
        self._seen: set[str] = set()
        self._early: list[Message] | None = []
        self._left = -1
        self._next = 1
        self._broken = asyncio.Event()
        self._alive_s = asyncio.get_running_loop().time()

    def begin(self, pending: int) -> None:
        """Start with `pending` messages until the picture is complete."""
        self._left = pending
        early, self._early = self._early or [], None
        if pending == 0:
            self._complete()
        for message in early:
            self.arrived(message)

    def arrived(self, message: Message) -> None:
        """Take one message of the consumer."""
        self._alive_s = asyncio.get_running_loop().time()
        if self._early is not None:
            self._early.append(message)
            return
        headers = message.headers or {}
        if "Status" in headers:  # a heartbeat, or an answer to flow control
            return
        parts = message.reply.split(".")
        delivered = int(parts[6]) if len(parts) >= 9 else self._next  # noqa: PLR2004  ($JS.ACK.<9 parts>)
        if delivered != self._next:
            self._broken.set()
            return
        self._next += 1
        key = message.subject[self._skip :]
        gone = _is_gone(headers)
        revision = int(parts[5]) if len(parts) >= 9 else 0  # noqa: PLR2004
        if gone:
            self._known.discard(key)
            self._seen.discard(key)
        else:
            self._known.add(key)
            self._seen.add(key)
        self._tell(Entry(key, None if gone else message.data, revision))
        if self._left > 0:
            self._left -= 1
            if self._left == 0:
                self._complete()

    def _complete(self) -> None:
        for key in self._known - self._seen:
            self._tell(Entry(key, None, 0))
        self._known &= self._seen
        self._left = 0
        self._on_current()

    def _tell(self, entry: Entry) -> None:
        """Tell of a record; whoever cannot deal with one is told of the others, and that the picture is complete."""
        try:
            self._on_entry(entry)
        except Exception:
            log.exception("what stands at %s cannot be dealt with", entry.key)

    def missed(self) -> None:
        """Start over: something may have been missed."""
        self._broken.set()

    async def ended(self) -> None:
        """Return when a message was missed or three heartbeats were."""
        loop = asyncio.get_running_loop()
        while not self._broken.is_set() and loop.time() - self._alive_s < 3 * HEARTBEAT_S:
            await set_within(self._broken, HEARTBEAT_S)


def _is_gone(headers: dict[str, str]) -> bool:
    return headers.get("KV-Operation") in _GONE or "Nats-Marker-Reason" in headers


@asynccontextmanager
async def _consumer(
    connection: Connection, stream: str, prefix: str, handler: Callable[[Message], None]
) -> AsyncIterator[int]:
    """Have the server push the last record of each key, then changes; yields how many are pending at the start."""
    name = f"watch_{secrets.token_hex(6)}"
    deliver = f"{connection.endpoint.inbox_prefix}.{name}"  # not the shared inbox: messages keep their own subject
    listening = await connection.listen(deliver, handler)
    config = {
        "name": name,
        "deliver_subject": deliver,
        "deliver_policy": "last_per_subject",
        "ack_policy": "none",
        "filter_subject": f"{prefix}>",
        "idle_heartbeat": int(HEARTBEAT_S * streams.NS),
        "inactive_threshold": int(30 * streams.NS),
        "mem_storage": True,
        "num_replicas": 1,
    }
    try:
        made = await streams.api(
            connection, f"CONSUMER.CREATE.{stream}.{name}.{prefix}>", {"stream_name": stream, "config": config}
        )
        yield int(made.get("num_pending", 0)) + int(made.get("delivered", {}).get("consumer_seq", 0))
    finally:
        with contextlib.suppress(
            KnotworkError
        ):  # it must not replace what ends the watch; the server forgets by itself
            connection.unlisten(listening)
            connection.send(f"$JS.API.CONSUMER.DELETE.{stream}.{name}")


def spec(name: str, **settings: Any) -> streams.StreamSpec:
    """Return the stream of a bucket; `settings` are fields of the server's stream config."""
    shape = {
        "max_msgs_per_subject": 1,
        "discard": "new",
        "allow_rollup_hdrs": True,
        "deny_delete": True,
        "allow_msg_ttl": True,
        "subject_delete_marker_ttl": 60 * streams.NS,
        "max_consumers": 100_000,
        "duplicate_window": 120 * streams.NS,
        **settings,
    }
    return streams.StreamSpec(subjects.bucket_stream(name), (subjects.bucket_key(name, ">"),), shape)


async def open_bucket(connection: Connection, name: str, **settings: Any) -> Bucket:
    """Make sure the bucket exists and return it; `settings` are fields of the server's stream config."""
    await streams.ensure(connection, spec(name, **settings))
    return Bucket(connection, name)
