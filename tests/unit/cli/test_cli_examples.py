"""Whoever copies an example of the help into a shell sends what the example means."""

from __future__ import annotations

import json
import shlex

import pytest

from knotwork.cli import reference, verbs
from knotwork.ops import form, rows

OPS = {row.name: row for row in form.rows(rows.ROWS)}
SHOWN = [(op.name, number) for op in OPS.values() if op.cli.words for number, _ in enumerate(op.examples)]


@pytest.mark.parametrize(("name", "number"), SHOWN)
def test_an_example_means_when_typed_what_it_is_an_example_of(name, number, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    op = OPS[name]
    meant = op.examples[number].request
    words = shlex.split(verbs.typed(op, meant))
    start = 1 + len(op.cli.words)
    assert words[:start] == ["knotwork", *op.cli.words]
    verbs.command(op, "x").make_context("x", words[start:])
    said = words[start:]
    for field in op.fields:
        value = meant.get(field.name)
        if isinstance(value, str) and field.shape != "flag":
            assert value in said or field.seconds, f"{value!r} is not one word of {said}"
        elif isinstance(value, list | dict) and field.shape == "json":
            assert value in [json.loads(word) for word in said if word[:1] in "[{"]


@pytest.mark.parametrize(
    ("text", "typed"),
    [
        ("plain", "plain"), ("two words", "'two words'"), ("state = 'failed'", "\"state = 'failed'\""), ("a;b", "'a;b'"),
        ("it's $5", "'it'\"'\"'s $5'"), ('{"a": "it\'s"}', "'{\"a\": \"it'\"'\"'s\"}'"), ("", "''"), ("~/x", "'~/x'"),
    ],
)  # fmt: skip
def test_a_word_is_quoted_for_a_shell_and_stays_readable(text, typed):
    assert verbs.quoted(text) == typed
    assert shlex.split(typed) == [text]


def test_every_line_of_the_reference_is_whole_for_a_shell():
    blocks = reference.page().split("```sh\n")[1:]
    lines = [line for block in blocks for line in block.partition("```")[0].splitlines() if not line.startswith("#")]
    assert len(lines) > len(SHOWN) / 2
    for line in lines:
        assert shlex.split(line, comments=True), line
