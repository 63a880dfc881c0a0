"""Where do the claims of a project stand? In several buckets, so that the server writes several to disk at once.

The run says in which (`subjects.claimed`). Nodes of before had the bucket LEASES alone: what stands there of any run is
honoured, and changed in its place, until it is over; whatever is claimed anew stands in the bucket of its run.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import TYPE_CHECKING

from knotwork.bus import kv, publisher, reading, subjects
from knotwork.bus.background import together
from knotwork.bus.kv import Entry

if TYPE_CHECKING:
    from knotwork.bus.commit import GroupCommit
    from knotwork.bus.connection import Connection
    from knotwork.bus.kv import Bucket
    from knotwork.bus.reading import Stored

SPECS = tuple(kv.spec(name, allow_atomic=True) for name in subjects.CLAIMED)
PREFIX = "claim"
"""What the keys of claims begin with: others keep leases of their own in LEASES."""
ALONE_MAX = 16
"""So many are on their way to a bucket by themselves at most: an atomic batch of fewer is slower (measured)."""
_OWN = 1 << 60
"""Added to the revisions of all buckets but LEASES: so what is claimed anew is newer than what stands there of before."""


def key(run: str, step: str) -> str:
    """Return where the claim on a step stands, whichever attempt it is."""
    return f"{PREFIX}.{run}.{step}"


def places(run: str) -> tuple[str, ...]:
    """Return the buckets in which claims on a run may stand, its own last."""
    own = subjects.claimed(run)
    return (own,) if own == subjects.LEASES else (subjects.LEASES, own)


def patterns(run: str) -> dict[str, str]:
    """Return where it is told who has the steps of a run: a pattern of subjects, and the stream that keeps them."""
    names = places(run)
    return {subjects.bucket_key(name, key(run, "*")): subjects.bucket_stream(name) for name in names}


async def standing(connection: Connection, runs: Iterable[str]) -> list[Stored]:
    """Return what stands about each step of each run (1024 runs at most); what was claimed later comes later."""
    wanted: dict[str, list[str]] = {subjects.bucket_stream(subjects.LEASES): []}  # of before, so read first
    for pattern, stream in [one for run in runs for one in patterns(run).items()]:
        wanted.setdefault(stream, []).append(pattern)
    found = [await reading.each_last(connection, stream, asked) for stream, asked in wanted.items() if asked]
    return [stored for some in found for stored in some]


def is_own(run: str, revision: int) -> bool:
    """Return whether something stands in the bucket of its run, and not where nodes of before put it."""
    return revision >= _OWN or subjects.claimed(run) == subjects.LEASES


def is_later(known: int, gone: int) -> bool:
    """Return whether what is known at a revision stands in another bucket than what has gone from one."""
    return (known ^ gone) & _OWN != 0


class Stripes:
    """The buckets of claims of one project. Revisions are told as if there was one bucket (`_OWN`)."""

    def __init__(self, connection: Connection, writers: Sequence[GroupCommit]) -> None:
        """Keep them over `connection`; what many change at a time goes to disk together, by one of `writers` for each."""
        self._connection = connection
        self._stripes = {
            name: _Stripe(kv.Bucket(connection, name), writer)
            for name, writer in zip(subjects.CLAIMED, writers, strict=True)
        }

    async def open(self) -> None:
        """Make sure that the buckets are there."""
        for name in subjects.CLAIMED:
            await kv.open_bucket(self._connection, name, allow_atomic=True)

    async def get(self, run: str, step: str) -> Entry | None:
        """Return what stands about a step, None for nothing."""
        for name in reversed(places(run)):
            entry = await self._stripes[name].bucket.get(key(run, step))
            if entry is not None:
                return _told(name, entry)
        return None

    async def create(self, run: str, step: str, value: bytes, ttl_s: int) -> int:
        """Store a claim where none is, and return its revision; also when one has gone from there. Raises `Conflict`."""
        name = subjects.claimed(run)
        return _base(name) + await self._stripes[name].bucket.create(key(run, step), value, ttl_s=ttl_s)

    async def store(self, run: str, step: str, value: bytes, revision: int, ttl_s: int) -> int:
        """Replace what stands at `revision`, 0 for nothing, and return the new one; raises `Conflict`."""
        name = subjects.LEASES if 0 < revision < _OWN else subjects.claimed(run)
        at = revision and revision - _base(name)
        return _base(name) + await self._stripes[name].store(key(run, step), value, at, ttl_s)

    async def watch(self, on_entry: Callable[[Entry], None]) -> None:
        """Tell every claim, then every change, for ever; raises `NotFound` when a bucket is gone."""
        stripes = self._stripes.items()
        await together(*(one.bucket.watch(partial(_tell, on_entry, name), _nothing, PREFIX) for name, one in stripes))


class _Stripe:
    """One of the buckets, and who writes what many change in it at a time."""

    def __init__(self, bucket: Bucket, writer: GroupCommit) -> None:
        self.bucket, self._writer = bucket, writer
        self._alone = 0

    async def store(self, name: str, value: bytes, revision: int, ttl_s: int) -> int:
        """Store something where `revision` is now, by itself while few are on their way: they wait for nobody then."""
        if self._alone >= ALONE_MAX:
            pairs = (publisher.expect_revision(revision), publisher.ttl(ttl_s))
            return (await self._writer.append(self.bucket.subject(name), value, *pairs)).seq
        self._alone += 1
        try:
            return await self.bucket.update(name, value, revision, ttl_s=ttl_s)
        finally:
            self._alone -= 1


def _nothing() -> None:
    """Nobody waits for the picture to be complete."""


def _base(bucket: str) -> int:
    return 0 if bucket == subjects.LEASES else _OWN


def _told(bucket: str, entry: Entry) -> Entry:
    return Entry(entry.key, entry.value, _base(bucket) + entry.revision, entry.at_ns)


def _tell(on_entry: Callable[[Entry], None], bucket: str, entry: Entry) -> None:
    on_entry(_told(bucket, entry))
