"""Which phase may follow which? What somebody who reports progress may say, and what follows from it (pure)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from knotwork.crew.records import OVER
from knotwork.sdk.errors import Conflict

if TYPE_CHECKING:
    from knotwork.crew.records import Phase
    from knotwork.crew.sight import View

ORDER: tuple[Phase, ...] = ("assessment", "spawning", "execution", "collection", "synthesis", "complete")
Move = Literal["stay", "go", "stop"]


def move(found: View, wanted: Phase) -> Move:
    """Say what becomes of a wish to be in a phase: it is there or further already, it goes there, or it is stopped.

    Raises `Conflict` (`crew.over`, `crew.bad_phase`) when it cannot be there yet.
    """
    now = found.phase
    if now in OVER:
        if wanted == now or wanted in ORDER:
            return "stay"
        raise over(found)
    if wanted in ("failed", "cancelled"):
        return "stop"
    if ORDER.index(wanted) <= ORDER.index(now):
        return "stay"
    if not found.record.rounds:
        raise Conflict(
            f"{found.record.id} was not spawned.",
            code="crew.bad_phase",
            hint="`knotwork crew spawn` begins its execution.",
        )
    if found.open:
        told = ", ".join(found.open[:20])
        raise Conflict(
            f"It cannot be in {wanted}: parts are not over ({told}).", code="crew.bad_phase",
            hint="Wait for them (`knotwork crew watch`), or cancel it.", detail={"phase": now, "open": found.open},
        )  # fmt: skip
    return "go"


def over(found: View) -> Conflict:
    """Return the error of a wish that comes after the end."""
    again = "`knotwork crew retry` does a part again."
    if found.record.stop is not None or found.phase == "cancelled":  # it was ended on purpose: no part is done again
        again = (
            "What was stopped stays so: `knotwork crew results` has what it gave, `knotwork crew assess` begins anew."
        )
    return Conflict(
        f"{found.record.id} is {found.phase if found.phase in OVER else 'being stopped'}.", code="crew.over", hint=again, detail={"phase": found.phase},
    )  # fmt: skip
