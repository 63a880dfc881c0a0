"""What may be asked about direct messages, and of them: send, read, wait, answer, acknowledge; and who may write to whom."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, ValidationInfo, field_validator

from knotwork.ops import talk_replies
from knotwork.ops.channels import SHOWN, SayRequest
from knotwork.ops.node import Nothing
from knotwork.ops.op import Caller, CliForm, Example, Request, op
from knotwork.ops.ports import NodeControl
from knotwork.ops.talk_ports import InboxPage, Search
from knotwork.ops.talk_words import Found, Id, Kind, Limit, Place, Query, Rule, Thread, Whom
from knotwork.ops.task_words import Key
from knotwork.ops.words import Token
from knotwork.talk.contact import Mode
from knotwork.trust.scopes import Scope

WAIT_MAX_S = 600.0
INBOX = ("id", "at", "sender", "kind", "priority", "ack", "text")


class SendRequest(SayRequest):
    """What to send to whom."""

    to: Whom | None = Field(
        default=None, description="id or handle of an agent, handle@project for one of another project, or person-NAME"
    )
    capability: Token | None = Field(
        default=None, validate_default=True, description="everybody else who can do this instead, one message for each"
    )
    scope: Scope = Field(
        default="team",
        validate_default=True,
        description="with capability: private (agents you started), personal (of your owner, in every project), team (the "
        "project), public (everybody you may see, in every project)",
    )
    reply_to: Id | None = Field(default=None, description="id of the message that you answer")
    priority: int = Field(default=5, ge=1, le=10, description="10 is the most urgent")
    ack: bool = Field(default=False, description="it is shown again until it is acknowledged")

    @field_validator("scope")
    @classmethod
    def _of_many(cls, value: Scope, info: ValidationInfo) -> Scope:
        if value != "team" and info.data.get("to") is not None:
            raise ValueError("it goes with capability: one recipient is meant wherever it is")
        return value

    @field_validator("capability")
    @classmethod
    def _one_of_both(cls, value: str | None, info: ValidationInfo) -> str | None:
        if "to" in info.data and (info.data["to"] is None) == (value is None):
            raise ValueError("give either to or capability")
        return value


@op(
    "message.send", SendRequest, talk_replies.SentMessages, effect="write",
    cli=CliForm(
        ("message", "send"), positional=("to", "text"), answer="id", instead={"capability": "to"},
        answer_when={"capability": "count"}, short={"capability": "c"},
    ),
    summary="Send a message to one agent or person, or to all with a capability.",
    help="It is stored when this returns, and waits until its recipient reads it, whether that is here now or not. Up to "
    "1 MiB; what is larger is kept with `blob put` and told by its digest.",
    examples=(
        Example("To one", {"to": "reviewer", "text": "The branch is ready."}),
        Example("And be sure that it is heeded", {"to": "reviewer", "text": "Stop!", "priority": 10, "ack": True}),
        Example("To all who can do something", {"capability": "code-review", "text": "Who has time?"}),
        Example("In other projects, too", {"capability": "code-review", "scope": "public", "text": "Who has time?"}),
    ),
)  # fmt: skip
async def send(request: SendRequest, node: NodeControl, caller: Caller) -> talk_replies.SentMessages:
    """Send it."""
    said = request.said(
        scope=request.scope, reply_to=request.reply_to or "", priority=request.priority, ack=request.ack
    )
    return await node.talk(caller.project).send(request.to or "", request.capability or "", said, caller)


class ReplyRequest(SayRequest):
    """What to answer to which message."""

    id: Id = Field(description="id of the message that you answer")
    priority: int = Field(default=5, ge=1, le=10, description="10 is the most urgent")
    ack: bool = Field(default=False, description="it is shown again until it is acknowledged")


@op(
    "message.reply", ReplyRequest, talk_replies.Sent, effect="write",
    cli=CliForm(("message", "reply"), positional=("id", "text"), answer="id"),
    summary="Answer a message: its sender, or in its channel when it was said there.",
    help="The answer belongs to the same thread, and in a channel has the same scope. Whoever wrote to you may be answered, where letters are allowed at all.",
    examples=(Example("Say yes", {"id": "d7", "text": "Yes, I take it."}),),
)  # fmt: skip
async def reply(request: ReplyRequest, node: NodeControl, caller: Caller) -> talk_replies.Sent:
    """Answer it."""
    said = request.said(reply_to=request.id, priority=request.priority, ack=request.ack)
    return await node.talk(caller.project).reply(said, caller)


class InboxRequest(Request):
    """Which messages of your inbox."""

    limit: Limit = Field(default=50, description="at most so many")
    sender: Whom | None = Field(default=None, description="of this agent alone: id or handle")
    kind: Kind | None = Field(default=None, description="of this kind alone")
    thread: Thread | None = Field(default=None, description="of this thread alone")
    priority: int = Field(default=1, ge=1, le=10, description="at least so urgent")
    urgent: bool = Field(default=False, description="the most urgent first, not the oldest")
    all: bool = Field(default=False, description="those that you have read, too")
    cursor: Place = Field(default="", description="`newer` of an answer before: only what came after it")
    peek: bool = Field(default=False, description="let them stay unread")
    key: Key = Field(default="", description="idempotency key: asked again with it, the same messages are shown")
    ids: Annotated[list[Id], Field(max_length=1000)] = Field(default=[], description="ids of messages: these alone")

    def wanted(self) -> InboxPage:
        """Return which are meant."""
        return InboxPage(
            self.limit, self.cursor, self.sender or "", self.thread or "", self.kind or "", self.priority,
            self.urgent, self.all, self.peek, self.key, tuple(self.ids),
        )  # fmt: skip


@op(
    "message.inbox", InboxRequest, talk_replies.InboxMessages, effect="write",
    cli=CliForm(("message", "inbox"), rows="messages", columns=INBOX, also=("inbox",)),
    summary="Read your inbox: what you have not read, the oldest first.",
    help="What you are shown counts as read; what a filter passes over stays unread. A message that asks for it is shown "
    "again, a minute later, until you acknowledge it. Messages are kept for seven days, a thousand of them.",
    examples=(
        Example("What is new?"),
        Example("From one agent alone", {"sender": "planner", "limit": 10}),
        Example("All that is there", {"all": True, "limit": 200}),
    ),
)  # fmt: skip
async def inbox(request: InboxRequest, node: NodeControl, caller: Caller) -> talk_replies.InboxMessages:
    """Return messages."""
    return await node.talk(caller.project).inbox(request.wanted(), caller)


class WaitRequest(InboxRequest):
    """Which messages, and for how long."""

    wait_s: float = Field(default=30.0, ge=0, le=WAIT_MAX_S, description="seconds to wait for the first")


@op(
    "message.wait", WaitRequest, talk_replies.InboxMessages, effect="write",
    cli=CliForm(("message", "wait"), rows="messages", columns=INBOX),
    summary="Wait for a message to you.",
    help="It answers as soon as there is one, at once when there is one now. No messages after `wait_s` is an answer, "
    "too: ask again.",
    examples=(
        Example("The next one", {"wait_s": 60}),
        Example("The answer to a question", {"thread": "d7", "wait_s": 300}),
    ),
)  # fmt: skip
async def wait(request: WaitRequest, node: NodeControl, caller: Caller) -> talk_replies.InboxMessages:
    """Return messages, in time."""
    return await node.talk(caller.project).inbox(request.wanted(), caller, wait_s=request.wait_s)


class IdRequest(Request):
    """Which message."""

    id: Id = Field(description="id of a message")


@op(
    "message.get", IdRequest, talk_replies.MessageRow, effect="read",
    cli=CliForm(("message", "get"), positional=("id",)),
    summary="Show one message, of a channel or an inbox.",
    help="One that you sent, too: `state` says whether it was read. It stays as it is, unread or not.",
    examples=(Example("What was that?", {"id": "m12"}),),
)  # fmt: skip
async def get(request: IdRequest, node: NodeControl, caller: Caller) -> talk_replies.MessageRow:
    """Return it."""
    return await node.talk(caller.project).get(request.id, caller)


class AckRequest(Request):
    """Which messages of your inbox."""

    ids: Annotated[list[Id], Field(min_length=1, max_length=1000)] = Field(description="ids of messages")


@op(
    "message.ack", AckRequest, talk_replies.Acked, effect="write",
    cli=CliForm(("message", "ack"), positional=("ids",), answer="ids"),
    summary="Acknowledge messages: they are not shown again.",
    help="Doing it twice does no harm. When one of the ids is not in your inbox nothing is changed.",
    examples=(Example("Understood", {"ids": ["d7", "d9"]}),),
)  # fmt: skip
async def ack(request: AckRequest, node: NodeControl, caller: Caller) -> talk_replies.Acked:
    """Acknowledge them."""
    return await node.talk(caller.project).ack(request.ids, caller)


class MessageSearchRequest(Request):
    """What to look for, and where."""

    query: Query = Field(description='words, "a phrase", or the beginning of a word with *: all must be there')
    where: Literal["all", "channels", "inbox"] = Field(default="all", description="where to look")
    sender: Whom | None = Field(default=None, description="of this agent alone: id or handle")
    limit: Annotated[int, Field(ge=1, le=200)] = Field(default=20, description="at most so many")
    cursor: Found = Field(default="", description="`next` of a page before")


@op(
    "message.search", MessageSearchRequest, talk_replies.FoundMessages, effect="read",
    cli=CliForm(("message", "search"), positional=("query",), rows="messages", columns=SHOWN),
    summary="Find messages in your inbox and in channels, the newest first.",
    help="Text, data, senders and kinds are searched, without regard to case and accents. What is found stays unread.",
    examples=(Example("Where was that?", {"query": "migration plan"}),),
)  # fmt: skip
async def search(request: MessageSearchRequest, node: NodeControl, caller: Caller) -> talk_replies.FoundMessages:
    """Return what is found."""
    wanted = Search(
        request.query, request.where, sender=request.sender or "", limit=request.limit, cursor=request.cursor
    )
    return await node.talk(caller.project).search(wanted, caller)


@op(
    "contact.get", Nothing, talk_replies.ContactPolicy, effect="read",
    cli=CliForm(("contact", "show")),
    summary="Show who may write to whom.",
    help="The contact policy of the project. Channels are open to everybody in it.",
    examples=(Example("May I?"),),
)  # fmt: skip
async def policy(_: Nothing, node: NodeControl, caller: Caller) -> talk_replies.ContactPolicy:
    """Return it."""
    return node.talk(caller.project).policy()


class PolicyRequest(Request):
    """How it is to be."""

    mode: Mode = Field(
        description="open: everybody to everybody; team: within the project; allow-list: as `allow` says; none: nobody"
    )
    allow: Annotated[list[Rule], Field(max_length=500)] = Field(
        default=[], description="from>to, each an id, a handle, handle@project, owner=NAME or *"
    )


@op(
    "contact.set", PolicyRequest, talk_replies.ContactPolicy, effect="admin",
    cli=CliForm(("contact", "set"), positional=("mode",)),
    summary="Say who may write to whom.",
    help="Direct messages alone are meant. It is in force on this node at once, on others in a moment. Whoever got a "
    "message may answer it, except under `none`.",
    examples=(
        Example("All may write to the planner, and it to all", {"mode": "allow-list", "allow": ["*>planner", "planner>*"]}),
        Example("As it was", {"mode": "open"}),
    ),
)  # fmt: skip
async def set_policy(request: PolicyRequest, node: NodeControl, caller: Caller) -> talk_replies.ContactPolicy:
    """Put it into force."""
    return await node.talk(caller.project).set_policy(request.mode, request.allow)
