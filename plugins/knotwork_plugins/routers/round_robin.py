"""Whose turn is it? Each eligible agent in turn, by name; those without a free place are passed over while others have one."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from knotwork.sdk import Ask, Candidate, Context, Factory, PluginConfig, Route, Router
from knotwork_plugins.routers.capability import why_not
from knotwork_plugins.routers.policy import tier

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

TURNS_MAX = 10_000
"""Sorts of work whose last turn is remembered."""


class RoundRobinConfig(PluginConfig):
    """Options of the router that takes turns: none."""


def order_by_turn(ask: Ask, candidates: Sequence[Candidate], last: str) -> Route:
    """Return the eligible candidates, beginning behind the one whose turn was last (pure).

    Those with a free place come before those without, and preferred ones before fallbacks; within these by name.
    """
    refused = {candidate.name: why for candidate in candidates if (why := why_not(ask, candidate))}
    found = sorted(
        (candidate for candidate in candidates if candidate.name not in refused),
        key=lambda one: (*tier(one), one.name <= last, one.name),
    )
    reason = f"it is the turn of {found[0].name}, of {len(found)} eligible" if found else "none is eligible"
    return Route(found, refused, reason, pin=True)


class RoundRobinRouter:
    """The router. It remembers whose turn was last for each sort of work."""

    def __init__(self) -> None:
        """Begin with the first."""
        self._last: dict[tuple[str, str, str], str] = {}

    async def route(self, ask: Ask, candidates: Sequence[Candidate]) -> Route | None:
        """Order the candidates; always an answer, since an empty one carries the reasons."""
        sort = (ask.capability, ask.agent, ask.boundary)
        route = order_by_turn(ask, candidates, self._last.get(sort, ""))
        if route.candidates:
            if len(self._last) >= TURNS_MAX:
                self._last.clear()
            self._last[sort] = route.candidates[0].name
        return route


@asynccontextmanager
async def open_round_robin(config: RoundRobinConfig, context: Context) -> AsyncIterator[Router]:  # noqa: ARG001
    """Open the router."""
    yield RoundRobinRouter()


FACTORY: Factory[Router] = Factory(
    name="round-robin",
    config=RoundRobinConfig,
    open=open_round_robin,
    summary="Each eligible agent in turn, whatever their load; those without a free place wait for theirs.",
    abilities=("pins",),
)
