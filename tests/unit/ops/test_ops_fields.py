"""The fields of requests, as shell and URL see them."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from knotwork.ops import fields, plugin, table, words


def of(name):
    return {field.name: field for field in fields.of(table.TABLE[name])}


def test_shapes_of_an_invoke():
    found = of("agents.invoke")
    assert {name: field.shape for name, field in found.items()} == {
        "target": "text",
        "capability": "text",
        "input": "json",
        "timeout_s": "number",
        "require": "list",
        "prefer": "list",
        "exclude": "list",
        "boundary": "text",
        "retries": "integer",
        "stream": "flag",
        "idempotency_key": "text",
        "sticky": "text",
    }
    assert found["timeout_s"].seconds
    assert found["timeout_s"].flag == "--timeout"
    assert found["idempotency_key"].flag == "--idempotency-key"


def test_required_and_choices():
    found = of("plugin.info")
    assert found["type"].required
    assert found["kind"].choices == ("executors", "routers", "memories", "spinups", "telemetry", "triggers")
    assert not found["kind"].required


@pytest.mark.parametrize(
    "words",
    [
        {"kind": "executors", "id": "a-1"},
        {"kind": "executor", "id": "a-1"},
        {"kind": "executors.a-1"},
        {"kind": "executor.a-1"},
    ],
)
def test_an_instance_is_named_in_two_words_or_as_in_toml(words):
    assert plugin.RestartRequest.model_validate(words).parts() == ("executors", "a-1")


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ({"kind": "executors"}, "like executors.reviewer"),
        ({"kind": "executors.a", "id": "b"}, "name one instance"),
        ({"kind": "executers.a"}, "is no kind: executors, routers"),
        ({"kind": "executors.A b"}, "not a name"),
        ({"kind": ""}, "at least 1"),
    ],
)
def test_anything_else_says_how_an_instance_is_named(words, told):
    with pytest.raises(ValidationError, match=told):
        plugin.RestartRequest.model_validate(words)


def test_every_field_of_every_request_is_described():
    missing = [
        f"{op.name}.{field.name}" for op in table.TABLE.values() for field in fields.of(op) if not field.description
    ]
    assert missing == []


def patterns_in(schema):
    if isinstance(schema, dict):
        yield from (value for key, value in schema.items() if key == "pattern" and isinstance(value, str))
        schema = list(schema.values())
    for part in schema if isinstance(schema, list) else ():
        yield from patterns_in(part)


def test_nobody_has_to_read_a_pattern_to_know_what_to_write():
    asked = {pattern for one in table.TABLE.values() for pattern in patterns_in(one.request.model_json_schema())}
    assert len(asked) > 5
    assert not asked - words.NAMED.keys()
