"""Does a value fit an agent's JSON Schema? Compiled once, checked per call, every problem told at once."""

from __future__ import annotations

from typing import Any

from knotwork.sdk.errors import ConfigInvalid, Invalid

PROBLEMS_MAX = 20


class Schema:
    """A compiled JSON Schema (draft 2020-12 unless it says otherwise)."""

    def __init__(self, schema: dict[str, Any], what: str) -> None:
        """Compile; raises `ConfigInvalid` (`agent.bad_schema`) when it is no schema. Remote references are refused."""
        # imported here: most nodes have no agent with a schema, and this costs 90 ms
        import jsonschema
        import referencing

        try:
            kind = jsonschema.validators.validator_for(schema, default=jsonschema.Draft202012Validator)
            kind.check_schema(schema)
        except jsonschema.SchemaError as error:
            raise ConfigInvalid(
                f"The {what} is not a JSON Schema: {error.message[:300]}.", code="agent.bad_schema"
            ) from error
        self._validator = kind(schema, registry=referencing.Registry())

    def check(self, value: Any, what: str) -> None:
        """Raise `Invalid` (`agent.bad_input`, `agent.bad_output`) naming every place where `value` does not fit."""
        problems = []
        for error in self._validator.iter_errors(value):
            place = "/".join(str(part) for part in error.absolute_path)
            problems.append({"place": place, "message": error.message[:300]})
            if len(problems) == PROBLEMS_MAX:
                break
        if problems:
            told = "; ".join(f"{problem['place'] or what}: {problem['message']}" for problem in problems)
            raise Invalid(
                f"The {what} does not fit the agent's schema: {told}.",
                code=f"agent.bad_{what}",
                hint="See `knotwork agents show`.",
                detail={"problems": problems},
            )
