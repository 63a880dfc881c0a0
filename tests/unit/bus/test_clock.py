"""The time of a node is that of its NATS, whatever its machine believes and is set to."""

from __future__ import annotations

import time

from knotwork.bus import clock

S = 1_000_000_000


def at(made: clock.Clock, off_s: float, took_s: float = 0.001) -> None:
    """Let it hear a server whose time is `off_s` ahead of this machine's, after `took_s`."""
    steady = clock.steady_ns()
    made.heard(time.time_ns() + int(off_s * S), steady - int(took_s * S / 2), steady + int(took_s * S / 2))


def off_s(made: clock.Clock) -> float:
    return (made.now_ns() - time.time_ns()) / S


def test_it_begins_as_what_the_machine_believes():
    assert abs(off_s(clock.Clock())) < 1


def test_it_goes_by_the_server_and_says_how_wrong_the_machine_is(caplog):
    made = clock.Clock()
    for wrong_s in (600, -600, 30):
        at(made, wrong_s)
        assert abs(off_s(made) - wrong_s) < 1
    assert [("behind" in text, "ahead of" in text) for text in caplog.messages] == [
        (True, False), (False, True), (True, False),
    ]  # fmt: skip


def test_what_an_answer_cannot_tell_changes_nothing(caplog):
    made = clock.Clock()
    before = made._base_ns
    at(made, 0.02)
    at(made, 20.0, took_s=60.0)  # the node was asleep while it asked
    assert made._base_ns == before
    assert caplog.messages == []


def test_setting_the_machines_clock_moves_nothing(monkeypatch):
    made = clock.Clock()
    before = made.now_ns()
    monkeypatch.setattr(time, "time_ns", lambda: 0)
    assert 0 <= made.now_ns() - before < 60 * S
