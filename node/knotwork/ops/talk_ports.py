"""What must a host offer so that the ops about channels and messages can be answered? One protocol (`host.talk`)."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, Protocol

if TYPE_CHECKING:
    from knotwork.ops import replies, talk_replies
    from knotwork.ops.op import Caller
    from knotwork.talk.contact import Mode
    from knotwork.talk.message import Draft


@dataclass(frozen=True, slots=True)
class ChannelPage:
    """Which messages of a channel; empty fields mean any. `sender` is an id or a handle."""

    channel: str
    limit: int = 50
    cursor: str = ""
    sender: str = ""
    thread: str = ""
    kind: str = ""
    mentions: bool = False
    unread: bool = False
    peek: bool = False


@dataclass(frozen=True, slots=True)
class InboxPage:
    """Which messages of an inbox; empty fields mean any. `sender` is an id or a handle, `priority` the least."""

    limit: int = 50
    cursor: str = ""
    sender: str = ""
    thread: str = ""
    kind: str = ""
    priority: int = 1
    urgent: bool = False
    all: bool = False
    peek: bool = False
    key: str = ""
    ids: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Limits:
    """Settings of a channel; None leaves one as it is."""

    about: str | None = None
    max_messages: int | None = None
    max_bytes: int | None = None
    max_age_s: float | None = None


@dataclass(frozen=True, slots=True)
class Search:
    """What to look for, and where; empty fields mean any."""

    query: str
    where: Literal["all", "channels", "inbox"] = "all"
    channel: str = ""
    sender: str = ""
    thread: str = ""
    limit: int = 20
    cursor: str = ""


class Talk(Protocol):
    """What one project says."""

    async def channels(self, caller: Caller, *, archived: bool) -> talk_replies.ChannelList:
        """Return the channels, with what this one has not read."""
        ...

    async def create(self, name: str, limits: Limits, caller: Caller) -> talk_replies.ChannelRow:
        """Make a channel; raises `Conflict` (`channel.exists`)."""
        ...

    async def configure(self, name: str, limits: Limits, caller: Caller) -> talk_replies.ChannelRow:
        """Change a channel; raises `NotFound` (`channel.not_found`), `Denied` (`channel.not_yours`)."""
        ...

    async def archive(self, name: str, caller: Caller, *, undo: bool) -> talk_replies.ChannelRow:
        """Let nothing more be said in a channel, or again."""
        ...

    async def say(self, channel: str, message: Draft, caller: Caller) -> talk_replies.Sent:
        """Say something in a channel."""
        ...

    async def page(self, wanted: ChannelPage, caller: Caller) -> talk_replies.Messages:
        """Return a page of a channel."""
        ...

    def watch(self, channel: str, cursor: str, caller: Caller) -> AsyncGenerator[replies.Chunk, None]:
        """Yield what is said in a channel, for ever."""
        ...

    async def unread(self, caller: Caller) -> talk_replies.UnreadList:
        """Return what this one has not read."""
        ...

    async def mark(self, channels: Sequence[str], upto: str, caller: Caller) -> talk_replies.Marked:
        """Mark channels as read; all of them when none is named."""
        ...

    async def search(self, wanted: Search, caller: Caller) -> talk_replies.FoundMessages:
        """Return what holds all words of a query; raises `Invalid` (`message.bad_query`)."""
        ...

    async def send(self, to: str, capability: str, message: Draft, caller: Caller) -> talk_replies.SentMessages:
        """Send something to one (id or handle), or to everybody with a capability."""
        ...

    async def reply(self, message: Draft, caller: Caller) -> talk_replies.Sent:
        """Answer a message where it was said."""
        ...

    async def inbox(self, wanted: InboxPage, caller: Caller, *, wait_s: float = 0.0) -> talk_replies.InboxMessages:
        """Return what is in this one's inbox, as soon as there is something or after `wait_s` seconds."""
        ...

    async def get(self, message: str, caller: Caller) -> talk_replies.MessageRow:
        """Return one message; raises `NotFound` (`message.not_found`)."""
        ...

    async def ack(self, messages: Sequence[str], caller: Caller) -> talk_replies.Acked:
        """Acknowledge direct messages; raises `NotFound` (`message.not_found`) and changes nothing then."""
        ...

    def policy(self) -> talk_replies.ContactPolicy:
        """Return the contact policy."""
        ...

    async def set_policy(self, mode: Mode, allow: Sequence[str]) -> talk_replies.ContactPolicy:
        """Put a contact policy into force; raises `Invalid` (`contact.bad_rule`)."""
        ...
