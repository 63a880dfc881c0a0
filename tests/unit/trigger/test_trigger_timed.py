"""What becomes of times that have come due and cannot fire yet."""

from __future__ import annotations

from knotwork.trigger import due
from knotwork.trigger.store import Pending
from knotwork.trigger.timed import drop, told_of


def times(*at_ns: int) -> list[Pending]:
    return [Pending(f"t/{number}", number, at) for number, at in enumerate(at_ns)]


def test_of_what_waits_in_a_full_queue_the_oldest_are_dropped():
    pending = times(1, 2, 3, 4)
    assert (drop(pending, 3, 5), [one.at_ns for one in pending]) == (1, [2, 3, 4])
    assert (drop(pending, 3, 5), len(pending)) == (0, 3)


def test_what_is_put_off_by_jitter_is_not_dropped_and_does_not_hold_up_what_comes_before_it():
    pending = times(900, 20, 500, 30)
    assert drop(pending, 1, 10) == 0
    assert [one.at_ns for one in pending] == [20, 30, 500, 900]
    many = times(*range(100, 100 + due.AT_ONCE_MAX + 2))
    assert (drop(many, 1, 10), len(many)) == (2, due.AT_ONCE_MAX)


def test_a_history_tells_missed_times_from_those_that_were_dropped():
    assert told_of(1, 0) == "missed 1 time, not made up for"
    assert told_of(3, 2) == "missed 3 times, not made up for and dropped 2 that waited in a full queue"
    assert told_of(0, 1) == "dropped 1 that waited in a full queue"
