"""What happens, for the doors' tests: what it was asked, one task, and then nothing for ever."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator

from knotwork.ops.project_replies import Happening

AT = "2026-01-01T00:00:00Z"


class StandInFeed:
    """Tells of one task."""

    async def watch(self, topics: frozenset[str], after: str) -> AsyncGenerator[Happening, None]:
        yield Happening(id="s-1", topic="feed", what="opened", at=AT, data={"topics": sorted(topics), "after": after})
        yield Happening(id="s-2", topic="work", what="completed", at=AT, data={"id": "t0000000000000001"})
        yield Happening(id="s-3", topic="feed", what="missed", at=AT, data={"count": 4})
        await asyncio.Event().wait()
