"""No op and no tool takes `true` for a number; a text that is one it does."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from knotwork.mcp import catalog
from knotwork.ops import fields, listed, serve, table
from knotwork.sdk.errors import Invalid

NUMBERS = sorted(
    (name, field.name)
    for name in listed.LISTED
    for field in fields.of(table.TABLE[name])
    if field.shape in ("integer", "number")
)


def wrong(op: str, given: dict[str, Any]) -> dict[str, str]:
    try:
        serve.check(table.TABLE[op], given)
    except Invalid as error:
        return {problem["field"]: problem["message"] for problem in error.detail["problems"]}
    return {}


def test_no_op_takes_true_for_a_number():
    assert len(NUMBERS) > 50
    taken = [(op, field) for op, field in NUMBERS if "should be a valid" not in wrong(op, {field: True}).get(field, "")]
    assert taken == []


def test_no_tool_takes_true_for_a_number():
    taken = []
    for name, tool in catalog.TOOLS.items():
        for argument, shape in tool.input.model_json_schema().get("properties", {}).items():
            if shape.get("type") in ("integer", "number"):
                with pytest.raises(ValidationError) as caught:
                    tool.input.model_validate({argument: True})
                if not any(
                    error["loc"][0] == argument and error["type"] in ("int_type", "float_type")
                    for error in caught.value.errors()
                ):
                    taken.append((name, argument))
    assert taken == []


def test_an_op_takes_a_text_that_is_a_number():
    assert (
        wrong("task.submit", {"target": "a", "priority": "7", "attempt_timeout_s": "1.5", "max_attempts": " 3 "}) == {}
    )
    assert wrong("task.submit", {"target": "a", "priority": True}) == {"priority": "Input should be a valid integer"}
