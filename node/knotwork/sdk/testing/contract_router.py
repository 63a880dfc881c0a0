"""What must every router do? Order what it is given, explain what it leaves out, and be quick about it."""

from __future__ import annotations

import math
import time
from typing import TYPE_CHECKING

from knotwork.sdk.router import Ask, Candidate, Route
from knotwork.sdk.testing.contract import PluginContract
from knotwork.sdk.testing.one import host

if TYPE_CHECKING:
    from collections.abc import Sequence

MANY = 1000
MANY_S = 0.1
TRIES = 30


def candidates(count: int, capability: str = "review") -> list[Candidate]:
    """Return `count` agents on a few nodes, differing in load, state, tags and boundaries."""
    states = ("online", "online", "online", "draining")
    return [
        Candidate(
            node=f"node{number % 7}",
            agent=f"agent{number}",
            capabilities=frozenset({capability, f"other{number % 3}"}),
            tags=frozenset({f"tag{number % 5}"}),
            boundaries=frozenset({"personal"} if number % 2 else ()),
            state=states[number % len(states)],
            load=(number % 10) / 10,
        )
        for number in range(count)
    ]


class RouterContract(PluginContract):
    """Set `ask` and `candidates` when the router needs something special to find a way."""

    ask: Ask = Ask(capability="review")
    candidates: Sequence[Candidate] = tuple(candidates(20))
    many_s: float = MANY_S

    def test_orders_what_it_was_given(self) -> None:
        """Every candidate of the answer was among those given, at most once, and none is refused at the same time."""

        async def steps() -> None:
            async with host(self.factory, self.config) as router:
                route = await router.route(self.ask, self.candidates)
            if route is None:
                return
            assert isinstance(route, Route), f"no route: {type(route).__name__}"
            names = [candidate.name for candidate in route.candidates]
            assert len(names) == len(set(names)), "one candidate comes twice"
            assert all(candidate in self.candidates for candidate in route.candidates), "made up a candidate"
            assert not set(names) & set(route.refused), "chose and refused the same candidate"
            assert all(route.refused.values()), "refused one without saying why"

        self.run(steps())

    def test_leaves_its_input_alone_and_is_repeatable_in_kind(self) -> None:
        """The list it was given is unchanged, and the same question is answered for the same set."""

        async def steps() -> None:
            given = list(self.candidates)
            async with host(self.factory, self.config) as router:
                first, second = [await router.route(self.ask, given) for _ in range(2)]
            assert given == list(self.candidates), "changed the list it was given"
            assert (first is None) == (second is None)
            if first is not None and second is not None:
                assert set(first.candidates) == set(second.candidates)

        self.run(steps())

    def test_answers_when_there_is_nobody(self) -> None:
        """No candidates give an empty route or None, not an error."""

        async def steps() -> None:
            async with host(self.factory, self.config) as router:
                for ask in (self.ask, Ask(), Ask(capability="nobody-does-this", require=frozenset({"x"}))):
                    route = await router.route(ask, [])
                    assert route is None or not route.candidates

        self.run(steps())

    def test_is_quick_with_many(self) -> None:
        """A thousand candidates are ordered within `many_s` seconds: it is on the path of every call."""

        async def steps() -> None:
            many = candidates(MANY, self.ask.capability or "review")
            took_s = math.inf
            async with host(self.factory, self.config) as router:
                for _ in range(TRIES):  # one that can be quick is so at last, also while others use the processor
                    took_s = min(took_s, await self._timed(router.route, many))
                    if took_s <= self.many_s:
                        break
            assert took_s <= self.many_s, f"took {took_s:.3f} s for {MANY} candidates"

        self.run(steps())

    async def _timed(self, route: object, many: Sequence[Candidate]) -> float:
        began_s = time.perf_counter()
        await route(self.ask, many)  # type: ignore[operator]  # a router's own method
        return time.perf_counter() - began_s
