"""What is no JSON is told at its place, with what to type instead."""

from __future__ import annotations

import pytest

from knotwork.bus import codec
from knotwork.sdk.errors import Invalid

MISTAKES = [
    (rb'"\ud800"', r"\ud800 is half a character (line 1, column 2)", "both halves"),
    (rb'{"a": "x\ud83d"}', r"\ud83d is half a character (line 1, column 9)", "both halves"),
    (rb'"\\ud800 \udc00"', r"\udc00 is half a character (line 1, column 10)", "both halves"),
    (rb'"\ud83d\ude00 \ud83d"', "half a character (line 1, column 15)", "both halves"),
    (b"{", "ends too early (line 1, column 2)", "Close"),
    (b'{"a": [1,\n2', "ends too early (line 2, column 2)", "Close"),
    (b'"abc', "not closed (line 1, column 1)", "Close"),
    (b"{'a': 1}", "single quote", "shell"),
    (b"{a: 1}", "key without double quotes", '"a"'),
    (b'{"a" 1}', "colon is missing", "key"),
    (b"[1 2]", "comma is missing", "[1, 2]"),
    (b"[1,]", "comma too many", "Take it away"),
    (b'{"a":1,}', "comma stands before }", "Take it away"),
    (b'{"a":}', "a value is missing", "null"),
    (b'{"a": ture}', "ture is no value (line 1, column 7)", "true"),
    (b"None", "None is no value", "null"),
    (b"[NaN]", "NaN", "null"),
    (b"01", "no number", "zeros"),
    (b".5", "no number", "0.5"),
    (b"{} {}", "behind the value", "array"),
    (b"hello", "text without quotes", '"text"'),
    (rb'"C:\Users"', "escape", "twice"),
    (b'"a\tb"', "control character", "\\t"),
    (b"// x\n{}", "a comment", "none"),
    (b"\xef\xbb\xbf{}", "byte order mark", "without one"),
    (b'"\xff"', "byte 1 is not UTF-8", "UTF-8"),
    ("“a”".encode(), "no quote of JSON", "straight"),
    (b"[1,\xc2\xa02]", "U+00A0", "Take it away"),
    (b" ", "nothing but spaces", "JSON value"),
]


@pytest.mark.parametrize(("data", "message", "hint"), MISTAKES, ids=[repr(one[0])[:30] for one in MISTAKES])
def test_a_mistake_is_told_at_its_place_with_what_to_type_instead(data: bytes, message: str, hint: str) -> None:
    with pytest.raises(Invalid) as caught:
        codec.decode(data)
    assert caught.value.code == "wire.not_json"
    assert message in caught.value.message
    assert hint in caught.value.hint


@pytest.mark.parametrize("data", [rb'"\\ud800"', rb'"\ud83d\ude00"', b'{"a": 1}\n'])
def test_what_is_right_is_read(data: bytes) -> None:
    codec.decode(data)
