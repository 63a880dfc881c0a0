"""Who should do this? Those who can and may, least loaded first; pure, apart from taking turns among equals."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING
from zlib import crc32

from pydantic import Field

from knotwork.sdk import Ask, Candidate, Context, Factory, PluginConfig, Route, Router

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

FULL = 1e9  # added to the rank of a candidate without a free place
PREFERRED = 1e3  # taken off for each preferred tag; loads stay below it, so a tag outweighs any load but being full
LOAD_MAX = 999.0

_STATES = {
    "stale": "the node is stale: its last heartbeat is overdue",
    "offline": "the node is offline",
    "draining": "the node is draining: it takes nothing new",
    "drained": "the node is drained: it takes nothing new",
}


class CapabilityConfig(PluginConfig):
    """Options of the built-in router."""

    local_first: bool = Field(default=True, description="among equals, try the agents of the asking node first")
    take_turns: bool = Field(
        default=True, description="among equals, begin with another one each time, so that none gets all the work"
    )
    load_step: float = Field(
        default=0.0, ge=0, le=1, description="loads in the same step count as equal, e.g. 0.1; 0: only equal loads do"
    )


DEFAULTS = CapabilityConfig()


def why_not(ask: Ask, candidate: Candidate) -> str:  # noqa: PLR0911 - one return per reason reads best
    """Return the first reason in words why this candidate is out of the question, empty when it is eligible."""
    if ask.agent and candidate.agent != ask.agent:
        return f"it is not the agent {ask.agent!r}"
    if ask.node and candidate.node != ask.node:
        return f"it is not on the node {ask.node!r}"
    if ask.capability and ask.capability not in candidate.capabilities:
        return f"it does not offer the capability {ask.capability!r}"
    if ask.exclude and (
        candidate.agent in ask.exclude or candidate.node in ask.exclude or candidate.name in ask.exclude
    ):
        return "it is excluded by the caller"
    if ask.boundary and candidate.boundaries and ask.boundary not in candidate.boundaries:
        return f"it does not accept the boundary {ask.boundary!r}, only {', '.join(sorted(candidate.boundaries))}"
    if not ask.require <= candidate.tags:
        return f"it lacks the required tags {', '.join(sorted(ask.require - candidate.tags))}"
    if candidate.state != "online":
        return _STATES.get(candidate.state, f"the node is in the state {candidate.state!r}")
    return ""


def order(ask: Ask, candidates: Sequence[Candidate], config: CapabilityConfig = DEFAULTS, turn: int = 0) -> Route:
    """Return the eligible candidates in the order to try them, and for each other one its reason.

    First those with a free place, then those with more preferred tags, then the least loaded, then those of the
    asking node. Equals keep their order, turned by `turn`; with `ask.key` the key decides, so that the same key finds
    the same agent as long as it is among equals.
    """
    refused: dict[str, str] = {}
    ranked: list[tuple[float, bool, int, Candidate]] = []
    here = ask.here if config.local_first else ""
    prefer, step = ask.prefer, config.load_step
    capability, agent, node, boundary = ask.capability, ask.agent, ask.node, ask.boundary
    require = ask.require
    whole = frozenset(name for name in ask.exclude if "/" in name)
    plain = ask.exclude - whole
    bonus: dict[frozenset[str], float] = {}  # by the tags of a candidate: many carry the same
    for index, candidate in enumerate(candidates):
        # The same conditions as in `why_not`, inline: this loop runs for a thousand candidates within a millisecond.
        if (
            candidate.state != "online"
            or (capability and capability not in candidate.capabilities)
            or (agent and candidate.agent != agent)
            or (node and candidate.node != node)
            or (boundary and candidate.boundaries and boundary not in candidate.boundaries)
            or (require and not require <= candidate.tags)
            or (plain and (candidate.agent in plain or candidate.node in plain))
            or (whole and candidate.name in whole)
        ):
            refused[f"{candidate.node}/{candidate.agent}"] = why_not(ask, candidate)
            continue
        rank = candidate.load
        if not 0.0 <= rank < 1.0:
            rank = _odd_load(rank)
        elif step:
            rank = rank // step * step
        if prefer:
            more = bonus.get(candidate.tags)
            if more is None:
                more = bonus[candidate.tags] = PREFERRED * len(prefer & candidate.tags)
            rank -= more
        ranked.append((rank, candidate.node != here, index, candidate))
    ranked.sort()
    best = [entry[3] for entry in ranked]
    if len(best) > 1 and (ask.key or turn):
        _arrange_equals(ranked, best, ask.key, turn)
    return Route(best, refused, _reason(best, refused))


def _odd_load(load: float) -> float:
    """Rank a load outside of 0 to 1: negative is idle, full comes last, and what is no number behind that."""
    if load < 0:
        return 0.0
    return FULL + min(load, LOAD_MAX) if load >= 1 else FULL + LOAD_MAX


def _arrange_equals(
    ranked: list[tuple[float, bool, int, Candidate]], best: list[Candidate], key: str, turn: int
) -> None:
    """Arrange the equals at the head, by key or by turn; those behind them are second choice and stay as they are."""
    head = ranked[0][:2]
    equals = 1
    while equals < len(ranked) and ranked[equals][:2] == head:
        equals += 1
    if equals == 1:
        return
    if key:
        seed = crc32(key.encode(errors="replace"))
        best[:equals] = sorted(best[:equals], key=lambda c: crc32(f"{c.node}/{c.agent}".encode(errors="replace"), seed))
    else:
        shift = turn % equals
        best[:equals] = best[shift:equals] + best[:shift]


def _reason(best: Sequence[Candidate], refused: dict[str, str]) -> str:
    if best:
        return f"{best[0].name} is first of {len(best)} eligible (load {best[0].load:.2f}); {len(refused)} refused"
    return f"none of {len(refused)} candidates is eligible" if refused else "there are no candidates"


class CapabilityRouter:
    """The router; its only state is whose turn it is."""

    def __init__(self, config: CapabilityConfig) -> None:
        """Begin with the first."""
        self._config = config
        self._turn = -1

    async def route(self, ask: Ask, candidates: Sequence[Candidate]) -> Route | None:
        """Order the candidates; always an answer, since an empty one carries the reasons."""
        if self._config.take_turns:
            self._turn += 1
        return order(ask, candidates, self._config, max(self._turn, 0))


@asynccontextmanager
async def open_capability(config: CapabilityConfig, context: Context) -> AsyncIterator[Router]:  # noqa: ARG001
    """Open the router; it holds nothing."""
    yield CapabilityRouter(config)


FACTORY: Factory[Router] = Factory(
    name="capability",
    config=CapabilityConfig,
    open=open_capability,
    summary="Least loaded first, local first among equals; tags, boundaries and node states are obeyed.",
)
