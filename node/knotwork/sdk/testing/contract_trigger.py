"""What must every trigger do? Tell what happens, each under one id, go on from a mark, and leave when it is told to."""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from typing import TYPE_CHECKING, Any

import msgspec

from knotwork.sdk.errors import KnotworkError
from knotwork.sdk.testing.contract import LEFT_BEHIND_S, PluginContract
from knotwork.sdk.testing.one import host
from knotwork.sdk.trigger import ID_MAX, MARK_MAX_BYTES, Firing, Mark

if TYPE_CHECKING:
    from collections.abc import Sequence

    from knotwork.sdk.trigger import Trigger

QUIET_S = 1.0
"""When nothing more need come, this long is listened for more."""


class TriggerContract(PluginContract):
    """Set `fires` to how many firings the sample config tells from the beginning, by itself.

    `consumes` says that what was told is not told again to whoever begins anew: it was acknowledged somewhere. `waits`
    says that the sample config points at nothing, so that `firings` may raise `sdk.Unavailable`. `since` is the mark
    that the tests begin with.
    """

    fires: int = 0
    consumes: bool = False
    waits: bool = False
    since: Any = None

    async def told(self, trigger: Trigger, since: Any, count: int) -> list[Firing | Mark]:
        """Return what it tells: `count` firings, and what else comes until it is quiet."""
        found: list[Firing | Mark] = []
        async with aclosing(_generator(trigger, since)) as telling:
            try:
                while True:
                    enough = sum(isinstance(one, Firing) for one in found) >= count
                    async with asyncio.timeout(QUIET_S if enough else None):
                        found.append(await anext(telling))
            except TimeoutError:
                return found
            except StopAsyncIteration:
                raise AssertionError("the firings end by themselves: tell them for ever, or raise why not") from None
            except KnotworkError:
                assert self.waits, "cannot tell anything"
                return found

    def test_what_it_tells_is_well_formed(self) -> None:
        """Firings and marks, ids of their own, values that are JSON."""

        async def steps() -> None:
            async with host(self.factory, self.config) as trigger:
                found = await self.told(trigger, self.since, self.fires)
            for one in found:
                assert isinstance(one, Firing | Mark), f"told {type(one).__name__}, neither a Firing nor a Mark"
                mark = one.value if isinstance(one, Mark) else one.mark
                assert len(msgspec.json.encode(mark)) <= MARK_MAX_BYTES, "a mark is too large"
                if isinstance(one, Firing):
                    assert isinstance(one.id, str), "an id is no text"
                    assert 1 <= len(one.id) <= ID_MAX, f"an id has {len(one.id)} characters"
                    msgspec.json.encode([one.input, dict(one.more)])
            ids = _ids(found)
            assert len(ids) == len(set(ids)), "different firings have one id, or one was told twice"
            assert len(ids) >= self.fires, f"told {len(ids)} firings of {self.fires}"

        self.run(steps())

    def test_what_happened_has_the_same_id_whoever_tells_it(self) -> None:
        """Another instance that begins at the same place tells the same ids."""

        async def steps() -> None:
            found = []
            for _ in range(2):
                async with host(self.factory, self.config) as trigger:
                    found.append(_ids(await self.told(trigger, self.since, self.fires)))
            first, second = found
            assert not self.fires or set(first) & set(second), f"ids differ: {first[:3]}, then {second[:3]}"

        if not self.consumes:
            self.run(steps())

    def test_it_goes_on_from_its_mark(self) -> None:
        """Begun with the newest mark it told, it tells nothing again that came before."""

        async def steps() -> None:
            async with host(self.factory, self.config) as trigger:
                found = await self.told(trigger, self.since, self.fires)
                mark = _mark(found)
                if mark is None:
                    return
                again = await self.told(trigger, msgspec.json.decode(msgspec.json.encode(mark)), 0)
                repeated = set(_ids(found)) & set(_ids(again))
                assert not repeated, f"told again: {sorted(repeated)[:3]}"

        self.run(steps())

    def test_it_can_be_left_while_it_waits(self) -> None:
        """Cancelled while nothing happens, it ends soon, and several may run side by side."""

        async def steps() -> None:
            async with host(self.factory, self.config) as trigger, asyncio.TaskGroup() as group:
                tasks = [group.create_task(self.told(trigger, self.since, 1_000_000)) for _ in range(2)]
                await asyncio.wait(tasks, timeout=QUIET_S)
                for task in tasks:
                    task.cancel()
                _, pending = await asyncio.wait(tasks, timeout=LEFT_BEHIND_S)
                assert not pending, f"still telling {LEFT_BEHIND_S:g} s after it was cancelled"

        self.run(steps())


def _generator(trigger: Trigger, since: Any) -> Any:
    """Return the firings of a trigger; raises AssertionError for what is no async generator."""
    found = trigger.firings(since)
    assert hasattr(found, "aclose"), "firings() is no async generator"
    return found


def _ids(found: Sequence[Firing | Mark]) -> list[str]:
    return [one.id for one in found if isinstance(one, Firing)]


def _mark(found: Sequence[Firing | Mark]) -> Any:
    marks = [one.value if isinstance(one, Mark) else one.mark for one in found]
    return next((mark for mark in reversed(marks) if mark is not None), None)
