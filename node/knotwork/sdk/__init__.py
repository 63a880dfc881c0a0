"""What a plugin may see: the stable surface. `__all__` is the contract; `API_VERSION` is raised when it breaks.

Everything a plugin imports of Knotwork comes from here or from `knotwork.sdk.testing`. Names are loaded when they are
first asked for: a command that only needs `sdk.errors` does not pay for pydantic.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from knotwork.sdk.errors import (
        Busy,
        Cancelled,
        ConfigInvalid,
        Conflict,
        Denied,
        Internal,
        Invalid,
        KnotworkError,
        NotFound,
        PluginFailed,
        TimedOut,
        TooLarge,
        Unavailable,
        Unreachable,
    )
    from knotwork.sdk.executor import Attempt, Continue, Done, Executor, Failed, Outcome, Probes, Reporter
    from knotwork.sdk.factory import KINDS, Context, Factory, Kind, PluginConfig
    from knotwork.sdk.hooks import hookimpl
    from knotwork.sdk.memory import Embedder, Kept, MemoryChange, MemoryScope, MemoryStore, Place
    from knotwork.sdk.ports import Bucket, BucketEntry, Buckets, Clock, Emit, KeyValue, Secrets, Stream
    from knotwork.sdk.router import Ask, Candidate, Route, Router
    from knotwork.sdk.secret import SecretRef
    from knotwork.sdk.spinup import Condition, Launched, LaunchRequest, SpinUp
    from knotwork.sdk.telemetry import Event, Metric, Record, Scraped, Span, Telemetry
    from knotwork.sdk.trigger import Firing, Mark, Trigger

API_VERSION = 1

_HOMES = {
    "errors": "Busy Cancelled ConfigInvalid Conflict Denied Internal Invalid KnotworkError NotFound PluginFailed "
    "TimedOut TooLarge Unavailable Unreachable",
    "executor": "Attempt Continue Done Executor Failed Outcome Probes Reporter",
    "factory": "KINDS Context Factory Kind PluginConfig",
    "hooks": "hookimpl",
    "memory": "Embedder Kept MemoryChange MemoryScope MemoryStore Place",
    "ports": "Bucket BucketEntry Buckets Clock Emit KeyValue Secrets Stream",
    "router": "Ask Candidate Route Router",
    "secret": "SecretRef",
    "spinup": "Condition Launched LaunchRequest SpinUp",
    "telemetry": "Event Metric Record Scraped Span Telemetry",
    "trigger": "Firing Mark Trigger",
}
_HOME = {name: module for module, names in _HOMES.items() for name in names.split()}


def __getattr__(name: str) -> Any:
    """Load a name of the surface when it is first asked for."""
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module  # the standard way to load a module by name

    value = getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
    globals()[name] = value
    return value


__all__ = [
    "API_VERSION",
    "KINDS",
    "Ask",
    "Attempt",
    "Bucket",
    "BucketEntry",
    "Buckets",
    "Busy",
    "Cancelled",
    "Candidate",
    "Clock",
    "Condition",
    "ConfigInvalid",
    "Conflict",
    "Context",
    "Continue",
    "Denied",
    "Done",
    "Embedder",
    "Emit",
    "Event",
    "Executor",
    "Factory",
    "Failed",
    "Firing",
    "Internal",
    "Invalid",
    "Kept",
    "KeyValue",
    "Kind",
    "KnotworkError",
    "LaunchRequest",
    "Launched",
    "Mark",
    "MemoryChange",
    "MemoryScope",
    "MemoryStore",
    "Metric",
    "NotFound",
    "Outcome",
    "Place",
    "PluginConfig",
    "PluginFailed",
    "Probes",
    "Record",
    "Reporter",
    "Route",
    "Router",
    "Scraped",
    "SecretRef",
    "Secrets",
    "Span",
    "SpinUp",
    "Stream",
    "Telemetry",
    "TimedOut",
    "TooLarge",
    "Trigger",
    "Unavailable",
    "Unreachable",
    "hookimpl",
]
