"""Whom does the boundary of this work prefer? Preferred agents that are free, then fallbacks, then those who are full.

It answers only where the policy makes a difference, and leaves everything else to the next router. Whom the policy
forbids never gets here: the node sees to that, whatever routers there are.
"""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from knotwork.sdk import Ask, Candidate, Context, Factory, Route, Router
from knotwork_plugins.routers.capability import CapabilityConfig, order

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence


class PolicyConfig(CapabilityConfig):
    """Options of the router that follows the policy; those equal before it are told apart as `capability` does."""


def tier(candidate: Candidate) -> tuple[bool, bool]:
    """Return the rank of a candidate: free before full, preferred before fallback."""
    return not candidate.load < 1, candidate.standing == "fallback"


def order_by_standing(ask: Ask, candidates: Sequence[Candidate], config: PolicyConfig, turn: int = 0) -> Route:
    """Return the eligible candidates, tier by tier, and for each other one its reason (pure)."""
    tiers: dict[tuple[bool, bool], list[Candidate]] = {}
    for candidate in candidates:
        tiers.setdefault(tier(candidate), []).append(candidate)
    routes = [order(ask, tiers[rank], config, turn) for rank in sorted(tiers)]
    found = [candidate for route in routes for candidate in route.candidates]
    refused = {name: why for route in routes for name, why in route.refused.items()}
    if not found:
        return Route(found, refused, "none is eligible")
    return Route(
        found, refused, f"{found[0].name} is {found[0].standing} for {ask.boundary} work, of {len(found)} eligible"
    )


class PolicyRouter:
    """The router; its only state is whose turn it is."""

    def __init__(self, config: PolicyConfig) -> None:
        """Begin with the first."""
        self._config = config
        self._turn = -1

    async def route(self, ask: Ask, candidates: Sequence[Candidate]) -> Route | None:
        """Order the candidates; None where the boundary prefers nobody."""
        if not ask.boundary or not any(candidate.standing for candidate in candidates):
            return None
        if self._config.take_turns:
            self._turn += 1
        return order_by_standing(ask, candidates, self._config, max(self._turn, 0))


@asynccontextmanager
async def open_policy(config: PolicyConfig, context: Context) -> AsyncIterator[Router]:  # noqa: ARG001
    """Open the router; it holds nothing."""
    yield PolicyRouter(config)


FACTORY: Factory[Router] = Factory(
    name="policy",
    config=PolicyConfig,
    open=open_policy,
    summary="Whom [boundaries] prefers, then who may step in; leaves work that prefers nobody to the next router.",
)
