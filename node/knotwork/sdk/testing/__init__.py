"""How does a plugin author test a plugin without a node? With a host for one plugin and a contract suite per kind.

from knotwork.sdk.testing import ExecutorContract, host

class TestEcho(ExecutorContract):      # a dozen tests, run by plain pytest
    factory = my_plugin.FACTORY
    config = {"prefix": "> "}
    input = "hello"

async def answer():
    async with host(my_plugin.FACTORY, {"prefix": "> "}) as echo:
        return await echo.execute(attempt("hello"))
"""

from knotwork.sdk.testing.buckets import DictBucket, DictBuckets, SystemClock
from knotwork.sdk.testing.contract import PluginContract
from knotwork.sdk.testing.contract_executor import ExecutorContract
from knotwork.sdk.testing.contract_memory import EmbedderContract, MemoryContract
from knotwork.sdk.testing.contract_router import RouterContract
from knotwork.sdk.testing.contract_spinup import SpinUpContract
from knotwork.sdk.testing.contract_telemetry import TelemetryContract
from knotwork.sdk.testing.contract_trigger import TriggerContract
from knotwork.sdk.testing.one import attempt, host
from knotwork.sdk.testing.surroundings import (
    DictKeyValue,
    FakeClock,
    Recorder,
    RecordingReporter,
    RecordingStream,
    make_context,
)

__all__ = [
    "DictBucket",
    "DictBuckets",
    "DictKeyValue",
    "EmbedderContract",
    "ExecutorContract",
    "FakeClock",
    "MemoryContract",
    "PluginContract",
    "Recorder",
    "RecordingReporter",
    "RecordingStream",
    "RouterContract",
    "SpinUpContract",
    "SystemClock",
    "TelemetryContract",
    "TriggerContract",
    "attempt",
    "host",
    "make_context",
]
