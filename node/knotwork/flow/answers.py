"""How was a question answered? What is on record of it, whoever asks, and however often."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from knotwork.bus import reading, subjects
from knotwork.flow.run import decoded
from knotwork.sdk.errors import Conflict
from knotwork.work import records

if TYPE_CHECKING:
    from collections.abc import Sequence

    from knotwork.bus.connection import Connection
    from knotwork.bus.reading import Stored
    from knotwork.flow.run import Run


@dataclass(frozen=True, slots=True)
class Answer:
    """The answer that stands: `state` is approved or rejected."""

    state: str
    by: str = ""
    comment: str = ""

    def settled(self, hint: str = "") -> Conflict:
        """Return the error of whoever answers after it (`flow.answered`); `hint` says where else something is asked."""
        told = f"{self.by or 'somebody'} {self.state} it{f': {self.comment}' if self.comment else ''}"
        return Conflict(
            f"This was settled before: {told}.", code="flow.answered", hint=f"The first answer stands. {hint}".rstrip(),
            detail={"state": self.state, "by": self.by, "comment": self.comment},
        )  # fmt: skip


async def standing(connection: Connection, run: Run, known: Sequence[Stored], step: str) -> Answer | None:
    """Return the answer to what a step asked, None when there is none, or it is no step that asks; `known` are its facts."""
    spec = run.graph.workflow.steps.get(step)
    if spec is None or spec.kind != "approval":
        return None
    place = records.outcome_subject(run.id, step, 0, 1)
    stored = next((one for one in known if one.subject == place), None)
    if stored is None:
        stored = await reading.last(connection, subjects.FACTS, place)
    if stored is None:
        return None
    outcome = records.decode_outcome(stored.data)
    told: Any = decoded(bytes(outcome.output)) if outcome.state == "completed" else (outcome.error or {}).get("detail")
    said = told if isinstance(told, dict) else {}
    state = "approved" if outcome.state == "completed" else "rejected"
    return Answer(state, str(said.get("by", "")), str(said.get("comment", "")))
