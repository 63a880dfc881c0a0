"""Agents that came in, as others see them: whenever one is otherwise than before, everybody is told."""

from __future__ import annotations

from types import SimpleNamespace

from knotwork.mesh.records import AgentRecord
from knotwork.work.attached import Attached


def test_others_are_told_when_an_agent_can_do_something_else():
    told: list[tuple[str, ...]] = []
    attached = Attached(SimpleNamespace(on_lost=lambda _told: None, held=lambda *_, **_more: 0), frozenset)
    attached.changed = lambda: told.append(attached.records()[0].capabilities)
    for capabilities in (("code",), ("code",), ("code", "review")):
        attached.admit(AgentRecord("ann", capabilities, attached=True))
    assert told == [("code",), ("code", "review")]
