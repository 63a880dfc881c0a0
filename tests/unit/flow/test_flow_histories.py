"""Histories recorded by earlier versions are understood for ever, and lead to the same end.

Each file holds a definition and the facts of one run as HISTORY keeps them. Files are added, never changed: one that
fails here means that runs under way would go another way after an upgrade.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from knotwork.flow import again, facts, history
from knotwork.flow.definitions import parsed
from knotwork.flow.graph import graph

RECORDED = sorted(Path(__file__).with_name("histories").glob("*.json"))


@pytest.mark.parametrize("path", RECORDED, ids=lambda path: path.stem)
def test_a_recorded_history_leads_to_the_same_end(path):
    recorded = json.loads(path.read_text())
    stored = history.unpacked(json.dumps(recorded["facts"]).encode())
    read = [fact for one in stored if (fact := facts.read_stored(one)) is not None]
    assert read[-1].what == "ended"
    assert again.difference(recorded["run"], graph(parsed(recorded["definition"])), read) is None


def test_there_are_histories_of_every_kind_of_step():
    kinds = {
        step.get("kind", "task")
        for path in RECORDED
        for step in json.loads(path.read_text())["definition"]["steps"].values()
    }
    assert len(kinds) == 15, kinds
