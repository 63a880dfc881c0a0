"""Who hears of the phases of an orchestration: whoever wanted it; everybody who looks at events only when all may see it."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from knotwork.crew.records import Asker, Record
from knotwork.host import project_rooms


@pytest.mark.parametrize(("scope", "shown"), [("team", 1), ("public", 1), ("personal", 0), ("private", 0)])
def test_events_tell_of_no_orchestration_that_not_everybody_may_see(scope: Any, shown: int):
    events: list[Any] = []
    told: list[str] = []
    around = SimpleNamespace(emitter=SimpleNamespace(event=lambda *given, **_: events.append(given)))
    sessions = SimpleNamespace(project="p", tell=lambda agent, _: told.append(agent))
    record = Record("o1", "a task", Asker("ann-id", "ann", "ann"), scope=scope)
    project_rooms._phase(around, sessions, record)  # type: ignore[arg-type]  # all that it asks of them
    assert (len(events), told) == (shown, ["ann-id"])
