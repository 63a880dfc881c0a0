"""How long until what failed is tried again? A pause that doubles from try to try, up to a limit."""

from __future__ import annotations

import asyncio
import random

LEAST_S, MOST_S = 0.1, 5.0


class Pauses:
    """The pauses between the tries of one thing, shortened by chance: what failed at once does not come again at once."""

    def __init__(self, least_s: float = LEAST_S, most_s: float = MOST_S) -> None:
        """Begin with a pause of about `least_s` seconds; none is longer than `most_s`."""
        self._least_s = self._next_s = least_s
        self._most_s = most_s

    def next_s(self) -> float:
        """Return for how many seconds to leave it alone now, for whoever may be called sooner; the next time longer."""
        pause_s, self._next_s = self._next_s, min(2 * self._next_s, self._most_s)
        return pause_s * random.uniform(0.5, 1.0)  # noqa: S311  (jitter)

    async def wait(self) -> None:
        """Return when it is time for the next try."""
        await asyncio.sleep(self.next_s())

    def shorten(self) -> None:
        """Begin anew: what is tried went well for a while."""
        self._next_s = self._least_s
