"""Where is an input or output kept that is too large for its task? In BLOBS; the task and its outcome name its digest."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from knotwork.bus.blobs import Blobs
from knotwork.bus.pauses import Pauses
from knotwork.sdk.errors import KnotworkError, TooLarge, Unavailable
from knotwork.work.records import INLINE_MAX_BYTES

if TYPE_CHECKING:
    from knotwork.bus.connection import Connection
    from knotwork.work.records import Task

log = logging.getLogger(__name__)
NOTHING = b"null"


class Values:
    """Inputs and outputs of one project's tasks, as JSON."""

    def __init__(self, connection: Connection) -> None:
        """Keep them over `connection`."""
        self.blobs = Blobs(connection)

    async def open(self) -> None:
        """Make sure that there is a place for them."""
        await self.blobs.open()

    async def keep(self, value: bytes) -> tuple[bytes, str]:
        """Return a value as it stands in a record: itself and no digest, or nothing and the digest of a large one.

        Raises `TooLarge` (`blob.too_large`) over 64 MiB, `Unavailable` when the store is full or NATS is away.
        """
        if len(value) <= INLINE_MAX_BYTES:
            return value, ""
        return NOTHING, await self.blobs.put(value)

    async def keep_surely(self, value: bytes) -> tuple[bytes, str]:
        """Do the same for a value that must not be lost: it is tried again for as long as that may help."""
        pauses = Pauses()
        while True:
            try:
                return await self.keep(value)
            except TooLarge:
                raise
            except KnotworkError as error:
                log.debug("a value of %d bytes is kept in a moment: %s", len(value), error)
                await pauses.wait()

    async def input_of(self, task: Task) -> bytes:
        """Return the input of a task, wherever it is kept; raises what `Blobs.get` raises."""
        return await self.read(bytes(task.input), task.blob)

    async def read(self, value: bytes, digest: str) -> bytes:
        """Return a value as `keep` was given it."""
        return await self.blobs.get(digest) if digest else value


def passing(error: KnotworkError) -> bool:
    """Return whether a value that could not be read may be read later."""
    return isinstance(error, Unavailable) or error.retriable
