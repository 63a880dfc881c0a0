"""An agent's schema holds what it is given to its word, and the loop does not wait for it."""

from __future__ import annotations

import asyncio

import pytest

from knotwork.bus.background import background
from knotwork.mesh.schemas import Schema
from knotwork.sdk.errors import ConfigInvalid, Invalid


async def test_a_long_check_leaves_the_loop_to_others():
    schema = Schema({"type": "array", "items": {"type": "integer"}}, "input schema")
    value = [*range(50_000), "x"]
    ticks = 0

    async def tick():
        nonlocal ticks
        while True:
            await asyncio.sleep(0)
            ticks += 1

    async with background() as group:
        group.create_task(tick())
        with pytest.raises(Invalid) as caught:
            await schema.check(value, "input")
    assert caught.value.detail["problems"] == [{"place": "50000", "message": "'x' is not of type 'integer'"}]
    assert ticks > 1


async def test_what_takes_too_long_is_refused():
    schema = Schema({"allOf": [{"items": {"type": "integer"}}] * 100}, "input schema")
    with pytest.raises(Invalid, match="too many steps") as caught:
        await schema.check(list(range(100_000)), "output")
    assert caught.value.code == "agent.bad_output"


@pytest.mark.parametrize("schema", [{"$ref": "#"}, {"$ref": "http://127.0.0.1:1/x"}, {"pattern": "(?=a)"}])
def test_a_schema_that_cannot_be_used_is_refused(schema):
    with pytest.raises(ConfigInvalid, match="The input schema cannot be used") as caught:
        Schema(schema, "input schema")
    assert caught.value.code == "agent.bad_schema"
