"""What do agents show for the work that they claimed here? Remembered, so that they need only name the work."""

from __future__ import annotations

from collections import OrderedDict

HELD_MAX = 20_000


class Held:
    """Claims by agent and work; the oldest go when there are too many, and can still be shown by hand."""

    def __init__(self) -> None:
        """Begin with none."""
        self._claims: OrderedDict[tuple[str, str], str] = OrderedDict()

    def add(self, agent: str, work_id: str, claim: str) -> None:
        """Remember a claim."""
        self._claims[agent, work_id] = claim
        self._claims.move_to_end((agent, work_id))
        while len(self._claims) > HELD_MAX:
            self._claims.popitem(last=False)

    def get(self, agent: str, work_id: str) -> str:
        """Return a claim, "" when none is known."""
        return self._claims.get((agent, work_id), "")

    def drop(self, agent: str, work_id: str) -> None:
        """Forget a claim."""
        self._claims.pop((agent, work_id), None)
