"""Nothing that somebody writes can move a cursor, turn text around, or hide in it."""

from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from knotwork.trust import unseen

HIDDEN = {"Cc", "Cf", "Co", "Cs", "Zl", "Zp"}


@pytest.mark.parametrize(
    ("said", "shown"),
    [
        ("plain text,\n\ttwo lines", "plain text,\n\ttwo lines"),
        ("Äpfel, 日本語, русский, ελληνικά, 👍", "Äpfel, 日本語, русский, ελληνικά, 👍"),
        ("red\x1b[31m", "red\\u{1b}[31m"),
        ("over\rwritten", "over\\u{d}written"),
        ("dos\r\nlines", "dos\nlines"),
        ("a\u202eb\u2066c\u200fd", "a\\u{202e}b\\u{2066}c\\u{200f}d"),
        ("zero\u200bwidth\ufeff", "zero\\u{200b}width\\u{feff}"),
        ("tag\U000e0041", "tag\\u{e0041}"),
        ("line\u2028sep", "line\\u{2028}sep"),
        ("soft\xadhyphen", "soft\\u{ad}hyphen"),
        ("sel\ufe01\U000e0100", "sel\\u{fe01}\\u{e0100}"),
        ("blank\u3164", "blank\\u{3164}"),
        ("half\ud800", "half\\u{d800}"),
        ("👨\u200d👩\u200d👧 ❤\ufe0f", "👨\u200d👩\u200d👧 ❤\ufe0f"),
        ("\u0645\u06cc\u200c\u062e\u0648", "\u0645\u06cc\u200c\u062e\u0648"),
        ("a\u200db", "a\\u{200d}b"),
        ("\u200d\u200d", "\\u{200d}\\u{200d}"),
        ("1\ufe0f\u20e3 ❤\ufe0f\u200d🔥", "1\ufe0f\u20e3 ❤\ufe0f\u200d🔥"),
        ("é\ufe0f\ufe0f\ufe0f", "é\ufe0f\\u{fe0f}\\u{fe0f}"),
        ("\u1820\u180b\u180c", "\u1820\u180b\\u{180c}"),
        (
            "hid\u180b\u180f\U000e0268\U000e0080\u2065\ufff0",
            "hid\\u{180b}\\u{180f}\\u{e0268}\\u{e0080}\\u{2065}\\u{fff0}",
        ),
    ],
)
def test_what_hides_is_written_out_and_what_does_not_stays(said, shown):
    assert unseen.harmless(said) == shown


@given(st.text(alphabet=st.characters()))
def test_nothing_unseen_is_left_in_any_text(text):
    shown = unseen.harmless(text)
    left = {char for char in shown if unicodedata.category(char) in HIDDEN} - {"\n", "\t", "\u200c", "\u200d"}
    assert not left
    assert unseen.harmless(shown) == shown
