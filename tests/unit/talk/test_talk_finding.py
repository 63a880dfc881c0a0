"""Cursors of a search: they stand behind what was shown, in channels and in an inbox apart."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from knotwork.sdk.errors import Invalid
from knotwork.talk import finding


@given(
    times=st.lists(st.sampled_from("md"), max_size=40),
    sizes=st.lists(st.integers(min_value=1, max_value=5), min_size=40, max_size=40),
)
def test_pages_hold_each_message_once_the_newest_first(times: list[str], sizes: list[int]):
    said = [f"{where}{times[: place + 1].count(where)}" for place, where in enumerate(times)]
    cursor, shown = "", list[str]()
    for size in sizes:
        channels, inbox = finding.places(cursor)
        bound = {"m": channels or 1000, "d": inbox or 1000}
        page = [one for one in reversed(said) if int(one[1:]) < bound[one[0]]][:size]
        shown += page
        cursor = finding.behind(cursor, page)
    assert shown == said[::-1][: len(shown)]
    assert len(shown) >= min(len(said), sum(sizes))


@pytest.mark.parametrize(
    "text", ["s", "s1", "s-1", "1-2", "sx-1", "s1-x", "s1-2-3", "b12-a0b1", "s" + "9" * 16 + "-1", "-"]
)
def test_what_is_no_cursor_is_told(text: str):
    with pytest.raises(Invalid, match=r"no cursor of a search"):
        finding.places(text)
