"""How many bytes is "10GB"?

The suffixes mean what nats-server makes of them: `K`, `M`, `G`, `T` count in thousands, `KB`, `MB`, `GB`, `TB` (and
`KiB` …) in steps of 1024. Sizes are kept as whole bytes.
"""

from __future__ import annotations

import re
from typing import Annotated, Any

from pydantic import BeforeValidator, Field, WithJsonSchema

_STEPS = {"": 0, "K": 1, "M": 2, "G": 3, "T": 4}
_WRITTEN = re.compile(r"\s*([0-9]{1,19})\s*(?:([KMGT])(I?B)?|B)?\s*", re.IGNORECASE)
MAX_BYTES = 2**62


class SizeMark:
    """Marks a field as a size in the metadata of its annotation, so that it can be shown the way people write it."""


def parse(value: Any) -> int:
    """Return `value` in bytes: a whole number, or text such as "512", "8MB", "10 GiB"; raises ValueError."""
    if isinstance(value, int) and not isinstance(value, bool):
        size = value
    elif isinstance(value, str) and (found := _WRITTEN.fullmatch(value)):
        number, step, binary = found.groups()
        size = int(number) * (1024 if binary else 1000) ** _STEPS[(step or "").upper()]
    else:
        raise ValueError('must be a size: whole bytes, or text such as "512MB" or "10GB"')
    if not 0 <= size <= MAX_BYTES:
        raise ValueError("must be a size between 0 and 4 EiB")
    return size


def render(size: int) -> str:
    """Return the shortest text that `parse` turns back into exactly `size` bytes."""
    for suffix, power in (("TB", 4), ("GB", 3), ("MB", 2), ("KB", 1)):
        if size and size % 1024**power == 0:
            return f"{size // 1024**power}{suffix}"
    return str(size)


Size = Annotated[
    int,
    BeforeValidator(parse),
    SizeMark(),
    Field(strict=True),
    WithJsonSchema(
        {
            "anyOf": [
                {"type": "integer", "minimum": 0},
                {"type": "string", "pattern": "^[0-9]+ ?([kKmMgGtT][iI]?[bB]?|[bB])?$"},
            ]
        }
    ),
]
