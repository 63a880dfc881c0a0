"""How does a message look to an agent? As data from its sender, in as many rows as fit, whatever it says."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from knotwork.mcp import spoken, wording
from knotwork.mcp.shapes import many, record
from knotwork.mcp.wording import without
from knotwork.talk import framing

if TYPE_CHECKING:
    from knotwork.mcp.tool import Session

ROW = record(
    id="text", at="text", sender="text", senderGuid="text", text="text?", data="any?", kind="text?", channel="text?",
    thread="text?", replyTo="text?", priority="int?", ackRequired="flag?", blob="text?", cut="int?", scope="text?",
    state="text?",
)  # fmt: skip
ROWS = many(ROW)
_HEADING = (
    ("id", ""), ("sender", "from"), ("at", "at"), ("channel", "in"), ("kind", "kind"), ("thread", "thread"),
    ("replyTo", "answers"), ("priority", "priority"), ("scope", "scope"), ("state", "state"),
)  # fmt: skip
"""What stands in the line above a message, and the word before it."""
_ROOM = wording.RESULT_MAX_CHARS - 2000


def row(one: dict[str, Any]) -> dict[str, Any]:
    """Return a message with what an agent needs of it."""
    shown = {
        "id": one["id"], "at": one["at"], "sender": one["sender"], "senderGuid": one["sender_id"], "text": one["text"],
        "data": one["data"], "kind": "" if one["kind"] == "text" else one["kind"], "channel": one["channel"],
        "thread": "" if one["thread"] == one["id"] else one["thread"], "replyTo": one["reply_to"], "blob": one["blob"],
        "scope": "" if one["scope"] == "team" else one["scope"],
    }  # fmt: skip
    made = without(shown)
    if one["priority"] != 5:  # noqa: PLR2004  what is usual is not told
        made["priority"] = one["priority"]
    if one["ack"] and one["state"] != "acked":
        made["ackRequired"] = True
    return made


def cut(one: dict[str, Any], room: int = _ROOM) -> dict[str, Any]:
    """Return a message that has at most `room` characters: `cut` tells where its text goes on."""
    text = one.get("text", "")
    if wording.size(one) <= room:
        return one
    made: dict[str, Any] = wording.fit({**one, "text": ""}, room // 2)
    kept = wording.room_for(text[: room // 2], room - wording.size(made))
    return without(made | {"text": text[:kept]}) | ({"cut": kept} if kept < len(text) else {})


def fitting(rows: list[dict[str, Any]], *, newest: bool) -> list[dict[str, Any]]:
    """Return as many messages as fit into an answer, one at least: the first ones, or the `newest`."""
    kept: list[dict[str, Any]] = []
    room = _ROOM
    for one in reversed(rows) if newest else rows:
        chars = wording.size(one)
        small = one if chars <= _ROOM else cut(one)
        room -= (chars if small is one else wording.size(small)) + len(_framed(small))  # it is told as data and as text
        if room < 0 and kept:
            break
        kept.append(small)
    return kept[::-1] if newest else kept


async def read(session: Session, op: str, wanted: dict[str, Any]) -> dict[str, Any]:
    """Return a page of messages that fits; only what is in it counts as read. A call made again gets the same page."""
    wanted, loop = wanted | session.key, asyncio.get_running_loop()
    end_s = loop.time() + wanted.get("wait_s", 0.0)
    while True:
        page = await session.ask(op, **wanted, peek=True)
        kept = fitting([row(one) for one in page["messages"]], newest=False)
        if not kept:
            return page
        more = page["more"] or len(kept) < len(page["messages"])
        these = wanted | {"ids": [one["id"] for one in kept]}  # what arrives meanwhile might not fit beside them
        page = await session.ask(op, **these | ({"wait_s": 0} if "wait_s" in wanted else {}))
        if page["messages"]:
            return page | {"messages": [cut(row(one)) for one in page["messages"]], "more": more}
        if "wait_s" in wanted:  # another reader of this inbox was faster
            wanted |= {"wait_s": max(0.0, end_s - loop.time())}


def text_of(found: dict[str, Any]) -> str:
    """Return messages as text: each framed as what somebody said, then what else there is to say."""
    lines = [_framed(one) for one in found.get("messages", ())] or ["no messages"]
    rest = {key: value for key, value in found.items() if key != "messages" and value not in ("", 0, False)}
    return "\n".join(lines) + (f"\n{wording.text_of(rest)}" if rest else "")


def _framed(one: dict[str, Any]) -> str:
    parts = [(word, str(one[name])) for name, word in _HEADING if name in one]
    if one.get("ackRequired"):
        parts.append(("acknowledge with", spoken.tool("ack_messages")))
    if "cut" in one:
        parts.append((f"cut: go on with {spoken.tool('read_message')}, offset", str(one["cut"])))
    return framing.framed(framing.heading(parts), one.get("text", ""), one.get("data"), blob=one.get("blob", ""))
