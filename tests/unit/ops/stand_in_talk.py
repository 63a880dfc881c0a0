"""Channels and inboxes for the doors' tests: one message, and what was asked."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass, field
from typing import Any

from knotwork.ops import replies, talk_replies
from knotwork.ops.op import Caller
from knotwork.ops.talk_ports import ChannelPage, InboxPage, Limits, Search
from knotwork.sdk.errors import NotFound
from knotwork.talk.contact import Mode
from knotwork.talk.message import Draft

ROW = talk_replies.MessageRow(
    id="m1", at="2026-01-01T00:00:00Z", sender="ann", sender_id="a1", channel="roadmap", text="red\x1b[31m", thread="m1"
)
CHANNEL = talk_replies.ChannelRow(name="roadmap", messages=1, bytes=100)


@dataclass
class StandInTalk:
    """`asked` holds what was wanted; the channel `nowhere` is not there."""

    asked: list[Any] = field(default_factory=list)

    async def channels(self, caller: Caller, *, archived: bool) -> talk_replies.ChannelList:
        return talk_replies.ChannelList(channels=[CHANNEL])

    async def create(self, name: str, limits: Limits, caller: Caller) -> talk_replies.ChannelRow:
        self.asked.append((name, limits))
        return CHANNEL.model_copy(update={"name": name})

    async def configure(self, name: str, limits: Limits, caller: Caller) -> talk_replies.ChannelRow:
        self.asked.append((name, limits))
        return CHANNEL.model_copy(update={"name": name})

    async def archive(self, name: str, caller: Caller, *, undo: bool) -> talk_replies.ChannelRow:
        return CHANNEL.model_copy(update={"name": name, "archived": not undo})

    async def say(self, channel: str, message: Draft, caller: Caller) -> talk_replies.Sent:
        if channel == "nowhere":
            raise NotFound("There is no channel 'nowhere'.", code="channel.not_found")
        self.asked.append((channel, message))
        return talk_replies.Sent(id="m1", channel=channel, thread="m1")

    async def page(self, wanted: ChannelPage, caller: Caller) -> talk_replies.Messages:
        self.asked.append(wanted)
        return talk_replies.Messages(channel=wanted.channel, messages=[ROW], newer="a1")

    async def watch(self, channel: str, cursor: str, caller: Caller) -> AsyncGenerator[replies.Chunk, None]:
        yield replies.Chunk(data=ROW.model_dump())

    async def unread(self, caller: Caller) -> talk_replies.UnreadList:
        return talk_replies.UnreadList(channels=[talk_replies.UnreadRow(channel="roadmap", unread=1)], unread=1)

    async def mark(self, channels: Sequence[str], upto: str, caller: Caller) -> talk_replies.Marked:
        return talk_replies.Marked(channels=list(channels))

    async def search(self, wanted: Search, caller: Caller) -> talk_replies.FoundMessages:
        self.asked.append(wanted)
        return talk_replies.FoundMessages(messages=[ROW])

    async def send(self, to: str, capability: str, message: Draft, caller: Caller) -> talk_replies.SentMessages:
        self.asked.append((to, capability, message))
        sent = talk_replies.Sent(id="d1", to=to or "a1", thread="d1")
        return talk_replies.SentMessages(count=1, id="d1", thread="d1", sent=[sent])

    async def reply(self, message: Draft, caller: Caller) -> talk_replies.Sent:
        self.asked.append(message)
        return talk_replies.Sent(id="d2", to="a1", thread="d1")

    async def inbox(self, wanted: InboxPage, caller: Caller, *, wait_s: float = 0.0) -> talk_replies.InboxMessages:
        self.asked.append((wanted, wait_s))
        return talk_replies.InboxMessages(messages=[ROW])

    async def get(self, message: str, caller: Caller) -> talk_replies.MessageRow:
        return ROW

    async def ack(self, messages: Sequence[str], caller: Caller) -> talk_replies.Acked:
        return talk_replies.Acked(ids=list(messages))

    def policy(self) -> talk_replies.ContactPolicy:
        return talk_replies.ContactPolicy(mode="open")

    async def set_policy(self, mode: Mode, allow: Sequence[str]) -> talk_replies.ContactPolicy:
        return talk_replies.ContactPolicy(mode=mode, allow=list(allow))
