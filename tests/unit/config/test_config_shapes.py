"""JSON Schemas of strangers: no pattern, no reference and no value takes long, and nothing is fetched."""

from __future__ import annotations

import pytest

from knotwork.config import load, shapes
from knotwork.config.loaded import Sources
from knotwork.sdk.errors import ConfigInvalid

EVIL, LONG = "^(a+)+$", "a" * 200 + "!"
"""Backtracking takes longer than the universe is old."""
BOMB = {
    "$ref": "#/$defs/d0",
    "$defs": {f"d{n}": {"allOf": [{"$ref": f"#/$defs/d{n + 1}"}] * 2} for n in range(40)} | {"d40": {}},
}


@pytest.mark.parametrize(
    ("schema", "value"),
    [
        ({"pattern": EVIL}, LONG),
        ({"patternProperties": {EVIL: True}, "additionalProperties": False}, {LONG: 1}),
        ({"propertyNames": {"pattern": EVIL}}, {LONG: 1}),
        ({"allOf": [{"$schema": "http://json-schema.org/draft-07/schema#", "pattern": EVIL}]}, LONG),
        ({"$schema": "http://json-schema.org/draft-07/schema#", "items": {"$ref": "#"}, "pattern": EVIL}, [LONG]),
        ({"additionalProperties": {"pattern": EVIL}}, {"x": LONG}),
        ({"uniqueItems": True}, [{"a": 1}, {"a": 2}, {"a": 1.0}]),
    ],
)
def test_what_does_not_fit_is_told_at_once(schema, value):
    assert shapes.wrong(schema) == ""
    assert len(shapes.Shape(schema).misfits(value, 5)) == 1


@pytest.mark.parametrize(
    ("schema", "value"),
    [
        (BOMB, 1),
        ({"uniqueItems": True}, [{"a": n} for n in range(300_000)]),
        ({"allOf": [{"anyOf": [{"type": "string"}] * 100}] * 100}, list(range(1_000_000))),
        ({"$defs": {"c": {"const": [0] * 50_000}}, "allOf": [{"$ref": "#/$defs/c"}] * 1000}, [0] * 50_000),
        ({"items": True, "allOf": [{"items": True}] * 1000}, [0] * 100_000),
        ({"pattern": r"(?:\w?){100}!$"}, "é" * 1_000_000),
    ],
)
def test_what_would_take_long_is_given_up(schema, value):
    with pytest.raises(shapes.TooLong, match="too many steps"):
        shapes.Shape(schema).misfits(value, 5)


@pytest.mark.parametrize(
    ("schema", "why"),
    [
        ({"pattern": "(?=a)b"}, "look-around"),
        ({"properties": {"x": {"pattern": r"(a)\1"}}}, "backreferences"),
        ({"patternProperties": {"(": {}}}, "unclosed group"),
        ({"pattern": r"^(\w{50}){20}$"}, "too large"),
        ({"properties": {f"p{n}": {"pattern": f"^{n}$"} for n in range(101)}}, "101 patterns"),
        ({"$ref": "#"}, "refers to itself"),
        (BOMB, "too many steps"),
        ({"$ref": "http://127.0.0.1:1/x"}, "which is not in it"),
        ({"$ref": "http://[x"}, "which is not in it"),
        ({"type": 5}, "is no JSON Schema"),
        ({"$schema": 5}, "is no JSON Schema"),
        ({"unevaluatedProperties": False, "allOf": [{"patternProperties": {EVIL: True}}]}, "not supported together"),
    ],
)
def test_schemas_that_cannot_be_used_say_why(schema, why):
    assert why in shapes.wrong(schema)


@pytest.mark.parametrize(
    "pattern",
    [
        r"^(\d{1,3}\.){3}\d{1,3}(:\d{1,5})?$",
        r"^[^\s@]+@[^\s@]+\.[a-z]{2,}$",
        r"^.{1,1000}$",
        r"^\p{Lu}",
        r"^/[\w/.-]*$",
    ],
)
def test_honest_patterns_are_taken(pattern):
    assert shapes.wrong({"pattern": pattern}) == ""


def test_an_honest_value_is_checked_whole():
    schema = {
        "type": "array",
        "items": {"required": ["a"], "properties": {key: {"type": "integer"} for key in "abcde"}},
    }
    value = [dict.fromkeys("abcde", 1) for _ in range(2000)]
    assert shapes.Shape(schema).misfits(value, 5) == []
    value[1999]["c"] = "x"
    (misfit,) = shapes.Shape(schema).misfits(value, 5)
    assert (misfit.path, misfit.json_path) == ((1999, "c"), "$[1999].c")


def test_equal_items_are_told_as_json_means_it():
    unique = {"uniqueItems": True}
    for value in ([1, True], [0, False], ["1", 1], [[1], [True]], [{}, []], [{"a": 1}, {"a": 2}]):
        assert shapes.Shape(unique).misfits(value, 1) == []
    for value in ([1, 1.0], [[1], [1.0]], [{"a": 1, "b": 2}, {"b": 2, "a": 1}], [None, None]):
        assert len(shapes.Shape(unique).misfits(value, 1)) == 1


def test_a_schema_that_cannot_be_used_is_told_with_its_place(tmp_path):
    path = tmp_path / "k.toml"
    path.write_text('[executors.a]\ntype = "rehearsal"\n\n[executors.a.input_schema]\npattern = "(?=a)"\n')
    with pytest.raises(ConfigInvalid) as caught:
        load.read(Sources(files=(path,), env={}))
    assert caught.value.code == "agent.bad_schema"
    (problem,) = caught.value.detail["problems"]
    assert (problem["file"], problem["line"], problem["key"]) == (str(path), 4, "executors.a.input_schema")
