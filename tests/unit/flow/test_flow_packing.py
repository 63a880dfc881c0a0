"""What is written of a run that is over says all of it, in messages that the server takes; large ends are told in short."""

from __future__ import annotations

import json

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from knotwork.bus.reading import Stored
from knotwork.flow import facts, packing

RUN = "w" + "0" * 22
MIB = 1024 * 1024


def fact(seq: int, what: str, data: bytes) -> Stored:
    return Stored(facts.subject(RUN, *what.split(".")), data, seq, "2026-01-01T00:00:00Z")


def read(made: list[tuple[str, bytes]]) -> list[Stored]:
    rows = packing.unpacked(made[-1][1])
    pattern, count = packing.pieces_of(rows)
    pieces = [packing.unpacked(data) for subject, data in made[:-1] if subject.startswith(pattern.removesuffix("*"))]
    assert len(pieces) == count
    return [one for piece in pieces for one in piece] if pattern else rows


@given(st.lists(st.integers(0, 3 * MIB), max_size=6), st.binary(max_size=20))
def test_what_is_written_is_read_in_messages_of_some_mebibytes(sizes, garbage):
    found = [fact(1, "start", b"{}"), fact(2, "outcome.x.0.1", garbage)]
    found += [fact(3 + place, f"signal.s.{place}", b'"%b"' % (b"x" * size)) for place, size in enumerate(sizes)]
    found.append(fact(99, "ended", b"{}"))
    made = list(packing.messages(RUN, found))
    assert all(len(data) <= packing.PIECE_MAX_BYTES for _, data in made)
    assert (len(made) > 1) == (packing.size(found) > packing.PIECE_MAX_BYTES)
    again = read(made)
    assert [one.subject for one in again] == [one.subject for one in found]
    assert [one.data for one in again if one.seq != 2] == [one.data for one in found if one.seq != 2]
    assert packing.is_whole(packing.ends(packing.unpacked(made[-1][1])))


def test_a_start_and_an_end_that_are_large_are_told_in_short_and_kept_whole():
    start = facts.Start("w", "d", msgspec.Raw(b'"%b"' % (b"x" * 5 * MIB)), by="me")
    finish = facts.Finish("completed", msgspec.Raw(b'"%b"' % (b"y" * 5 * MIB)), ended_ns=7)
    found = [fact(1, "start", facts.encode(start)), fact(2, "ended", facts.encode(finish))]
    made = list(packing.messages(RUN, found))
    assert [subject.count(".") for subject, _ in made] == [3, 3, 1]
    assert read(made) == found
    first, last = packing.ends(packing.unpacked(made[-1][1]))
    assert msgspec.json.decode(first.data, type=facts.Start) == msgspec.structs.replace(start, input=facts.NULL)
    assert msgspec.json.decode(last.data, type=facts.Finish) == msgspec.structs.replace(finish, output=facts.NULL)


def test_a_fact_that_fits_into_no_message_is_left_out_and_its_place_is_not():
    huge = fact(2, "signal.s.1", b'"%b"' % (b"x" * 8 * MIB))
    found = [fact(1, "start", b"{}"), huge, fact(3, "ended", b"{}")]
    again = read(list(packing.messages(RUN, found)))
    assert [one.data for one in again] == [b"{}", b"null", b"{}"]
    assert all(json.loads(one.data) in ({}, None) for one in again)


def test_a_failure_that_fits_into_no_message_stays_one():
    error = {"kind": "failed", "code": "x.y", "message": "m" * (8 * MIB), "detail": {"trace": "t" * MIB}}
    said = {"state": "failed", "error": error, "node": "n", "ended_ns": 5}
    found = [fact(1, "start", b"{}"), fact(2, "outcome.x.0.1", json.dumps(said).encode()), fact(3, "ended", b"{}")]
    (_, outcome, _) = read(list(packing.messages(RUN, found)))
    told = json.loads(outcome.data)
    assert (told["state"], told["node"], told["ended_ns"]) == ("failed", "n", 5)
    assert told["error"]["code"] == "x.y"
    assert told["error"]["message"].startswith("mmm")
    assert len(outcome.data) < MIB


def test_two_that_found_different_facts_do_not_mix_their_pieces():
    found = [fact(1, "start", b"{}"), fact(2, "signal.s.1", b'"%b"' % (b"x" * 5 * MIB)), fact(3, "ended", b"{}")]
    one, other = (list(packing.messages(RUN, some)) for some in (found, [*found, fact(9, "fired.x", b"")]))
    assert not {subject for subject, _ in one[:-1]} & {subject for subject, _ in other[:-1]}
    assert one == list(packing.messages(RUN, found))
