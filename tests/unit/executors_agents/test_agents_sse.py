"""Are server-sent events cut rightly, wherever the network cuts the bytes?"""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from knotwork_plugins.executors.openai_chat.sse import Events, EventTooLarge

STREAM = (
    ': hi\r\n\r\ndata: {"a": 1}\n\nevent: x\nid: 7\ndata: one\ndata: two\n\ndata:three\r\rretry: 5\n\ndata: ü'.encode()
)
WANTED = ['{"a": 1}', "one\ntwo", "three", "ü"]


@given(st.lists(st.integers(1, 7), min_size=1, max_size=20))
def test_events_do_not_depend_on_the_cuts(cuts: list[int]) -> None:
    events, got, at, turn = Events(), [], 0, 0
    while at < len(STREAM):
        step = cuts[turn % len(cuts)]
        got += events.push(STREAM[at : at + step])
        at, turn = at + step, turn + 1
    assert got + events.rest() == WANTED


@given(st.lists(st.binary(max_size=50)))
def test_any_bytes_are_survived(chunks: list[bytes]) -> None:
    events = Events()
    for chunk in chunks:
        events.push(chunk)
    events.rest()


def test_memory_is_bounded_by_event() -> None:
    events = Events(event_max=100)
    for _ in range(10):
        assert events.push(b"data: " + b"x" * 80 + b"\n\n") == ["x" * 80]
    with pytest.raises(EventTooLarge):
        events.push(b"data: " + b"x" * 101)
    endless = Events(event_max=100)
    with pytest.raises(EventTooLarge):
        for _ in range(50):
            endless.push(b"data: x\n")
