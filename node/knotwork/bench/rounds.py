"""How often may a bench measure, so that it ends in time, and which round does it tell of?"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence


def rounds(seconds: float, most: int, clock: Callable[[], float] = time.monotonic) -> Iterator[int]:
    """Yield 0, 1, … `most` times at most; after the first only while the longest round so far fits into `seconds`."""
    began_s, longest_s = clock(), 0.0
    for number in range(most):
        start_s = clock()
        if number and start_s + longest_s > began_s + seconds:
            return
        yield number
        longest_s = max(longest_s, clock() - start_s)


def middle(ours: Sequence[float], raw: Sequence[float]) -> tuple[float, float]:
    """Return ours and raw of the round whose ratio is the middle one: side by side, for the machine changes meanwhile."""
    pairs = sorted(zip(ours, raw, strict=True), key=lambda pair: pair[0] / pair[1])
    return pairs[(len(pairs) - 1) // 2]
