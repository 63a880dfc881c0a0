"""Which tools look after channels? To make one, to say what it keeps, to close it."""

from __future__ import annotations

from typing import Any, Self

from pydantic import Field, model_validator

from knotwork.mcp.channel_tools import CHANNEL, channel
from knotwork.mcp.tool import ADDS, SETS, TAKES_AWAY, CamelInput, Session, tool, without
from knotwork.ops.channels import MIB
from knotwork.ops.words import Text, Token


class CreateInput(CamelInput):
    """A channel, and what it keeps."""

    channel: Token = Field(description="its name")
    description: Text | None = Field(default=None, description="one line: what it is for")
    max_messages: int | None = Field(default=None, ge=1, le=1_000_000, description="messages kept; 10000 by default")
    max_bytes: int | None = Field(
        default=None, ge=2 * MIB, le=8192 * MIB, description="bytes kept, 2097152 at least; 64 MiB by default"
    )
    max_age_secs: float | None = Field(
        default=None, ge=1, le=3650 * 86400, description="seconds a message is kept; 30 days by default"
    )

    def fields(self) -> dict[str, Any]:
        """Return what the op is asked with."""
        limits = {"max_messages": self.max_messages, "max_bytes": self.max_bytes, "max_age_s": self.max_age_secs}
        about = {} if self.description is None else {"about": self.description}
        return {"name": self.channel, **about, **without(limits)}


@tool(
    "create_channel", CreateInput, CHANNEL, title="Make a channel",
    description="Make a channel that everybody in the project finds. What is over any of its limits goes, the oldest first.",
    hints=ADDS,
)  # fmt: skip
async def create_channel(given: CreateInput, session: Session) -> dict[str, Any]:
    """Make it."""
    return channel(await session.ask("channel.create", **given.fields()), limits=True)


class ConfigureInput(CreateInput):
    """What is to be different."""

    @model_validator(mode="after")
    def _something(self) -> Self:
        if len(self.fields()) == 1:
            raise ValueError("say what to change: description, maxMessages, maxBytes or maxAgeSecs")
        return self


@tool(
    "configure_channel", ConfigureInput, CHANNEL, title="Change a channel",
    description="Change what a channel is for, or what it keeps: for whoever made it. What is over a new limit goes at once. "
    "channels_status shows the limits.",
    hints=TAKES_AWAY,
)  # fmt: skip
async def configure_channel(given: ConfigureInput, session: Session) -> dict[str, Any]:
    """Change it."""
    return channel(await session.ask("channel.set", **given.fields()), limits=True)


class ArchiveInput(CamelInput):
    """Which channel, and whether it comes back."""

    channel: Token = Field(description="its name")
    undo: bool = Field(default=False, description="open it again")


@tool(
    "archive_channel", ArchiveInput, CHANNEL, title="Close a channel",
    description="Close a channel, for whoever made it: it can be read, and nothing more is said in it. undo opens it again.",
    hints=SETS,
)  # fmt: skip
async def archive_channel(given: ArchiveInput, session: Session) -> dict[str, Any]:
    """Close it, or open it again."""
    return channel(await session.ask("channel.archive", name=given.channel, undo=given.undo), limits=True)
