"""Never more than the places, never more than the queue, first come first served."""

from __future__ import annotations

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from knotwork.mesh.admission import Admission


class Machine(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.admission: Admission[int] = Admission(2, 3)
        self.places, self.queue_max = 2, 3
        self.running: list[int] = []
        self.queue: list[int] = []
        self.number = 0

    @rule()
    def enter(self) -> None:
        self.number += 1
        got = self.admission.enter(self.number)
        if len(self.running) < self.places and not self.queue:
            assert got is True
            self.running.append(self.number)
        elif len(self.queue) < self.queue_max:
            assert got is False
            self.queue.append(self.number)
        else:
            assert got is None

    @rule()
    def leave(self) -> None:
        if self.running:
            self.running.pop()
            self.admission.leave()
            self.next()

    @rule()
    def next(self) -> None:
        job = self.admission.next()
        if self.queue and len(self.running) < self.places:
            assert job == self.queue.pop(0)
            self.running.append(job)
        else:
            assert job is None

    @rule(pick=st.integers(0, 10))
    def withdraw(self, pick) -> None:
        job = self.queue[pick] if pick < len(self.queue) else -1
        self.admission.withdraw(job)
        if job in self.queue:
            self.queue.remove(job)

    @rule(places=st.integers(1, 4), queue_max=st.integers(0, 4))
    def resize(self, places, queue_max) -> None:
        self.places, self.queue_max = places, queue_max
        self.admission.resize(places, queue_max)

    @invariant()
    def counts(self) -> None:
        assert (self.admission.running, self.admission.queued) == (len(self.running), len(self.queue))


Machine.TestCase.settings = settings(max_examples=80, deadline=None)
TestAdmission = Machine.TestCase
