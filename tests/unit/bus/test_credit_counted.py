"""What a reader makes of the numbers that come with the pieces of an answer, and a node of what a reader says."""

from __future__ import annotations

import asyncio

import pytest

from knotwork.bus import credit, frames, wire


class Connection:
    """Stands in for a connection: it keeps what is sent."""

    def __init__(self):
        self.sent = []

    def send(self, subject, payload):
        self.sent.append((subject, int(payload)))


def piece(sent, kind="chunk"):
    head = wire.header((frames.FRAME, kind), (frames.SENT, str(sent)))
    return wire.Message("_INBOX.a", "", b"", None, head)


def test_pieces_that_come_twice_or_not_at_all_are_seen():
    reading = credit.Reading(Connection(), "call")
    assert reading.place(piece(10), 10) == "next"
    assert reading.place(piece(10), 10) == "again"
    assert reading.place(piece(10, "alive"), 0) == "next"
    assert reading.place(piece(30), 10) == "gap"
    assert reading.place(piece(40), 10) == "next"
    assert reading.place(piece(50, "alive"), 0) == "gap"  # all that was under way is lost
    assert reading.place(wire.Message("_INBOX.a", "", b"", None, b""), 5) == "next"  # from one that counts nothing


def test_what_was_used_is_told_in_steps_and_again_with_a_sign_of_life():
    connection = Connection()
    reading = credit.Reading(connection, "call")
    step = credit.WINDOW_BYTES // 4
    reading.used(surely=True)
    reading.place(piece(step - 1), step - 1)
    reading.used()
    assert connection.sent == []
    reading.place(piece(step), 1)
    reading.used()
    reading.used(surely=True)
    assert connection.sent == [("op.credit.call", step)] * 2


@pytest.mark.parametrize("told", [b"", b"-1", b"1.5", b"\xff", b"9" * 40, b"101"])
async def test_what_nobody_can_have_used_gives_no_credit(told: bytes):
    given = credit.Credit(100)
    given.sent = 100
    given.heard(told)
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0):
            await given.room()
    given.heard(b"1")
    await given.room()


@pytest.mark.parametrize(
    ("text", "window"), [("", 0), ("x", 0), ("1", 64 * 1024), ("2097152", 2097152), ("9" * 12, 32 << 20), ("9" * 13, 0)]
)
def test_a_window_is_kept_within_reason(text: str, window: int):
    assert frames.read_envelope({frames.CALL: "a;;;;;1;", frames.WINDOW: text}).window == window
