"""How do targets and launches look to those who ask? The spin-up room of one project, as the ops' replies."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from knotwork.bus import clock, subjects
from knotwork.desk.asking import ask
from knotwork.desk.callers import caller_name
from knotwork.desk.moments import moment
from knotwork.ops import target_replies as replies
from knotwork.spinup import ranking
from knotwork.spinup.health import PROBE_TIMEOUT_S
from knotwork.spinup.launcher import LAUNCH_TIMEOUT_S
from knotwork.spinup.records import LIVE

if TYPE_CHECKING:
    from knotwork.mesh.membership import Membership
    from knotwork.ops.op import Caller
    from knotwork.spinup.records import Launch, Target
    from knotwork.spinup.room import SpinUps

SLACK_S = 10.0
"""What the way to another node and back may take beside."""
STOP_S = 600.0


class TargetDesk:
    """Targets and launches of one project (`ops.target_replies.Targets`)."""

    def __init__(self, spinups: SpinUps, membership: Membership, circles: tuple[str, ...] | None = None) -> None:
        """Ask `spinups`; what is another node's is asked of that one over `membership`.

        Of what is wanted for work that is not the whole project's, only that of these circles is told (`trust.scopes`);
        None: all.
        """
        self._spinups, self._connection, self._here = spinups, membership.connection, membership.here
        self._policy = membership.policy
        self._circles = circles

    def rows(self) -> Sequence[replies.TargetRow]:
        """Return every target of every node, by name."""
        found = self._spinups.registry.targets.values()
        return [_target(one) for one in sorted(found, key=lambda one: (one.target, one.node))]

    def missing(self) -> Sequence[dict[str, Any]]:
        """Return the demand that nobody can take, with why no target serves it."""
        return [
            {
                "boundary": demand.boundary, "wanted": subjects.capability_of(demand.routed) or demand.routed,
                "pending": demand.pending, "refused": self._spinups.why.get(demand.key, {}),
            }
            for demand in self._spinups.missing
            if self._circles is None or subjects.circle_of(demand.routed) in ("", *self._circles)
        ]  # fmt: skip

    def row(self, name: str) -> replies.TargetRow:
        """Return one target."""
        return _target(self._spinups.registry.target(name))

    def launches(self, *, ended: bool) -> Sequence[replies.LaunchRow]:
        """Return the launches, newest first."""
        found = [one for one in self._spinups.registry.launches.values() if ended or one.state in LIVE]
        return [_launch(one) for one in sorted(found, key=lambda one: -one.created_ns)]

    async def test(self, name: str) -> replies.TargetRow:
        """Probe a target now, by its own node."""
        target = self._spinups.registry.target(name)
        if target.node == self._here:
            return _target(await self._spinups.test(name))
        request = {"target": f"{target.node}/{target.target}"}
        told = await ask(self._connection, "targets.test", target.node, request, timeout_s=PROBE_TIMEOUT_S + SLACK_S)
        return replies.TargetRow.model_validate(told)

    async def switch(self, name: str, *, disabled: bool) -> replies.TargetRow:
        """Disable or enable a target at run time."""
        return _target(await self._spinups.switch(name, disabled=disabled))

    async def spin_up(self, name: str, capability: str, boundary: str, caller: Caller) -> replies.LaunchRow:
        """Start an agent at a target by hand, by its own node; raises `Invalid` (`policy.unknown_boundary`), too."""
        if boundary:
            self._policy().admit(boundary)
        target = self._spinups.registry.target(name)
        if target.node != self._here:
            request = {"target": f"{target.node}/{target.target}", "capability": capability, "boundary": boundary}
            given = {key: value for key, value in request.items() if value}
            told = await ask(
                self._connection, "targets.spin_up", target.node, given, timeout_s=LAUNCH_TIMEOUT_S + SLACK_S
            )
            return replies.LaunchRow.model_validate(told)
        by = caller_name(caller)
        return _launch(await self._spinups.launch(name, by=by, capability=capability, boundary=boundary))

    async def stop(self, launch: str) -> replies.LaunchRow:
        """End a launch, by the node of its target; returns when it is gone."""
        known = self._spinups.registry.launches.get(launch)
        if known is None or known.node == self._here:
            return _launch(await self._spinups.stop(launch))
        told = await ask(self._connection, "targets.stop", known.node, {"id": launch}, timeout_s=STOP_S)
        return replies.LaunchRow.model_validate(told)


def _target(target: Target) -> replies.TargetRow:
    now_ns = clock.now_ns()
    state: Any = "available"
    why = target.why
    if not target.enabled or target.disabled:
        state = "disabled"
    elif target.health == "unhealthy":
        state = "unhealthy"
    elif target.running >= target.max_concurrent:
        state = "in-use"
    elif (left_s := ranking.cooldown_left_s(target, now_ns)) > 0:
        state, why = "cooling-down", ranking.cooling(target, left_s)
    elif target.failed_why:
        why = f"its last launch failed: {target.failed_why}"
    return replies.TargetRow(
        name=f"{target.node}/{target.target}", target=target.target, node=target.node, type=target.type, state=state,
        why=why, capabilities=list(target.capabilities), boundaries=list(target.boundaries), cost=target.cost,
        running=target.running, max_concurrent=target.max_concurrent, launches=target.launches,
        failures=target.failures, health=target.health, checked_at=moment(target.checked_ns),
        last_launch_at=moment(target.last_launch_ns), last_success_at=moment(target.last_success_ns),
    )  # fmt: skip


def _launch(launch: Launch) -> replies.LaunchRow:
    return replies.LaunchRow(
        id=launch.id, target=launch.target, node=launch.node, state=launch.state, agent=launch.agent,
        capability=launch.capability, boundary=launch.boundary, task=launch.task, by=launch.by, why=launch.why,
        created_at=moment(launch.created_ns), registered_at=moment(launch.registered_ns),
        ended_at=moment(launch.ended_ns),
    )  # fmt: skip
