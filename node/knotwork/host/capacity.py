"""How does a project's missing capacity reach this node's targets? The host's side of the spin-up room."""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING

from knotwork.bus import clock, codec, reading, subjects
from knotwork.bus.background import background
from knotwork.desk.asking import ask
from knotwork.host.launch_access import LaunchAccess
from knotwork.mesh.policy import NONE
from knotwork.sockets.catalog import AnyConfig
from knotwork.spinup.demand import Waiting
from knotwork.spinup.launcher import Own
from knotwork.spinup.room import SpinUps, open_spinups

if TYPE_CHECKING:
    from knotwork.bus.endpoint import Endpoint, Tls
    from knotwork.bus.reading import Stored
    from knotwork.host.boot import Nats
    from knotwork.host.world import World
    from knotwork.mesh.membership import Membership
    from knotwork.mesh.policy import Policy
    from knotwork.mesh.records import NodeRecord
    from knotwork.sockets.slot import Instance
    from knotwork.spinup.demand import Demand
    from knotwork.spinup.records import Launch
    from knotwork.spinup.room import CanTake
    from knotwork.telemetry.emitter import Emitter
    from knotwork.work.meant import Meant
    from knotwork.work.queues import Depth
    from knotwork.work.room import Work

ANSWER_S = 5.0
LEAVE_S = 5.0
"""What leaving may take an agent beside its work."""
LOOK_S = 0.2
VANISHED_S = 2.5
"""Tasks that nobody holds count as demand when they were so for this long: two looks at the queues."""
LAUNCH = "launch"
"""The label of a launched node that says which launch brought it."""


@dataclass(frozen=True, slots=True)
class LaunchedAgents:
    """What the mesh knows of launched nodes (`spinup.launcher.Agents`)."""

    membership: Membership

    def of_launch(self, launch: str) -> str:
        """Return the node that registered for a launch and is online, "" while there is none."""
        for record, state, _ in self.membership.directory.nodes():
            if record.labels.get(LAUNCH) == launch and state in ("online", "stale"):
                return record.node
        return ""

    def is_busy(self, name: str) -> bool:
        """Return whether any agent there works or has work waiting, as far as it told with its last beat."""
        return any(
            agent.running or agent.queued
            for record, agent, _ in self.membership.directory.agents()
            if record.node == name
        )

    async def idle_s(self, name: str) -> float:
        """Ask the node for how many seconds it has had no work, 0 while it has some; raises when it does not answer."""
        told = await ask(self.membership.connection, "node.status", name, {}, timeout_s=ANSWER_S)
        idle_s = told.get("idle_s")
        return float(idle_s) if isinstance(idle_s, int | float) else 0.0

    async def goodbye(self, name: str, grace_s: float) -> None:
        """Ask the node to finish and leave within `grace_s` seconds; returns when it has left, or should have."""
        await ask(
            self.membership.connection, "node.stop", name, {"drain_s": grace_s}, timeout_s=ANSWER_S
        )  # fmt: skip
        for _ in range(int((grace_s + LEAVE_S) / LOOK_S)):
            if self.membership.directory.state(name) == "offline":
                return
            await asyncio.sleep(LOOK_S)


def own(world: World, project: str) -> dict[str, Own]:
    """Return this node's targets that start agents for a project."""
    first = world.loaded.config.project_names()[0]
    found = {}
    for name, table in world.loaded.config.targets.items():
        slot = world.slots.get("spinups", name)
        if slot is None or project not in (table.projects or (first,)):
            continue
        found[name] = Own(
            name, table.type, slot.lease, table.capabilities, table.boundaries, table.cost, table.max_concurrent,
            table.cooldown_s, table.register_s, table.idle_s, table.grace_s, table.health_s, table.wait_s,
            table.enabled, place_of(slot.instance, table.settings),
        )  # fmt: skip
    return found


def place_of(instance: Instance, written: Mapping[str, object]) -> str:
    """Return a mark of where a target leads: its type, and what its plugin says leads there; empty while that is broken."""
    if isinstance(instance.config, AnyConfig):
        return ""
    leads = {key: written.get(key) for key in instance.config.place_keys}
    return hashlib.sha256(codec.encode([instance.entry.type, leads])).hexdigest()[:16]


@dataclass(slots=True)
class Queues:
    """What waits in the queues of a project, as of the last look at them; and what was left by workers that vanished."""

    work: Work
    membership: Membership
    left_since_s: dict[str, float] = field(default_factory=dict)

    def waiting(self) -> list[Waiting]:
        """Return what waits, or was given to somebody who does not hold it any more."""
        held = Counter(self.work.claims.keeper.all_consumers())
        found, since_s, now_s = [], {}, time.monotonic()
        for depth in self.work.depths:
            queue = depth.queue
            left = depth.taken - held[queue.consumer] - self._drained(depth)
            if left > 0:
                since_s[queue.consumer] = self.left_since_s.get(queue.consumer, now_s)
                left = left if now_s - since_s[queue.consumer] >= VANISHED_S else 0
            found.append(Waiting(queue.boundary, queue.routed, depth.pending + max(left, 0)))
        self.left_since_s = since_s
        return found

    def _drained(self, depth: Depth) -> int:
        """Return how many may be with agents that bring them to an end before they go."""
        addressed = subjects.addressee(depth.queue.routed)
        return sum(
            agent.running
            for record, agent, state in self.membership.directory.agents()
            if state == "draining"
            and (
                agent.name == addressed[1] and addressed[0] in ("", record.node)
                if addressed
                else depth.queue.routed in agent.capabilities
            )
        )

    async def task_of(self, demand: Demand) -> str:
        """Return a task that waits for what is missing, the most urgent first; "" when there is none any more."""
        for depth in sorted(self._of(demand), key=lambda one: one.queue.urgency):
            found = await self._first(depth, depth.floor if depth.taken else depth.delivered)
            if found is not None:
                return found.subject.split(".")[4]
        return ""

    async def waited_s(self, demand: Demand) -> float:
        """Return for how many seconds the oldest task has waited that was given to nobody yet.

        None counts while the store is full: then nobody takes anything, however many there are.
        """
        if self.work.submitter.storage.tight:
            return 0.0
        found = [await self._first(depth, depth.delivered) for depth in self._of(demand) if depth.pending]
        oldest_ns = min((one.time_ns for one in found if one is not None), default=clock.now_ns())
        return (clock.now_ns() - oldest_ns) / 1e9

    def _of(self, demand: Demand) -> list[Depth]:
        return [depth for depth in self.work.depths if depth.queue[:2] == (demand.boundary, demand.routed)]

    async def _first(self, depth: Depth, behind: int) -> Stored | None:
        """Return the first task of a queue behind a place."""
        connection = self.membership.connection
        found = await reading.batch(connection, subjects.TASKS, depth.queue.filter, behind + 1, 1)
        return found[0] if found else None


def can_take(membership: Membership, policy: Callable[[], Policy], meant: Meant) -> CanTake:
    """Return what says whether an agent online takes work of a boundary and route.

    Nobody does who was brought by a launch that is over, though he may look online for a while yet.
    """

    def somebody(boundary: str, routed: str, is_over: Callable[[str], bool]) -> bool:
        addressed = subjects.addressee(routed)
        directory = membership.directory
        asked = {"node": addressed[0], "agent": addressed[1]} if addressed else {"capability": routed}
        found = directory.candidates(**asked, attached=True)
        if addressed and routed == subjects.seen(addressed[1]):
            found = [one for one in found if not meant.is_hidden(one.agent)]
        rules = policy()
        return any(
            one.state in ("online", "stale")
            and rules.judge(boundary, one.node, one.agent, one.executor, one.boundaries).may
            and not is_over(_launch_of(membership.directory.record(one.node)))
            for one in found
        )

    return somebody


def _launch_of(record: NodeRecord | None) -> str:
    return record.labels.get(LAUNCH, "") if record is not None else ""


def joining(membership: Membership, launch: Launch, seed: str = "") -> dict[str, str]:
    """Return what a launched agent needs to join: `knotwork up` understands it as it is, others read `KNOTWORK_URL`.

    `seed` is the key of its own that it was given; without one it shows what we show to the NATS that we joined.
    """
    endpoint, project = membership.connection.endpoint, membership.project
    return {
        "KNOTWORK_URL": endpoint.urls[0],
        "KNOTWORK_PROJECT": project,
        "KNOTWORK_TARGET": launch.target,
        "KNOTWORK_TASK": launch.task,
        "KNOTWORK_LAUNCH": launch.id,
        "KNOTWORK__NATS__MODE": "join",
        "KNOTWORK__NATS__URLS": str(codec.encode(list(endpoint.urls)), "utf-8"),
        "KNOTWORK__NODE__NAME": f"{launch.target[:40]}-{launch.id}",
        "KNOTWORK__NODE__LABELS__LAUNCH": launch.id,
        "KNOTWORK__NODE__LABELS__TARGET": launch.target,
        **_credentials(endpoint if not seed else replace(endpoint, seed=seed), project),
        **_trusting(endpoint.tls),
    }


def _credentials(endpoint: Endpoint, project: str) -> dict[str, str]:
    """Return who an agent says it is: secrets in variables of their own, and the settings that refer to them."""
    table = "KNOTWORK__NATS__" if project == "default" else f"KNOTWORK__PROJECTS__{project.upper()}__"
    found: dict[str, str] = {}
    for setting, variable, secret in (
        ("NKEY_SEED", "KNOTWORK_SEED", endpoint.seed),
        ("PASSWORD", "KNOTWORK_PASSWORD", endpoint.password),
        ("TOKEN", "KNOTWORK_TOKEN", endpoint.token),
    ):
        if secret:
            found |= {variable: secret, table + setting: f'{{env = "{variable}"}}'}
    if endpoint.user:
        found |= {"KNOTWORK_USER": endpoint.user, f"{table}USER": endpoint.user}
    if endpoint.creds:
        found |= {"KNOTWORK_CREDS": endpoint.creds, f"{table}CREDS": endpoint.creds}
    return found


def _trusting(tls: Tls | None) -> dict[str, str]:
    """Return how an agent knows the server, and is known to it by certificate: files, by their paths here."""
    if tls is None:
        return {}
    files = {"CA": tls.ca, "CERT": tls.cert, "KEY": tls.key, "HOSTNAME": tls.hostname}
    files["HANDSHAKE_FIRST"] = "true" if tls.handshake_first else ""
    return {f"KNOTWORK__NATS__TLS__{name}": value for name, value in files.items() if value}


@asynccontextmanager
async def open_capacity(
    world: World, membership: Membership, work: Work, emitter: Emitter, policy: Callable[[], Policy], *, nats: Nats
) -> AsyncIterator[SpinUps]:
    """Let this node's targets follow a project's demand inside the block."""
    project = membership.project

    def changed(launch: Launch) -> None:
        about = {
            "id": launch.id,
            "target": launch.target,
            "state": launch.state,
            "agent": launch.agent,
            "why": launch.why,
        }
        emitter.event("spinup.launch", about, project=project)
        access.changed(launch)

    async def env(launch: Launch) -> Mapping[str, str]:
        return joining(membership, launch, await access.seed(launch))

    def may_spin_up(boundary: str) -> bool:
        rule = policy().rules.get(boundary)
        return boundary == NONE or rule is None or rule.spin_up

    queues = Queues(work, membership)
    async with background() as group:
        access = LaunchAccess(group, nats, project)
        made = partial(
            SpinUps, connection=membership.connection, agents=LaunchedAgents(membership), project=project,
            node=membership.here, own=lambda: own(world, project), waiting=queues.waiting, task_of=queues.task_of,
            waited_s=queues.waited_s, is_online=lambda one: membership.directory.state(one) in ("online", "stale"),
            can_take=can_take(membership, policy, work.meant), may_spin_up=may_spin_up, env=env, on_change=changed,
        )  # fmt: skip
        async with open_spinups(made) as spinups:
            group.create_task(access.tidy(spinups.registry))
            yield spinups
