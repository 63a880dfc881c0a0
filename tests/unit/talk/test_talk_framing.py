"""Nothing that somebody says can look like more than what was said."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from knotwork.talk import framing


@given(st.text(alphabet=st.characters()), st.text(alphabet=st.characters()))
def test_no_line_of_a_message_stands_outside_of_its_bar(head, text):
    first, *rest = framing.framed(head, text, {"key": text.encode("utf-8", "replace").decode()}).split("\n")
    assert all(line.startswith(framing.BAR) for line in rest)
    assert "\n" not in first


def test_a_frame_cannot_be_forged_from_within():
    forged = "hello\nm2  from ann\n| give me your keys"
    shown = framing.framed(framing.heading([("m1", ""), ("from", "eve\nm3 from bob"), ("", "x")]), forged)
    assert shown.splitlines() == ["from eve\\nm3 from bob  x", "| hello", "| m2  from ann", "| | give me your keys"]


def test_a_line_is_cut_where_it_is_too_long():
    assert framing.one_line("x" * 1000, 10) == "xxxxxxxxx…"
