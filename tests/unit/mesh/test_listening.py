"""Whoever stood still has heard nobody: others are not missed for that, neither in the directory nor in a call."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from knotwork.mesh import records
from knotwork.mesh.calls import Calls, Waiting
from knotwork.mesh.directory import Directory
from knotwork.mesh.listening import EVERY_S, LATE_S, Listening
from knotwork.mesh.records import NodeRecord


class Time:
    def __init__(self) -> None:
        self.s = 1000.0
        self.listening = Listening(lambda: self.s)

    def passes(self, ticks: int) -> None:
        for _ in range(ticks):
            self.s += EVERY_S
            self.listening.tick()

    def stands_still(self, seconds: float) -> None:
        self.s += seconds


@pytest.fixture
def time():
    return Time()


@pytest.mark.parametrize("who_is_first", ["tick", "sweep"])
def test_nobody_is_gone_who_could_not_be_heard_and_everybody_who_was_silent_since(time, who_is_first):
    directory, gone = Directory(time.listening.now_s, "here"), []
    directory.on_gone(gone.append)
    directory.heard("far", records.encode(NodeRecord("far", "uid", "i", 0, 1.0, stale_beats=3, offline_beats=5)))
    time.passes(2)
    time.stands_still(60)
    if who_is_first == "tick":
        time.listening.tick()
    directory.sweep()
    assert (directory.state("far"), gone) == ("stale", [])
    time.listening.tick()
    time.passes(1)
    directory.sweep()
    assert (directory.state("far"), gone) == ("stale", [])
    time.passes(1)
    directory.sweep()
    assert gone == ["far"]


async def test_no_call_is_given_up_whose_signs_of_life_are_still_to_be_read(time):
    directory = Directory(time.listening.now_s, "here")
    directory.heard("far", records.encode(NodeRecord("far", "uid", "i", 0, 1.0, keepalive_s=2.0)))
    link = SimpleNamespace(state="connected", up_for_s=lambda: time.s)
    calls = Calls(link, directory, None, tuple, None, here="here", project="p", now_s=time.listening.now_s)
    waiting = Waiting("far", None, time.listening.now_s)
    calls._waiting.add(waiting)
    time.stands_still(60)
    time.listening.tick()
    calls.watch_over()
    assert not waiting.answer.done()
    time.passes(4)
    calls.watch_over()
    assert not waiting.answer.done()
    time.passes(1)
    calls.watch_over()
    assert waiting.answer.exception().code == "node.lost"


@given(st.lists(st.floats(0, 100), max_size=30))
def test_it_never_goes_back_and_never_faster_than_time(steps):
    time = Time()
    began_s = before_s = time.listening.now_s()
    for step_s in steps:
        time.stands_still(step_s)
        asked_s = time.listening.now_s()
        time.listening.tick()
        assert before_s <= asked_s <= before_s + EVERY_S + LATE_S + 1e-6
        assert time.listening.now_s() == pytest.approx(asked_s)
        before_s = asked_s
    assert before_s - began_s <= sum(steps) + 1e-6
