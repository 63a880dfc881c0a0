"""What a careless hand types is told at its place, with what to type instead."""

from __future__ import annotations

import re

import pytest

from knotwork.config import parse

MISTAKES = [
    ("a = [", "1:6", "array is not finished", "]"),
    ('a = [\n # x\n  "y",\n\n', "3:7", "array is not finished", "]"),
    ("[node]\nlabels = [1, 2\nx = 3\n", "3:1", "array is not closed", "before this line"),
    ("a = [1 2]", "1:8", "comma is missing", "[1, 2]"),
    ("a = [1,,2]", "1:8", "comma too many", "one comma"),
    ("a = [1, 2}", "1:10", "ends with }", "]"),
    ("a = {b = 1,\nc = 2}", "1:12", "inline table is not finished", "one line"),
    ("a = {b = 1,}", "1:12", "comma stands before }", "Take it away"),
    ("a = {b = 1 c = 2}", "1:12", "comma is missing", "{ a = 1, b = 2 }"),
    ("a = { b = }", "1:11", "no value", "text that is empty"),
    ("a =", "1:4", "no value", "text that is empty"),
    ("a = # later", "1:5", "no value", "text that is empty"),
    ("a = hello", "1:5", "no value", "needs quotes"),
    ("a = ture", "1:5", "no value", "Write true"),
    ("a = False", "1:5", "no value", "Write false"),
    ("a = null", "1:5", "no word for nothing", "Leave the key out"),
    ("a = (1, 2)", "1:5", "round brackets", "[1, 2]"),
    ("a = .5", "1:5", "begins with its point", "0.5"),
    ("a = 5.", "1:6", "no number", "behind its point"),
    ("a = 007", "1:6", "no number", "no zeros"),
    ("a = 10s", "1:7", "no number", '"10s"'),
    ("a = 1,2", "1:6", "comma stands behind", "[1, 2]"),
    ("a = 1;", "1:6", "semicolon", "Take it away"),
    ("a = 1 b = 2", "1:7", "two statements", "line of its own"),
    ("a = 1 // x", "1:7", "behind the value", "#"),
    ("a == 1", "1:4", "more than =", "key = value"),
    ("a: 1", "1:2", "colon", "key = value"),
    ("- a", "1:3", "dash", "brackets"),
    ("my key = 1", "1:4", "need quotes", '"my key"'),
    ("= 5", "1:1", "no key before", "key = value"),
    ('{"a": 1}', "1:1", "not TOML", "[table]"),
    ("// x", "1:1", "neither a key", "#"),
    ("[node", "1:6", "Expected ']'", "Close it with ]"),
    ("[my node]", "1:5", "Expected ']'", '["my node"]'),
    ("[a]]", "1:4", "one bracket too many", "[[list of tables]]"),
    ("[a] b = 1", "1:5", "behind the table", "line of its own"),
    ("[]", "1:2", "without a name", "[name]"),
    ('a = "x', "1:7", "not closed", "quote it began with"),
    ('a = "x\n', "1:7", "not closed", "quote it began with"),
    ("a = 'x", "1:7", "not closed", "quote it began with"),
    ('a = "\\ud800"', "1:12", "half a pair", "eight digits"),
    ('a = "C:\\Users"', "1:10", "hex", "single quotes"),
    ('a = "\\d+"', "1:8", "Unescaped", "single quotes"),
    ("a = \u201cx\u201d", "1:5", "no quote of TOML", "straight"),
    ("a\u00a0= 1", "1:2", "U\\+00A0", "plain space"),
    ("a = \u200b1", "1:5", "U\\+200B", "plain space"),
    ('a = "x\0y"', "1:7", "U\\+0000", "Take it away"),
    ("a = 1\rb = 2\r", "1:6", "CR alone", "LF"),
    ("a = 1\na = 2", "2:1", "duplicate: a is already there, at line 1", "once"),
    ("a = " + "x" * 100_000, "1:5", "no value", "needs quotes"),
]


@pytest.mark.parametrize(("text", "place", "message", "hint"), MISTAKES, ids=[repr(one[0])[:30] for one in MISTAKES])
def test_a_mistake_is_told_at_its_place_with_what_to_type_instead(
    text: str, place: str, message: str, hint: str
) -> None:
    problem = parse.parse("my.toml", text).problems[0]
    assert f"{problem.line}:{problem.column}" == place
    assert re.search(message, problem.message)
    assert hint in problem.hint


@pytest.mark.parametrize("text", ["a = 1\r\nb = 2\r\n", '\ta = "x\ty"', "a = 'C:\\Users'", 'a = "it\'s"'])
def test_what_is_right_is_read(text: str) -> None:
    assert parse.parse("my.toml", text).whole
