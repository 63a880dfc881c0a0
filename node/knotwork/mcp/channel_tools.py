"""Which tools are about channels? To see which there are, to say something, to read, to find."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Field, StringConstraints

from knotwork.mcp import message_values
from knotwork.mcp.message_values import ROW, ROWS
from knotwork.mcp.shapes import HIDDEN, many, record
from knotwork.mcp.tool import ADDS, READS, CamelInput, Cursor, Input, PageInput, Session, Words, tool, without
from knotwork.ops.talk_words import Id, Whom
from knotwork.ops.task_words import Digest
from knotwork.ops.words import Token
from knotwork.sdk.errors import NotFound
from knotwork.talk import finding
from knotwork.talk.channel import DEFAULTS
from knotwork.trust.scopes import Scope

READ_CHARS = 12_000
CHANNEL = record(
    name="text", description="text?", messages="int", bytes="int?", unread="int?", mentions="int?", archived="flag?",
    maxMessages="int?", maxBytes="int?", maxAgeSecs="number?",
)  # fmt: skip


def channel(one: dict[str, Any], *, limits: bool = False) -> dict[str, Any]:
    """Return what an agent is told of a channel, with what it keeps where that is asked for."""
    shown = {"name": one["name"], "description": one["about"], "messages": one["messages"]}
    more = {key: one[key] for key in ("bytes", "unread", "mentions", "archived") if one[key]}
    if limits:
        more |= {"maxMessages": one["max_messages"], "maxBytes": one["max_bytes"], "maxAgeSecs": one["max_age_s"]}
    return without(shown) | more


def _place(one: dict[str, Any]) -> str:
    """Return where a channel stands in a list: those that are always there first."""
    name = str(one["name"])
    return f"{list(DEFAULTS).index(name) if name in DEFAULTS else '~'} {name}"


@tool(
    "list_channels", PageInput, record(channels=many(CHANNEL), next="text?"), title="List channels",
    description="List the channels, with how much of each you have not read.", hints=READS, rows="channels",
)  # fmt: skip
async def list_channels(given: PageInput, session: Session) -> dict[str, Any]:
    """Return all channels."""
    found = await session.ask("channel.list")
    return given.of("channels", [channel(one) for one in found["channels"]], _place)


class StatusInput(PageInput):
    """Which channel."""

    channel: Token | None = Field(default=None, description="this one alone")


@tool(
    "channels_status", StatusInput, record(channels=many(CHANNEL), next="text?"), title="Look at channels",
    description="Say how full channels are, the archived ones too, and what they keep.", hints=READS, rows="channels",
)  # fmt: skip
async def channels_status(given: StatusInput, session: Session) -> dict[str, Any]:
    """Return how full channels are."""
    found = [channel(one, limits=True) for one in (await session.ask("channel.list", archived=True))["channels"]]
    rows = [one for one in found if given.channel in (None, one["name"])]
    if given.channel is not None and not rows:
        raise NotFound(
            f"There is no channel {given.channel}.", code="tool.no_channel",
            hint=f"There are: {', '.join(one['name'] for one in found)}.",
        )  # fmt: skip
    return given.of("channels", rows, _place)


class SendInput(CamelInput):
    """What to say where."""

    channel: Token = Field(description="roadmap, parallel-work, errors, or another of list_channels")
    message: Words = Field(description="@handle tells somebody that he is meant")
    scope: Scope = Field(default="team", description="who may read it; an answer: as what it answers")
    reply_to: Id | None = Field(default=None, description="id of what you answer")
    blob: Digest | None = Field(default=None, description="digest of put_blob", json_schema_extra=HIDDEN)


@tool(
    "send_message", SendInput, record(id="text", channel="text", thread="text?"), title="Say in a channel",
    description="Tell everybody in a channel. For one agent: send_direct_message.", hints=ADDS,
)  # fmt: skip
async def send_message(given: SendInput, session: Session) -> dict[str, Any]:
    """Say something."""
    scope = given.scope
    if given.reply_to and "scope" not in given.model_fields_set:  # what was said to a few is not answered to all
        scope = (await session.ask("message.get", id=given.reply_to))["scope"]
    sent = await session.ask(
        "channel.send", channel=given.channel, text=given.message, scope=scope,
        **without({"reply_to": given.reply_to, "blob": given.blob}), **session.key,
    )  # fmt: skip
    return without({"id": sent["id"], "channel": sent["channel"], "thread": sent["thread"]})


class ReadInput(Input):
    """Which messages of which channel."""

    channel: Token
    limit: int = Field(default=50, ge=1, le=1000)
    cursor: Cursor = Field(default="", description="`older` or `newer` of an answer")
    unread: bool = Field(default=False, description="from the first unread on")


@tool(
    "read_messages", ReadInput,
    record(channel="text?", messages=ROWS, older="text?", newer="text?", unread="int?", skipped="int?"),
    title="Read a channel",
    description="Read the newest messages of a channel, the oldest of them first.",
    hints=READS, text=message_values.text_of,
)  # fmt: skip
async def read_messages(given: ReadInput, session: Session) -> dict[str, Any]:
    """Return a page of a channel."""
    wanted = {
        "channel": given.channel, "limit": given.limit, "cursor": given.cursor[:32], "unread": given.unread,
    }  # fmt: skip
    forward = given.unread or given.cursor.startswith("a")
    page = await session.ask("channel.read", **wanted, peek=forward)  # whoever saw the newest has read all before it
    shown = message_values.fitting([message_values.row(one) for one in page["messages"]], newest=not forward)
    skipped = page["skipped"] + (0 if forward else len(page["messages"]) - len(shown))
    if len(shown) < len(page["messages"]):  # ask again for those that fit: the cursors are theirs then
        page = await session.ask("channel.read", **wanted | {"limit": len(shown)}, peek=True)
    if shown and forward:
        await session.ask("channel.mark", channels=[given.channel], upto=shown[-1]["id"])
    more = {"channel": page["channel"], "older": page["older"], "newer": page["newer"]}
    counts = {"unread": page["unread"], "skipped": skipped}  # unread behind these, and before them
    return without(more) | {name: count for name, count in counts.items() if count} | {"messages": shown}


class SearchInput(Input):
    """What to look for."""

    query: Annotated[str, StringConstraints(min_length=1, max_length=1024)] = Field(
        description='words, "a phrase", or the beginning of a word with *'
    )
    channel: Token | None = Field(default=None, description="in this channel alone")
    sender: Whom | None = Field(default=None, description="of this agent alone: guid or handle")
    limit: int = Field(default=20, ge=1, le=200)
    cursor: Cursor = Field(default="", description="`next` of the page before")


@tool(
    "search_messages", SearchInput, record(messages=ROWS, next="text?"), title="Find messages",
    description="Find messages in channels and in your inbox, the newest first.", hints=READS,
    text=message_values.text_of,
)  # fmt: skip
async def search_messages(given: SearchInput, session: Session) -> dict[str, Any]:
    """Return what is found."""
    more = without({"sender": given.sender, "channel": given.channel, "cursor": given.cursor[:40]})
    op = "channel.search" if given.channel else "message.search"
    found = await session.ask(op, query=given.query, limit=given.limit, **more)
    kept = message_values.fitting([message_values.row(one) for one in found["messages"]], newest=False)
    cut = len(kept) < len(found["messages"])
    follows = finding.behind(given.cursor, (one["id"] for one in kept)) if cut else found["next"]
    return {"messages": kept} | without({"next": follows})


class MessageInput(Input):
    """Which message, and from where on."""

    id: Id = Field(description="id of a message")
    offset: int = Field(default=0, ge=0, le=8 * 1024 * 1024, description="`cut` of what you read before")


@tool(
    "read_message", MessageInput, ROW, title="Read one message",
    description="Read one message, or go on reading a long one from `cut` on.", hints=READS,
    text=lambda found: message_values.text_of({"messages": [found]}),
)  # fmt: skip
async def read_message(given: MessageInput, session: Session) -> dict[str, Any]:
    """Return one message; a direct one with its `state`, for which its sender asks."""
    found = await session.ask("message.get", id=given.id)
    one = message_values.row(found) | without({"state": found["state"]})
    whole = one.get("text", "")
    part = whole[given.offset : given.offset + READ_CHARS]
    end = given.offset + len(part)
    if given.offset:
        one.pop("data", None)
    shown = message_values.cut({**one, "text": part})
    if "cut" in shown:  # not even this part has room
        end = given.offset + int(shown["cut"])
    return shown | ({"cut": end} if end < len(whole) else {})
