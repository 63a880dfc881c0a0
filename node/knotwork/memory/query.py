"""What may be looked for in memory? By scope, category, tags, priority, age, author and text (pure)."""

from __future__ import annotations

from dataclasses import dataclass

from knotwork.memory.model import Category
from knotwork.sdk.memory import MemoryScope

LIMIT_MAX = 200


@dataclass(frozen=True, slots=True)
class Query:
    """What is looked for. Empty means all; times are nanoseconds since 1970. With `text` the best come first."""

    scopes: tuple[MemoryScope, ...] = ()
    categories: tuple[Category, ...] = ()
    tags: tuple[str, ...] = ()
    priority_min: int = 1
    priority_max: int = 3
    created_after_ns: int = 0
    created_before_ns: int = 0
    updated_after_ns: int = 0
    updated_before_ns: int = 0
    text: str = ""
    author: str = ""
    forgotten: bool = False
    limit: int = 50
    cursor: str = ""
    newest: bool = False
