"""What is said of an orchestration: that it is being stopped, and errors of all of its parts in one message."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from knotwork.crew.plan import PARTS_MAX, Part
from knotwork.crew.records import Asker, Record, Stop
from knotwork.crew.sight import PartSight
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


def test_the_longest_errors_of_all_parts_fit_into_one_message() -> None:
    error = {"code": "agent.failed", "message": "\x01" * 16384, "hint": "\x01" * 4096, "detail": {"more": "x" * 9999}}
    parts = [PartSight(f"p{number}", "failed", error=error) for number in range(PARTS_MAX)]
    record = Record("o0123456789ab", "the task", Asker("me"), parts=tuple(Part(one.id) for one in parts))
    room = crew_rows.room_for_errors(parts)
    rows = [crew_rows.part_result(record, one, None, "", room) for one in parts]
    assert sum(len(row.model_dump_json()) for row in rows) < 4 * 1024 * 1024
    assert all(row.error is not None and row.error.message.endswith("…") for row in rows)
    alone = crew_rows.part_result(record, parts[0], None, "", crew_rows.room_for_errors(parts[:1]))
    assert alone.error is not None
    assert (alone.error.message, alone.error.detail) == (error["message"], error["detail"])
