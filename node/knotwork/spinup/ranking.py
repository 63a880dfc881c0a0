"""Which target is best for a demand? Fit first, then health, cost and what worked last; with a reason for each (pure)."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import msgspec

from knotwork.spinup.demand import Demand

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Sequence

    from knotwork.spinup.records import Launch, Target

_HEALTH = {"healthy": 0, "unknown": 1, "unhealthy": 2}
COOLDOWN_MAX_S = 3600.0
WHY_CHARS = 300
S = 1_000_000_000


class Ranked(NamedTuple):
    """The targets that would do, best first; and why each other one is out, by `node/target`."""

    targets: tuple[Target, ...]
    refused: dict[str, str]


def rank(demand: Demand, targets: Sequence[Target], now_ns: int, away: Collection[str] = ()) -> Ranked:
    """Order the targets for a demand; every node comes to the same order from the same records.

    Targets of nodes that are `away` are out: nobody is there to launch anything.
    """
    fit, refused = [], {}
    for target in targets:
        why = unfit(demand, target) or (f"node {target.node} is not online" if target.node in away else "")
        why = why or _early(demand, target) or unready(target, now_ns)
        if why:
            refused[f"{target.node}/{target.target}"] = why
        else:
            fit.append(target)
    return Ranked(tuple(sorted(fit, key=_order)), refused)


def unfit(demand: Demand, target: Target) -> str:
    """Return why a target can never serve a demand, "" when it can."""
    if demand.is_claimed:
        return "executors of a node get no private or personal work"
    if target.capabilities and demand.capability not in target.capabilities:
        return f"it starts agents for {', '.join(target.capabilities)}"
    if target.boundaries and demand.boundary not in (*target.boundaries, "none"):
        return f"it serves the boundaries {', '.join(target.boundaries)}"
    if demand.busy and not target.wait_s:
        return "it starts none while there are agents that take such work"
    return ""


def unasked(target: Target, capability: str, boundary: str) -> str:
    """Return why a target is not for what somebody names who starts an agent by hand, "" when it is; so is no name."""
    any_capability = target if capability else msgspec.structs.replace(target, capabilities=())
    return unfit(Demand(boundary or "none", capability, 1), any_capability)


def _early(demand: Demand, target: Target) -> str:
    """Return why work does not wait long enough yet for agents that are busy, "" when it does."""
    if not demand.busy or demand.waited_s >= target.wait_s:
        return ""
    return f"work has waited for {demand.waited_s:.0f} of {target.wait_s:g} s"


def since_relief_s(demand: Demand, launches: Iterable[Launch], now_ns: int) -> float:
    """Return for how many seconds every agent that was started for such work has been there already."""
    came_ns = (
        launch.registered_ns
        for launch in launches
        if launch.boundary == demand.boundary and launch.capability == demand.capability
    )
    return (now_ns - max(came_ns, default=0)) / S


def unready(target: Target, now_ns: int) -> str:
    """Return why a target cannot launch now, "" when it can."""
    if not target.enabled or target.disabled:
        return "it is disabled"
    if target.health == "unhealthy":
        return f"it is unhealthy: {target.why}" if target.why else "it is unhealthy"
    if target.running >= target.max_concurrent:
        return f"{target.running} of {target.max_concurrent} launches run"
    left_s = cooldown_left_s(target, now_ns)
    if left_s > 0:
        return cooling(target, left_s)
    return ""


def judged(target: Target, launch: Launch, now_ns: int) -> Target:
    """Return what the record of a target tells once a launch of it has come to a new state.

    An agent that registers ends a row of failures, unless it takes nothing: how many such there were in a row is kept
    until one is stopped as one that is not needed any more.
    """
    if launch.state == "up":
        return msgspec.structs.replace(target, failures=0, last_success_ns=now_ns, failed_why="")
    if launch.state == "stopped":
        return msgspec.structs.replace(target, useless=0)
    if launch.state != "failed":
        return target
    useless = target.useless + 1 if launch.registered_ns else target.useless
    failures = max(target.failures + 1, useless)
    return msgspec.structs.replace(
        target, failures=failures, useless=useless, last_failure_ns=now_ns, failed_why=launch.why
    )


def cooling(target: Target, left_s: float) -> str:
    """Return why a target that failed is left alone for `left_s` seconds more."""
    times = "a failure" if target.failures == 1 else f"{target.failures} failures in a row"
    told = f": {target.failed_why[:WHY_CHARS]}" if target.failed_why else ""
    return f"it cools down for {left_s:.0f} s more after {times}{told}"


def cooldown_left_s(target: Target, now_ns: int) -> float:
    """Return for how many seconds a target that failed is left alone: doubled with each failure in a row."""
    if not target.failures:
        return 0.0
    pause_s = min(target.cooldown_s * 2.0 ** min(target.failures - 1, 20), COOLDOWN_MAX_S)
    return pause_s - (now_ns - target.last_failure_ns) / S


def _order(target: Target) -> tuple[object, ...]:
    specific = (not target.capabilities, not target.boundaries)
    return (
        _HEALTH[target.health], target.cost, target.failures, specific, -target.last_success_ns, target.node,
        target.target,
    )  # fmt: skip
