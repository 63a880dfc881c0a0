"""A bench ends in time: no round is begun that would not fit."""

import pytest

from knotwork.bench import suite
from knotwork.bench.rounds import middle, rounds


@pytest.mark.parametrize(
    ("seconds", "round_s", "done"), [(20, 5, 4), (20, 6, 3), (20, 30, 1), (0, 1, 1), (-5, 1, 1), (50, 1, 9)]
)
def test_as_many_rounds_as_fit_and_one_at_least(seconds, round_s, done):
    now_s = [100.0]
    count = 0
    for _ in rounds(seconds, 9, lambda: now_s[0]):
        now_s[0] += round_s
        count += 1
    assert count == done


def test_the_longest_round_so_far_says_what_the_next_may_take():
    now_s = [0.0]
    for number in rounds(10, 9, lambda: now_s[0]):
        now_s[0] += (2, 4, 1)[number]
    assert now_s[0] == 7.0


def test_ours_and_raw_are_of_the_round_with_the_middle_ratio():
    assert middle([10.0, 300.0, 20.0], [20.0, 100.0, 10.0]) == (20.0, 10.0)
    assert middle([10.0, 30.0], [10.0, 10.0]) == (10.0, 10.0)
    assert middle([7.0], [2.0]) == (7.0, 2.0)


def test_the_ratio_is_what_is_printed_as_ours_by_what_is_printed_as_raw(monkeypatch):
    monkeypatch.setitem(suite.BENCHES, "invoke", lambda _: {"ours": 3807, "raw": 7307, "durability": "none"})
    found = suite.run("invoke", 1.0)
    assert found["ratio"] == 0.521
    assert list(found)[:4] == ["name", "ratio", "ours", "raw"]
