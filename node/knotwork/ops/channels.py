"""What may be asked about channels, and of them: list, make, say, read, watch, search, what is unread."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Annotated, Any

from pydantic import Field, field_validator

from knotwork.ops import replies, talk_replies, task_words
from knotwork.ops.op import Caller, CliForm, Example, Request, op
from knotwork.ops.ports import NodeControl
from knotwork.ops.talk_ports import ChannelPage, Limits, Search
from knotwork.ops.talk_words import Found, Id, Kind, Limit, Place, Query, Thread, Whom, Words
from knotwork.ops.task_words import Digest, Key, Moment
from knotwork.ops.words import Text, Token
from knotwork.talk.message import Draft
from knotwork.trust.scopes import Scope

SCOPE = "who may see it: private (you alone), personal (agents of your owner), team (the project), public"
SHOWN = ("id", "at", "sender", "channel", "kind", "text")
ROW = ("name", "messages", "unread", "mentions", "about", "max_messages", "max_bytes", "max_age_s", "archived")
MIB = 1024 * 1024


class ListRequest(Request):
    """Which channels."""

    archived: bool = Field(default=False, description="those that are archived, too")


@op(
    "channel.list", ListRequest, talk_replies.ChannelList, effect="read",
    cli=CliForm(("channel", "list"), rows="channels", columns=ROW, also=("channels",)),
    summary="List the channels, with what you have not read.",
    help="`roadmap`, `parallel-work` and `errors` are always there.",
    examples=(Example("Which are there?"),),
)  # fmt: skip
async def all_of_them(request: ListRequest, node: NodeControl, caller: Caller) -> talk_replies.ChannelList:
    """Return them."""
    return await node.talk(caller.project).channels(caller, archived=request.archived)


class LimitsRequest(Request):
    """A channel, and what it keeps."""

    name: Token = Field(description="name of the channel")
    about: Text | None = Field(default=None, description="one line: what it is for")
    max_messages: int | None = Field(default=None, ge=1, le=1_000_000, description="messages kept; 10,000 by default")
    max_bytes: int | None = Field(
        default=None, ge=2 * MIB, le=8192 * MIB, description="bytes kept; 64 MiB by default, 2 MiB at least"
    )
    max_age_s: float | None = Field(
        default=None, ge=1, le=3650 * 86400, description="seconds a message is kept; 30 days by default"
    )

    def limits(self) -> Limits:
        """Return what was given."""
        return Limits(self.about, self.max_messages, self.max_bytes, self.max_age_s)


@op(
    "channel.create", LimitsRequest, talk_replies.ChannelRow, effect="write",
    cli=CliForm(("channel", "create"), positional=("name",)),
    summary="Make a channel.",
    help="Everybody in the project finds it. What is over any of its limits goes, the oldest first.",
    examples=(
        Example("A channel for releases", {"name": "releases", "about": "what was released, and when"}),
        Example("One that forgets after an hour", {"name": "chatter", "max_age_s": 3600}),
    ),
)  # fmt: skip
async def create(request: LimitsRequest, node: NodeControl, caller: Caller) -> talk_replies.ChannelRow:
    """Make it."""
    return await node.talk(caller.project).create(request.name, request.limits(), caller)


@op(
    "channel.set", LimitsRequest, talk_replies.ChannelRow, effect="write",
    cli=CliForm(("channel", "set"), positional=("name",)),
    summary="Change what a channel is for, or what it keeps.",
    help="For whoever made it, and those with the right `admin`. What is over a new limit goes at once.",
    examples=(Example("Keep the last thousand", {"name": "errors", "max_messages": 1000}),),
)  # fmt: skip
async def configure(request: LimitsRequest, node: NodeControl, caller: Caller) -> talk_replies.ChannelRow:
    """Change it."""
    return await node.talk(caller.project).configure(request.name, request.limits(), caller)


class ArchiveRequest(Request):
    """Which channel, and whether it comes back."""

    name: Token = Field(description="name of the channel")
    undo: bool = Field(default=False, description="bring it back")


@op(
    "channel.archive", ArchiveRequest, talk_replies.ChannelRow, effect="write",
    cli=CliForm(("channel", "archive"), positional=("name",)),
    summary="Close a channel: it can be read, and nothing more is said in it.",
    help="For whoever made it, and those with the right `admin`. Its limits go on to count.",
    examples=(
        Example("It is over", {"name": "release-1"}),
        Example("It is not", {"name": "release-1", "undo": True}),
    ),
)  # fmt: skip
async def archive(request: ArchiveRequest, node: NodeControl, caller: Caller) -> talk_replies.ChannelRow:
    """Archive it."""
    return await node.talk(caller.project).archive(request.name, caller, undo=request.undo)


class SayRequest(Request):
    """What to say, and how."""

    text: Words = Field(default="", description="what you say; @handle tells somebody that he is meant")
    data: Any = Field(default=None, description="any JSON value beside the text")
    blob: Digest | None = Field(default=None, description="digest of a kept value that it is about (`blob.put`)")
    kind: Kind = Field(default="text", description="what sort of message it is, for filters")
    expires: Moment = Field(default="", description="gone then: from now (`30m`), or an RFC 3339 time")
    key: Key = Field(default="", description="idempotency key: the same key from you is the same message for a day")

    @field_validator("expires")
    @classmethod
    def _in_time(cls, value: str) -> str:
        return task_words.deadline(value)

    def said(self, **more: Any) -> Draft:
        """Return the message."""
        expires_ns = task_words.moment_ns(self.expires, past=False)
        return Draft(
            text=self.text, data=self.data, blob=self.blob or "", kind=self.kind, expires_ns=expires_ns, key=self.key,
            **more,
        )  # fmt: skip


class ChannelSendRequest(SayRequest):
    """What to say in which channel."""

    channel: Token = Field(description="name of the channel")
    scope: Scope = Field(default="team", description=SCOPE)
    reply_to: Id | None = Field(default=None, description="id of the message that you answer")
    priority: int = Field(default=5, ge=1, le=10, description="10 is the most urgent")


@op(
    "channel.send", ChannelSendRequest, talk_replies.Sent, effect="write",
    cli=CliForm(("channel", "send"), positional=("channel", "text"), answer="id"),
    summary="Say something in a channel.",
    help="It is stored when this returns. Up to 1 MiB; what is larger is kept with `blob put` and told by its digest.",
    examples=(
        Example("Tell everybody", {"channel": "parallel-work", "text": "I am rewriting the parser."}),
        Example("Answer somebody", {"channel": "roadmap", "text": "Yes, @ann.", "reply_to": "m12"}),
        Example("With data, for an hour", {"channel": "errors", "text": "502", "data": {"n": 3}, "expires": "1h"}),
    ),
)  # fmt: skip
async def send(request: ChannelSendRequest, node: NodeControl, caller: Caller) -> talk_replies.Sent:
    """Say it."""
    said = request.said(scope=request.scope, reply_to=request.reply_to or "", priority=request.priority)
    return await node.talk(caller.project).say(request.channel, said, caller)


class ReadRequest(Request):
    """Which messages of which channel."""

    channel: Token = Field(description="name of the channel")
    limit: Limit = Field(default=50, description="at most so many")
    cursor: Place = Field(default="", description="`older` or `newer` of a page before; the newest when left out")
    unread: bool = Field(default=False, description="from the first that you have not read on")
    sender: Whom | None = Field(default=None, description="of this agent alone: id or handle")
    thread: Thread | None = Field(default=None, description="of this thread alone")
    kind: Kind | None = Field(default=None, description="of this kind alone")
    mentions: bool = Field(default=False, description="those alone that mention you")
    peek: bool = Field(default=False, description="let them stay unread")


@op(
    "channel.read", ReadRequest, talk_replies.Messages, effect="read",
    cli=CliForm(("channel", "read"), positional=("channel",), rows="messages", columns=SHOWN),
    summary="Read a channel: the newest messages, in the order in which they were said.",
    help="Reading takes nothing out. Cursors stay where they are, whatever is said meanwhile. What you were shown "
    "counts as read by you, and so does what came before, unless you peek, look back, or filter.",
    examples=(
        Example("The newest", {"channel": "roadmap"}),
        Example("What you have not read", {"channel": "roadmap", "unread": True}),
        Example("What came before", {"channel": "roadmap", "cursor": "b120", "limit": 20}),
    ),
)  # fmt: skip
async def read(request: ReadRequest, node: NodeControl, caller: Caller) -> talk_replies.Messages:
    """Return a page."""
    wanted = ChannelPage(
        request.channel, request.limit, request.cursor, request.sender or "", request.thread or "", request.kind or "",
        request.mentions, request.unread, request.peek,
    )  # fmt: skip
    return await node.talk(caller.project).page(wanted, caller)


class WatchRequest(Request):
    """Which channel, and from where on."""

    channel: Token = Field(description="name of the channel")
    cursor: Place = Field(default="", description="`newer` of a page: what came since then, first")


@op(
    "channel.watch", WatchRequest, talk_replies.Watched, effect="read", streams=True, live=True,
    cli=CliForm(("channel", "watch"), positional=("channel",), columns=("id", "at", "sender", "text"), silent=True),
    summary="Follow a channel as it is spoken in.",
    help="One message a piece, as soon as it is stored, until you leave. What you are shown here does not count as read.",
    examples=(Example("Listen", {"channel": "errors"}),),
)  # fmt: skip
async def watch(
    request: WatchRequest, node: NodeControl, caller: Caller
) -> AsyncIterator[replies.Chunk | talk_replies.Watched]:
    """Yield messages."""
    count = 0
    async with aclosing(node.talk(caller.project).watch(request.channel, request.cursor, caller)) as pieces:
        async for piece in pieces:
            count += 1
            yield piece
    yield talk_replies.Watched(channel=request.channel, messages=count)


class SearchRequest(Request):
    """What to look for."""

    query: Query = Field(description='words, "a phrase", or the beginning of a word with *: all must be there')
    channel: Token | None = Field(default=None, description="in this channel alone")
    sender: Whom | None = Field(default=None, description="of this agent alone: id or handle")
    thread: Thread | None = Field(default=None, description="of this thread alone")
    limit: Annotated[int, Field(ge=1, le=200)] = Field(default=20, description="at most so many")
    cursor: Found = Field(default="", description="`next` of a page before")


@op(
    "channel.search", SearchRequest, talk_replies.FoundMessages, effect="read",
    cli=CliForm(("channel", "search"), positional=("query",), rows="messages", columns=SHOWN),
    summary="Find what was said in channels, the newest first.",
    help="Text, data, senders and kinds are searched, without regard to case and accents.",
    examples=(Example("Who spoke of it?", {"query": 'parser "syntax error"'}),),
)  # fmt: skip
async def search(request: SearchRequest, node: NodeControl, caller: Caller) -> talk_replies.FoundMessages:
    """Return what is found."""
    wanted = Search(
        request.query, "channels", request.channel or "", request.sender or "", request.thread or "", request.limit,
        request.cursor,
    )  # fmt: skip
    return await node.talk(caller.project).search(wanted, caller)


class UnreadRequest(Request):
    """Nothing is needed."""


@op(
    "channel.unread", UnreadRequest, talk_replies.UnreadList, effect="read",
    cli=CliForm(("channel", "unread"), rows="channels", columns=("channel", "unread", "mentions", "newest")),
    summary="Say how much you have not read, in each channel and in your inbox.",
    help="Your own messages count as read, and what you may not see does not count.",
    examples=(Example("Is there something new?"),),
)  # fmt: skip
async def unread(_: UnreadRequest, node: NodeControl, caller: Caller) -> talk_replies.UnreadList:
    """Return the counts."""
    return await node.talk(caller.project).unread(caller)


class MarkRequest(Request):
    """Which channels are read, up to where."""

    channels: Annotated[list[Token], Field(max_length=1000)] = Field(
        default=[], description="names of channels; all when left out"
    )
    upto: Id | None = Field(
        default=None, description="id of the last message that counts as read; the newest by default"
    )


@op(
    "channel.mark", MarkRequest, talk_replies.Marked, effect="write",
    cli=CliForm(("channel", "mark"), positional=("channels",), rows="", answer="channels"),
    summary="Count channels as read.",
    help="For you alone. What counts as read stays so.",
    examples=(Example("I know all that", {"channels": ["roadmap"]}), Example("Everything")),
)  # fmt: skip
async def mark(request: MarkRequest, node: NodeControl, caller: Caller) -> talk_replies.Marked:
    """Mark them."""
    return await node.talk(caller.project).mark(request.channels, request.upto or "", caller)
