"""Bytes of strangers become values or a typed error, and values become the same values again."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from knotwork.bus import codec
from knotwork.sdk.errors import Invalid

JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(st.text(max_size=8), inner, max_size=5),
    max_leaves=20,
)


@given(JSON)
def test_a_value_survives_the_way(value):
    try:
        encoded = codec.encode(value)
    except Invalid:  # only half a character cannot be said
        assert "\\ud" in ascii(value)
        return
    assert codec.decode(encoded) == value


@given(st.binary(max_size=200))
def test_any_bytes_are_a_value_or_a_typed_error(data):
    try:
        codec.decode(data)
    except Invalid as error:
        assert error.code == "wire.not_json"


@pytest.mark.parametrize(
    "data",
    [
        b"{",
        b"\xff\xfe{}",
        b"NaN",
        b"[1e999]",
        b"[" * 100_000,
        b'{"a":' * 50_000,
        b"1" * 10_000,
        b'"\\ud800"',
        b"{} {}",
        b"\xef\xbb\xbf{}",
        b"\x00",
    ],
)
def test_what_is_not_json_is_refused(data):
    with pytest.raises(Invalid) as caught:
        codec.decode(data)
    assert caught.value.code == "wire.not_json"
    assert len(caught.value.message) < 1000


def test_no_text_is_nothing():
    assert codec.decode(b"") is None


@pytest.mark.parametrize("value", [object(), "\udc80", {("a", "b"): 1}, [lambda: 1], 10**5000], ids=range(5))
def test_what_json_cannot_say_is_refused(value):
    with pytest.raises(Invalid) as caught:
        codec.encode(value)
    assert caught.value.code == "wire.not_json"


def test_a_value_that_holds_itself_is_refused():
    loop: list = []
    loop.append(loop)
    with pytest.raises(Invalid):
        codec.encode(loop)


def test_what_has_no_number_becomes_null():
    assert codec.encode([math.nan, math.inf]) == b"[null,null]"


def test_one_value_is_one_text_however_its_keys_are_ordered():
    assert codec.canonical(b'{"b": [1, {"d": 1, "c": 2}], "a": 1}') == b'{"a":1,"b":[1,{"c":2,"d":1}]}'
    assert codec.canonical(b"") == b""
