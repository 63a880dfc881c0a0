"""Does a plugin keep the contract of its kind? Runs the suite of `knotwork.sdk.testing` on one type, without pytest."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from knotwork.sockets import hosted

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from knotwork.sockets.catalog import Entry

REASON_MAX = 2000
SAMPLE = "hello"
"""What an executor is given to work on when nobody says: most can do something with a word."""


@dataclass(frozen=True, slots=True)
class Result:
    """How one test of the suite ended; `reason` is empty when it passed, `took_s` in seconds."""

    name: str
    passed: bool
    reason: str
    took_s: float


def run(
    entry: Entry, config: Mapping[str, Any], sample: Any = SAMPLE, *, apart: bool = False, told: bool = True
) -> Iterator[Result]:
    """Yield the result of each test as it ends. `apart` runs it hosted.

    `sample` is the input of an executor; when that was not `told`, a failure because of it says so.

    Blocks, and runs event loops of its own: not to be called from a running loop.
    """
    from knotwork.sdk import testing  # brings psutil: only for this verb

    suites: dict[str, type[testing.PluginContract]] = {
        "executors": testing.ExecutorContract,
        "routers": testing.RouterContract,
        "memories": testing.EmbedderContract if "embeds" in entry.factory.abilities else testing.MemoryContract,
        "spinups": testing.SpinUpContract,
        "telemetry": testing.TelemetryContract,
        "triggers": testing.TriggerContract,
    }
    factory = hosted.wrap(entry, 0, hosted.Hosting()) if apart or entry.hosted_only else entry.factory
    suite = type("Suite", (suites[entry.kind],), {"factory": factory, "config": dict(config), "input": sample})
    for name in (name for name in dir(suite) if name.startswith("test_")):
        began_s = time.perf_counter()
        try:
            getattr(suite(), name)()
        except KeyboardInterrupt:  # whoever tests it wants no more
            raise
        except BaseException as error:  # noqa: BLE001  the boundary: a plugin may raise what it likes
            reason = f"{type(error).__name__}: {error}"[:REASON_MAX]
            if entry.kind == "executors" and not told and "the sample input failed" in reason:
                reason += f". It was given {sample!r}; name something it can work on with --input."
        else:
            reason = ""
        yield Result(name.removeprefix("test_"), not reason, reason, time.perf_counter() - began_s)
