"""Which tools are about direct messages? To send, to read, to wait for them, to acknowledge."""

from __future__ import annotations

from typing import Annotated, Any, Self

from pydantic import Field, model_validator

from knotwork.mcp import message_values
from knotwork.mcp.message_values import ROWS
from knotwork.mcp.shapes import HIDDEN, record
from knotwork.mcp.tool import (
    ADDS,
    SETS,
    CamelInput,
    Capability,
    Cursor,
    Input,
    Priority,
    Session,
    Until,
    Words,
    tool,
    without,
)
from knotwork.ops.talk_words import Id, Kind, Thread, Whom
from knotwork.ops.task_words import Digest
from knotwork.trust.scopes import Scope

WAIT_DEFAULT_S, WAIT_MAX_S = 50.0, 600.0


class SendInput(CamelInput):
    """What to send to whom."""

    recipient_guid: Whom | None = Field(default=None, description="guid, handle or handle@project")
    capability: Capability | None = Field(default=None, description="or: all who have it; scope: team, public")
    scope: Scope | None = Field(
        default=None, description="with capability: personal, team (default), or public: other projects, too",
        json_schema_extra=HIDDEN,
    )  # fmt: skip
    message: Words
    message_type: Kind = Field(default="text", description="a word for filters")
    metadata: dict[str, Any] | None = Field(default=None, description="data that goes with it")
    priority: Priority = 5
    ack_required: bool = Field(default=False, description="shown again until acknowledged")
    reply_to: Id | None = Field(default=None, description="id of what you answer; alone: to its sender")
    expires: Until = Field(default="", description="30m, or RFC 3339")
    blob: Digest | None = Field(default=None, description="digest of put_blob", json_schema_extra=HIDDEN)

    @model_validator(mode="after")
    def _one_of_both(self) -> Self:
        given = (self.recipient_guid is not None) + (self.capability is not None)
        if given > 1 or (not given and self.reply_to is None):
            raise ValueError("give either recipientGuid or capability, or replyTo alone")
        if self.scope is not None and self.capability is None:
            raise ValueError("scope goes with capability: one recipient is meant wherever it is")
        return self


@tool(
    "send_direct_message", SendInput,
    record(messageId="text?", thread="text?", count="int", recipientHandle="text?"),
    title="Send a direct message",
    description="Send a message to one agent, kept while it is away. For everybody: send_message.",
    hints=ADDS,
)  # fmt: skip
async def send_direct_message(given: SendInput, session: Session) -> dict[str, Any]:
    """Send a message, or answer one."""
    said = {"text": given.message, "kind": given.message_type, "priority": given.priority, "ack": given.ack_required}
    said |= without({"data": given.metadata, "expires": given.expires, "blob": given.blob}) | session.key
    to = given.recipient_guid
    if given.reply_to is not None and to is None and given.capability is None:
        if not given.reply_to.startswith("m"):
            answer = await session.ask("message.reply", id=given.reply_to, **said)
            shown = {"messageId": answer["id"], "thread": answer["thread"], "recipientHandle": answer["handle"]}
            return without(shown) | {"count": 1}
        to = (await session.ask("message.get", id=given.reply_to))["sender_id"]  # it was said in a channel
    more = without({"to": to, "capability": given.capability, "reply_to": given.reply_to, "scope": given.scope})
    sent = await session.ask("message.send", **said, **more)
    handle = sent["sent"][0]["handle"] if len(sent["sent"]) == 1 else ""
    refused = [without(one) for one in sent["refused"]]
    shown = {"messageId": sent["id"], "thread": sent["thread"], "recipientHandle": handle, "refused": refused}
    return without(shown) | {"count": sent["count"]}


class ReadInput(CamelInput):
    """Which messages of your inbox."""

    limit: int = Field(default=10, ge=1, le=100)
    cursor: Cursor = Field(default="", description="`newer` of an answer before")
    message_type: Kind | None = Field(default=None, description="of this sort alone")
    sender_guid: Whom | None = Field(default=None, description="of this agent alone: guid or handle")
    include_read: bool = Field(default=False, description="those that you have read, too")

    def wanted(self) -> dict[str, Any]:
        """Return what the op is asked with."""
        more = without({"kind": self.message_type, "sender": self.sender_guid, "cursor": self.cursor[:32]})
        return {"limit": self.limit, "all": self.include_read, **more}


_INBOX = record(messages=ROWS, unread="int?", more="flag?")


def _shown(page: dict[str, Any]) -> dict[str, Any]:
    more = {key: page[key] for key in ("unread", "more", "newer") if page[key]}
    return {"messages": page["messages"], **more}


@tool(
    "read_direct_messages", ReadInput, record(messages=ROWS, unread="int?", more="flag?", newer="text?"), title="Read your inbox",
    description="Read the messages to you that you have not read, the oldest first. A filter leaves the others unread.",
    hints=ADDS, text=message_values.text_of,
)  # fmt: skip
async def read_direct_messages(given: ReadInput, session: Session) -> dict[str, Any]:
    """Return messages of the inbox."""
    return _shown(await message_values.read(session, "message.inbox", given.wanted()))


class WaitInput(Input):
    """For which messages to wait, and for how long."""

    timeout_secs: float = Field(default=WAIT_DEFAULT_S, ge=0, le=WAIT_MAX_S, description="seconds; null: 50")
    sender: Whom | None = Field(default=None, description="this one alone: guid or handle")
    thread: Thread | None = Field(default=None, description="this one alone")
    limit: int = Field(default=10, ge=1, le=100)


@tool(
    "wait_for_message", WaitInput, _INBOX, title="Wait for a message",
    description="Read new messages to you, or wait for one. None in time is no error: call it again.",
    hints=ADDS, text=message_values.text_of,
)  # fmt: skip
async def wait_for_message(given: WaitInput, session: Session) -> dict[str, Any]:
    """Wait for messages."""
    more = without({"sender": given.sender, "thread": given.thread})
    wanted = {"limit": given.limit, "wait_s": given.timeout_secs, **more}
    return _shown(await message_values.read(session, "message.wait", wanted))


class AckInput(Input):
    """Which messages."""

    ids: Annotated[list[Id], Field(min_length=1, max_length=100)] = Field(description="ids of messages")


@tool(
    "ack_messages", AckInput, record(ids="texts"), title="Acknowledge messages",
    description="Say that you got messages whose senders want to know it; they are shown no more.", hints=SETS,
)  # fmt: skip
async def ack_messages(given: AckInput, session: Session) -> dict[str, Any]:
    """Acknowledge messages."""
    return {"ids": (await session.ask("message.ack", ids=given.ids))["ids"]}
