"""Does a claim still stand, and if not, why? Asked of LEASES and FACTS for whoever shows a ticket."""

from __future__ import annotations

from typing import TYPE_CHECKING

from knotwork.sdk.errors import Cancelled, Conflict
from knotwork.work import intake

if TYPE_CHECKING:
    from knotwork.bus.connection import Connection
    from knotwork.sdk.errors import KnotworkError
    from knotwork.work.leases import Claim, Leases
    from knotwork.work.records import Outcome
    from knotwork.work.tickets import Ticket

TIME_OVER = frozenset({"call.timed_out", "work.deadline", "work.silent"})


class Standing:
    """How the claims of one project stand."""

    def __init__(self, connection: Connection, leases: Leases) -> None:
        """Read over `connection`; who has what say `leases`."""
        self._connection, self._leases = connection, leases

    async def claim(self, ticket: Ticket) -> tuple[Claim, int]:
        """Return the claim of a ticket and its revision; raises why it does not stand any more."""
        claim, revision = await self._leases.read(ticket.run, ticket.step)
        stands = claim is not None and not claim.over and claim.id == ticket.id
        if claim is None or not stands or await self.outcome(ticket) is not None:
            raise await self.refusal(ticket)
        return claim, revision

    async def outcome(self, ticket: Ticket) -> Outcome | None:
        """Return how the attempt ended that a ticket is about, None while it has not."""
        return await intake.outcome_at(self._connection, ticket.outcome_subject)

    async def refusal(self, ticket: Ticket) -> KnotworkError:
        """Return why a claim does not stand any more."""
        outcome = await self.outcome(ticket)
        claim = (await self._leases.read(ticket.run, ticket.step))[0] if outcome is None else None
        return refused(ticket, outcome, claim)


def is_said_by(outcome: Outcome, ticket: Ticket) -> bool:
    """Return whether an outcome was said by the holder of this very claim, and not by its keeper or who ended the task."""
    if outcome.state == "cancelled" or (outcome.error is not None and outcome.error.get("code") in TIME_OVER):
        return False
    return (outcome.agent, outcome.started_ns, outcome.delivery) == (ticket.worker, ticket.started_ns, ticket.delivery)


def refused(ticket: Ticket, outcome: Outcome | None, claim: Claim | None) -> KnotworkError:
    """Return why a claim does not stand any more: how its attempt ended, or the claim that stands there now, say it."""
    if outcome is not None and is_said_by(outcome, ticket):
        return ended(ticket, outcome)
    if outcome is not None and outcome.state == "cancelled":
        return Cancelled(
            f"{ticket.run} was cancelled.", code="claim.cancelled", hint="Stop working on it: nobody wants it."
        )
    if outcome is not None or (claim is not None and claim.id != ticket.id):
        how = f"it is {outcome.state}" if outcome is not None else "another agent has it"
        return Conflict(
            f"{ticket.run} is not {ticket.worker}'s any more: {how}.", code="claim.superseded",
            hint="Stop working on it. Extend a claim in time when the work takes longer than its lease.",
            detail={"state": outcome.state} if outcome is not None else {},
        )  # fmt: skip
    return Conflict(
        f"The lease of {ticket.worker} on {ticket.run} is over, or it was given back.", code="claim.expired",
        hint="Stop working on it: it goes to somebody else. Extend a claim in time when the work takes longer.",
    )  # fmt: skip


def ended(ticket: Ticket, outcome: Outcome) -> Conflict:
    """Return the error of a claim whose holder said before how the attempt ended."""
    return Conflict(
        f"{ticket.run} has ended as {outcome.state} already, by the same claim.", code="claim.ended",
        hint="How it ended can be said once.", detail={"state": outcome.state},
    )  # fmt: skip
