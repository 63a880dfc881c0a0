"""Is this a JSON Schema, and does a value fit it? Nothing is fetched, and no schema can crash or stop the one who asks (pure)."""

from __future__ import annotations

from typing import Any

import msgspec

from knotwork.config import shapes
from knotwork.sdk.errors import Invalid

PROBLEMS_MAX = 5
_LOOKED_AT_MAX = 20
wrong = shapes.wrong


def must_fit(schema: dict[str, Any], value: bytes, what: str) -> None:
    """Raise `Invalid` (`flow.schema`) when a JSON value does not fit a schema."""
    try:
        found = shapes.Shape(schema).misfits(_decode(value), _LOOKED_AT_MAX)
    except (RecursionError, ValueError) as error:
        raise Invalid(f"{what} cannot be held against its schema: {error}"[:500], code="flow.schema") from error
    if found:
        found.sort(key=lambda misfit: [str(part) for part in misfit.path])
        told = "; ".join(f"{misfit.json_path}: {misfit.message[:200]}" for misfit in found[:PROBLEMS_MAX])
        raise Invalid(f"{what} does not fit its schema: {told}", code="flow.schema")


_decode = msgspec.json.Decoder().decode
