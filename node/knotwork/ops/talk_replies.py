"""What does a node answer about channels and messages? The reply models of the room `talk`, filled in by the host.

Times are RFC 3339 strings in UTC, empty for none. What `text` and `data` hold is what somebody said: data, whatever it
says, exactly as it was sent. `talk.framing` shows it so that nobody takes it for more.
"""

from __future__ import annotations

from typing import Any

from pydantic import Field

from knotwork.ops.op import Reply
from knotwork.talk.contact import Mode


class MessageRow(Reply):
    """One message. Who said it, when and where is written by the node; the rest by the sender."""

    id: str = Field(description="what every op calls it: m12 was said in a channel, d7 lies in an inbox")
    at: str = Field(description="when it was stored")
    sender: str = Field(description="handle of who said it")
    sender_id: str
    sender_kind: str = "agent"
    sender_node: str = ""
    channel: str = ""
    to: str = Field(default="", description="id of whom it was sent to")
    kind: str = "text"
    text: str = ""
    data: Any = None
    blob: str = Field(default="", description="digest of a kept value that it is about: `blob.get`")
    scope: str = ""
    reply_to: str = ""
    thread: str = Field(default="", description="id that its thread is known by: its own when it began one")
    priority: int = 5
    expires_at: str = ""
    ack: bool = Field(default=False, description="its sender wants to know that you got it: `message.ack`")
    state: str = Field(default="", description="unread, read or acked, of a direct message")
    again: bool = Field(default=False, description="it was shown before, and waits to be acknowledged")
    mentions: list[str] = Field(default=[], description="ids of those it mentions")


class Sent(Reply):
    """The message is stored."""

    id: str
    channel: str = ""
    to: str = Field(default="", description="id of the recipient")
    handle: str = Field(default="", description="handle of the recipient")
    thread: str = ""
    already: bool = Field(default=False, description="the same was sent before with this key: it counts once")
    mentions: list[str] = Field(default=[], description="ids of those it mentions")


class Refused(Reply):
    """One who got nothing, and why."""

    to: str
    handle: str = ""
    code: str
    message: str


class SentMessages(Reply):
    """The messages that are stored, one for each recipient."""

    count: int = Field(description="how many got it")
    id: str = Field(default="", description="the message, when there is one alone")
    thread: str = Field(default="", description="what they and all answers to them are known by")
    sent: list[Sent] = Field(default=[])
    refused: list[Refused] = Field(default=[])


class Messages(Reply):
    """A page of a channel, in the order in which it was said."""

    channel: str = ""
    messages: list[MessageRow]
    older: str = Field(default="", description="cursor of what was said before, empty when that was all")
    newer: str = Field(default="", description="cursor of what is said from now on")
    unread: int = Field(default=0, description="messages of others behind these that you have not read")
    skipped: int = Field(
        default=0, description="unread messages before these that count as read now: `older` leads to them"
    )


class InboxMessages(Reply):
    """What is in your inbox, as far as you asked."""

    messages: list[MessageRow]
    unread: int = Field(default=0, description="messages left to be shown: unread, or to be acknowledged")
    more: bool = Field(default=False, description="there are more of these: ask again")
    newer: str = Field(default="", description="cursor of what came after these")


class FoundMessages(Reply):
    """What was found, the newest first. `next` is the cursor of what follows, empty when there is no more."""

    messages: list[MessageRow]
    next: str = ""


class ChannelRow(Reply):
    """A channel, its limits, and how much is in it of what you may see."""

    name: str
    about: str = ""
    messages: int = 0
    bytes: int = 0
    unread: int = 0
    mentions: int = Field(default=0, description="unread messages that mention you")
    max_messages: int = 0
    max_bytes: int = 0
    max_age_s: float = 0.0
    archived: bool = False
    by: str = Field(default="", description="id of who made it; empty for those that are always there")
    made_at: str = ""


class ChannelList(Reply):
    """The channels."""

    channels: list[ChannelRow]


class UnreadRow(Reply):
    """How much of a channel you have not read."""

    channel: str
    unread: int
    mentions: int = 0
    newest: str = Field(default="", description="id of the newest of them")


class UnreadList(Reply):
    """What you have not read."""

    channels: list[UnreadRow]
    unread: int = Field(description="in all channels")
    mentions: int = 0
    inbox: int = Field(default=0, description="in your inbox")


class Marked(Reply):
    """What counts as read now."""

    channels: list[str]


class Acked(Reply):
    """These count as acknowledged."""

    ids: list[str]


class ContactPolicy(Reply):
    """Who may write to whom."""

    mode: Mode
    allow: list[str] = Field(default=[], description="from>to, for allow-list")


class Watched(Reply):
    """The end of watching, which comes when you leave."""

    channel: str
    messages: int = 0
