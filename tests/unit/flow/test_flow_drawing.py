"""A picture of a workflow shows all of it, whatever it is drawn with."""

from __future__ import annotations

from xml.etree import ElementTree as ET

import pytest

from knotwork.flow import definitions
from knotwork.flow.drawing import drawn
from knotwork.flow.graph import graph

LONG = "a-name-of-thirty-two-letters-yes"
DO = {"capability": "do"}
STEPS = {
    "pay": {**DO, "compensate": "refund", "on_failure": "ask"},
    LONG: {**DO, "depends_on": ["pay"]},
    "last": {**DO, "depends_on": ["pay", LONG]},
    **dict.fromkeys(("refund", "ask", "tell"), DO),
}


def shown(form: str) -> str:
    return drawn(graph(definitions.parsed({"name": "shop", "steps": STEPS, "on_failure": "tell"})), form)


@pytest.mark.parametrize("form", ["ascii", "mermaid", "dot", "svg"])
def test_what_handles_failures_is_told_from_the_rest(form):
    text = shown(form)
    assert text.count("task, when the run fails") == 1  # it serves no step, and stood there alone
    assert text.count("undo") == text.count("on failure") == 1


def test_letters_say_whom_a_handler_serves():
    assert shown("ascii").splitlines()[-3:] == [
        "[refund] task  undo pay", "[ask] task  on failure pay", "[tell] task, when the run fails",
    ]  # fmt: skip


def test_boxes_hold_what_is_written_in_them_and_no_line_crosses_one():
    kinds = [part.tag.rpartition("}")[2] for part in ET.fromstring(shown("svg"))]
    assert kinds.index("rect") == kinds.count("line") == 5  # lines lie below the boxes
    widths = {int(part.get("width", 0)) for part in ET.fromstring(shown("svg")) if part.tag.endswith("rect")}
    assert min(widths) >= 8 * len(LONG)
