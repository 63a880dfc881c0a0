"""What may an orchestration still use? Its budget, what it took of it, and what one below it inherits (pure)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import msgspec

from knotwork.crew.records import Budget
from knotwork.sdk.errors import Conflict, Denied

if TYPE_CHECKING:
    from knotwork.crew.records import Record


SUBS_MAX = 200
"""Orchestrations below one: what each of them took is added up whenever one of them goes on."""


@dataclass(frozen=True, slots=True)
class Spent:
    """What was reported so far."""

    tokens: int = 0
    cost: float = 0.0

    def __add__(self, other: Spent) -> Spent:
        """Return both together."""
        return Spent(self.tokens + other.tokens, self.cost + other.cost)


def exceeded(of: Budget, used: Spent) -> str:
    """Return which limit is used up, in words; empty when none is."""
    if of.tokens and used.tokens >= of.tokens:
        return f"{used.tokens} of {of.tokens} tokens are spent"
    if of.cost and used.cost >= of.cost:
        return f"{used.cost:g} of {of.cost:g} are spent"
    return ""


def left_s(of: Record, now_ns: int) -> int:
    """Return how many seconds an orchestration still has, 0 for any; raises `Conflict` (`crew.budget_spent`)."""
    if not of.ends_ns:
        return 0
    left = math.ceil((of.ends_ns - now_ns) / 1e9)
    if left <= 0:
        raise Conflict(
            f"The time of {of.id} is over.", code="crew.budget_spent",
            hint="What its parts gave stays; assess the task again, and spawn it with more time.",
        )  # fmt: skip
    return left


def inherited(wanted: Budget, parent: Record, used: Spent, now_ns: int) -> Budget:
    """Return what one below may use: what it wants, never more than its parent has left.

    Raises `Denied` (`crew.too_deep`) and `Conflict` (`crew.budget_spent`).
    """
    limit = parent.budget
    if limit.depth < 1:
        raise Denied(
            f"{parent.id} may have no orchestrations below it.", code="crew.too_deep",
            hint="Do the part yourself, or ask for a deeper budget where it was spawned.", detail={"id": parent.id},
        )  # fmt: skip
    told = exceeded(limit, used)
    left_s = (parent.ends_ns - now_ns) / 1e9 if parent.ends_ns else 0.0
    if parent.ends_ns and left_s <= 0:
        told = "its time is over"
    if told:
        raise Conflict(
            f"{parent.id} has nothing left for one below it: {told}.", code="crew.budget_spent",
            hint="`knotwork crew resume` with a larger budget lets it go on.", detail={"id": parent.id},
        )  # fmt: skip
    return Budget(
        min(wanted.depth, limit.depth - 1),
        min(wanted.children, limit.children),
        _lesser(wanted.time_s, left_s),
        int(_lesser(wanted.tokens, limit.tokens - used.tokens if limit.tokens else 0)),
        _lesser(wanted.cost, limit.cost - used.cost if limit.cost else 0.0),
    )


def charged(above: Record, orchestration: str, children: int) -> Record:
    """Return one above with the sub-agents of one below on its account; raises `Denied` (`crew.too_many_children`)."""
    subs = {**above.subs, orchestration: children}
    made = msgspec.structs.replace(above, subs=subs)
    if len(subs) > SUBS_MAX:
        raise Denied(
            f"{above.id} has {SUBS_MAX} orchestrations below it, and can have no more.", code="crew.too_many_children",
            hint="Make fewer with more parts each.", detail={"id": above.id, "below": SUBS_MAX},
        )  # fmt: skip
    if made.charged > above.budget.children:
        raise too_many(above, made.charged)
    return made


def too_many(of: Record, wanted: int) -> Denied:
    """Return the error of more sub-agents than an orchestration may have."""
    return Denied(
        f"{of.id} would have {wanted} sub-agents, {of.budget.children} at most.", code="crew.too_many_children",
        hint="Make fewer parts, or a larger budget.", detail={"id": of.id, "children": of.budget.children},
    )  # fmt: skip


def is_same(wanted: Budget, of: Record) -> bool:
    """Return whether somebody who spawns again wants nothing else: what was asked for, what is in force, or any."""
    return wanted in (Budget(), of.asked, of.budget)


def other(of: Record) -> Conflict:
    """Return the error of whoever spawns again with another budget."""
    limit = of.budget
    return Conflict(
        f"{of.id} was spawned with another budget: {limit.tokens} tokens, cost {limit.cost:g}, {limit.time_s:g} s (0: any), "
        f"{limit.children} sub-agents, depth {limit.depth}. It stands.", code="crew.other_budget",
        hint="`knotwork crew resume` raises tokens and cost; for other limits assess the task again.",
        detail={"phase": of.phase, "budget": msgspec.to_builtins(msgspec.structs.asdict(limit))},
    )  # fmt: skip


def raised(of: Budget, tokens: int | None, cost: float | None) -> Budget:
    """Return a budget with other limits of what is reported."""
    return msgspec.structs.replace(
        of, tokens=of.tokens if tokens is None else tokens, cost=of.cost if cost is None else cost
    )


def _lesser(wanted: float, left: float) -> float:
    """Return the smaller of two limits of which 0 means none."""
    return min(wanted, left) if wanted and left else wanted or left
