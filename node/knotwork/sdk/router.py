"""What a router is: something that orders the candidates for one piece of work and says why."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


@dataclass(frozen=True, slots=True)
class Ask:
    """What is looked for. Empty fields mean: anything will do.

    `require` are tags a candidate must carry, `prefer` tags that move it forward, `exclude` names (`agent`, `node` or
    `node/agent`) that are out. `here` is the node that asks. Work with the same `key` should go to the same agent.
    """

    capability: str = ""
    agent: str = ""
    node: str = ""
    boundary: str = ""
    require: frozenset[str] = frozenset()
    prefer: frozenset[str] = frozenset()
    exclude: frozenset[str] = frozenset()
    here: str = ""
    key: str = ""


@dataclass(frozen=True, slots=True)
class Candidate:
    """One agent on one node, as the directory knows it now. `load` is running work over places, 1.0 is full.

    `standing` is how the policy of the boundary that is asked for sees it: `preferred`, `fallback`, or empty when that
    boundary prefers nobody. Whom the policy forbids is no candidate.
    """

    node: str
    agent: str
    capabilities: frozenset[str]
    tags: frozenset[str] = frozenset()
    boundaries: frozenset[str] = frozenset()
    state: str = "online"
    load: float = 0.0
    executor: str = ""
    standing: str = ""

    @property
    def name(self) -> str:
        """Return `node/agent`."""
        return f"{self.node}/{self.agent}"


@dataclass(frozen=True, slots=True)
class Route:
    """The answer: candidates to try, best first, and for each one left out the reason in words.

    With `pin` a durable task waits for the first candidate alone, as long as that is online; without it, it waits for
    whoever has the capability and is free first. Calls are the same either way.
    """

    candidates: Sequence[Candidate]
    refused: Mapping[str, str] = field(default_factory=dict)
    reason: str = ""
    pin: bool = False


class Router(Protocol):
    """The contract of a router. The configured routers are asked in order; the first answer wins."""

    async def route(self, ask: Ask, candidates: Sequence[Candidate]) -> Route | None:
        """Return the order to try, or None to leave it to the next router."""
        ...
