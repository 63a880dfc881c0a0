"""The fields of requests, as shell and URL see them."""

from __future__ import annotations

from knotwork.ops import fields, table


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
    found = of("plugin.restart")
    assert found["kind"].required
    assert found["kind"].choices == ("executors", "routers", "memories", "spinups", "telemetry")
    assert of("plugin.info")["kind"].choices == found["kind"].choices
    assert not of("plugin.info")["kind"].required


def test_every_field_of_every_request_is_described():
    missing = [
        f"{op.name}.{field.name}" for op in table.TABLE.values() for field in fields.of(op) if not field.description
    ]
    assert missing == []
