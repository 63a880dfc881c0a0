"""How are workflows wired for one project? Definitions, shards, journal, engine, events, history: opened together, closed together."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from typing import TYPE_CHECKING

from knotwork.bus.background import background
from knotwork.bus.commit import open_group_commit
from knotwork.flow.approvals import Approvals
from knotwork.flow.carrying import Carrier
from knotwork.flow.children import Children
from knotwork.flow.definitions import Definitions
from knotwork.flow.engine import Engine
from knotwork.flow.events import Events
from knotwork.flow.forgetting import Over
from knotwork.flow.history import Historian, Keeps
from knotwork.flow.journal import Journal
from knotwork.flow.limits import Limits
from knotwork.flow.runs import Runs
from knotwork.flow.shards import Shards
from knotwork.flow.untold import Untold
from knotwork.sdk.errors import KnotworkError

if TYPE_CHECKING:
    from knotwork.bus.commit import GroupCommit
    from knotwork.bus.connection import Connection
    from knotwork.work.room import Work

AGAIN_S = 0.5


class Flow:
    """Workflows of one project, as this node takes part in them. Made by `open_flow`."""

    def __init__(
        self,
        group: asyncio.TaskGroup,
        connection: Connection,
        work: Work,
        writing: GroupCommit,
        *,
        node: str,
        keeps: Callable[[], Keeps],
    ) -> None:
        """Wire the parts; `keeps()` says how much of the past is kept."""
        self.connection, self.values = connection, work.values
        self.definitions = Definitions(connection)
        self.events = Events(connection)
        self.limits = Limits(group, connection)
        self.shards = Shards(connection, node, lambda mine: self.journal.own(mine))  # noqa: PLW0108  made below
        self.runs = Runs(connection, work, self.definitions, keeps)
        carrier = Carrier(
            group, connection, work, definitions=self.definitions, events=self.events, limits=self.limits, node=node,
            sure=lambda: self.shards.sure,
            below=self.runs.taking.below,
        )  # fmt: skip
        over: dict[str, Over] = {}
        engine = Engine(group, definitions=self.definitions, values=work.values, carrier=carrier, over=over)
        self.journal = Journal(group, connection, engine, over)
        self.untold = Untold(connection, self.journal)
        self._historian = Historian(connection, writing, self.journal, over, keeps)
        self.children = Children(connection, work, self.runs, self.definitions)
        self.approvals = Approvals(connection, self.runs)
        self._again = asyncio.Event()

    async def open(self) -> None:
        """Make the stores and listen."""
        await self.definitions.open()
        await self.events.open()
        await self._historian.open()
        await self.limits.open()
        await self.untold.open()
        await self.runs.open()

    async def run(self) -> None:
        """Look after the runs in our shards, for ever."""
        forget = self.connection.on_up(self._again.set)
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self.shards.run(), name="shards")
                group.create_task(self.events.run(), name="events")
                group.create_task(self.untold.run(), name="what is untold")
                group.create_task(self._historian.run(), name="history")
                group.create_task(self.limits.run(self.journal.is_over), name="limits")
                while True:
                    await self._again.wait()
                    self._again.clear()
                    self.journal.reconnected()
                    self.untold.doubt()
                    try:
                        await self.runs.reconnected()
                    except KnotworkError:
                        await asyncio.sleep(AGAIN_S)
                        self._again.set()
        finally:
            forget()


@asynccontextmanager
async def open_flow(
    connection: Connection, work: Work, *, node: str, keeps: Callable[[], Keeps] = Keeps
) -> AsyncIterator[Flow]:
    """Take part in the workflows of a project inside the block; `keeps()` says how much of the past is kept."""
    async with AsyncExitStack() as stack:
        group = await stack.enter_async_context(background())
        writing = await stack.enter_async_context(open_group_commit(connection))
        flow = Flow(group, connection, work, writing, node=node, keeps=keeps)
        await flow.open()
        group.create_task(flow.run(), name="flow")
        try:
            yield flow
        finally:
            flow.runs.close(work.claims.left)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(1.0):
                    await flow.shards.leave()
