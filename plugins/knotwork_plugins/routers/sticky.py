"""Who did this before? The same key finds the same agent as long as it is online, and no table of keys is kept.

Rendezvous hashing: each agent gets a number from the key and its own name, and the highest wins. When an agent goes,
only its own keys move, each to its second; when it comes back, they return.
"""

from __future__ import annotations

from contextlib import asynccontextmanager
from hashlib import blake2b
from typing import TYPE_CHECKING

from knotwork.sdk import Ask, Candidate, Context, Factory, PluginConfig, Route, Router
from knotwork_plugins.routers.capability import why_not

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence


class StickyConfig(PluginConfig):
    """Options of the router that keeps keys together: none."""


def weight(key: str, name: str) -> bytes:
    """Return what a candidate weighs for a key; the heaviest is chosen."""
    return blake2b(f"{key}\0{name}".encode(errors="replace"), digest_size=8).digest()


def order_by_key(ask: Ask, candidates: Sequence[Candidate]) -> Route:
    """Return the eligible candidates by weight, preferred ones before fallbacks, and for each other one its reason."""
    refused = {candidate.name: why for candidate in candidates if (why := why_not(ask, candidate))}
    found = sorted(
        (candidate for candidate in candidates if candidate.name not in refused),
        key=lambda one: (one.standing != "fallback", weight(ask.key, one.name)),
        reverse=True,
    )
    reason = f"{found[0].name} is where the key {ask.key[:64]!r} belongs" if found else "none is eligible"
    return Route(found, refused, reason, pin=True)


class StickyRouter:
    """The router; it holds nothing."""

    async def route(self, ask: Ask, candidates: Sequence[Candidate]) -> Route | None:
        """Order the candidates by the key; None for work without one."""
        return order_by_key(ask, candidates) if ask.key else None


@asynccontextmanager
async def open_sticky(config: StickyConfig, context: Context) -> AsyncIterator[Router]:  # noqa: ARG001
    """Open the router."""
    yield StickyRouter()


FACTORY: Factory[Router] = Factory(
    name="sticky",
    config=StickyConfig,
    open=open_sticky,
    summary="Work with the same key goes to the same agent while it is online; leaves work without one to the next.",
    abilities=("pins",),
)
