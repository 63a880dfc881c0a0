"""Our short way through what the server sends must see what nats-py's own parser sees, however the bytes are cut."""

from __future__ import annotations

import asyncio
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st
from nats.errors import ProtocolError
from nats.protocol.parser import Parser

from knotwork.bus import parser, wire

OURS = {1: "one", 2: "two"}


class Client:
    """What a parser calls of nats-py's client."""

    def __init__(self) -> None:
        self.seen: list[tuple[object, ...]] = []

    def deliver(self, handler: str, subject: bytes, reply: bytes, data: bytes, head: bytes) -> None:
        number = next(number for number, name in OURS.items() if name == handler)
        self.seen.append((number, subject, reply, data, head))

    async def _process_msg(self, number: int, subject: bytes, reply: bytes, data: bytes, head: bytes | None) -> None:
        self.seen.append((number, bytes(subject), bytes(reply), data, head or b""))

    async def _process_ping(self) -> None:
        self.seen.append(("ping",))

    async def _process_pong(self) -> None:
        self.seen.append(("pong",))

    async def _process_err(self, told: str) -> None:
        self.seen.append((told,))


def _line(number: int, subject: bytes, reply: bytes, data: bytes, head: bytes) -> bytes:
    to = b" ".join(part for part in (subject, b"%d" % number, reply) if part)
    if head:
        return b"HMSG %b %d %d\r\n%b%b\r\n" % (to, len(head), len(head) + len(data), head, data)
    return b"MSG %b %d\r\n%b\r\n" % (to, len(data), data)


NAME = st.binary(min_size=1, max_size=8).filter(lambda name: not set(name) & set(b" \t\r\n\x0b\x0c"))
HEAD = st.binary(max_size=20).map(lambda rest: b"NATS/1.0\r\n" + rest + b"\r\n\r\n")
MESSAGE = st.builds(
    _line, st.sampled_from([1, 2, 9]), NAME, NAME | st.just(b""), st.binary(max_size=60), HEAD | st.just(b"")
)
OTHER = st.sampled_from([b"PING\r\n", b"PONG\r\n", b"+OK\r\n", b"-ERR 'Slow Consumer'\r\n"])


def _read(made: Parser, pieces: list[bytes]) -> None:
    async def read() -> None:
        for piece in pieces:
            await made.parse(piece)

    asyncio.run(read())


def _pieces(stream: bytes, cuts: list[int]) -> list[bytes]:
    places = sorted({cut % (len(stream) + 1) for cut in cuts} | {0, len(stream)})
    return [stream[begin:end] for begin, end in pairwise(places)]


@given(st.lists(MESSAGE | OTHER, max_size=12), st.lists(st.integers(0, 2000), max_size=12))
def test_it_sees_what_the_library_sees(messages, cuts):
    ours, theirs = Client(), Client()
    pieces = _pieces(b"".join(messages), cuts)
    _read(Parser(theirs), pieces)
    _read(parser.DirectParser(ours, OURS, ours.deliver), pieces)
    assert ours.seen == theirs.seen


def test_a_message_larger_than_what_is_held_comes_whole():
    client = Client()
    data = bytes(range(256)) * 1024
    stream = _line(1, b"large", b"", data, b"") + _line(2, b"small", b"back", b"x", b"NATS/1.0\r\n\r\n")
    _read(parser.DirectParser(client, OURS, client.deliver), _pieces(stream, list(range(0, len(stream), 32_768))))
    assert client.seen == [(1, b"large", b"", data, b""), (2, b"small", b"back", b"x", b"NATS/1.0\r\n\r\n")]


@pytest.mark.parametrize("line", [b"MSG a 1 x\r\n", b"HMSG a 1 5\r\nabcde\r\n", b"WHAT is this\r\n"])
def test_what_is_malformed_is_left_to_the_library(line):
    client = Client()
    with pytest.raises(ProtocolError):
        _read(parser.DirectParser(client, OURS, client.deliver), [line])
    assert client.seen == []


ODD = [b"\x0b", b"\x0c", b"\x00", b"\x1c", b"\x1d", b"\x1e", b"\x1f", b"\x85", b"\xa0", b"\xc2\x85", b"\xe2\x80\xa8"]


@pytest.mark.parametrize("odd", ODD)
@pytest.mark.parametrize("head", [b"", b"NATS/1.0\r\n\r\n"])
@pytest.mark.parametrize("number", [1, 9])  # 9 is none of ours: it goes to the library
@pytest.mark.parametrize("data", [b"{}", b"x" * 3 * parser.HELD_MAX])
def test_only_blanks_end_a_subject(odd: bytes, head: bytes, number: int, data: bytes):
    """As with the server: a subject such as `op.status<VT>2` names no subscription, and a reply subject ends nothing."""
    client, subject, reply = Client(), b"op.status" + odd + b"2", b"_INBOX.a" + odd + b"b"
    stream = b"PING\r\n" + _line(number, subject, reply, data, head) + _line(number, subject, b"", data, head)
    pieces = _pieces(stream * 2, list(range(0, len(stream) * 2, 9_999)))
    _read(parser.DirectParser(client, OURS, client.deliver), pieces)
    assert client.seen == [("ping",), (number, subject, reply, data, head), (number, subject, b"", data, head)] * 2


def test_a_line_that_nobody_knows_is_an_error_however_long_it_is():
    client = Client()
    with pytest.raises(ProtocolError):
        _read(parser.DirectParser(client, OURS, client.deliver), [b"WHAT " + b"x" * 5000 + b"\r\n"])


@pytest.mark.parametrize("reply", [b"_INBOX.\xff", b"_INBOX." + b"x" * 4000])
def test_a_reply_subject_that_nobody_could_be_answered_on_is_none(reply: bytes):
    """An answer to it would be longer than the server's longest line, for which it ends the connection."""
    seen: list[wire.Message] = []
    wire.deliver(seen.append, b"a", reply, b"", b"")
    assert [message.reply for message in seen] == [""]


def test_one_header_is_read_without_the_others_and_the_last_of_a_name_counts():
    block = b"NATS/1.0\r\nNats-Sequence: 7\r\nOther: x\r\nNats-Sequence: 12\r\n\r\n"
    message = wire.Message("s", "", b"", None, block)
    assert (message.header("Nats-Sequence"), message.header("Nats-Stream")) == ("12", "")
    assert message.headers == {"Nats-Sequence": "12", "Other": "x"}
    assert wire.Message("s", "", b"").header("Nats-Sequence") == ""
