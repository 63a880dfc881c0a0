"""Does a value fit an agent's JSON Schema? Checked per call, every problem told at once; the loop never waits for long."""

from __future__ import annotations

import asyncio
from typing import Any

from knotwork.config import shapes
from knotwork.sdk.errors import ConfigInvalid, Invalid

PROBLEMS_MAX = 20
STEPS_HERE_MAX = 3_000
"""Steps that a check may take in the loop, some ten milliseconds; a longer one begins anew in a thread."""
STEPS_MAX = 500_000


class Schema:
    """A JSON Schema that is one (draft 2020-12 unless it says otherwise)."""

    def __init__(self, schema: dict[str, Any], what: str) -> None:
        """Take a schema; raises `ConfigInvalid` (`agent.bad_schema`) when it is none that can be used."""
        if wrong := shapes.wrong(schema):
            raise ConfigInvalid(f"The {what} cannot be used: {wrong}.", code="agent.bad_schema")
        self._shape = shapes.Shape(schema)

    async def check(self, value: Any, what: str) -> None:
        """Raise `Invalid` (`agent.bad_input`, `agent.bad_output`) naming every place where `value` does not fit."""
        try:
            try:
                found = self._shape.misfits(value, PROBLEMS_MAX, steps_max=STEPS_HERE_MAX)
            except shapes.TooLong:
                found = await asyncio.to_thread(self._shape.misfits, value, PROBLEMS_MAX, steps_max=STEPS_MAX)
        except shapes.Unanswerable as error:
            raise Invalid(
                f"The {what} cannot be held against the agent's schema: {error}.",
                code=f"agent.bad_{what}",
                hint="See `knotwork agents show`.",
            ) from error
        if found:
            problems = [
                {"place": "/".join(str(part) for part in misfit.path), "message": misfit.message} for misfit in found
            ]
            told = "; ".join(f"{problem['place'] or what}: {problem['message']}" for problem in problems)
            raise Invalid(
                f"The {what} does not fit the agent's schema: {told}.",
                code=f"agent.bad_{what}",
                hint="See `knotwork agents show`.",
                detail={"problems": problems},
            )
