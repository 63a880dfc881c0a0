"""Which keys have the tables of plugins in common? Those of every plugin, and those of agents, targets and triggers.

Every other key belongs to the plugin and waits in `settings` until its own config class has judged it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from knotwork.config.written import Flag, Seconds, Table, Tag, Text, Token, Whole
from knotwork.sdk import KINDS, Kind

DEFAULT_PROJECT = "default"
IN_PROCESS: frozenset[Kind] = frozenset({"memories", "spinups"})
"""Kinds that only run in the node's own process."""


class InstanceTable(Table):
    """One configured plugin: the keys all plugins have in common; what else is written waits in `settings`."""

    type: Text = Field(default="", description="plugin type or path of a .py file; default: the id")
    enabled: Flag = Field(default=True, description="false keeps the table but does not start it")
    hosted: Flag = Field(default=False, description="run it in a process of its own")
    memory_mb: Whole = Field(
        default=0, ge=0, le=1024 * 1024, description="most MB of memory of that process; 0: no limit"
    )
    on_start_error: Literal["retry", "fail", "ignore"] = Field(
        default="retry",
        description="when it cannot start: try again later, refuse the whole configuration, or leave it",
    )
    settings: dict[str, Any] = Field(default_factory=dict, description="all other keys: the plugin's own")

    @model_validator(mode="before")
    @classmethod
    def _sort_out(cls, data: Any) -> Any:
        """Move every key that is not common to all plugins into `settings`."""
        if not isinstance(data, dict):
            return data
        common = {key: value for key, value in data.items() if key in cls.common_keys()}
        return {**common, "settings": {key: value for key, value in data.items() if key not in common}}

    @classmethod
    def common_keys(cls) -> tuple[str, ...]:
        """Return the keys every table of this kind understands."""
        return tuple(key for key in cls.model_fields if key != "settings")

    def named(self, name: str, projects: Mapping[str, object]) -> Self:  # noqa: ARG002 - executors need the projects
        """Return the table with the defaults that follow from its id filled in."""
        return self if self.type else self.model_copy(update={"type": name})


class ExecutorTable(InstanceTable):
    """One agent: an executor and what others may know of it."""

    description: Text = Field(default="", description="one line for people and agents: what it is good for")
    capabilities: tuple[Token, ...] = Field(
        default=(), max_length=64, description="what work is routed by; default: the id"
    )
    tags: tuple[Tag, ...] = Field(
        default=(), max_length=64, description="words that callers may require, prefer or exclude"
    )
    boundaries: tuple[Token, ...] = Field(default=(), max_length=64, description="data classes it accepts; empty: all")
    projects: tuple[Token, ...] = Field(
        default=(), max_length=64, description="projects it serves; default: the only one"
    )
    concurrency: Whole = Field(default=1, ge=1, le=10_000, description="calls it works on at once")
    queue_max: Whole = Field(default=64, ge=0, le=100_000, description="calls that may wait; more are refused as busy")
    timeout_s: Seconds = Field(default=600.0, gt=0, le=30 * 86400, description="seconds one call may take")
    input_schema: dict[str, Any] | None = Field(default=None, description="JSON Schema its input must meet")
    output_schema: dict[str, Any] | None = Field(default=None, description="JSON Schema its output must meet")

    def named(self, name: str, projects: Mapping[str, object]) -> Self:
        """Return the table with type, capabilities and projects filled in from its id and the declared projects."""
        filled: dict[str, Any] = {}
        if not self.type:
            filled["type"] = name
        if not self.capabilities:
            filled["capabilities"] = (name,)
        if not self.projects:
            filled["projects"] = tuple(projects) if len(projects) == 1 else (DEFAULT_PROJECT,)
        return self.model_copy(update=filled) if filled else self


class TargetTable(InstanceTable):
    """One place where agents can be started, by a spin-up plugin, and when they are."""

    capabilities: tuple[Token, ...] = Field(
        default=(), max_length=64, description="what the agents it starts can do; empty: anything"
    )
    boundaries: tuple[Token, ...] = Field(
        default=(), max_length=64, description="data classes its agents accept; empty: all"
    )
    projects: tuple[Token, ...] = Field(
        default=(), max_length=64, description="projects it starts agents for; empty: the first"
    )
    cost: Annotated[float, Field(strict=True, allow_inf_nan=False)] = Field(
        default=0.0, ge=0, description="what a start costs, in your own unit; the cheapest healthy target is taken"
    )
    max_concurrent: Whole = Field(
        default=1, ge=1, le=1000, description="agents of it that may run at once, in each project"
    )
    cooldown_s: Seconds = Field(
        default=30.0, ge=0, le=86400, description="seconds it is left alone after a failure; doubled with each one more"
    )
    register_s: Seconds = Field(
        default=120.0, gt=0, le=86400, description="seconds until its agent must have registered, or the start failed"
    )
    idle_s: Seconds = Field(
        default=300.0, ge=0, le=30 * 86400, description="seconds without work after which its agent is stopped"
    )
    grace_s: Seconds = Field(default=30.0, ge=0, le=3600, description="seconds its agent gets to leave by itself")
    health_s: Seconds = Field(default=300.0, ge=1, le=86400, description="seconds between two looks at its health")
    wait_s: Seconds = Field(
        default=0.0,
        ge=0,
        le=30 * 86400,
        description="seconds work may wait for busy agents before one more is started; 0: only when nobody takes it",
    )


class TriggerTable(InstanceTable):
    """Where firings come from that triggers of kind `plugin` name as their source."""

    projects: tuple[Token, ...] = Field(
        default=(), max_length=64, description="projects whose triggers may use it; default: the only one"
    )

    def named(self, name: str, projects: Mapping[str, object]) -> Self:
        """Return the table with type and projects filled in from its id and the declared projects."""
        filled: dict[str, Any] = {} if self.type else {"type": name}
        if not self.projects:
            filled["projects"] = tuple(projects) if len(projects) == 1 else (DEFAULT_PROJECT,)
        return self.model_copy(update=filled) if filled else self


SECTIONS: dict[Kind, str] = {**{kind: kind for kind in KINDS}, "spinups": "targets"}
"""Under which name the instances of a kind are configured: a spin-up plugin is configured as a target."""
TABLES: dict[Kind, type[InstanceTable]] = {
    "executors": ExecutorTable,
    "spinups": TargetTable,
    "triggers": TriggerTable,
}
"""The tables of kinds whose instances have more keys in common than every plugin has."""
