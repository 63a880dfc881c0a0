"""How does one configured plugin start, run, fail and stop without harming anybody else?

A slot enters, holds and leaves its plugin in one task; that is what makes a `TaskGroup` inside a plugin legal. What a
plugin raises, in its start, its background work or its end, stays here: the slot says why and tries again with
growing pauses, or is quarantined when it crashes again and again.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from knotwork.bus import clock
from knotwork.sdk import Context, Factory, KnotworkError, PluginConfig, PluginFailed, Probes, Unavailable
from knotwork.sdk.factory import Kind
from knotwork.sockets import raised
from knotwork.sockets.pace import History, Pace

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from knotwork.sockets.catalog import Entry

log = logging.getLogger(__name__)
State = Literal["new", "starting", "running", "waiting", "stopping", "stopped", "failed", "quarantined"]
GRACE_S = 1.0
BLOCKS = "plugin.blocks"


@dataclass(frozen=True)
class Instance:
    """One plugin as the operator asked for it: kind and id from TOML, a type, and its checked config.

    Two equal instances are the same wish, so an unchanged one is never restarted. `fingerprint` stands for what the
    config cannot show (a rotated secret). `memory_mb` (0: no limit) counts when hosted. `again` looks once more for a
    plugin that is broken and returns what the instance is when it was mended. Times in seconds.
    """

    kind: Kind
    id: str
    entry: Entry
    config: PluginConfig
    hosted: bool = False
    memory_mb: int = 0
    on_start_error: Literal["retry", "fail", "ignore"] = "retry"
    start_timeout_s: float = 10.0
    stop_timeout_s: float = 5.0
    fingerprint: str = ""
    again: Callable[[], Awaitable[Instance]] | None = field(default=None, compare=False)

    @property
    def key(self) -> tuple[Kind, str]:
        """Return kind and id."""
        return (self.kind, self.id)

    def same_as(self, other: Instance) -> bool:
        """Say whether a slot that runs `other` need not be restarted for this one."""
        return _essence(self) == _essence(other)


def _essence(one: Instance) -> tuple[Any, ...]:
    settings = (one.hosted, one.memory_mb, one.on_start_error, one.start_timeout_s, one.stop_timeout_s, one.fingerprint)
    return (one.kind, one.id, one.entry.type, one.entry.source, one.config, settings)


@dataclass(slots=True, eq=False)
class Lease:
    """Somebody is using the plugin: a context manager that gives the plugin and counts until it is left.

    What is no `Exception` (a `SystemExit`, a panic of an extension) would end the whole node: it becomes `PluginFailed`.
    """

    slot: Slot
    revoke: Callable[[], None] | None = None
    plugin: Any = None

    def __enter__(self) -> Any:
        """Return the plugin; raises `Unavailable` (`plugin.not_running`) when the slot has none."""
        self.plugin = self.slot.plugin
        self.slot.leases.add(self)
        return self.plugin

    def __exit__(self, _kind: object = None, error: BaseException | None = None, _trace: object = None) -> None:
        self.slot.leases.discard(self)
        if not self.slot.leases:
            self.slot.idle.set()
        if error is not None and not isinstance(error, raised.HARMLESS):
            raise raised.as_ours(error) from error


@dataclass(eq=False)
class Slot:
    """One running (or failing) plugin. `since_ns` is of `clock.steady_ns`, `retry_at_s` monotonic (0: no retry is due)."""

    instance: Instance
    factory: Factory[Any]
    context: Context
    on_change: Callable[[Slot], None]
    pace: Pace = field(default_factory=Pace)
    state: State = "new"
    why: str = ""
    failure: KnotworkError | None = None
    since_ns: int = 0
    retry_at_s: float = 0.0
    starts: int = 0
    leases: set[Lease] = field(default_factory=set)

    def __post_init__(self) -> None:
        """Make the events that its task waits for."""
        self.idle = asyncio.Event()
        self._plugin: Any = None
        self._stop = asyncio.Event()
        self._wake = asyncio.Event()
        self._moved = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._history = History(self.pace)

    @property
    def kind(self) -> Kind:
        """Return the kind of plugin."""
        return self.instance.kind

    @property
    def id(self) -> str:
        """Return the instance's name in TOML."""
        return self.instance.id

    @property
    def plugin(self) -> Any:
        """Return the opened plugin; raises `Unavailable` (`plugin.not_running`) when there is none."""
        if self._plugin is None:
            raise Unavailable(
                f"{self.kind} {self.id} is {self.state}" + (f": {self.why}" if self.why else ""),
                code="plugin.not_running",
                retry_after_s=max(0.0, self.retry_at_s - time.monotonic()) if self.retry_at_s else None,
            )
        return self._plugin

    def lease(self, revoke: Callable[[], None] | None = None) -> Lease:
        """Return a context manager giving the plugin; stopping waits for it, then calls `revoke` and goes on."""
        return Lease(self, revoke)

    def start(self, group: asyncio.TaskGroup) -> None:
        """Begin, in a task of `group`; raises RuntimeError when the group is closing."""
        running = self._run()
        try:
            self._task = group.create_task(running, name=f"slot {self.kind}.{self.id}")
        except RuntimeError:
            running.close()
            raise

    async def settled(self, timeout_s: float) -> State:
        """Return the state once it is neither new nor starting; after `timeout_s` seconds whatever it is."""
        return await self.reached(("running", "waiting", "stopping", "stopped", "failed", "quarantined"), timeout_s)

    async def reached(self, states: tuple[State, ...], timeout_s: float) -> State:
        """Return the state once it is one of `states`; after `timeout_s` seconds whatever it is."""
        try:
            async with asyncio.timeout(timeout_s):
                while self.state not in states:
                    await self._moved.wait()
        except TimeoutError:
            pass
        return self.state

    def restart(self) -> None:
        """Start again now, also out of quarantine; a running plugin is left first."""
        self._history.forget()
        self._wake.set()

    async def restarted(self, timeout_s: float) -> State:
        """Restart and return the state once the new start has succeeded or failed; after `timeout_s` whatever it is."""
        before = self.starts
        self.restart()
        try:
            async with asyncio.timeout(timeout_s):
                while self.starts == before or self.state in ("new", "starting"):
                    await self._moved.wait()
        except TimeoutError:
            pass
        return self.state

    async def stop(self, drain_s: float = 0.0) -> bool:
        """Stop within `drain_s` (waiting for leases) plus the stop time-out, seconds; False when it cannot be ended.

        At the end of `drain_s` the leases still out are revoked. A plugin that does not even answer cancellation is
        given up on: its task goes on and holds nothing but itself.
        """
        if not await self._drained(drain_s):
            for lease in [lease for lease in self.leases if lease.revoke is not None]:
                lease.revoke()  # type: ignore[misc]  # filtered above
            await self._drained(min(drain_s, GRACE_S))
        self._stop.set()
        self._wake.set()
        if self._task is None:
            self._to("stopped")
            return True
        if self.state != "starting" and await self._ended(self.instance.stop_timeout_s + GRACE_S):
            return True
        self._task.cancel()
        ended = await self._ended(GRACE_S)
        if not ended:
            log.error("%s %s does not end, not even when cancelled; given up on", self.kind, self.id)
        return ended

    async def probe(self, timeout_s: float) -> None:
        """Ask the plugin whether it is well; raises `Unavailable`, or `PluginFailed` with its reason."""
        plugin = self.plugin
        if not isinstance(plugin, Probes):
            return
        try:
            async with asyncio.timeout(timeout_s):
                await plugin.probe()
        except (KnotworkError, *raised.ENDS):
            raise
        except BaseException as error:
            raise PluginFailed(f"{self.kind} {self.id}: {raised.text(error)}", code="plugin.unwell") from error

    async def _drained(self, timeout_s: float) -> bool:
        self.idle.clear()
        if not self.leases:
            return True
        try:
            async with asyncio.timeout(timeout_s):
                await self.idle.wait()
        except TimeoutError:
            return False
        return True

    async def _ended(self, timeout_s: float) -> bool:
        if self._task is not None and not self._task.done():
            await asyncio.wait([self._task], timeout=timeout_s)
        return self._task is None or self._task.done()

    async def _run(self) -> None:
        """Live until stopped: start, hold, and after a failure pause and start again."""
        try:
            while not self._stop.is_set():
                self._wake.clear()
                began_s = time.monotonic()
                ran, failure = await self._live()
                if failure is not None and not self._stop.is_set():
                    await self._pause(failure, ran=ran, ran_s=time.monotonic() - began_s)
        finally:
            self._to("stopped", self.why)

    async def _live(self) -> tuple[bool, KnotworkError | None]:
        """Enter, hold and leave the plugin once; return whether it ran, and why it ended when nobody asked for that."""
        task = asyncio.current_task()
        assert task is not None
        self.starts += 1
        self._to("starting", str(self.failure) if self.failure is not None else "")  # why it is tried again
        ran = False
        try:
            async with asyncio.timeout(self.instance.start_timeout_s) as limit:
                async with self.factory.open(self.instance.config, self.context) as plugin:
                    if isinstance(plugin, Probes):
                        await plugin.probe()
                    limit.reschedule(None)
                    ran = True
                    self._plugin = plugin
                    self._to("running")
                    try:
                        await self._wake.wait()
                    finally:
                        self._plugin = None
                        self._to("stopping")
                        limit.reschedule(asyncio.get_running_loop().time() + self.instance.stop_timeout_s)
        except asyncio.CancelledError as error:
            if task.cancelling():
                raise
            return ran, PluginFailed(f"cancelled itself: {error}", code="plugin.crashed")
        except TimeoutError as error:
            if not limit.expired():
                return ran, raised.as_ours(error)
            if not ran:
                return ran, PluginFailed(
                    f"not started after {self.instance.start_timeout_s:g} s",
                    code="plugin.start_timeout",
                    hint="See its log, or raise plugins.start_timeout_s.",
                )
            log.warning("%s %s did not stop in %g s", self.kind, self.id, self.instance.stop_timeout_s)
        except BaseException as error:  # the boundary: whatever a plugin raises ends here
            if isinstance(error, GeneratorExit) and raised.thrown_away(task):
                raise
            return ran, raised.as_ours(error)
        return ran, None

    async def _pause(self, failure: KnotworkError, *, ran: bool, ran_s: float) -> None:
        """Wait for the next try, or for somebody to ask for it."""
        self.failure = failure
        if not ran and failure.code != "plugin.crashed" and self.instance.on_start_error != "retry":
            self._to("failed", str(failure))
            await self._wake.wait()
            return
        if failure.code == BLOCKS:  # each further try would hold up the whole node again
            self._to("quarantined", str(failure))
            await self._wake.wait()
            return
        chance = random.random()  # noqa: S311  spreads retries, keeps no secret
        crashed = failure.code == "plugin.crashed" or (ran and not isinstance(failure, Unavailable))
        pause_s = self._history.failed(
            now_s=time.monotonic(), ran_s=ran_s if ran else 0.0, crashed=crashed, chance=chance
        )
        if pause_s is None:
            times = f"{self.pace.crashes_max} crashes in {self.pace.crash_window_s:g} s"
            self._to("quarantined", f"{times}, the last one: {failure}")
            await self._wake.wait()
            return
        self.retry_at_s = time.monotonic() + max(pause_s, failure.retry_after_s or 0.0)
        self._to("waiting", str(failure))
        try:
            async with asyncio.timeout(self.retry_at_s - time.monotonic()):
                await self._wake.wait()
        except TimeoutError:
            pass
        finally:
            self.retry_at_s = 0.0

    def _to(self, state: State, why: str = "") -> None:
        """Enter a state and tell whoever waits or listens."""
        if state == self.state:
            return
        self.state, self.why, self.since_ns = state, why, clock.steady_ns()
        if state == "running":
            self.failure = None
        self._moved.set()
        self._moved = asyncio.Event()
        self.on_change(self)
