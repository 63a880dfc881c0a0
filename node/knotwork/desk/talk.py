"""How do channels and messages look to the ops? One project's talk as their replies."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from typing import TYPE_CHECKING

import msgspec

from knotwork.bus import clock
from knotwork.bus.fitting import ANSWER_MAX_BYTES, fitting
from knotwork.desk.moments import moment
from knotwork.ops import replies, talk_replies
from knotwork.sdk.errors import Denied, KnotworkError, NotFound
from knotwork.talk import contact, finding, index_rows, message
from knotwork.talk.channel import Channel
from knotwork.talk.inbox_state import Wish as InboxWish
from knotwork.talk.index_rows import Wish
from knotwork.talk.message import Said

if TYPE_CHECKING:
    from knotwork.bus.blobs import Blobs
    from knotwork.ops.op import Caller
    from knotwork.ops.talk_ports import ChannelPage, InboxPage, Limits, Search
    from knotwork.talk.contact import Mode
    from knotwork.talk.message import Draft
    from knotwork.talk.room import Talk
    from knotwork.talk.sending import Receipt
    from knotwork.trust.who import Who


class TalkDesk:
    """One project's channels and inboxes (`ops.talk_ports.Talk`)."""

    def __init__(self, talk: Talk, blobs: Blobs) -> None:
        """Ask our part in it; what messages tell of is kept in `blobs`."""
        self._talk, self._blobs = talk, blobs

    # -- channels ----------------------------------------------------------------------------------------------------

    async def channels(self, caller: Caller, *, archived: bool) -> talk_replies.ChannelList:
        """Return the channels."""
        counts, found = await self._talk.history.overview(caller.who)
        unread = {one.channel: one for one in found}
        rows = []
        for channel in self._talk.channels.all():
            if channel.archived_ns and not archived:
                continue
            row, left = _channel(channel, *counts.get(channel.name, (0, 0))), unread.get(channel.name)
            if left is not None:
                row = row.model_copy(update={"unread": left.count, "mentions": left.mentions})
            rows.append(row)
        return talk_replies.ChannelList(channels=rows)

    async def create(self, name: str, limits: Limits, caller: Caller) -> talk_replies.ChannelRow:
        """Make a channel."""
        wanted = _limited(Channel(name, by=caller.who.id, made_ns=clock.now_ns()), limits)
        return _channel(await self._talk.channels.create(wanted))

    async def configure(self, name: str, limits: Limits, caller: Caller) -> talk_replies.ChannelRow:
        """Change a channel."""

        def make(before: Channel) -> Channel:
            _must_be_ones_own(before, caller)
            return _limited(before, limits)

        made = await self._talk.channels.change(name, make)
        return _channel(made, *(await self._talk.history.counts(caller.who)).get(name, (0, 0)))

    async def archive(self, name: str, caller: Caller, *, undo: bool) -> talk_replies.ChannelRow:
        """Archive a channel, or bring it back."""

        def make(before: Channel) -> Channel:
            _must_be_ones_own(before, caller)
            since_ns = 0 if undo else before.archived_ns or clock.now_ns()
            return msgspec.structs.replace(before, archived_ns=since_ns)

        made = await self._talk.channels.change(name, make)
        return _channel(made, *(await self._talk.history.counts(caller.who)).get(name, (0, 0)))

    async def say(self, channel: str, message: Draft, caller: Caller) -> talk_replies.Sent:
        """Say something in a channel."""
        await self._must_be_kept(message.blob)
        return _sent(await self._talk.sending.to_channel(caller.who, channel, message))

    async def page(self, wanted: ChannelPage, caller: Caller) -> talk_replies.Messages:
        """Return a page of a channel."""
        after, before = index_rows.cursor(wanted.cursor, wanted.channel) if wanted.cursor else (0, 0)
        sender, called = self._sender(wanted.sender, caller)
        wish = Wish(
            wanted.channel, after, before, sender, called, wanted.thread, wanted.kind, wanted.mentions,
            newest=not wanted.cursor.startswith("a"), limit=wanted.limit,
        )  # fmt: skip
        page = await self._talk.history.page(caller.who, wish, unread=wanted.unread, mark=not wanted.peek)
        return talk_replies.Messages(
            channel=wanted.channel, messages=[_row(one) for one in page.messages], older=page.older, newer=page.newer,
            unread=page.unread, skipped=page.skipped,
        )  # fmt: skip

    async def watch(self, channel: str, cursor: str, caller: Caller) -> AsyncGenerator[replies.Chunk, None]:
        """Yield what is said in a channel, for ever."""
        after = index_rows.cursor(cursor, channel)[0] if cursor else None
        async with aclosing(self._talk.history.watch(caller.who, channel, after)) as said:
            async for one in said:
                yield replies.Chunk(data=_row(one).model_dump(mode="json", exclude_defaults=True))

    async def unread(self, caller: Caller) -> talk_replies.UnreadList:
        """Return what is unread."""
        found = await self._talk.history.unread(caller.who)
        return talk_replies.UnreadList(
            channels=[
                talk_replies.UnreadRow(channel=one.channel, unread=one.count, mentions=one.mentions, newest=one.newest)
                for one in found
            ],
            unread=sum(one.count for one in found),
            mentions=sum(one.mentions for one in found),
            inbox=await self._talk.inboxes.unread(caller.who.id),
        )

    async def mark(self, channels: Sequence[str], upto: str, caller: Caller) -> talk_replies.Marked:
        """Mark channels as read."""
        names = list(channels) or [one.name for one in self._talk.channels.all()]
        await self._talk.history.mark(caller.who, names, upto)
        return talk_replies.Marked(channels=names)

    async def search(self, wanted: Search, caller: Caller) -> talk_replies.FoundMessages:
        """Return what is found."""
        sender, called = self._sender(wanted.sender, caller)
        found: list[tuple[Said, str]] = []
        channels_before, inbox_before = finding.places(wanted.cursor)
        limit = wanted.limit + 1  # one more tells that there are more
        if wanted.where != "inbox":
            wish = Wish(wanted.channel, 0, channels_before, sender, called, wanted.thread, limit=limit)
            found += [(one, "") for one in await self._talk.history.search(caller.who, wanted.query, wish)]
        if wanted.where != "channels":
            state = await self._talk.inboxes.state(caller.who.id)
            inbox = await self._talk.history.search_inbox(
                caller.who, wanted.query, sender=sender or called, before=inbox_before, limit=limit
            )
            found += [(one, state.status(one)) for one in inbox]
        found.sort(key=lambda one: one[0].at_ns, reverse=True)
        shown = fitting(found[: wanted.limit], lambda one: one[0].size)
        full = sum(one.size for one, _ in found) > ANSWER_MAX_BYTES // 2  # a search may have left out what had no room
        rows = [_row(one, status) for one, status in shown]
        more = full or len(shown) < len(found)
        follows = finding.behind(wanted.cursor, (row.id for row in rows)) if more else ""
        return talk_replies.FoundMessages(messages=rows, next=follows)

    def _sender(self, name: str, caller: Caller) -> tuple[str, str]:
        """Return the id of a sender and "", or "" and the name that its messages bear when it is not known any more."""
        found = self._talk.book.look(name) if name else None
        if name and found is None:
            with contextlib.suppress(NotFound):
                found = self._talk.book.find(name, caller.who)
        return (found.id, "") if found is not None else ("", name)

    async def _must_be_kept(self, blob: str) -> None:
        """Raise `NotFound` (`blob.not_found`) when a message is to tell of something that is not there."""
        if blob:
            await self._blobs.info(blob)

    # -- inboxes -----------------------------------------------------------------------------------------------------

    async def send(self, to: str, capability: str, message: Draft, caller: Caller) -> talk_replies.SentMessages:
        """Send something to one, or to everybody with a capability."""
        await self._must_be_kept(message.blob)
        if to:
            sent = _sent(await self._talk.sending.to_agent(caller.who, to, message))
            return talk_replies.SentMessages(count=1, id=sent.id, thread=sent.thread, sent=[sent])
        draft = msgspec.structs.replace(message, scope="team")  # it says who is meant, and they alone get it
        done = await self._talk.sending.to_capability(caller.who, capability, draft, message.scope)
        rows = [_sent(receipt) for receipt in done.sent]
        return talk_replies.SentMessages(
            count=len(rows), id=rows[0].id if len(rows) == 1 else "", thread=done.thread, sent=rows,
            refused=[_refused(who, error) for who, error in done.refused],
        )  # fmt: skip

    async def reply(self, message: Draft, caller: Caller) -> talk_replies.Sent:
        """Answer a message."""
        await self._must_be_kept(message.blob)
        return _sent(await self._talk.sending.reply(caller.who, message))

    async def inbox(self, wanted: InboxPage, caller: Caller, *, wait_s: float = 0.0) -> talk_replies.InboxMessages:
        """Return what is in an inbox."""
        after = index_rows.cursor(wanted.cursor, index_rows.INBOX)[0] if wanted.cursor else 0
        sender, called = self._sender(wanted.sender, caller)
        wish = InboxWish(
            wanted.kind, sender or called, wanted.thread, wanted.priority, wanted.all, wanted.urgent,
            after, wanted.limit, wanted.key, frozenset(_inbox_place(one) for one in wanted.ids),
        )  # fmt: skip
        me, mark = caller.who.id, not wanted.peek
        inboxes = self._talk.inboxes
        shown = await (inboxes.wait(me, wish, wait_s, mark=mark) if wait_s else inboxes.read(me, wish, mark=mark))
        new = [one for one in shown.messages if not shown.state.is_done(one.place)]
        if mark and new:
            caller.undo.append(lambda: inboxes.take_back_soon(me, new))
        return talk_replies.InboxMessages(
            messages=[_row(one, shown.state.status(one)) for one in shown.messages],
            unread=shown.unread,
            more=shown.more,
            newer=index_rows.next_cursor(shown.after or after, older=False, of=index_rows.INBOX)
            if shown.after or after
            else "",
        )

    async def get(self, message: str, caller: Caller) -> talk_replies.MessageRow:
        """Return one message."""
        found = await self._talk.get(message, caller.who)
        if found.where != "inbox":  # what becomes of a message in another project is not told here
            return _row(found)
        return _row(found, (await self._talk.inboxes.state(found.to)).status(found))

    async def ack(self, messages: Sequence[str], caller: Caller) -> talk_replies.Acked:
        """Acknowledge messages."""
        places = [_inbox_place(one) for one in dict.fromkeys(messages)]
        found = await self._talk.inboxes.ack(caller.who, places)
        return talk_replies.Acked(ids=[one.id for one in found])

    # -- who may write to whom ---------------------------------------------------------------------------------------

    def policy(self) -> talk_replies.ContactPolicy:
        """Return the contact policy."""
        policy = self._talk.channels.policy
        return talk_replies.ContactPolicy(mode=policy.mode, allow=list(policy.allow))

    async def set_policy(self, mode: Mode, allow: Sequence[str]) -> talk_replies.ContactPolicy:
        """Put a contact policy into force."""
        await self._talk.channels.set_policy(contact.checked(mode, list(allow)))
        return self.policy()


def _inbox_place(name: str) -> int:
    """Return where a message lies in the inboxes; raises `NotFound` (`message.not_found`) for one that lies elsewhere."""
    where, place = message.place_of(name)
    if where != "inbox":
        raise message.unknown(name)
    return place


def _limited(channel: Channel, limits: Limits) -> Channel:
    given = {name: getattr(limits, name) for name in ("about", "max_messages", "max_bytes", "max_age_s")}
    return msgspec.structs.replace(channel, **{name: value for name, value in given.items() if value is not None})


def _must_be_ones_own(channel: Channel, caller: Caller) -> None:
    if caller.may == "admin" and caller.who.kind == "person":
        return
    if not channel.by or channel.by != caller.who.id:
        raise Denied(
            f"The channel {channel.name} is not yours to change.", code="channel.not_yours",
            hint="Whoever made it can, and people with the right 'admin'. You can make one of your own.",
        )  # fmt: skip


def _channel(channel: Channel, count: int = 0, size: int = 0) -> talk_replies.ChannelRow:
    return talk_replies.ChannelRow(
        name=channel.name, about=channel.about, messages=count, bytes=size, max_messages=channel.max_messages,
        max_bytes=channel.max_bytes, max_age_s=channel.max_age_s, archived=bool(channel.archived_ns), by=channel.by,
        made_at=moment(channel.made_ns),
    )  # fmt: skip


def _sent(receipt: Receipt) -> talk_replies.Sent:
    to = receipt.to
    return talk_replies.Sent(
        id=receipt.id, channel=receipt.channel, to=to.id if to else "", handle=to.name if to else "",
        thread=receipt.thread, already=receipt.already, mentions=list(receipt.mentions),
    )  # fmt: skip


def _refused(who: Who, error: KnotworkError) -> talk_replies.Refused:
    return talk_replies.Refused(to=who.id, handle=who.name, code=error.code, message=error.message)


def _row(one: Said, status: str = "") -> talk_replies.MessageRow:
    envelope = one.envelope
    return talk_replies.MessageRow(
        id=one.id, at=moment(one.at_ns), sender=envelope.shown, sender_id=envelope.sender,
        sender_kind=envelope.sender_kind, sender_node=envelope.node, channel=one.to if one.where == "channel" else "",
        to=one.to if one.where != "channel" else "", kind=envelope.kind, text=envelope.text, data=envelope.data,
        blob=envelope.blob, scope=envelope.scope if one.where == "channel" else "", reply_to=envelope.reply_to,
        thread=one.thread, priority=envelope.priority, expires_at=moment(envelope.expires_ns), ack=envelope.ack,
        state=status, again=status == "read" and envelope.ack, mentions=list(envelope.mentions),
    )  # fmt: skip
