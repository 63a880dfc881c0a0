"""Where are values kept that are too large for a message? In BLOBS, a NATS object store (ADR-20), by what they hold.

An object's name is its digest, so the same value is kept once and a reader can tell whether it got the right one.
`nats object` and every other client reads them. What is written here can be read for `KEEP_S` at least.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import re
import secrets
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import msgspec

from knotwork.bus import clock, codec, publisher, reading, streams, subjects
from knotwork.sdk.errors import Conflict, Internal, Invalid, KnotworkError, NotFound, TooLarge

if TYPE_CHECKING:
    from knotwork.bus.connection import Connection

SIZE_MAX_BYTES = 64 * 1024 * 1024
CHUNK_BYTES = 256 * 1024
AT_ONCE = 16
"""Chunks on their way at once: 4 MiB, so that nothing else waits long behind them."""
KEEP_S = 89 * 86400
AGE_MAX_S = 90 * 86400
_NAME = re.compile(r"sha256-[0-9a-f]{64}")
_UPLOAD = re.compile(r"[0-9a-f]{32}")
_IN_THREAD_BYTES = 4 * 1024 * 1024
"""Hashing more than this would hold up the loop for milliseconds."""


class Info(msgspec.Struct):
    """What the store says about an object, as far as we read it."""

    nuid: str
    size: int = 0
    chunks: int = 0
    digest: str = ""
    deleted: bool = False


_decoder = msgspec.json.Decoder(Info)
SPEC = streams.StreamSpec(
    f"OBJ_{subjects.BLOBS}",
    (f"$O.{subjects.BLOBS}.C.>", f"$O.{subjects.BLOBS}.M.>"),
    {"discard": "new", "allow_rollup_hdrs": True, "max_age": AGE_MAX_S * streams.NS},
)


class Blobs:
    """The large values of one project. Any node can read what another wrote."""

    def __init__(self, connection: Connection) -> None:
        """Read and write over `connection`; `open` makes the store."""
        self._connection = connection

    async def open(self) -> None:
        """Make sure that the store is there."""
        await streams.ensure(self._connection, SPEC)

    async def put(self, data: bytes) -> str:
        """Keep a value and return its digest.

        Raises `TooLarge` (`blob.too_large`) over 64 MiB, and what `publisher.publish` raises: nothing is kept then.
        """
        if len(data) > SIZE_MAX_BYTES:
            raise too_large(len(data))
        name = await _digest(data)
        known = await self._fresh(name)
        if known is not None and known.size == len(data):
            return name
        upload = self.begin()
        try:
            chunks = await self.piece(upload, data)
            await self._name(name, upload, len(data), chunks)
        except BaseException:
            await self._discard(upload)
            raise
        if known is not None:
            await self._discard(known.nuid)
        return name

    async def copy(self, name: str, source: Blobs) -> None:
        """Keep here, too, what another store keeps; raises what its `get` and our `put` raise."""
        if await self._fresh(name) is None:
            await self.put(await source.get(name))

    async def get(self, name: str) -> bytes:
        """Return a value; raises `NotFound` (`blob.not_found`), `Internal` (`blob.damaged`)."""
        for _ in range(3):  # it may be written anew while it is read
            info = await self.info(name)
            data = await self._chunks(info)
            if len(data) == info.size and await _digest(data) == name:
                return data
        raise Internal(f"{name} is damaged: what is kept there is something else.", code="blob.damaged")

    async def part(self, name: str, after: int) -> tuple[bytes, int, int]:
        """Return a part of a value (4 MiB at most), the place behind it, and the size of the whole in bytes.

        `after` is the place behind the part before, 0 at the beginning; behind the last part nothing comes, and the
        place is 0. Whoever has all of them compares their digest. Raises what `info` does.
        """
        info = await self.info(name)
        if not info.size:
            return b"", 0, 0
        subject = _chunks_subject(info.nuid)
        found = await reading.batch(self._connection, SPEC.name, subject, after + 1, AT_ONCE)
        return b"".join(stored.data for stored in found), found[-1].seq if found else 0, info.size

    async def info(self, name: str) -> Info:
        """Return what is known of a value; raises `NotFound` (`blob.not_found`), `Invalid` (`blob.bad_digest`)."""
        found = await self._stored(name)
        if found is None:
            raise NotFound(
                f"There is no blob {name}.", code="blob.not_found", hint="Blobs are kept for 90 days; put it again."
            )
        return found[0]

    # -- in pieces ---------------------------------------------------------------------------------------------------

    @staticmethod
    def begin() -> str:
        """Return the name of a new upload."""
        return secrets.token_hex(16)

    async def piece(self, upload: str, data: bytes) -> int:
        """Keep a further piece of an upload and return how many chunks it made; the pieces of one come in order."""
        subject = _chunks_subject(upload)
        chunks = [data[start : start + CHUNK_BYTES] for start in range(0, len(data), CHUNK_BYTES)]
        for start in range(0, len(chunks), AT_ONCE):
            group = [(subject, chunk, b"") for chunk in chunks[start : start + AT_ONCE]]
            for answer in await publisher.publish_many(self._connection, group):
                if isinstance(answer, KnotworkError):
                    raise answer
        return len(chunks)

    async def finish(self, upload: str, name: str) -> int:
        """Make an upload a blob, when it holds what `name` says, and return its size in bytes.

        Raises `Conflict` (`blob.other_content`) and forgets the upload when it holds something else.
        """
        _check(name)
        data = await self._chunks(Info(upload, SIZE_MAX_BYTES + 1))
        if len(data) > SIZE_MAX_BYTES:
            await self._discard(upload)
            raise too_large(len(data))
        if await _digest(data) != name:
            await self._discard(upload)
            raise Conflict(
                f"The pieces of {upload} are not what {name} stands for: {len(data)} bytes came.",
                code="blob.other_content", hint="Send all pieces again, in order, as a new upload.",
            )  # fmt: skip
        await self._name(name, upload, len(data), -(-len(data) // CHUNK_BYTES))
        return len(data)

    # -- within ------------------------------------------------------------------------------------------------------

    async def _stored(self, name: str) -> tuple[Info, int] | None:
        """Return what is known of a value and when it was kept (nanoseconds), None when it is not there."""
        stored = await reading.last(self._connection, SPEC.name, _meta_subject(name))
        if stored is None:
            return None
        try:
            info = _decoder.decode(stored.data)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise Internal(f"{name} is damaged: {error}.", code="blob.damaged") from error
        return None if info.deleted else (info, stored.time_ns)

    async def _fresh(self, name: str) -> Info | None:
        """Return what is known of a value that is kept for long enough still."""
        found = await self._stored(name)
        if found is None:
            return None
        age_s = (clock.now_ns() - found[1]) / streams.NS
        return found[0] if age_s < AGE_MAX_S - KEEP_S else None

    async def _chunks(self, info: Info) -> bytes:
        """Return what is kept of an upload, as far as it is there; no more than a little over `info.size`."""
        subject, after, parts, size = _chunks_subject(info.nuid), 0, list[bytes](), 0
        while size < info.size:
            found = await reading.batch(self._connection, SPEC.name, subject, after + 1, AT_ONCE)
            if not found:
                break
            after = found[-1].seq
            parts += [stored.data for stored in found]
            size += sum(len(stored.data) for stored in found)
        return b"".join(parts)

    async def _name(self, name: str, upload: str, size: int, chunks: int) -> None:
        """Let an upload be found by its name; what had this name before is forgotten by the server."""
        sha = base64.urlsafe_b64encode(bytes.fromhex(name.removeprefix("sha256-"))).decode()
        about: dict[str, Any] = {
            "name": name, "bucket": subjects.BLOBS, "nuid": upload, "size": size, "chunks": chunks,
            "digest": f"SHA-256={sha}", "mtime": datetime.now(UTC).isoformat(), "deleted": False,
            "options": {"max_chunk_size": CHUNK_BYTES},
        }  # fmt: skip
        head = publisher.head(("Nats-Rollup", "sub"))
        await publisher.publish(self._connection, _meta_subject(name), codec.encode(about), head=head)

    async def _discard(self, upload: str) -> None:
        """Remove the chunks of an upload that nobody will read; what stays behind goes with its age."""
        try:
            async with asyncio.timeout(5):
                await reading.purge(self._connection, SPEC.name, _chunks_subject(upload), 0)
        except (KnotworkError, TimeoutError):
            return


async def _digest(data: bytes) -> str:
    if len(data) < _IN_THREAD_BYTES:
        return f"sha256-{hashlib.sha256(data).hexdigest()}"
    return f"sha256-{await asyncio.to_thread(lambda: hashlib.sha256(data).hexdigest())}"


def too_large(size: int) -> TooLarge:
    """Return the error of a value that is too large to be kept."""
    return TooLarge(
        f"It has {size} bytes; {SIZE_MAX_BYTES} can be kept.", code="blob.too_large",
        hint="Put the data somewhere the agent can read, and send its address.",
    )  # fmt: skip


def _check(name: str) -> None:
    if _NAME.fullmatch(name) is None:
        raise Invalid(f"{name[:80]!r} is not the digest of a blob.", code="blob.bad_digest")


def _meta_subject(name: str) -> str:
    _check(name)
    return f"$O.{subjects.BLOBS}.M.{base64.urlsafe_b64encode(name.encode()).decode()}"


def _chunks_subject(upload: str) -> str:
    if not (_UPLOAD.fullmatch(upload) or re.fullmatch(r"[A-Za-z0-9]{1,64}", upload)):
        raise Invalid(f"{upload[:80]!r} is not the name of an upload.", code="blob.bad_upload")
    return f"$O.{subjects.BLOBS}.C.{upload}"
