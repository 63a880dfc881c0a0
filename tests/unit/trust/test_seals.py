"""What a project gives out bears its seal: a text of another mark, key or length, or with one character changed, is none of ours."""

from __future__ import annotations

from knotwork.trust import seals

KEY = b"k" * 32


def test_what_was_sealed_is_read_again():
    for body in (b"", b"\0\xff", b"a claim" * 20):
        text = seals.close(KEY, "kc1", body)
        assert (seals.open_(KEY, "kc1", text, size_max=len(text)) == body) == bool(body), "nothing is no content"


def test_whatever_is_changed_is_none_of_ours():
    text = seals.close(KEY, "kc1", b"a claim")
    assert seals.open_(KEY, "ka1", text, size_max=999) is None
    assert seals.open_(b"j" * 32, "kc1", text, size_max=999) is None
    assert seals.open_(KEY, "kc1", text, size_max=len(text) - 1) is None
    for place, letter in enumerate(text):
        other = text[:place] + ("B" if letter == "A" else "A") + text[place + 1 :]
        assert seals.open_(KEY, "kc1", other, size_max=999) is None, place
