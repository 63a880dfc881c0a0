"""What does a node answer about the tools that agents use? The reply models of the room `tool`, and what a host offers."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from typing import TYPE_CHECKING, Any, Protocol

from pydantic import Field

from knotwork.ops.op import Reply

if TYPE_CHECKING:
    from knotwork.ops.op import Caller
    from knotwork.ops.replies import Progress


class ToolRow(Reply):
    """One tool."""

    name: str
    title: str
    description: str
    toolsets: list[str] = Field(default=[], description="sets that hold it; `all` holds every one")
    reads: bool = Field(default=False, description="it changes nothing")


class ToolList(Reply):
    """Tools, in the order in which agents are shown them."""

    tools: list[ToolRow]


class ToolResult(Reply):
    """What a tool gave. With `is_error` it was refused or failed: `text` says why, and what to do."""

    text: str
    structured: dict[str, Any] = Field(default={})
    is_error: bool = False


class Tools(Protocol):
    """The tools that agents use, and how they are called."""

    def all(self, toolset: str) -> Sequence[ToolRow]:
        """Return the tools of a set; raises `NotFound` (`tool.no_toolset`)."""
        ...

    def call(
        self, name: str, arguments: Any, caller: Caller, key: str = ""
    ) -> AsyncGenerator[Progress | ToolResult, None]:
        """Call a tool: any number of `Progress`, then what it gave; raises `NotFound` (`tool.unknown`).

        What it sends, submits or reads counts once with the idempotency key. Closing the generator cancels what the tool does.
        """
        ...
