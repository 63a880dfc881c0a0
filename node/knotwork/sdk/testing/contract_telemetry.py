"""What must every telemetry sink do? Take whatever records come, in batches, and close in time."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING

from knotwork.sdk.errors import KnotworkError
from knotwork.sdk.telemetry import Event, Metric, Record, Scraped, Span
from knotwork.sdk.testing.contract import PluginContract
from knotwork.sdk.testing.one import host

if TYPE_CHECKING:
    from collections.abc import Sequence

BATCH = 512
CLOSE_S = 15.0
NS = 1_000_000_000


def records(count: int) -> list[Record]:
    """Return `count` records of all three kinds, some of them odd on purpose."""
    made: list[Record] = []
    for number in range(count):
        at_ns = 1_700_000_000 * NS + number
        labels = {"agent": ("reviewer", "", 'quote"\n', "ünïcödé")[number % 4]}
        span_id = f"{number + 1:016x}"
        made.append(
            (
                Event("agent.done", at_ns, node="n1", level="info", data={"ms": number, "nested": {"a": [None, 1.5]}}),
                Span(
                    "invoke", f"{number + 1:032x}", span_id, "", at_ns, at_ns + NS, attributes={"n": number, "x": True}
                ),
                Metric("knotwork_calls_total", 1, "counter", labels),
                Metric("knotwork_in_flight", -1.5, "gauge", labels),
                Metric("knotwork_call_seconds", 0.004, "histogram", labels),
                Metric("knotwork_calls_total", 1, "counter", {"other": "label set"}),
                Span("failed", f"{number + 1:032x}", span_id, "f" * 16, at_ns, at_ns, ok=False, error="boom\n" * 50),
            )[number % 7]
        )
    return made


class TelemetryContract(PluginContract):
    """Set `loses` when the sample config points at nothing, so that `emit` may raise `sdk.Unavailable`."""

    loses: bool = False
    close_s: float = CLOSE_S

    async def give(self, sink: object, batch: Sequence[Record]) -> None:
        """Hand one batch over; errors of ours are allowed when the sink `loses`."""
        try:
            await sink.emit(batch)  # type: ignore[attr-defined]  # a sink, by its contract
        except KnotworkError:
            assert self.loses, "refused a batch"
            raise

    def test_takes_every_kind_of_record(self) -> None:
        """Events, spans and metrics, one alone, none, and a full batch."""

        async def steps() -> None:
            async with host(self.factory, self.config) as sink:
                for batch in (records(1), [], records(BATCH)):
                    await self._given(sink, batch)

        self.run(steps())

    def test_takes_batches_at_the_same_time(self) -> None:
        """Two batches at once do not disturb each other."""

        async def steps() -> None:
            async with host(self.factory, self.config) as sink, asyncio.TaskGroup() as group:
                for _ in range(3):
                    group.create_task(self._given(sink, records(50)))

        self.run(steps())

    def test_closes_in_time(self) -> None:
        """Closing after a batch takes at most `close_s` seconds."""

        async def steps() -> None:
            began_s = time.monotonic()
            async with host(self.factory, self.config) as sink:
                await self._given(sink, records(BATCH))
                began_s = time.monotonic()
            assert time.monotonic() - began_s <= self.close_s, "took too long to close"

        self.run(steps())

    def test_can_be_scraped_when_it_says_so(self) -> None:
        """A sink with `scrape` answers a content type and bytes, also before the first record."""

        async def steps() -> None:
            async with host(self.factory, self.config) as sink:
                if not isinstance(sink, Scraped):
                    return
                for batch in ([], records(BATCH)):
                    await self._given(sink, batch)
                    content_type, body = sink.scrape()
                    assert "/" in content_type
                    assert isinstance(body, bytes)

        self.run(steps())

    async def _given(self, sink: object, batch: Sequence[Record]) -> None:
        try:
            await self.give(sink, batch)
        except KnotworkError:
            if not self.loses:
                raise
