"""Envelopes, frames and errors cross between nodes whole, and from strangers without harm."""

from __future__ import annotations

import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from knotwork.bus import frames, wire
from knotwork.bus.wire import Message
from knotwork.sdk import errors
from knotwork.sdk.errors import Invalid, KnotworkError

WORD = st.text(st.characters(codec="ascii", min_codepoint=48, exclude_characters=";<=>?@[\\]^`{|}~\x7f"), max_size=64)
TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=100)


@given(WORD, st.none() | st.floats(0.001, 6 * 24 * 3600), WORD, WORD, WORD, st.integers(1, 9999), TEXT)
def test_an_envelope_survives_the_way(call, timeout_s, caller, capability, boundary, number, key):
    sent = frames.Envelope(call, timeout_s, caller, capability, boundary, number, key[:40], plain=False)
    got = frames.read_envelope(wire.parse_headers(sent.head()))
    assert got._replace(timeout_s=None) == sent._replace(timeout_s=None)
    assert (got.timeout_s is None) == (timeout_s is None)
    if timeout_s is not None:
        assert got.timeout_s == pytest.approx(timeout_s, abs=0.001)


@given(st.text(max_size=200), st.text(max_size=80))
def test_any_envelope_of_a_stranger_is_read_or_refused(call, traceparent):
    try:
        envelope = frames.read_envelope({frames.CALL: call, "traceparent": traceparent})
    except Invalid as error:
        assert error.code == "wire.bad_envelope"
        return
    assert not envelope.plain
    assert envelope.timeout_s is None or 0 <= envelope.timeout_s <= frames.TIMEOUT_MAX_S
    assert len(envelope.traceparent) <= 64


@pytest.mark.parametrize(
    "call",
    [
        "",
        ";",
        "a;-1;;;;1;",
        "a;1e9;;;;1;",
        "a;99999999999;;;;1;",
        "a;;;;;;",
        "a;;;;;-1;",
        "a;;;;;12345;",
        "a;;;;;x;",
        "x" * 5000,
        "a;\u0661;;;;1;",
        ";;;;;1;" * 2,
    ],
)
def test_malformed_envelopes_are_refused(call):
    with pytest.raises(Invalid):
        frames.read_envelope({frames.CALL: call})


def test_whoever_sends_no_envelope_knows_no_frames():
    assert frames.read_envelope(None).plain
    assert frames.read_envelope({}).plain
    assert frames.read_envelope({"X": "y"}).plain
    assert frames.read_envelope({"traceparent": "00-x"}).traceparent == "00-x"


DETAIL = st.dictionaries(TEXT, st.integers(-(2**50), 2**50) | TEXT | st.booleans(), max_size=3)


@given(st.sampled_from(errors.ALL), TEXT, WORD, TEXT, DETAIL, st.none() | st.floats(0, 1e6, allow_nan=False))
def test_an_error_keeps_class_and_parts(kind, message, code, hint, detail, retry_after_s):
    sent = kind(message, code=code, hint=hint, detail=detail, retry_after_s=retry_after_s)
    got = frames.read_error(frames.error_body(sent))
    assert type(got) is kind
    assert (got.message, got.code, got.hint, got.detail) == (sent.message, sent.code, sent.hint, sent.detail)
    assert got.retry_after_s == retry_after_s
    assert (got.exit_code, got.http_status) == (kind.exit_code, kind.http_status)
    headers = wire.parse_headers(frames.error_head(sent))
    assert headers["Nats-Service-Error-Code"] == str(kind.http_status)
    assert headers[frames.FRAME] == "error"


@given(st.sampled_from(errors.ALL), st.text(max_size=50), st.text(max_size=50))
def test_half_a_character_does_not_lose_an_error(kind, message, hint):
    error = kind(message + "\udcff", hint=hint, detail={"odd": object(), "n": math.nan})
    got = frames.read_error(frames.error_body(error))
    assert type(got) is kind
    assert got.code == kind.default_code
    assert "\\udcff" in got.message
    frames.error_head(error)


@given(st.binary(max_size=200))
def test_any_error_body_is_an_error(data):
    assert isinstance(frames.read_error(data), KnotworkError)


@given(
    st.fixed_dictionaries(
        {},
        optional={
            key: st.none()
            | st.integers()
            | st.floats()
            | st.text(max_size=9)
            | st.lists(st.integers(), max_size=2)
            | st.just(10**400)
            for key in ("kind", "code", "message", "hint", "detail", "retry_after_s")
        },
    )
)
def test_any_error_object_is_an_error(wire_form):
    got = frames.read_error(json.dumps(wire_form).encode())
    assert isinstance(got, KnotworkError)
    assert isinstance(got.message, str)
    frames.error_body(got)


@given(
    st.dictionaries(st.sampled_from([frames.FRAME, "Status", "Nats-Service-Error", "X"]), st.text(max_size=20)),
    st.binary(max_size=20),
)
def test_any_message_is_a_frame(headers, data):
    frame = frames.read(Message("s", "", data, headers or None))
    assert frame.kind in {"chunk", "progress", "alive", "result", "continue", "error"}
    if frame.kind == "error" and frames.FRAME not in headers:
        assert isinstance(frames.read_error(frame.data), KnotworkError)


def test_the_words_of_a_foreign_service_are_kept():
    frame = frames.read(
        Message("s", "", b"x", {"Nats-Service-Error": "no such city", "Nats-Service-Error-Code": "404"})
    )
    error = frames.read_error(frame.data)
    assert (error.code, error.message) == ("agent.foreign_error", "no such city")


def test_nobody_there_is_an_error():
    frame = frames.read(Message("s", "", b"", {"Status": "503"}))
    assert frames.read_error(frame.data).code == "bus.no_responders"
