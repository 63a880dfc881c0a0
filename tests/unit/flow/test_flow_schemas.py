"""JSON Schemas that anybody may write: no value and no schema crashes the one who asks, and nothing is fetched."""

from __future__ import annotations

import pytest

from knotwork.flow import schemas
from knotwork.sdk.errors import Invalid


@pytest.mark.parametrize(
    ("schema", "value"),
    [
        ({"$ref": "#"}, b"1"),
        ({"$ref": "#/$defs/a", "$defs": {"a": {"$ref": "#/$defs/a"}}}, b"1"),
        ({"$ref": "#/nowhere"}, b"1"),
        ({"$ref": "http://127.0.0.1:1/x"}, b"1"),
        ({"pattern": "("}, b'"x"'),
        ({"type": 5}, b"1"),
        ({"multipleOf": 1e-320}, b"1e300"),
        ({"type": "string"}, b"1"),
        ({"required": ["a"]}, b"{}"),
        ({}, b"not json"),
        ({}, b"[" * 5000),
    ],
)
def test_what_does_not_fit_or_cannot_be_told(schema, value):
    with pytest.raises(Invalid) as caught:
        schemas.must_fit(schema, value, "It")
    assert caught.value.code == "flow.schema"


def test_what_fits():
    schema = {"type": "object", "properties": {"x": {"$ref": "#/$defs/n"}}, "$defs": {"n": {"type": "number"}}}
    schemas.must_fit(schema, b'{"x":1}', "It")
    assert schemas.wrong(schema) == ""
    with pytest.raises(Invalid, match=r"The output does not fit its schema: \$\.x: 'y' is not of type 'number'"):
        schemas.must_fit(schema, b'{"x":"y"}', "The output")


def test_examples_in_a_schema_are_no_schemas():
    assert schemas.wrong({"const": {"$ref": "#/nowhere"}, "enum": [{"$ref": "x"}]}) == ""
