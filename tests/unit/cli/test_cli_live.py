"""How a run is drawn: what goes on and what failed first, never more than fits, nothing that plays tricks on the terminal."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from knotwork.cli.live import Watched, span

HEAD = {"id": "w1", "workflow": "build", "state": "running", "done": 1, "steps": 3, "percent": 33.3}
AT = "2026-01-01T00:00:00.000Z"
AT_S = 1767225600.0


def drawn(watched: Watched, rows: int = 20) -> str:
    console = Console(file=io.StringIO(), width=140, color_system=None)
    console.print(watched.drawn(rows))
    return console.file.getvalue()


def test_state_attempt_progress_items_and_time():
    watched = Watched(lambda: AT_S + 185)
    watched.take({**HEAD, "started_at": AT, "changed": [
        {"id": "a", "kind": "task", "state": "open", "attempt": 2, "percent": 40.0, "text": "linking", "begun_at": AT},
        {"id": "m", "kind": "map", "state": "open", "attempt": 1, "items": "3/12", "begun_at": AT},
        {"id": "z", "kind": "task", "state": "failed", "error": "no\x1b[2J disk", "begun_at": AT,
         "ended_at": "2026-01-01T00:00:04.200Z"},
    ]})  # fmt: skip
    text = drawn(watched)
    title, first, second, third = text.splitlines()
    assert "build" in title
    assert "1/3" in title
    assert "3m05s" in title
    assert all(part in first for part in ("attempt 2", "40 %", "linking", "━"))
    assert all(part in second for part in ("3/12", "25 %"))
    assert "attempt" not in second
    assert all(part in third for part in ("failed", "disk", "4.2s"))
    assert "\x1b" not in text


def test_only_what_changed_is_told_and_a_run_that_goes_on_begins_anew():
    watched = Watched(lambda: AT_S)
    watched.take({**HEAD, "changed": [{"id": "a", "state": "open"}, {"id": "b", "state": "blocked"}]})
    watched.take({**HEAD, "changed": [{"id": "a", "state": "completed"}]})
    assert [step["state"] for step in watched.steps.values()] == ["completed", "blocked"]
    watched.take({**HEAD, "id": "w2", "changed": [{"id": "a", "state": "open"}]})
    assert list(watched.steps) == ["a"]


def test_of_many_steps_those_are_drawn_that_matter():
    watched = Watched(lambda: AT_S)
    steps = [{"id": f"s{number}", "state": "completed"} for number in range(100)]
    steps[50]["state"], steps[99]["state"] = "open", "failed"
    watched.take({**HEAD, "changed": steps})
    lines = drawn(watched, rows=2).splitlines()
    assert [line.split()[1] for line in lines[1:3]] == ["s50", "s99"]
    assert "and 98 more: 98 completed" in lines[3]


@pytest.mark.parametrize(("seconds", "told"), [(0.04, "0.0s"), (59.9, "59.9s"), (185, "3m05s"), (7800, "2h10m")])
def test_times(seconds, told):
    assert span(seconds) == told


def test_a_full_bar_looks_different_from_an_empty_one_in_16_colours():
    def bars(percent: float) -> str:
        console = Console(file=io.StringIO(), width=140, force_terminal=True, color_system="standard", no_color=False)
        watched = Watched(lambda: AT_S)
        watched.take({**HEAD, "percent": percent, "changed": []})
        console.print(watched.drawn(5))
        return console.file.getvalue()

    assert "\x1b[32m━" in bars(100.0)
    assert "\x1b[90m━" in bars(0.0)
    assert "\x1b[90m━" not in bars(100.0)
