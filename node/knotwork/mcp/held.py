"""What do agents show for the work that they claimed here? Remembered, so that they need only name the work.

Several parts of one run have one work id; an agent that holds two of them has to say which one it means.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping

from knotwork.sdk.errors import Invalid

HELD_MAX = 20_000
SHOWN_MAX = 20
"""How many claims are listed to an agent that did not say which one it means."""


def meant(work_id: str, claims: Mapping[str, str]) -> str:
    """Return the claim among those on one work id, by step, "" for none.

    Raises `Invalid` (`tool.several_claims`) when there are several: only the agent knows which part it means.
    """
    if len(claims) <= 1:
        return next(iter(claims.values()), "")
    listed = [f"- {step or 'the task itself'}: {claim}" for step, claim in sorted(claims.items())]
    more = [f"- and {len(listed) - SHOWN_MAX} more"] if len(listed) > SHOWN_MAX else []
    raise Invalid(
        f"You hold {len(claims)} parts of {work_id}; which one do you mean? Step and claim of each:\n"
        + "\n".join(listed[:SHOWN_MAX] + more),
        code="tool.several_claims",
        hint="Nothing was done. Call it again with `claim` of the part that you mean, as claim_work answered it.",
    )


class Held:
    """Claims by agent, work and step; the oldest go when there are too many, and can still be shown by hand."""

    def __init__(self) -> None:
        """Begin with none."""
        self._claims: OrderedDict[tuple[str, str], dict[str, str]] = OrderedDict()
        self._count = 0

    def add(self, agent: str, work_id: str, claim: str, step: str = "") -> None:
        """Remember a claim; one on the same step before is over."""
        held = self._claims.setdefault((agent, work_id), {})
        self._count += step not in held
        held[step] = claim
        self._claims.move_to_end((agent, work_id))
        while self._count > HELD_MAX:
            _, oldest = next(iter(self._claims.items()))
            del oldest[next(iter(oldest))]
            self._count -= 1
            if not oldest:
                self._claims.popitem(last=False)

    def of(self, agent: str, work_id: str) -> dict[str, str]:
        """Return the claims that an agent is known to have on one work, by step."""
        return dict(self._claims.get((agent, work_id), {}))

    def get(self, agent: str, work_id: str) -> str:
        """Return a claim, "" when none is known; raises what `meant` raises."""
        return meant(work_id, self._claims.get((agent, work_id), {}))

    def drop(self, agent: str, work_id: str, claim: str = "") -> None:
        """Forget a claim, every one on this work when none is named."""
        held = self._claims.get((agent, work_id), {})
        for step in [step for step, one in held.items() if claim in ("", one)]:
            del held[step]
            self._count -= 1
        if not held:
            self._claims.pop((agent, work_id), None)
