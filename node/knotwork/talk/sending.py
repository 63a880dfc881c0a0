"""How is something said? It is checked, put into its envelope, stored, and only then acknowledged.

What many say at the same time goes to disk together, so that waiting for the disk costs each of them little. A message
with an idempotency key goes alone, because the server itself knows keys: the second one is answered with the first.
"""

from __future__ import annotations

import asyncio
import hashlib
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, NamedTuple

import msgspec

from knotwork.bus import clock, publisher, reading, subjects
from knotwork.bus.blobs import Blobs
from knotwork.sdk.errors import Conflict, Internal, Invalid, KnotworkError, NotFound, Unavailable
from knotwork.talk import channel as settings
from knotwork.talk import contact, mentions, message
from knotwork.talk.index import said_in
from knotwork.talk.message import Draft, Envelope, Said
from knotwork.talk.stores import INBOX_MAX
from knotwork.trust import unseen
from knotwork.trust.scopes import may_see

if TYPE_CHECKING:
    from knotwork.bus.commit import GroupCommit
    from knotwork.bus.connection import Connection
    from knotwork.bus.publisher import Ack
    from knotwork.talk.book import Book
    from knotwork.talk.channels import Channels
    from knotwork.talk.following import Following
    from knotwork.talk.inboxes import Inboxes
    from knotwork.talk.post import Post
    from knotwork.trust.who import Who

RECIPIENTS_MAX = 10_000
AT_ONCE = 500
_OF = {"private": "whom you started", "personal": "of your owner", "team": "here", "public": "whom you may see"}
ROOM_TRIES = 20
"""So often room is made for one message: others may take it first."""


class Receipt(NamedTuple):
    """A message that is stored; `already` when the same was sent before with this key."""

    id: str
    to: Who | None = None
    channel: str = ""
    thread: str = ""
    already: bool = False
    mentions: tuple[str, ...] = ()


@dataclass(slots=True)
class Broadcast:
    """What became of a message to several: receipts, and why those have none who are missing there."""

    sent: list[Receipt] = field(default_factory=list)
    refused: list[tuple[Who, KnotworkError]] = field(default_factory=list)
    thread: str = ""


class Sending:
    """What is said in one project."""

    def __init__(
        self,
        connection: Connection,
        book: Book,
        channels: Channels,
        following: Following,
        inboxes: Inboxes,
        *,
        writers: dict[str, GroupCommit],
        post: Post,
    ) -> None:
        """Send over `connection`; `writers` are those of the two streams, by name; `post` goes to other projects."""
        self._connection, self._book = connection, book
        self._channels, self._following, self._inboxes = channels, following, inboxes
        self._writers, self._post = writers, post

    # -- channels ----------------------------------------------------------------------------------------------------

    async def to_channel(self, who: Who, name: str, draft: Draft) -> Receipt:
        """Say something in a channel.

        Raises `NotFound` (`channel.not_found`, `message.not_found` for what is answered), `Conflict`
        (`channel.archived`, `message.key_reused`), `TooLarge`, and what storing raises.
        """
        channel = await self._channels.get(name)
        if channel.archived_ns:
            raise settings.archived(name)
        _check(draft)
        thread = ""
        if draft.reply_to:
            answered = await self.in_channel(draft.reply_to, who)
            if answered.to != name:
                raise Invalid(
                    f"{draft.reply_to} was said in {answered.to}, not in {name}.", code="message.other_channel",
                    hint=f"Answer it in {answered.to}, or say it without naming what it answers.",
                )  # fmt: skip
            thread = answered.thread
        mentioned = self._mentioned(who, draft.text)
        envelope = message.written(who, draft, thread=thread, mentions=tuple(one.id for one in mentioned))
        ack, size = await self._store(subjects.TALK, subjects.channel(name), envelope, draft)
        self._following.sent(name, size)
        given = message.name("channel", ack.seq)
        if not ack.duplicate:
            for one in mentioned:
                if one.id != who.id and may_see(envelope.scope, who, one):
                    notice = {"event": "mention", "id": given, "channel": name, "sender": who.name}
                    self._book.tell(one.id, notice)
        return Receipt(given, None, name, thread or given, ack.duplicate, envelope.mentions)

    async def in_channel(self, name: str, who: Who) -> Said:
        """Return a message of a channel that somebody may see; raises `NotFound` (`message.not_found`)."""
        where, place = message.place_of(name)
        if where != "channel":
            raise message.unknown(name)
        now_ns = clock.now_ns()
        row = await self._following.ask(lambda index: index.find(place, who, now_ns))
        if row is None:
            raise message.unknown(name)
        return said_in(row)

    def _mentioned(self, who: Who, text: str) -> list[Who]:
        found: dict[str, Who] = {}
        for handle in mentions.named(text):
            one = self._book.look(handle, who)
            if one is not None:
                found[one.id] = one
        return list(found.values())

    # -- inboxes -----------------------------------------------------------------------------------------------------

    async def to_agent(self, who: Who, name: str, draft: Draft) -> Receipt:
        """Send something to one agent or person, by id or handle; of another project, by id or `handle@project`.

        An answer to a direct message goes back whatever the scope of either. Raises `NotFound` (`agent.not_found`),
        `Denied` (`contact.denied`), `Invalid` (`message.other_recipient` for an answer to somebody else),
        `Unavailable` (`message.inbox_full`, `message.no_post`), and what `to_channel` raises.
        """
        _check(draft)
        answered = await self._answered(who, draft)
        if answered is None or answered.where == "channel":
            return await self._to_one(who, self._book.find(name, who), draft, answered)
        other = self._other(answered, who)
        near = (other.id, other.name) if other.project == who.project else (other.id,)
        if name not in (*near, f"{other.id}@{other.project}", f"{other.name}@{other.project}"):
            found = self._book.find(name, who)
            if (found.id, found.project) != (other.id, other.project):
                raise _another(answered, other, who)
        return await self._to_one(who, other, draft, answered)

    async def reply(self, who: Who, draft: Draft) -> Receipt:
        """Answer a message: to its sender when it came directly, else in its channel, for those who see what is answered."""
        _check(draft)
        answered = await self.get(draft.reply_to, who)
        if answered.where == "channel":
            scope = answered.envelope.scope
            return await self.to_channel(who, answered.to, msgspec.structs.replace(draft, scope=scope))
        return await self._to_one(who, self._other(answered, who), draft, answered)

    def _other(self, answered: Said, who: Who) -> Who:
        """Return with whom somebody has a direct message: its sender, or its recipient when he sent it himself."""
        if answered.envelope.project != who.project:
            return answered.envelope.who
        if answered.to_project:
            return self._book.find(answered.to, who)
        return self._book.find(answered.envelope.sender if answered.to == who.id else answered.to)

    async def get(self, name: str, who: Who) -> Said:
        """Return a message that somebody may see: of a channel or an inbox, or on its way between projects.

        Raises `NotFound` (`message.not_found`), also for one from another project that was not let in.
        """
        where, place = message.place_of(name)
        if where == "channel":
            return await self.in_channel(name, who)
        if where == "inbox":
            return await self._inboxes.get(place, who)
        said = await self._post.get(place, who)
        mine = (said.envelope.sender, said.envelope.project) == (who.id, who.project)
        if not mine and not await self._inboxes.let_in(who.id, said.id):
            raise message.unknown(said.id)
        return said

    async def to_capability(self, who: Who, capability: str, draft: Draft, scope: str = "team") -> Broadcast:
        """Send something to everybody else of a scope who can do something, one message for each.

        Raises `NotFound` (`message.nobody`), `Unavailable` (`message.too_many_recipients`).
        """
        _check(draft)
        answered = await self._answered(who, draft)
        everybody = [one for one in self._book.with_capability(capability, who, scope) if one.id != who.id]
        if not everybody:
            raise NotFound(
                f"Nobody else {_OF[scope]} has the capability {capability!r}.", code="message.nobody",
                hint=("With the scope public those of other projects are meant, too. " if scope == "team" else "")
                + "See `knotwork session list`, or offer it as work: `knotwork task submit` waits until somebody comes.",
            )  # fmt: skip
        if len(everybody) > RECIPIENTS_MAX:
            raise Unavailable(
                f"{len(everybody)} have the capability {capability}; {RECIPIENTS_MAX} at most are written to at once.",
                code="message.too_many_recipients", hint="Say it in a channel.",
            )  # fmt: skip
        told = hashlib.sha256(f"{who.id} {capability} {draft.key or clock.now_ns()}".encode()).hexdigest()[:16]
        done = Broadcast(thread=answered.thread if answered is not None else f"b{told}")

        async def send(one: Who) -> None:
            try:
                done.sent.append(await self._to_one(who, one, draft, answered, thread=done.thread))
            except KnotworkError as error:
                done.refused.append((one, error))

        for start in range(0, len(everybody), AT_ONCE):
            async with asyncio.TaskGroup() as group:
                for one in everybody[start : start + AT_ONCE]:
                    group.create_task(send(one))
        return done

    async def _answered(self, who: Who, draft: Draft) -> Said | None:
        """Return the message that is answered, None for none."""
        return await self.get(draft.reply_to, who) if draft.reply_to else None

    async def _to_one(self, who: Who, to: Who, draft: Draft, answered: Said | None, *, thread: str = "") -> Receipt:
        policy = self._channels.policy
        back = answered is not None and answered.where == "inbox" and answered.envelope.sender == to.id
        if not contact.allows(policy, who, to, of=who.project, answering=back):
            raise contact.refused(policy, who, to, of=who.project)
        if to.project != who.project:
            return await self._out(who, to, draft, answered, thread)
        thread = thread or (answered.thread if answered is not None else "")
        envelope = message.written(who, draft, thread=thread)
        ack = await self._deliver(to, envelope, draft)
        given = message.name("inbox", ack.seq)
        if not ack.duplicate:
            notice = {
                "event": "message", "id": given, "sender": who.name, "kind": draft.kind, "priority": draft.priority,
            }  # fmt: skip
            self._book.tell(to.id, notice)
        return Receipt(given, to, "", thread or given, ack.duplicate)

    async def _out(self, who: Who, to: Who, draft: Draft, answered: Said | None, thread: str) -> Receipt:
        """Send something to another project, where our ids mean nothing: what is answered has a name for both."""
        known = "" if answered is None else answered.id if answered.where == "post" else answered.envelope.post
        thread = answered.thread if answered is not None and known else thread
        envelope = message.written(who, msgspec.structs.replace(draft, reply_to=known), thread=thread)
        pairs = _expiry(envelope)
        if draft.key:
            told = [envelope.sender, envelope.project, subjects.post(to.project, to.id), draft.key]
            pairs.append(publisher.once(hashlib.sha256(msgspec.json.encode(told)).hexdigest()))
        if envelope.blob:  # what is kept in our project cannot be read there
            await self._post.lend(envelope.blob, Blobs(self._connection))
        ack = await self._post.send(to, message.encode(envelope), publisher.head(*pairs))
        if ack.duplicate:
            before = await self._post.find(ack.seq)
            _must_be_same(before.envelope if before is not None else None, envelope)
        given = message.name("post", ack.seq)
        shown = replace(to, name=f"{to.name}@{to.project}")
        return Receipt(given, shown, "", thread or given, ack.duplicate)

    async def _deliver(self, to: Who, envelope: Envelope, draft: Draft) -> Ack:
        """Put a message into an inbox; raises `Unavailable` (`message.inbox_full`) when nothing there may go."""
        for _ in range(ROOM_TRIES):
            if self._inboxes.is_full(to.id):
                break
            try:
                return (await self._store(subjects.INBOXES, subjects.inbox(to.id), envelope, draft))[0]
            except Conflict as error:
                if error.code != "bus.exists":
                    raise
            if not await self._inboxes.make_room(to.id):
                break
        raise _full(to)

    # -- storing -----------------------------------------------------------------------------------------------------

    async def _store(self, stream: str, subject: str, envelope: Envelope, draft: Draft) -> tuple[Ack, int]:
        """Store a message; returns when the server has it on disk, with its size in bytes."""
        payload, pairs = message.encode(envelope), _expiry(envelope)
        if not draft.key:
            return await self._writers[stream].put(subject, payload, *pairs), len(payload)
        key = hashlib.sha256(msgspec.json.encode([envelope.sender, subject, draft.key])).hexdigest()
        head = publisher.head(publisher.once(key), *pairs)
        ack = await publisher.publish(self._connection, subject, payload, head=head)
        if ack.duplicate:
            await self._must_be_as_before(stream, subject, ack.seq, envelope)
        return ack, len(payload)

    async def _must_be_as_before(self, stream: str, subject: str, place: int, envelope: Envelope) -> None:
        """Raise `Conflict` (`message.key_reused`) when another message was sent with this key."""
        found = await reading.at(self._connection, stream, subject, place)
        if found is None:
            return  # it was sent, and is over by now
        try:
            before = message.decode(found.data)
        except Invalid as error:
            raise Internal(f"Message {place} of {stream} cannot be read.", code="message.malformed") from error
        _must_be_same(before, envelope)


def _expiry(envelope: Envelope) -> list[tuple[str, str]]:
    """Return the header that has the server let a message go in time."""
    if not envelope.expires_ns:
        return []
    left_ns = envelope.expires_ns - clock.now_ns()
    return [publisher.ttl(-(-left_ns // 1_000_000_000))]


def _must_be_same(before: Envelope | None, envelope: Envelope) -> None:
    """Raise `Conflict` (`message.key_reused`) when something else was sent with the same key."""
    if before is None:
        return
    if (before.text, before.data, before.blob, before.kind) != (
        envelope.text, envelope.data, envelope.blob, envelope.kind,
    ):  # fmt: skip
        raise Conflict(
            "Another message was sent with this key.", code="message.key_reused",
            hint="Give each message a key of its own; the same key means the same message for a day.",
        )  # fmt: skip


def _check(draft: Draft) -> None:
    """Raise `Invalid` for what cannot be sent: nothing, or what is over already."""
    if unseen.blank(draft.text) and draft.data is None and not draft.blob:
        raise Invalid(
            "The message is empty: nothing in it is seen.", code="message.empty", hint="Give text, data or a blob."
        )
    if draft.kind == message.REFUSED:
        raise Invalid(
            f"The kind {message.REFUSED!r} is the node's: it says that a message was not let in.",
            code="message.kind_reserved", hint="Choose another kind, for example 'rejected'.",
        )  # fmt: skip
    if 0 < draft.expires_ns <= clock.now_ns():
        raise Invalid("The message would expire before it is sent.", code="message.expired")


def _another(answered: Said, other: Who, who: Who) -> Invalid:
    name = other.name if other.project == who.project else f"{other.name}@{other.project}"
    return Invalid(
        f"{answered.id} is between you and {name}: an answer to it goes there, not to somebody else.",
        code="message.other_recipient", hint="Leave the recipient out to answer it, or leave out what it answers.",
    )  # fmt: skip


def _full(to: Who) -> Unavailable:
    return Unavailable(
        f"The inbox of {to.name} is full: {INBOX_MAX} messages, and none of them was read.",
        code="message.inbox_full", hint="Wait until it reads some, or say it in a channel.", retry_after_s=60.0,
        detail={"to": to.id},
    )  # fmt: skip
