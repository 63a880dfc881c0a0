"""Which ops are there: the one table that every door reads. A new op is a row in one of these modules, nothing else."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from knotwork.ops import agents, config, dead, node, nodes, plugin, task_changes, tasks
from knotwork.ops.op import REGISTERED, Caller, CliForm, Effect, Example, Op, Reply, Request, op

ROOMS = (node, nodes, agents, tasks, task_changes, dead, config, plugin)  # importing a module puts its rows into the table
TABLE: Mapping[str, Op] = MappingProxyType(REGISTERED)

__all__ = ["ROOMS", "TABLE", "Caller", "CliForm", "Effect", "Example", "Op", "Reply", "Request", "op"]
