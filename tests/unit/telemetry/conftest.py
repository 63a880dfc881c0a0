import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager

import pytest

from knotwork.sdk import Record
from knotwork.telemetry.emitter import Emitter


class Listening:
    """A sink that keeps what it gets; `hold` keeps it from taking more, `fail` makes it raise."""

    def __init__(self, wants: frozenset[str] | None = None) -> None:
        if wants is not None:
            self.wants = wants
        self.batches: list[list[Record]] = []
        self.free = asyncio.Event()
        self.free.set()
        self.entered = asyncio.Event()
        self.fail: BaseException | None = None

    @property
    def records(self) -> list[Record]:
        return [record for batch in self.batches for record in batch]

    async def emit(self, records: Sequence[Record]) -> None:
        self.entered.set()
        await self.free.wait()
        if self.fail is not None:
            raise self.fail
        self.batches.append(list(records))


@asynccontextmanager
async def running(emitter: Emitter) -> AsyncIterator[Emitter]:
    async with asyncio.timeout(90), asyncio.TaskGroup() as group:
        group.create_task(emitter.run())
        await asyncio.sleep(0)
        try:
            yield emitter
        finally:
            await emitter.close(timeout_s=0.2)


@pytest.fixture
def sink() -> type[Listening]:
    return Listening


@pytest.fixture
def run() -> Callable[[Emitter], object]:
    return running
