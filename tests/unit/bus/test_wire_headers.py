"""Header blocks come from strangers: nothing in them may crash the reader or end a line of ours early."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from knotwork.bus import wire
from knotwork.sdk.errors import Invalid


@given(st.binary(max_size=300))
def test_any_block_can_be_read(block):
    headers = wire.parse_headers(block)
    assert all(isinstance(key, str) and isinstance(value, str) for key, value in headers.items())


@given(st.lists(st.binary(max_size=40), max_size=6))
def test_any_lines_can_be_read(lines):
    wire.parse_headers(b"NATS/1.0 503\r\n" + b"\r\n".join(lines) + b"\r\n\r\n")


WORD = st.text(st.characters(codec="ascii", min_codepoint=33, exclude_characters=":"), min_size=1, max_size=20)


@given(st.dictionaries(WORD.filter(lambda word: word not in {"Status", "Description"}), st.text(max_size=60)))
def test_what_is_written_is_read_again(pairs):
    cleaned = {key: wire.clean(value) for key, value in pairs.items()}
    assert wire.parse_headers(wire.header(*cleaned.items())) == cleaned


def test_a_status_line():
    assert wire.parse_headers(b"NATS/1.0 503\r\n\r\n") == {"Status": "503", "Description": ""}
    block = b"NATS/1.0 100 Idle Heartbeat\r\nNats-Last-Consumer: 4\r\n\r\n"
    assert wire.parse_headers(block) == {"Status": "100", "Description": "Idle Heartbeat", "Nats-Last-Consumer": "4"}


@given(st.text(max_size=600))
def test_a_clean_value_cannot_end_its_line(text):
    value = wire.clean(text)
    assert len(value) <= 256
    assert wire.header(("A", value)).count(b"\r\n") == 3
    assert "\x1b" not in value


@given(st.text(), st.sampled_from(["\r", "\n", "\r\n", "\ud800"]), st.text(), st.booleans())
def test_a_header_that_would_end_early_is_refused(before, end, after, in_name):
    text = before + end + after
    with pytest.raises(Invalid) as caught:
        wire.header((text, "x") if in_name else ("X", text))
    assert caught.value.code == "wire.bad_header"
