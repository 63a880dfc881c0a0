"""Claim tokens: what we sealed comes back, and nothing else does."""

from __future__ import annotations

import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from knotwork.sdk.errors import Invalid
from knotwork.work import tickets
from knotwork.work.tickets import Seal, Ticket

SEAL = Seal("default", b"a" * 64)
ALPHABET = string.ascii_letters + string.digits + "-_."
names = st.from_regex(r"[a-z0-9][a-z0-9_-]{0,63}", fullmatch=True)
moments = st.integers(0, 4_000_000_000_000_000_000)


@st.composite
def given_tickets(draw: st.DrawFn) -> Ticket:
    boundary, routed, run = draw(names), draw(names), draw(st.from_regex(r"[a-z0-9]{8,40}", fullmatch=True))
    lane = draw(st.sampled_from(["high", "normal", "low"]))
    iteration, number = draw(st.integers(0, 10_000)), draw(st.integers(1, 1000))
    return Ticket(
        draw(st.text("0123456789abcdef", min_size=16, max_size=16)),
        f"task.{boundary}.{routed}.{lane}.{run}.{draw(names)}.{iteration}.{number}",
        draw(names), draw(st.integers(1, 10**6)), draw(moments), draw(moments),
    )  # fmt: skip


TICKET = Ticket("0123456789abcdef", "task.none.do.normal.t0123456789.task.0.1", "me", 1, 17, 18)


@given(given_tickets())
def test_what_was_sealed_comes_back_whole(ticket: Ticket) -> None:
    token = SEAL.close(ticket)
    assert SEAL.open(token) == ticket
    assert len(token) <= tickets.TOKEN_MAX
    assert set(token) <= set(ALPHABET)


@given(given_tickets(), st.data())
def test_no_altered_token_passes(ticket: Ticket, data: st.DataObject) -> None:
    token = SEAL.close(ticket)
    place = data.draw(st.integers(0, len(token)))
    kind = data.draw(st.sampled_from(["replace", "insert", "remove", "cut", "double"]))
    letter = data.draw(st.one_of(st.sampled_from(ALPHABET), st.characters()))
    altered = {
        "replace": token[:place] + letter + token[place + 1 :],
        "insert": token[:place] + letter + token[place:],
        "remove": token[:place] + token[place + 1 :],
        "cut": token[:place],
        "double": token + token[place:],
    }[kind]
    if altered != token:
        refused(SEAL, altered)


@given(given_tickets(), given_tickets())
def test_parts_of_two_tokens_make_no_third(one: Ticket, other: Ticket) -> None:
    if one != other:
        refused(SEAL, f"{SEAL.close(one).rpartition('.')[0]}.{SEAL.close(other).rpartition('.')[2]}")


@given(st.one_of(st.text(), st.text(ALPHABET, max_size=4000), st.binary().map(lambda raw: raw.decode("latin-1"))))
def test_no_garbage_passes(text: str) -> None:
    refused(SEAL, text)
    refused(SEAL, f"kc1.{text}")


@pytest.mark.parametrize("size", [10_000, 10_000_000])
def test_what_is_too_long_is_refused_unread(size: int) -> None:
    refused(SEAL, "kc1." + "a" * size + "." + "b" * 43)


def test_each_project_and_each_secret_has_tokens_of_its_own() -> None:
    token = SEAL.close(TICKET)
    refused(Seal("other", b"a" * 64), token)
    refused(Seal("default", b"b" * 64), token)
    refused(Seal("default", b""), token)


def test_two_texts_of_the_same_bytes_are_two_tokens() -> None:
    """Base64 leaves bits of its last character unused: whoever fills them has altered the token."""
    head, mac = SEAL.close(TICKET).rsplit(".", 1)
    letters = string.ascii_uppercase + string.ascii_lowercase + string.digits + "-_"
    last = letters.index(mac[-1])
    for other in {last ^ 1, last ^ 2, last ^ 3} - {last}:
        refused(SEAL, f"{head}.{mac[:-1]}{letters[other]}")


def refused(seal: Seal, token: str) -> None:
    with pytest.raises(Invalid) as caught:
        seal.open(token)
    assert caught.value.code == "claim.invalid"
    assert len(str(caught.value)) < 300
