"""How does capacity follow demand in one project? Every second: see what is missing, launch, and look after what runs."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping
from contextlib import asynccontextmanager
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

import msgspec

from knotwork.bus import clock
from knotwork.bus.background import background, together
from knotwork.bus.pauses import comes_again
from knotwork.bus.waits import set_within
from knotwork.sdk.errors import Conflict, KnotworkError, NotFound
from knotwork.spinup import demand as demands
from knotwork.spinup import ranking, records
from knotwork.spinup.demand import Demand
from knotwork.spinup.health import Health
from knotwork.spinup.held import Held
from knotwork.spinup.launcher import LEFT, MOVED, STOPS, Launcher, Own
from knotwork.spinup.records import ALIVE, LIVE, Launch, Target
from knotwork.spinup.registry import Registry
from knotwork.spinup.turns import Turns

if TYPE_CHECKING:
    from knotwork.bus.connection import Connection
    from knotwork.spinup.demand import Waiting
    from knotwork.spinup.launcher import Agents

LOOK_S = 1.0
READY_S = 2.0
S = 1_000_000_000
BY_DEMAND = "demand"
BY_HAND = "stopped by hand"
CLAIM_SLACK_S = 10
SHOWN_MAX = 5
CanTake = Callable[[str, str, Callable[[str], bool]], bool]
"""Whether an agent online takes work of a boundary and route, of those whose launch is not over."""


class SpinUps:
    """Targets, demand and launches of one project, as this node takes part. Made by `open_spinups`."""

    def __init__(
        self,
        group: asyncio.TaskGroup,
        connection: Connection,
        agents: Agents,
        *,
        project: str,
        node: str,
        own: Callable[[], Mapping[str, Own]],
        waiting: Callable[[], Iterable[Waiting]],
        task_of: Callable[[Demand], Awaitable[str]],
        waited_s: Callable[[Demand], Awaitable[float]],
        is_online: Callable[[str], bool],
        can_take: CanTake,
        may_spin_up: Callable[[str], bool],
        env: Callable[[Launch], Awaitable[Mapping[str, str]]],
        on_change: Callable[[Launch], None],
    ) -> None:
        """`own()` are this node's targets, `waiting()` how the queues stand; see `demand.demands` and `Launcher`.

        `task_of(demand)` names a task that waits, `waited_s(demand)` says how long the oldest has, `is_online(node)`
        says whether a node can launch anything.
        """
        self._node, self._own = node, own
        self._waiting, self._can_take, self._may_spin_up = waiting, can_take, may_spin_up
        self._task_of, self._waited_s, self._is_online = task_of, waited_s, is_online
        self.registry = Registry(connection)
        self.launcher = Launcher(self.registry, agents, env, project=project, on_change=on_change)
        self._held = Held(self.registry, node)
        self._turns = Turns(group)
        self._ready, self._leaving = asyncio.Event(), False
        self._health = Health(self.registry)
        self.missing: list[Demand] = []
        self._crowded: list[Demand] = []
        self.why: dict[str, dict[str, str]] = {}
        """For each demand that nothing is launched for, why each target is out."""

    async def run(self) -> None:
        """Look after targets, demand and launches, until cancelled."""
        await self.registry.open()
        try:
            await self._follow()
        finally:
            self._held.close()

    async def _follow(self) -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(self.registry.watch(), name="targets")
            await self.registry.current.wait()
            while True:
                with comes_again("looking after targets"):
                    await self._look()
                    self._ready.set()
                await asyncio.sleep(LOOK_S)

    def told(self, boundary: str, routed: str, *, missing: bool = False) -> str:
        """Return, in a sentence, what becomes of starting an agent for such work; "" when none is missing.

        To somebody who sees nobody for it, one is `missing` whoever there is.
        """
        known = (*self.missing, *self._crowded)
        demand = next((one for one in known if (one.boundary, one.routed) == (boundary, routed)), None)
        if missing and (demand is None or demand.busy):
            demand = Demand(boundary, routed, 1)
        if demand is None or demands.is_for_one_node(routed):
            return ""
        if not self._may_spin_up(boundary):
            return f"For the boundary {boundary} none is started: its `spin_up` is false."
        now_ns = clock.now_ns()
        begun = next((one for one in self.registry.launches.values() if self._is_for(one, demand, now_ns)), None)
        if begun is not None:
            return f"Target {begun.node}/{begun.target} is starting {'one more' if demand.busy else 'an'} agent for it."
        return "" if demand.busy else self._prospect(demand, now_ns)

    def _prospect(self, demand: Demand, now_ns: int) -> str:
        if not self.registry.targets:
            return "No target is configured that could start one."
        ranked = self._ranked(demand, now_ns)
        if ranked.targets:
            return "A target is about to start one."
        refused = ranked.refused
        shown = "; ".join(f"{name}: {why.rstrip('.')}" for name, why in list(refused.items())[:SHOWN_MAX])
        more = f"; and {len(refused) - SHOWN_MAX} more, see `knotwork targets`" if len(refused) > SHOWN_MAX else ""
        return f"No target starts one: {shown}{more}."

    async def ready(self, timeout_s: float) -> None:
        """Return once our targets are known to everybody, at the latest after `timeout_s` seconds."""
        await set_within(self._ready, timeout_s)

    # -- what may be asked -------------------------------------------------------------------------------------------

    async def test(self, name: str) -> Target:
        """Probe one of our targets now and return its record; raises `NotFound`, `Conflict` for another node's."""
        target, own = self._mine(name)
        return await self._health.probe(own, target)

    async def switch(self, name: str, *, disabled: bool) -> Target:
        """Disable or enable a target at run time; it stays so over restarts."""
        target = self.registry.target(name)
        return await self._change(target, lambda now: msgspec.structs.replace(now, disabled=disabled))

    async def launch(self, name: str, *, by: str, capability: str = "", boundary: str = "", task: str = "") -> Launch:
        """Start an agent by hand; raises `Conflict`: `spinup.not_now`, `spinup.unfit` when the target is for other work."""
        target, own = self._mine(name)
        why = ranking.unasked(target, capability, boundary)
        if why:
            raise Conflict(
                f"{name} is for other work: {why}.", code="spinup.unfit",
                hint="Name what it is for, or no capability and no boundary: see `knotwork targets`.",
            )  # fmt: skip
        why = STOPS if self._leaving else ranking.unready(msgspec.structs.replace(target, failures=0), clock.now_ns())
        if why:
            raise Conflict(f"{name} starts nothing now: {why}.", code="spinup.not_now", hint="See `knotwork targets`.")
        return await self._launch(own, target, by=by, capability=capability, boundary=boundary, task=task)

    async def stop(self, launch_id: str) -> Launch:
        """End a launch of one of our targets; raises `NotFound`.

        One that is just being started, or looked after, is called off: it ends as soon as that is done, whoever waits.
        """
        asked = launch = self._known(launch_id)
        if self._turns.taken(launch_id):
            if launch.state in ALIVE:
                await self.launcher.call_off(launch, BY_HAND)
            await self._turns.over(launch_id)
            launch = self._known(launch_id)
            if launch.state not in LIVE:
                return await self._settled(asked, launch)
        with self._turns.alone(launch_id):
            if launch.node == self._node and _of(self._own(), launch) is None:
                return await self._settled(asked, await self._leave(launch))
            _, own = self._mine(f"{launch.node}/{launch.target}")
            return await self._settled(asked, await self.launcher.stop(own, launch, BY_HAND))

    async def leave(self, within_s: float) -> None:
        """Start nothing more, and end what ends with this node anyway: gracefully, its agents have `within_s` seconds at most."""
        self._leaving, own = True, self._own()
        ending = [(one, mine) for one in self._live_here() if (mine := _of(own, one)) and mine.ends_with_node()]
        await together(*(self._end(replace(mine, grace_s=min(mine.grace_s, within_s)), one.id) for one, mine in ending))

    # -- within ------------------------------------------------------------------------------------------------------

    async def _end(self, own: Own, launch_id: str) -> None:
        await self._turns.over(launch_id)
        with comes_again("ending a launch"), self._turns.alone(launch_id):
            if (launch := self._known(launch_id)).state in LIVE:
                await self.launcher.stop(own, launch, STOPS)

    def _live_here(self) -> list[Launch]:
        return [one for one in self.registry.launches.values() if one.node == self._node and one.state in LIVE]

    def _known(self, launch_id: str) -> Launch:
        launch = self.registry.launches.get(launch_id)
        if launch is None:
            raise NotFound(
                f"There is no launch {launch_id[:64]!r}.", code="spinup.no_launch", hint="See `knotwork launches`."
            )
        return launch

    def _mine(self, name: str) -> tuple[Target, Own]:
        target = self.registry.target(name)
        own = self._own().get(target.target)
        if target.node != self._node:
            raise Conflict(
                f"{target.target} belongs to node {target.node}.", code="spinup.elsewhere",
                hint=f"Ask that node: `--on {target.node}`.",
            )  # fmt: skip
        if own is None:
            raise NotFound(
                f"{target.target} is not configured any more, or its plugin is not there.", code="spinup.no_target",
                hint="See `knotwork targets` and `knotwork plugin list`.",
            )  # fmt: skip
        return target, own

    async def _look(self) -> None:
        if self._leaving:
            return
        now_ns, own = clock.now_ns(), dict(self._own())
        await self._declare(own)
        self._held.look(own)
        for launch in self._live_here():
            mine = _of(own, launch)
            if mine is not None:
                self._turns.spawn(launch.id, self._carry_on(mine, launch, now_ns))
            else:
                self._turns.spawn(launch.id, self._left(launch, now_ns))
        for mine in self._health.due(own):
            target = self.registry.targets[records.target_key(self._node, mine.target)]
            self._turns.spawn(f"probe {mine.target}", self._health.look(mine, target))
        waiting = list(self._waiting())
        self.missing = demands.demands(waiting, self._is_taken, self._may_spin_up)
        self._crowded = demands.crowded(waiting, self._is_taken, self._may_spin_up)
        self.why = {}
        for demand in self.missing:
            await self._serve(demand, own, now_ns)
        for demand in self._crowded:
            await self._relieve(demand, own, now_ns)

    def _is_taken(self, boundary: str, routed: str) -> bool:
        return self._can_take(boundary, routed, self._is_over)

    def _is_over(self, launch_id: str) -> bool:
        launch = self.registry.launches.get(launch_id)
        return launch is not None and launch.state == "stopped"

    async def _relieve(self, demand: Demand, own: Mapping[str, Own], now_ns: int) -> None:
        """Start one more agent beside busy ones when work has waited too long, also since the last one came."""
        if all(ranking.unfit(demand, target) for target in self.registry.targets.values()):
            return
        since_s = ranking.since_relief_s(demand, self.registry.launches.values(), now_ns)
        waited_s = min(since_s, await self._waited_s(demand))
        await self._serve(demand._replace(waited_s=waited_s), own, now_ns)

    async def _serve(self, demand: Demand, own: Mapping[str, Own], now_ns: int) -> None:
        """Launch for a demand when the best target is ours and nobody has launched for it."""
        ranked = self._ranked(demand, now_ns)
        self.why[demand.key] = ranked.refused
        if any(self._is_for(launch, demand, now_ns) for launch in self.registry.launches.values()):
            return
        best = ranked.targets[0] if ranked.targets else None
        if best is None or best.node != self._node or best.target not in own:
            return
        mine = own[best.target]
        if await self.registry.claim(demand.key, self._node, int(mine.register_s) + CLAIM_SLACK_S):
            self._turns.spawn(demand.key, self._launch_for(best, demand))

    def _ranked(self, demand: Demand, now_ns: int) -> ranking.Ranked:
        targets = list(self.registry.targets.values())
        away = frozenset(node for node in {target.node for target in targets} if not self._is_online(node))
        return ranking.rank(demand, targets, now_ns, away)

    def _is_for(self, launch: Launch, demand: Demand, now_ns: int) -> bool:
        """Return whether a launch is about to serve a demand; one whose owner is gone is waited for no longer than it has."""
        if launch.state != "starting" or launch.boundary != demand.boundary or launch.capability != demand.capability:
            return False
        target = self.registry.targets.get(records.target_key(launch.node, launch.target))
        if target is None or not self._is_online(launch.node):
            register_s = target.register_s if target is not None else 0.0
            return now_ns - launch.created_ns <= register_s * S
        return True

    async def _launch_for(self, target: Target, demand: Demand) -> None:
        launch = None
        try:
            task = demand.task or await self._task_of(demand)
            target, own = self._mine(f"{target.node}/{target.target}")
            stays = task and not self._leaving  # else it ended, or we do
            if stays and not ranking.unready(target, clock.now_ns()):  # else another had the last place
                launch = await self._launch(
                    own, target, by=BY_DEMAND, capability=demand.capability, boundary=demand.boundary, task=task,
                    routed=demand.routed,
                )  # fmt: skip
        finally:
            if launch is None or launch.state == "failed":
                with contextlib.suppress(KnotworkError):  # it expires by itself
                    await self.registry.release(demand.key)

    async def _launch(
        self, own: Own, target: Target, *, by: str, capability: str, boundary: str, task: str, routed: str = ""
    ) -> Launch:
        now_ns = clock.now_ns()
        launch = Launch(
            id=secrets.token_hex(8), target=own.target, node=self._node, state="starting", capability=capability,
            boundary=boundary, task=task, by=by, created_ns=now_ns, place=own.place, routed=routed,
        )  # fmt: skip
        with self._turns.alone(launch.id):
            self._held.take(own)
            await self.registry.put_launch(launch)
            await self._change(
                target, lambda now: msgspec.structs.replace(now, launches=now.launches + 1, last_launch_ns=now_ns)
            )
            launch = await self.launcher.start(own, launch)
            await self._judged(launch)
        return launch

    async def _carry_on(self, own: Own, launch: Launch, now_ns: int) -> None:
        missing = launch.by == BY_DEMAND and any(_wants(one, launch) for one in self.missing)
        after = await self.launcher.look(own, launch, now_ns, missing=missing, waited_s=await self._unserved_s(launch))
        if after.state != launch.state:
            await self._judged(after)
        await self._settled(launch, after)

    async def _settled(self, launch: Launch, after: Launch) -> Launch:
        """Return a launch as it is after a step; when it is not starting any more, others may serve its demand."""
        if launch.by == BY_DEMAND and launch.state == "starting" and after.state != "starting":
            with contextlib.suppress(KnotworkError):
                for key in demands.keys(launch.boundary, launch.capability):
                    await self.registry.release(key)
        return after

    async def _unserved_s(self, launch: Launch) -> float:
        """Return for how many seconds the work that an idle agent was started for waits to be taken, 0 when none does."""
        if launch.by != BY_DEMAND or launch.state != "idle":
            return 0.0
        found = (one for one in (*self.missing, *self._crowded) if _wants(one, launch))
        return max([await self._waited_s(one) for one in found], default=0.0)

    async def _left(self, launch: Launch, now_ns: int) -> None:
        """End a launch whose target has left, or leads elsewhere; one that is starting may register yet, to be told."""
        if not self.launcher.is_due(launch):
            return
        target = self.registry.targets.get(records.target_key(launch.node, launch.target))
        register_s = target.register_s if target is not None else 0.0
        known = launch.agent or self.launcher.agent_of(launch) or self._held.left(launch)
        if launch.state != "starting" or known or now_ns - launch.created_ns > register_s * S:
            await self._settled(launch, await self._leave(launch))

    async def _leave(self, launch: Launch) -> Launch:
        """End a launch that no configured target looks after: by the plugin it was started by, as long as that is there."""
        because = MOVED if launch.target in self._own() else LEFT
        own = self._held.left(launch)
        return await (self.launcher.left(launch, because) if own is None else self.launcher.stop(own, launch, because))

    async def _judged(self, launch: Launch) -> None:
        """Let a target's record tell how its launches went."""
        with contextlib.suppress(KnotworkError):
            target, now_ns = self.registry.target(f"{launch.node}/{launch.target}"), clock.now_ns()
            await self._change(target, lambda now: ranking.judged(now, launch, now_ns))

    async def _change(self, target: Target, make: Callable[[Target], Target]) -> Target:
        return await self.registry.change_target(target.node, target.target, make)

    async def _declare(self, own: Mapping[str, Own]) -> None:
        """Bring the records of our targets up to date with the configuration."""
        for target in [one for one in self.registry.targets.values() if one.node == self._node]:
            if target.target not in own and not self.registry.live(self._node, target.target):
                await self.registry.drop_target(target)
        for mine in own.values():
            made = partial(mine.declared, anew=self._health.edited(mine))  # what was wrong may be mended
            await self.registry.change_target(self._node, mine.target, made, new=True)


def _of(own: Mapping[str, Own], launch: Launch) -> Own | None:
    """Return the target that looks after a launch, None when it is gone or leads elsewhere now."""
    mine = own.get(launch.target)
    return mine if mine is not None and mine.started(launch) else None


def _wants(demand: Demand, launch: Launch) -> bool:
    """Return whether a launch was started for such work."""
    return (demand.boundary, demand.routed) == (launch.boundary, launch.routed or launch.capability)


@asynccontextmanager
async def open_spinups(make: Callable[[asyncio.TaskGroup], SpinUps]) -> AsyncIterator[SpinUps]:
    """Let capacity follow demand inside the block; `make` wires the parts, to work in tasks of a group."""
    async with background() as group:
        spinups = make(group)
        group.create_task(spinups.run(), name="spin-ups")
        await spinups.ready(READY_S)
        yield spinups
