"""Where in a text is what is wrong with it? Also in JSON, and also when a key stands twice."""

from __future__ import annotations

import json

import pytest

from knotwork.flow import source

PRETTY = json.dumps({"name": "w", "steps": {"a": {"capability": "do", "whne": "input"}}}, indent=2)
STEPS = '{"name": "w",\n "steps": {\n  "a": {"capability": "x"},\n  "a": {"capability": "y"}}}'


@pytest.mark.parametrize(
    ("text", "line", "column", "told"),
    [
        (PRETTY, 6, 7, "did you mean 'when'?"),
        (PRETTY.replace("  ", "\t"), 6, 4, "did you mean 'when'?"),
        (STEPS, 4, 3, "'a' is in line 3 already"),
        (STEPS.replace("  ", "\t\t"), 4, 3, "'a' is in line 3 already"),
        ("name: w\nsteps:\n  a: {capability: x}\n  'a': {capability: y}\n", 4, 3, "'a' is in line 3 already"),
        ("name: w\nsteps:\n  a: {capability: x, capability: y}\n", 3, 22, "'capability' is in line 3 already"),
        ("name: w\nsteps:\n  a: {kind: agent, agent: x, prompt: p}\n  a: {capability: x}\n", 4, 3, "stands twice"),
        ('name = "w"\n[steps.a]\ncapability = "x"\n[steps.a]\ncapability = "y"\n', 4, 9, "TOML"),
    ],
)
def test_everything_wrong_has_its_place(text, line, column, told):
    checked = source.check(text)
    assert checked.workflow is None
    [flaw] = checked.flaws
    assert (flaw.line, flaw.column) == (line, column), flaw
    assert told in flaw.message


def test_the_same_key_in_two_tables_is_no_matter():
    text = "name: w\nsteps:\n  a: {capability: x}\n  b: {capability: x, depends_on: [a]}\n"
    assert source.check(text).workflow == source.check(json.dumps(source.read(text, 1000)[0])).workflow is not None
