"""What do the executor tests share? Both kinds of event loop."""

import asyncio
import sys
from collections.abc import Callable, Coroutine, Iterator
from typing import Any

import pytest

LIMIT_S = 45.0
"""Less than what hangs in these tests would take: a minute."""

Run = Callable[[Coroutine[Any, Any, Any]], Any]


def loops() -> list[Any]:
    kinds = [pytest.param(asyncio.new_event_loop, id="asyncio")]
    if sys.platform != "win32":
        import uvloop

        kinds.append(pytest.param(uvloop.new_event_loop, id="uvloop"))
    return kinds


async def bounded(steps: Coroutine[Any, Any, Any]) -> Any:
    async with asyncio.timeout(LIMIT_S):
        return await steps


@pytest.fixture(params=loops())
def run(request: pytest.FixtureRequest) -> Iterator[Run]:
    """Run the steps of a test, once in each kind of event loop."""
    with asyncio.Runner(loop_factory=request.param) as runner:
        yield lambda steps: runner.run(bounded(steps))
