"""Which plugins run now, and how are many of them exchanged in one step?

`prepare` starts the new ones beside the old, `commit` swaps without an await, so a reader sees the old world or the
new, and `retire` lets the old ones finish; or `abandon` leaves everything as it was.
"""

from __future__ import annotations

import asyncio
import itertools
import time
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from knotwork.sdk import KINDS, Conflict, Context, KnotworkError, NotFound, PluginFailed, Unavailable
from knotwork.sockets import hosted
from knotwork.sockets.pace import Pace
from knotwork.sockets.slot import GRACE_S, Instance, Slot

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Iterable

    from knotwork.sdk import Factory, PluginConfig
    from knotwork.sdk.factory import Kind

Key = tuple["Kind", str]
PATIENCE_S = 3.0
"""So long the start of a node waits for a plugin that is slow to open; it is ready without it, which goes on opening."""


class Slots:
    """All slots of a node, by kind and id. Their tasks live in `group`; `context_for` makes what a plugin is given."""

    def __init__(
        self,
        group: asyncio.TaskGroup,
        context_for: Callable[[Instance], Context],
        on_change: Callable[[Slot], None],
        *,
        hosting: hosted.Hosting | None = None,
        pace: Pace | None = None,
    ) -> None:
        """Start nothing yet. `on_change` is called at every change of state of any slot, in the loop; it must not raise."""
        self._group = group
        self._context_for = context_for
        self._on_change = on_change
        self._hosting = hosting or hosted.Hosting()
        self._pace = pace or Pace()
        self._preparing = False
        self._table: dict[Key, Slot] = {}
        self._by_kind: dict[Kind, tuple[Slot, ...]] = dict.fromkeys(KINDS, ())

    def get(self, kind: Kind, id: str) -> Slot | None:  # noqa: A002  the word for it
        """Return the slot of one instance, None when nothing of that name is configured."""
        return self._table.get((kind, id))

    def all(self, kind: Kind) -> tuple[Slot, ...]:
        """Return the slots of one kind in the order of the configuration."""
        return self._by_kind[kind]

    def everything(self) -> tuple[Slot, ...]:
        """Return all slots."""
        return tuple(self._table.values())

    async def prepare(
        self, wanted: Iterable[Instance], *, lenient: bool = False, exclusive_drain_s: float = 1.0
    ) -> Prepared:
        """Start whatever of `wanted` (the whole world to be) is new or changed, beside what runs.

        Exclusive ones are started last, after their old slot was stopped (its work gets `exclusive_drain_s` seconds).
        Raises `PluginFailed` (`plugin.start_failed`, all reasons in `detail["problems"]`) with everything as it was,
        when one fails to start. A plugin that asks for patience (`Unavailable`), or for what is not there (`NotFound`), or whose `on_start_error` is `ignore`
        is no failure; with `lenient` (the node's own start) only `on_start_error = "fail"` is one, and
        what is slow is left to open by itself.
        Raises `Conflict` while another change is under way.
        """
        if self._preparing:
            raise Conflict(
                "another change of the plugins is under way", code="plugin.busy", hint="Try again when it is done."
            )
        self._preparing = True
        prepared = Prepared(self, lenient=lenient)
        async with AsyncExitStack() as undo:
            undo.push_async_callback(prepared.abandon)
            await prepared.start(list(wanted), exclusive_drain_s)
            undo.pop_all()
        return prepared

    async def close(self, drain_s: float) -> list[Slot]:
        """Stop everything, each slot's work given `drain_s` seconds; return those that could not be ended."""
        prepared = Prepared(self, lenient=True, old=list(self._table.values()))
        self.swap({})
        return await prepared.retire(drain_s)

    def make(self, instance: Instance) -> Slot:
        """Return a slot that is not started; raises what `context_for` raises."""
        slot = Slot(instance, instance.entry.factory, self._context_for(instance), self._on_change, self._pace)
        slot.factory = self._factory(instance) if instance.again is None else self._mended(slot, instance.again)
        return slot

    def _factory(self, instance: Instance) -> Factory[Any]:
        """Return what opens an instance, here or in a process of its own."""
        entry = instance.entry
        apart = instance.hosted or entry.hosted_only
        return hosted.wrap(entry, instance.memory_mb, self._hosting) if apart else entry.factory

    def _mended(self, slot: Slot, again: Callable[[], Awaitable[Instance]]) -> Factory[Any]:
        """Return a factory for a broken plugin: the first start says what is wrong, each later one looks again.

        Once it was mended the slot is that of any other instance.
        """
        tries = itertools.count(1)
        broken = slot.instance.entry.factory

        @asynccontextmanager
        async def open_again(config: PluginConfig, context: Context) -> AsyncIterator[Any]:
            if next(tries) == 1:
                async with broken.open(config, context) as nothing:
                    yield nothing
                return
            instance = await again()
            factory = self._factory(instance)
            async with factory.open(instance.config, context) as plugin:
                slot.instance, slot.factory = instance, factory
                yield plugin

        return replace(broken, open=open_again)

    def launch(self, slot: Slot) -> None:
        """Start a slot; raises `Unavailable` (`node.stopping`) when the node is closing."""
        try:
            slot.start(self._group)
        except RuntimeError as error:
            raise Unavailable("the node is stopping", code="node.stopping") from error

    def swap(self, table: dict[Key, Slot]) -> None:
        """Let every reader see `table` from now on."""
        self._table = table
        self._by_kind = {kind: tuple(slot for slot in table.values() if slot.kind == kind) for kind in KINDS}

    def current(self) -> dict[Key, Slot]:
        """Return a copy of what readers see now."""
        return dict(self._table)

    def release(self) -> None:
        """Allow the next change."""
        self._preparing = False


@dataclass(eq=False)
class Prepared:
    """A change that is ready: commit or abandon it, once."""

    slots: Slots
    lenient: bool
    old: list[Slot] = field(default_factory=list)
    started: list[Slot] = field(default_factory=list)
    kept: list[Slot] = field(default_factory=list)
    _order: list[Key] = field(default_factory=list)
    _cleared: list[Slot] = field(default_factory=list)
    _open: bool = True

    async def start(self, wanted: list[Instance], exclusive_drain_s: float) -> None:
        """Start what is new or changed and judge it; see `Slots.prepare`."""
        current = self.slots.current()
        self._order = [instance.key for instance in wanted]
        fresh: list[Instance] = []
        for instance in wanted:
            slot = current.get(instance.key)
            if slot is not None and instance.same_as(slot.instance):
                self.kept.append(slot)
            else:
                fresh.append(instance)
        kept = {id(slot) for slot in self.kept}
        self.old = [slot for slot in current.values() if id(slot) not in kept]
        beside = [one for one in fresh if not (one.entry.factory.exclusive and one.key in current)]
        await self._begin(beside)
        for instance in fresh:
            if instance not in beside:
                await current[instance.key].stop(exclusive_drain_s)
                self._cleared.append(current[instance.key])
        await self._begin([one for one in fresh if one not in beside])

    async def _begin(self, instances: list[Instance]) -> None:
        """Start all of them side by side; raises `PluginFailed` naming every one that may not fail and did."""
        problems: list[dict[str, str]] = []
        begun: list[Slot] = []
        for instance in instances:
            try:
                slot = self.slots.make(instance)
                self.slots.launch(slot)
            except (KnotworkError, OSError) as error:
                problems.append(_problem(instance, str(error), getattr(error, "code", "plugin.start_failed")))
            else:
                begun.append(slot)
                self.started.append(slot)
        end_s = time.monotonic() + PATIENCE_S
        for slot in begun:  # they start at the same time, so waiting in turn takes as long as the slowest
            limit_s = slot.instance.start_timeout_s + GRACE_S
            await slot.settled(min(limit_s, max(0.0, end_s - time.monotonic())) if self._may_be_late(slot) else limit_s)
            if not self._tolerable(slot):
                failure = slot.failure
                code = failure.code if failure else "plugin.start_timeout"
                problems.append(_problem(slot.instance, slot.why or "does not answer, not even to be cancelled", code))
        if problems:
            told = "; ".join(f"{problem['id']}: {problem['message']}" for problem in problems)
            raise PluginFailed(
                f"not started: {told}",
                code="plugin.start_failed",
                hint='Mend it, or set on_start_error = "ignore" for it.',
                detail={"problems": problems},
            )

    def _may_be_late(self, slot: Slot) -> bool:
        """Return whether the others need not wait for a slot: nothing depends on how its start ends."""
        return self.lenient and slot.instance.on_start_error != "fail"

    def _tolerable(self, slot: Slot) -> bool:
        policy = slot.instance.on_start_error
        if slot.state == "running" or policy == "ignore" or self._may_be_late(slot):
            return True
        return policy == "retry" and isinstance(slot.failure, Unavailable | NotFound)

    def commit(self) -> None:
        """Let readers see the new world; one step without an await. The old slots run on until `retire`."""
        assert self._open, "a change is committed or abandoned once"
        self._open = False
        table = {slot.instance.key: slot for slot in (*self.kept, *self.started)}
        self.slots.swap({key: table[key] for key in self._order})
        self.slots.release()

    async def retire(self, drain_s: float) -> list[Slot]:
        """Stop the old slots, each after its work is done or `drain_s` seconds; return those that could not be ended."""
        return await _stop_all(self.old, drain_s)

    async def abandon(self) -> None:
        """Stop what was started and start again what had to be stopped; readers see what they saw."""
        if not self._open:
            return
        self._open = False
        try:
            await _stop_all(self.started, 0.0)
            if self._cleared:
                table = self.slots.current()
                for old in self._cleared:
                    again = self.slots.make(old.instance)
                    self.slots.launch(again)
                    table[old.instance.key] = again
                self.slots.swap(table)
        finally:
            self.slots.release()


async def _stop_all(slots: list[Slot], drain_s: float) -> list[Slot]:
    """Stop all of them side by side; return those that could not be ended."""
    async with asyncio.TaskGroup() as group:
        stops = [(slot, group.create_task(slot.stop(drain_s))) for slot in slots]
    return [slot for slot, stop in stops if not stop.result()]


def _problem(instance: Instance, message: str, code: str) -> dict[str, str]:
    return {"kind": instance.kind, "id": instance.id, "code": code, "message": message}
