"""How many things fit into one answer? As many as its bytes allow, and one at least (pure)."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TypeVar

ANSWER_MAX_BYTES = 4 * 1024 * 1024
T = TypeVar("T")


def fitting(found: Iterable[T], size: Callable[[T], int], bytes_max: int = ANSWER_MAX_BYTES) -> list[T]:
    """Return the first of them, as many as have `bytes_max` together; the first one whatever size it has."""
    kept: list[T] = []
    left = bytes_max
    for one in found:
        left -= size(one)
        if kept and left < 0:
            break
        kept.append(one)
    return kept
