"""The plugins that come with Knotwork. They use the same door as foreign ones: an entry point, six hooks, the SDK."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from knotwork.sdk import Factory, hookimpl
from knotwork_plugins import executors as executor_plugins
from knotwork_plugins import memories as memory_plugins
from knotwork_plugins import routers as router_plugins
from knotwork_plugins import spinups as spinup_plugins
from knotwork_plugins import telemetry as telemetry_plugins
from knotwork_plugins import triggers as trigger_plugins


@hookimpl
def executors() -> Iterable[Factory[Any]]:
    """Yield the ways of carrying out work."""
    return executor_plugins.FACTORIES


@hookimpl
def routers() -> Iterable[Factory[Any]]:
    """Yield the ways of choosing an agent."""
    return router_plugins.FACTORIES


@hookimpl
def memories() -> Iterable[Factory[Any]]:
    """Yield the places to remember things."""
    return memory_plugins.FACTORIES


@hookimpl
def spinups() -> Iterable[Factory[Any]]:
    """Yield the ways of starting agents."""
    return spinup_plugins.FACTORIES


@hookimpl
def telemetry() -> Iterable[Factory[Any]]:
    """Yield the places that telemetry goes to."""
    return telemetry_plugins.FACTORIES


@hookimpl
def triggers() -> Iterable[Factory[Any]]:
    """Yield the things in the world that start runs."""
    return trigger_plugins.FACTORIES
