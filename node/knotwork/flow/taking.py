"""What does a run take over that does another again? What was done of it, by digest where that is large."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import msgspec

from knotwork.flow import again, anew, facts
from knotwork.sdk.errors import Invalid, NotFound
from knotwork.work import records

if TYPE_CHECKING:
    from knotwork.bus.blobs import Blobs
    from knotwork.bus.connection import Connection
    from knotwork.flow.facts import Left, Start, StepEnd
    from knotwork.flow.looking import Looking, Sight

log = logging.getLogger(__name__)
INLINE_MAX_BYTES, SMALL_BYTES = 1024 * 1024, 4096
"""How much of what a run takes over stands in its start; when it is more, each value over so many bytes is a blob."""


class Taking:
    """What was done in the runs of one project, for those that do them again."""

    def __init__(self, connection: Connection, looking: Looking, blobs: Blobs) -> None:
        """Read over `connection` and by `looking`; what is large is kept in `blobs`."""
        self._connection, self._looking, self._blobs = connection, looking, blobs

    async def over(self, sight: Sight, step: str = "") -> tuple[dict[str, StepEnd], dict[str, Left]]:
        """Return the ends of steps that a new run takes over, and how far others were; see `again.taken_over`."""
        given, left = again.taken_over(sight.run, step)
        size = sum(len(end.output) for end in given.values()) + sum(len(one.items) for one in left.values())
        most = records.INLINE_MAX_BYTES if size <= INLINE_MAX_BYTES else SMALL_BYTES
        for name, end in given.items():
            if len(end.output) > most:
                digest = await self._blobs.put(bytes(end.output))
                given[name] = msgspec.structs.replace(end, output=facts.NULL, blob=digest)
        for name, one in left.items():
            before = sight.start.left.get(name)
            if one.run and before is not None and not await anew.exists(self._connection, one.run):
                left[name] = before  # it could not be started: its workflow was away
            elif len(one.items) > most:
                digest = await self._blobs.put(bytes(one.items))
                left[name] = msgspec.structs.replace(one, items=facts.NULL, blob=digest)
        return given, left

    async def below(self, start: Start, before: str) -> Start:
        """Return how a run below starts that does another again, or the last that went on for that.

        It is just `start` when its workflow is another by now, when not the same may see both (an imported run names what
        it likes), or nothing is known of the other any more.
        """
        try:
            sight = await self._looking.look(await self._looking.latest(before))
        except (NotFound, Invalid) as error:
            log.info("a run below begins with nothing of %s: %s", before, error)
            return start
        was = sight.start
        if (was.digest, was.circle) != (start.digest, start.circle):
            return start
        given, left = await self.over(sight)
        return msgspec.structs.replace(
            start, input=was.input, blob=was.blob, of=sight.id, given=given, left=left, handed=was.handed
        )
