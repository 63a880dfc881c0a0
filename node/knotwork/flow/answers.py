"""How was a question answered? What is on record of it, whoever asks, and however often."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from knotwork.flow.run import decoded
from knotwork.sdk.errors import Conflict
from knotwork.work import records

if TYPE_CHECKING:
    from knotwork.bus.reading import Stored


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


def standing(stored: Stored) -> Answer:
    """Return the answer that the outcome of a step that asked is (pure)."""
    outcome = records.decode_outcome(stored.data)
    told: Any = decoded(bytes(outcome.output)) if outcome.state == "completed" else (outcome.error or {}).get("detail")
    said = told if isinstance(told, dict) else {}
    state = "approved" if outcome.state == "completed" else "rejected"
    return Answer(state, str(said.get("by", "")), str(said.get("comment", "")))
