"""How an executor crashed is told in words, also when its error has none."""

import pytest

from knotwork.sockets import said


class Mute(Exception):
    def __str__(self):
        raise RuntimeError("not even this")


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (ValueError("no such place"), "ValueError: no such place"),
        (MemoryError(), "MemoryError"),
        (Mute(), "Mute: its text cannot be had"),
    ],
    ids=["with words", "without", "that cannot say them"],
)
def test_a_crash_in_words(error, told):
    assert said.crash(error) == told
