"""When is what failed tried again? After a pause that doubles from try to try, up to a limit."""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

from knotwork.sdk.errors import KnotworkError

log = logging.getLogger(__name__)
T = TypeVar("T")
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


async def insist(
    work: Callable[[], Awaitable[T]], what: str, pauses: Pauses, *, wanted: Callable[[], bool] = lambda: True
) -> T | None:
    """Do something again until it succeeds, and return what it returns; through what may pass, and through bugs of ours.

    None when it is `wanted` no more. `what` it is, for the log. It is for what somebody would wait for in vain if an
    error that nobody foresaw ended it.
    """
    while wanted():
        with comes_again(what):
            return await work()
        await pauses.wait()
    return None


@contextmanager
def comes_again(what: str) -> Iterator[None]:
    """Let no error leave the block: it is done again and again anyway, and the next time may go well. `what` it is, for the log.

    An error that nobody foresaw, met with one thing, is not the end of whoever looks after all of them.
    """
    try:
        yield
    except KnotworkError as error:
        log.debug("%s: again in a moment: %s", what, error)
    except Exception:
        log.exception("%s failed", what)
