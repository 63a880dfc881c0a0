"""Which ops are there: the one table that every door reads. A new op is a row in one of these modules, nothing else."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from knotwork.ops import (
    agents,
    approvals,
    blobs,
    channels,
    children,
    claims,
    config,
    crew,
    crew_steering,
    dead,
    memory,
    memory_care,
    messages,
    node,
    nodes,
    plugin,
    project,
    runs,
    sessions,
    targets,
    task_changes,
    tasks,
    tools,
    triggers,
    view,
    workflows,
)
from knotwork.ops.op import REGISTERED, Caller, CliForm, Effect, Example, Op, Reply, Request, op

# importing a module puts its rows into the table
ROOMS = (
    node,
    nodes,
    agents,
    sessions,
    channels,
    messages,
    memory,
    memory_care,
    tasks,
    task_changes,
    dead,
    blobs,
    claims,
    children,
    workflows,
    runs,
    approvals,
    crew,
    crew_steering,
    triggers,
    tools,
    targets,
    project,
    view,
    config,
    plugin,
)
TABLE: Mapping[str, Op] = MappingProxyType(
    {name: op for room in ROOMS for name, op in REGISTERED.items() if op.handler.__module__ == room.__name__}
)
"""In the order of the rooms, whoever imported one of them first."""

__all__ = ["ROOMS", "TABLE", "Caller", "CliForm", "Effect", "Example", "Op", "Reply", "Request", "op"]
