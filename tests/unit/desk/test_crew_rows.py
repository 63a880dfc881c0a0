"""What is said of an orchestration that is being stopped, before its parts are over."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from knotwork.crew.records import Stop
from knotwork.desk import crew_rows


@pytest.mark.parametrize(
    ("stop", "live", "why"),
    [
        (None, True, ""), (Stop("cancelled", "me", "enough"), True, "enough"), (Stop("cancelled", "me"), True, "It is being stopped."),
        (Stop("cancelled", "me"), False, ""), (Stop("cancelled", "me", "enough"), False, "enough"),
    ],
)  # fmt: skip
def test_what_is_being_stopped_says_so(stop: Any, live: bool, why: str) -> None:
    view: Any = SimpleNamespace(record=SimpleNamespace(stop=stop, live=live))
    assert crew_rows._stopped(view) == why
