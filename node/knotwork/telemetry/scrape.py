"""What does `GET /metrics` answer? What the first sink that can be scraped says, up to date."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from knotwork.sdk import NotFound, Scraped

if TYPE_CHECKING:
    from knotwork.telemetry.emitter import Emitter
    from knotwork.telemetry.measure import Meter


async def scrape(emitter: Emitter, meter: Meter | None = None, timeout_s: float = 1.0) -> tuple[str, bytes]:
    """Return content type and body; raises `NotFound` (`telemetry.no_scrape`) when no sink can be scraped.

    Flushes `meter` first and waits at most `timeout_s` seconds for it to arrive.
    """
    for id_, sink in emitter.sinks().items():
        if isinstance(sink, Scraped):
            if meter is not None:
                meter.flush()
            await emitter.flush(timeout_s, id_)  # not the others: one that hangs must not hold up the page
            return await asyncio.to_thread(sink.scrape)
    raise NotFound(
        "No telemetry sink of this node can be scraped.",
        code="telemetry.no_scrape",
        hint='Add [telemetry.metrics] with type = "prometheus" to the configuration.',
    )
