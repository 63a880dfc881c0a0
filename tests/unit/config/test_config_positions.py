"""Lines and columns: the same keys as tomllib finds, at the places where they stand."""

from __future__ import annotations

import datetime as dt
import tomllib
from typing import Any

import pytest
import tomli_w
from hypothesis import given, settings
from hypothesis import strategies as st

from knotwork.config.keys import Path, key_text, literal, quoted
from knotwork.config.positions import locate, positions

KEYS = st.one_of(st.sampled_from(["a", "b", "a-b", "1", "a.b", "", "é", "a b", '"', "[x]", "#"]), st.text(max_size=6))
SCALARS = st.one_of(
    st.integers(-(2**63), 2**63 - 1),
    st.booleans(),
    st.floats(),
    st.text(max_size=12),
    st.dates(dt.date(1, 1, 1), dt.date(9999, 12, 31)),
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(KEYS, inner, max_size=3)),
    max_leaves=8,
)
TABLES = st.dictionaries(KEYS, VALUES, max_size=4)


def all_paths(value: Any, path: Path = ()) -> set[Path]:
    found = {path} if path else set()
    if isinstance(value, dict):
        for key, part in value.items():
            found |= all_paths(part, (*path, key))
    elif isinstance(value, list):
        for index, part in enumerate(value):
            found |= all_paths(part, (*path, index))
    return found


@settings(max_examples=200, deadline=None)
@given(TABLES)
def test_every_key_tomllib_finds_has_a_place_and_no_other(tables):
    for text in (
        tomli_w.dumps(tables),
        "".join(f"{key_text(key)} = {literal(value)}\n" for key, value in tables.items()),
    ):
        data = tomllib.loads(text)
        places = positions(text)
        assert set(places) == all_paths(data)
        lines = text.split("\n")
        for path, place in places.items():
            if isinstance(path[-1], str) and place.line == place.value_line and place.column < place.value_column:
                written = lines[place.line - 1][place.column - 1 :]
                assert tomllib.loads(written.split("=")[0].strip() + "=0") if "=" not in path[-1] else True


@settings(max_examples=200, deadline=None)
@given(TABLES)
def test_text_written_by_us_says_what_was_meant(tables):
    text = "".join(f"{key_text(key)} = {literal(value)}\n" for key, value in tables.items())
    assert repr(tomllib.loads(text)) == repr(tables)


@given(st.text(max_size=30))
def test_quoted_text_is_the_text(text):
    assert tomllib.loads(f"x = {quoted(text)}") == {"x": text}


def test_places_are_those_of_key_and_value():
    text = (
        "top = 1 # first\n"
        '  é."b c" = "ü" # x\n'
        "[x.y]\n"
        'k = { a = "é", b = [1,\n  { c = 2 }] }\n'
        "[[z]]\nq = 1\n[[z]]\n[z.w]\nm = 1\n[x]\nn = 2"
    ).replace('é."b c"', '"é"."b c"')
    places = positions(text)
    assert places["top",] == (1, 1, 1, 7)
    assert places["é", "b c"] == (2, 7, 2, 15)
    assert places["x", "y"] == (3, 4, 3, 1)
    assert places["x", "y", "k", "b"] == (4, 16, 4, 20)
    assert places["x", "y", "k", "b", 1, "c"] == (5, 5, 5, 9)
    assert places["z", 0, "q"] == (7, 1, 7, 5)
    assert (places["z",].line, places["z", 1].line) == (6, 8)
    assert places["z", 1, "w", "m"] == (10, 1, 10, 5)
    assert places["x",] == (11, 2, 11, 1)
    assert places["x", "n"] == (12, 1, 12, 5)


def test_what_has_no_place_gets_that_of_the_table_around_it():
    places = positions("[a]\nb = 1\n")
    assert locate(places, ("a", "b"), value=True) == (2, 5)
    assert locate(places, ("a", "gone", 3), value=True) == (1, 2)
    assert locate(places, ("nothing",)) == (1, 1)


@settings(max_examples=200, deadline=None)
@given(st.text(alphabet="[]{}=.'\"# \n\tab1,", max_size=60))
def test_broken_texts_are_survived_and_valid_ones_agree(text):
    places = positions(text)
    try:
        data = tomllib.loads(text)
    except tomllib.TOMLDecodeError:
        return
    assert all_paths(data) <= set(places) | {path for path in all_paths(data) if path[:-1] in places}


@pytest.mark.parametrize("text", ["a" + ".a" * 3000 + " = 1", "a = " + "[" * 3000 + "]" * 3000, "[" * 5000])
def test_depth_is_survived(text):
    assert isinstance(positions(text), dict)
