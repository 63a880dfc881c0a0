"""How is one plugin run without a node? `host` opens it as a slot would: config checked, context made, then left."""

from __future__ import annotations

import asyncio
import itertools
import shutil
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, TypeVar

from knotwork.sdk.executor import Attempt, Probes, Reporter, Silent
from knotwork.sdk.testing.surroundings import make_context

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping

    from knotwork.sdk.factory import Factory

T = TypeVar("T")
_numbers = itertools.count(1)


@asynccontextmanager
async def host(
    factory: Factory[T], config: Mapping[str, Any] | None = None, *, start_timeout_s: float = 60.0, **context: Any
) -> AsyncIterator[T]:
    """Open one plugin, give it, and close it again; a plugin that probes is probed first.

    `config` is what an operator would write, `context` replaces parts of the context (`emit=`, `clock=`, `folder=`…).
    Raises pydantic's ValidationError for a bad config, TimeoutError when opening takes over `start_timeout_s` seconds.
    """
    checked = factory.config.model_validate(dict(config or {}))
    surroundings = make_context(**context)
    try:
        async with asyncio.timeout(start_timeout_s) as limit, factory.open(checked, surroundings) as plugin:
            if isinstance(plugin, Probes):
                await plugin.probe()
            limit.reschedule(None)
            yield plugin
    finally:
        if "folder" not in context:
            await asyncio.to_thread(shutil.rmtree, surroundings.folder, ignore_errors=True)


def attempt(input: Any = None, report: Reporter | None = None, **given: Any) -> Attempt:  # noqa: A002  the word for it
    """Return an attempt with the given input; any other field of `Attempt` can be given too."""
    number = next(_numbers)
    parts = {"id": f"att_{number}", "agent": "test", "idempotency_key": f"key_{number}", **given}
    return Attempt(input=input, report=report or Silent(), **parts)
