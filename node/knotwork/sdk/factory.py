"""How a plugin is described and opened: a `Factory` names it, says what it can be told, and opens it."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Generic, Literal, TypeVar

from pydantic import ConfigDict

from knotwork.sdk.checked import Checked
from knotwork.sdk.ports import Buckets, no_buckets

if TYPE_CHECKING:
    import logging

    from knotwork.sdk.ports import Clock, Emit, KeyValue, Secrets, Stream

T_co = TypeVar("T_co", covariant=True)
Kind = Literal["executors", "routers", "memories", "spinups", "telemetry", "triggers"]
KINDS: tuple[Kind, ...] = ("executors", "routers", "memories", "spinups", "telemetry", "triggers")


class PluginConfig(Checked):
    """What an operator may write in the plugin's table; derive from it. Frozen, and unknown keys are refused."""

    model_config: ClassVar[ConfigDict] = ConfigDict(frozen=True, extra="forbid", defer_build=True)
    place_keys: ClassVar[tuple[str, ...]] = ()
    """Of a spin-up: the keys that say where its launches are. When one changes, those of before are ended as it was."""

    def code_files(self, base: Path) -> tuple[Path, ...]:  # noqa: ARG002  for those who override it
        """Return the files whose code this instance runs, relative paths counted from `base`: an edit opens it anew."""
        return ()


@dataclass(frozen=True, slots=True)
class Context:
    """What a plugin gets from the node, and all it gets: no NATS, no node.

    `id` is the instance's name in TOML, `folder` a folder of its own that outlives restarts, `base` where relative paths
    in the configuration start from, `child_env` makes the clean environment every child process must be started with. `buckets` are for memory
    plugins that run in the node's process.
    """

    id: str
    node: str
    log: logging.Logger
    folder: Path
    emit: Emit
    clock: Clock
    keep: KeyValue
    stream: Stream
    secrets: Secrets
    child_env: Callable[[dict[str, str]], dict[str, str]]
    base: Path = field(default_factory=Path.cwd)
    buckets: Buckets = no_buckets


@dataclass(frozen=True)
class Factory(Generic[T_co]):
    """One type of plugin.

    `open(config, context)` returns an async context manager: entering is start, leaving is stop, also after a start
    that failed half-way. Raise `sdk.Unavailable` while opening to be tried again later. `exclusive` means that two
    of it can not run side by side (a port, a lock), so a reload stops the old one first. `abilities` are short words
    shown by `knotwork plugin info`.
    """

    name: str
    config: type[PluginConfig]
    open: Callable[[Any, Context], AbstractAsyncContextManager[T_co]]
    summary: str = ""
    exclusive: bool = False
    abilities: tuple[str, ...] = ()
