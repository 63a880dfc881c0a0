"""Does whoever began an attempt still work on it? Asked when it is delivered again: a lease may run out while NATS is away.

Then nobody has died, and who is back before somebody else has begun it goes on. Of one that is not back yet, and of one
that is dead, nobody answers: who asks soon after NATS came back asks again.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextlib import suppress
from typing import TYPE_CHECKING, Literal

import msgspec

from knotwork.bus import pulls, subjects
from knotwork.bus.background import together
from knotwork.sdk.errors import KnotworkError, TimedOut, Unreachable
from knotwork.work.withdrawing import I_HAVE_IT

if TYPE_CHECKING:
    from knotwork.bus.connection import Connection
    from knotwork.bus.pulls import Delivery
    from knotwork.bus.wire import Message
    from knotwork.work.records import Task
    from knotwork.work.running import Running

WORD_S = 0.5
"""How long who is there may take to say so."""
Word = Literal["has it", "has it not", "is away"]
Key = tuple[str, str, int, int]


class Question(msgspec.Struct, frozen=True, array_like=True):
    """Which attempt is asked about, and where its new delivery is answered."""

    run: str
    step: str
    iteration: int
    number: int
    reply: str


async def ask(connection: Connection, nodes: Iterable[str], task: Task, delivery: Delivery) -> Word:
    """Ask the nodes that began an attempt; one that has it keeps its lease by the new delivery from now on."""
    question = msgspec.json.encode(Question(task.run, task.step, task.iteration, task.number, delivery.reply))
    words = await together(*(_ask(connection, node, question) for node in nodes))
    for word in ("has it", "is away"):
        if word in words:
            return word
    return "has it not"


async def _ask(connection: Connection, node: str, question: bytes) -> Word:
    try:
        answer = await connection.request(subjects.still(node), question, timeout_s=WORD_S, patient=False)
    except (TimedOut, Unreachable):  # it may be too busy with coming back to answer
        return "is away"
    return "has it" if answer.data == I_HAVE_IT else "has it not"


def answer(connection: Connection, message: Message, running: Mapping[Key, Running]) -> None:
    """Say whether an attempt is among those that are `running` here."""
    try:
        asked = msgspec.json.decode(message.data, type=Question)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return
    here = running.get((asked.run, asked.step, asked.iteration, asked.number))
    if here is not None and asked.reply.startswith(pulls.ANSWERS):  # what goes there is sent with our rights
        here.reply = asked.reply
        here.renewed_s = 0.0  # at once
    if subjects.may_answer(message.reply):
        with suppress(KnotworkError):  # it asks again
            connection.send(message.reply, I_HAVE_IT if here is not None else b"")
