"""The six hooks. A plugin implements those it has something for; each yields `Factory` descriptors and does nothing else.

A whole plugin:

    from contextlib import asynccontextmanager
    from knotwork.sdk import Attempt, Done, Factory, Outcome, PluginConfig, hookimpl

    class EchoConfig(PluginConfig):
        prefix: str = ""

    class Echo:
        def __init__(self, config):
            self.config = config

        async def execute(self, attempt: Attempt) -> Outcome:
            return Done({"echo": self.config.prefix + str(attempt.input)})

    @asynccontextmanager
    async def open_echo(config, context):
        yield Echo(config)

    @hookimpl
    def executors():
        yield Factory(name="echo", config=EchoConfig, open=open_echo, summary="Answers with its input.")
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pluggy

if TYPE_CHECKING:
    from collections.abc import Iterable

    from knotwork.sdk.executor import Executor
    from knotwork.sdk.factory import Factory
    from knotwork.sdk.memory import Embedder, MemoryStore
    from knotwork.sdk.router import Router
    from knotwork.sdk.spinup import SpinUp
    from knotwork.sdk.telemetry import Telemetry
    from knotwork.sdk.trigger import Trigger

PROJECT = "knotwork"
hookspec: pluggy.HookspecMarker = pluggy.HookspecMarker(PROJECT)
hookimpl: pluggy.HookimplMarker = pluggy.HookimplMarker(PROJECT)


@hookspec
def executors() -> Iterable[Factory[Executor]]:  # type: ignore[empty-body]
    """Yield ways of carrying out work. Called once, when the plugin is loaded."""


@hookspec
def routers() -> Iterable[Factory[Router]]:  # type: ignore[empty-body]
    """Yield ways of choosing an agent. Called once, when the plugin is loaded."""


@hookspec
def memories() -> Iterable[Factory[MemoryStore | Embedder]]:  # type: ignore[empty-body]
    """Yield places to remember things. Called once, when the plugin is loaded."""


@hookspec
def spinups() -> Iterable[Factory[SpinUp]]:  # type: ignore[empty-body]
    """Yield ways of starting agents. Called once, when the plugin is loaded."""


@hookspec
def telemetry() -> Iterable[Factory[Telemetry]]:  # type: ignore[empty-body]
    """Yield places that events, spans and metrics go to. Called once, when the plugin is loaded."""


@hookspec
def triggers() -> Iterable[Factory[Trigger]]:  # type: ignore[empty-body]
    """Yield things in the world that start runs. Called once, when the plugin is loaded."""
