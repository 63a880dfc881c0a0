"""How does one launch live? Started, registered, idle, stopped: each step on record before the next is taken.

A launch counts as a success when its agent has registered, not when a command was issued. What does not register in
time, or ends before, is stopped, cleared away and recorded as failed with the reason the target gives.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import msgspec

from knotwork.bus import clock
from knotwork.sdk.errors import Invalid, KnotworkError, PluginFailed, TimedOut
from knotwork.sdk.spinup import Condition, LaunchRequest
from knotwork.sockets import raised
from knotwork.spinup.records import LIVE

if TYPE_CHECKING:
    from knotwork.sdk.spinup import Launched, SpinUp
    from knotwork.spinup.records import Launch, Target
    from knotwork.spinup.registry import Registry

log = logging.getLogger(__name__)
LAUNCH_TIMEOUT_S = 120.0
CONDITION_TIMEOUT_S = 20.0
LEFT_GRACE_S = 30.0
AGAIN_MIN_S, AGAIN_MAX_S = 1.0, 60.0
"""How long what could not be ended is left alone: doubled each time."""
LEFT = "its target is not configured any more"
MOVED = "its target leads elsewhere now"
STOPS = "its node stops"
S = 1_000_000_000


@dataclass(frozen=True, slots=True)
class Own:
    """One of this node's targets: what the operator wrote, and its plugin (`lease` raises when it does not run).

    `place` marks where it leads, empty while nobody can tell: targets of two types, or of two machines, have two.
    """

    target: str
    type: str
    lease: Callable[[], AbstractContextManager[SpinUp]]
    capabilities: tuple[str, ...] = ()
    boundaries: tuple[str, ...] = ()
    cost: float = 0.0
    max_concurrent: int = 1
    cooldown_s: float = 30.0
    register_s: float = 120.0
    idle_s: float = 300.0
    grace_s: float = 30.0
    health_s: float = 300.0
    wait_s: float = 0.0
    enabled: bool = True
    place: str = ""

    def started(self, launch: Launch) -> bool:
        """Return whether a launch of the target's name is where it leads now, as far as anybody can tell."""
        return not self.place or launch.place in ("", self.place)

    def ends_with_node(self) -> bool:
        """Return whether what was started ends with this node, as its plugin says; False while that does not run."""
        try:
            with self.lease() as plugin:
                return bool(getattr(plugin, "ends_with_node", False))
        except KnotworkError:
            return False

    def declared(self, target: Target, *, anew: bool) -> Target:
        """Return the record of a target as it is configured; `anew` forgets how it did until now."""
        if anew:
            target = msgspec.structs.replace(target, health="unknown", why="", failures=0, useless=0, failed_why="")
        return msgspec.structs.replace(
            target, type=self.type, capabilities=self.capabilities, boundaries=self.boundaries, cost=self.cost,
            max_concurrent=self.max_concurrent, cooldown_s=self.cooldown_s, register_s=self.register_s,
            wait_s=self.wait_s, enabled=self.enabled,
        )  # fmt: skip


class Agents(Protocol):
    """What the mesh knows of the agents that launches brought."""

    def of_launch(self, launch: str) -> str:
        """Return the node (or `node/agent`) that registered for a launch and is online, "" while there is none."""

    def is_busy(self, name: str) -> bool:
        """Return whether any agent there works or has work waiting, as far as it told with its last beat."""

    async def idle_s(self, name: str) -> float:
        """Ask it for how many seconds it has had no work, 0 while it has some; raises when it does not answer."""

    async def goodbye(self, name: str, grace_s: float) -> None:
        """Ask it to finish and leave within `grace_s` seconds; returns when it has left, or should have."""


class Launcher:
    """Carries the launches of this node's targets through their life."""

    def __init__(
        self,
        registry: Registry,
        agents: Agents,
        env: Callable[[Launch], Awaitable[Mapping[str, str]]],
        *,
        project: str,
        on_change: Callable[[Launch], None],
    ) -> None:
        """`env(launch)` is what the launched agent needs to join; `on_change` hears of every new state."""
        self._registry, self._agents, self._env = registry, agents, env
        self._project, self._on_change = project, on_change
        self._again: dict[str, tuple[float, float]] = {}
        """When a launch that could not be ended is tried again (monotonic), and after which pause."""
        self._met: set[str] = set()
        """Launches that we started, or found there: others may have ended with our node, and their agents look online yet."""

    async def start(self, own: Own, launch: Launch) -> Launch:
        """Start an agent for a launch that is on record; returns the record, `failed` when the target refused."""
        try:
            async with asyncio.timeout(LAUNCH_TIMEOUT_S):
                request = LaunchRequest(
                    id=launch.id, target=own.target, project=self._project, capability=launch.capability,
                    boundary=launch.boundary, task=launch.task, env=await self._env(launch),
                )  # fmt: skip
                with own.lease() as plugin:
                    ref = _kept(await plugin.launch(request))
        except TimeoutError:
            late = TimedOut(f"{own.target} did not start an agent within {LAUNCH_TIMEOUT_S:g} s.", code="spinup.slow")
            return await self.failed(own, launch, str(late))
        except KnotworkError as error:
            return await self.failed(own, launch, str(error))
        except Exception as error:  # noqa: BLE001  the plugin's own bug ends this launch and nothing else
            return await self.failed(own, launch, raised.text(error))
        self._met.add(launch.id)
        return await self._moved(launch, ref=ref)

    def agent_of(self, launch: Launch) -> str:
        """Return what registered for a launch and is online, "" while there is nothing."""
        return self._agents.of_launch(launch.id)

    def is_due(self, launch: Launch) -> bool:
        """Return whether it is time to try again to end a launch, if that failed before."""
        return time.monotonic() >= self._again.get(launch.id, (0.0, 0.0))[0]

    async def look(
        self, own: Own, launch: Launch, now_ns: int, *, missing: bool = False, waited_s: float = 0.0
    ) -> Launch:
        """Take a launch one step on, when it is time.

        `missing`: nobody takes yet what it was started for; `waited_s`: for so long such work waits to be taken, 0 when
        none does.
        """
        if launch.state == "starting":
            return await self._starting(own, launch, now_ns, missing=missing)
        if launch.state in ("up", "idle"):
            return await self._up(own, launch, now_ns, waited_s)
        if launch.state == "stopping" and self.is_due(launch):
            return await self.stop(own, launch, launch.why)
        return launch

    async def call_off(self, launch: Launch, why: str) -> Launch:
        """Put it on record that a launch is to end, which is being started or looked after just now."""
        return await self._moved(launch, state="stopping", why=why)

    async def stop(self, own: Own, launch: Launch, why: str) -> Launch:
        """End a launch: its agent is asked to leave, then the target ends it; returns when it is gone.

        What could not be ended is `stopping` still, to be tried again; what the target can never end counts as ended
        when its agent has left.
        """
        if launch.state != "stopping":
            launch = await self._moved(launch, state="stopping", why=why)
        await self._goodbye(launch.agent, own.grace_s)
        problem = await self._end(own, launch)
        if isinstance(problem, Invalid):
            return await self._unendable(launch, launch.agent, f"{problem}"[:4000])
        if problem is not None:
            return await self._not_ended(launch, f"{problem}"[:4000])
        self._again.pop(launch.id, None)
        return await self._moved(launch, state="stopped", ended_ns=clock.now_ns())

    async def _goodbye(self, agent: str, grace_s: float) -> None:
        """Ask an agent to leave: what it cannot finish until then it gives back. "" is none."""
        if not agent:
            return
        try:
            await self._agents.goodbye(agent, grace_s)
        except KnotworkError as error:
            log.debug("%s could not be told to leave: %s", agent, error)

    async def _not_ended(self, launch: Launch, why: str) -> Launch:
        """Leave a launch that could not be ended alone for a while; it is still stopping."""
        if why != launch.why:
            log.warning("launch %s of %s does not end: %s", launch.id, launch.target, why)
        _, pause_s = self._again.get(launch.id, (0.0, 0.0))
        pause_s = max(AGAIN_MIN_S, min(2 * pause_s, AGAIN_MAX_S))
        self._again[launch.id] = time.monotonic() + pause_s, pause_s
        return await self._moved(launch, why=why)

    async def left(self, launch: Launch, because: str = LEFT) -> Launch:
        """End a launch whose target, and so what could end it, is gone: its agent is asked to leave, its key is taken back.

        `stopped` when the agent has left; else `failed`, because nobody can tell what is left of it.
        """
        agent = launch.agent or self.agent_of(launch)
        if launch.state != "stopping":
            launch = await self._moved(launch, state="stopping", why=because)
        await self._goodbye(agent, LEFT_GRACE_S)
        why = f"{because[0].upper()}{because[1:]}, so nobody can end what it started, or tell whether it is gone: look there."
        return await self._unendable(launch, agent, why)

    async def _unendable(self, launch: Launch, agent: str, why: str) -> Launch:
        """End the record of a launch that nobody can end: well when its `agent` has left, else `failed` with the reason."""
        self._again.pop(launch.id, None)
        if agent and not self.agent_of(launch):
            return await self._moved(launch, state="stopped", ended_ns=clock.now_ns())
        log.warning("launch %s of %s: %s", launch.id, launch.target, why)
        return await self._moved(launch, state="failed", why=why, ended_ns=clock.now_ns())

    async def failed(self, own: Own, launch: Launch, why: str) -> Launch:
        """Record that a launch brought no agent that is of use, and clear away what is left of it."""
        await self._goodbye(self.agent_of(launch), own.grace_s)
        if launch.ref:
            problem = await self._end(own, launch)
            why = why if problem is None else f"{why} (and it could not be cleared away: {problem})"
        log.warning("launch %s of %s failed: %s", launch.id, own.target, why)
        return await self._moved(launch, state="failed", why=why[:4000], ended_ns=clock.now_ns())

    async def _starting(self, own: Own, launch: Launch, now_ns: int, *, missing: bool) -> Launch:
        agent = self.agent_of(launch)
        if agent and not missing:
            return await self._moved(launch, state="up", agent=agent, registered_ns=now_ns, why="")
        if not launch.ref:  # we died between starting it and writing down where: the same id starts it once
            return await self.start(own, launch)
        met = launch.id in self._met
        condition = await self._looked_at(own, launch)
        if condition is not None and condition.state in ("gone", "failed"):
            why = condition.why or "it ended"
            if condition.state == "gone" and not met:  # with our node, most likely: the target did nothing wrong
                return await self.stop(own, launch, why)
            return await self.failed(own, launch, f"It ended before its agent registered: {why}")
        if now_ns - launch.created_ns > own.register_s * S:
            said = f" The target says: {condition.state}. {condition.why}" if condition is not None else ""
            why = _useless(agent, launch) if agent else f"No agent registered within {own.register_s:g} s.{said}"
            return await self.failed(own, launch, why)
        return launch

    async def _up(self, own: Own, launch: Launch, now_ns: int, waited_s: float) -> Launch:
        agent = self.agent_of(launch)
        if not agent or launch.id not in self._met:
            condition = await self._looked_at(own, launch)
            if condition is not None and condition.state in ("gone", "failed"):
                return await self.stop(own, launch, condition.why or "its agent left")
            if not agent:
                return launch
        if self._agents.is_busy(agent):
            return await self._moved(launch, state="up", idle_since_ns=0) if launch.state == "idle" else launch
        if launch.state == "up":
            return await self._moved(launch, state="idle", idle_since_ns=now_ns)
        if now_ns - launch.idle_since_ns > own.idle_s * S:
            return await self._stop_unless_busy(own, launch, agent, now_ns, waited_s)
        return launch

    async def _stop_unless_busy(self, own: Own, launch: Launch, agent: str, now_ns: int, waited_s: float) -> Launch:
        """Stop one that seems idle, when it says so itself: its beats are rarer than its tasks may be.

        One that had no work yet, while what it was started for waits, is given as long to take that as to register;
        then it is a failure, else the next one would be started for the same.
        """
        try:
            idle_s = await self._agents.idle_s(agent)
        except KnotworkError as error:
            log.debug("%s does not say whether it is idle: %s", agent, error)
            return launch
        since_s = (now_ns - launch.registered_ns) / S
        if waited_s and idle_s >= since_s:
            if min(waited_s, since_s) <= own.register_s:
                return launch
            return await self.failed(own, launch, _useless(agent, launch))
        if idle_s and idle_s >= own.idle_s:
            return await self.stop(own, launch, f"idle for {own.idle_s:g} s")
        state = "idle" if idle_s else "up"
        return await self._moved(launch, state=state, idle_since_ns=now_ns - int(idle_s * S))

    async def _looked_at(self, own: Own, launch: Launch) -> Condition | None:
        """Return how the target says it is, None when it cannot tell just now; from then on we have met."""
        condition = await self._condition(own, launch)
        if condition is not None:
            self._met.add(launch.id)
        return condition

    async def _condition(self, own: Own, launch: Launch) -> Condition | None:
        try:
            async with asyncio.timeout(CONDITION_TIMEOUT_S):
                with own.lease() as plugin:
                    found = await plugin.condition(launch.ref)
                    return Condition(found.state, f"{found.why}")
        except (KnotworkError, TimeoutError) as error:
            log.debug("the state of launch %s is unknown: %s", launch.id, error)
        except Exception:
            log.exception("target %s", own.target)
        return None

    async def _end(self, own: Own, launch: Launch) -> KnotworkError | None:
        """Have the target end it; returns why it could not: `Invalid` when it never can, None when it is gone."""
        if not launch.ref:
            return None
        try:
            async with asyncio.timeout(own.grace_s + LAUNCH_TIMEOUT_S):
                with own.lease() as plugin:
                    await plugin.stop(launch.ref, own.grace_s)
        except TimeoutError:
            return TimedOut(f"it did not end within {own.grace_s + LAUNCH_TIMEOUT_S:g} s")
        except KnotworkError as error:
            return error
        except Exception as error:
            log.exception("target %s", own.target)
            return PluginFailed(raised.text(error))
        return None

    async def _moved(self, launch: Launch, **fields: Any) -> Launch:
        changed = await self._registry.change(launch, **fields)
        if changed.state not in LIVE:
            self._met.discard(launch.id)
        if changed.state != launch.state:
            self._on_change(changed)
        return changed


def _kept(launched: Launched) -> dict[str, Any]:
    """Return what a plugin gave to find again what it started; raises `PluginFailed` for what cannot be written down."""
    ref = dict(launched.ref)
    try:
        msgspec.json.encode(ref)
    except (TypeError, ValueError, RecursionError) as error:
        raise PluginFailed(
            f"what it started is out of reach, its ref is no JSON: {error}", code="plugin.failed"
        ) from error
    return ref


def _useless(agent: str, launch: Launch) -> str:
    """Return why a launch whose agent came is a failure all the same: another one would be as little use (pure)."""
    wanted = f"{launch.capability} in the boundary {launch.boundary}"
    return (
        f"{agent} registered, and takes no work for {wanted}, for which it was started: what it offers does not fit the "
        "target's `capabilities` and `boundaries`, or its own configuration forbids it."
    )
