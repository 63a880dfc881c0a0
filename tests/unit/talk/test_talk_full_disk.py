"""An index that cannot be written is kept, and says so: a full disk is no reason to throw away what was read."""

from __future__ import annotations

import pytest

from knotwork.bus.reading import Stored
from knotwork.sdk.errors import Unavailable
from knotwork.talk import message
from knotwork.talk.index import Index


def stored(place: int, text: str) -> Stored:
    said = message.Envelope(handle="ann", sender="ann", owner="o", project="default", scope="team", text=text)
    return Stored("channel.general", message.encode(said), place, f"2026-01-01T00:{place // 60:02}:{place % 60:02}Z")


def test_an_index_without_room_is_kept_and_goes_on_when_there_is_some(tmp_path):
    index = Index(tmp_path / "talk.db")
    index.safely(lambda: index.add([stored(1, "first")]))
    pages = index._db.execute("PRAGMA page_count").fetchone()[0]
    index._db.execute(f"PRAGMA max_page_count = {pages}")
    more = [stored(place, "x" * 4000) for place in range(2, 100)]
    for _ in range(2):
        with pytest.raises(Unavailable) as caught:
            index.safely(lambda: index.add(more))
        assert caught.value.code == "talk.index_stuck"
    assert (index.made, index.place, index.count("general")[0]) == (0, 1, 1)
    index._db.execute("PRAGMA max_page_count = 100000")
    index.safely(lambda: index.add(more))
    assert (index.made, index.place, index.count("general")[0]) == (0, 99, 99)
    index.close()
