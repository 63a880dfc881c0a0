"""Why is a task where it is? Told from what is known of it, its queue and the agents that are there (pure)."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from knotwork.bus import subjects
from knotwork.work import records, settle
from knotwork.work.gate import LABEL

if TYPE_CHECKING:
    from collections.abc import Sequence

    from knotwork.work.lookup import Sight
    from knotwork.work.records import Task

S = 1_000_000_000
SOON_S = 2.0
"""A task that could begin is expected to within this time."""
NO_EXECUTOR = "executors of a node get no private or personal work"
CLAIMED = "it is for those alone whom its submitter meant, once one of them claims it"


@dataclass(frozen=True, slots=True)
class Seen:
    """One agent that could be meant. `load` is 1 when all its places are taken; `barred` is what the policy has against it.

    `attached`: it came in from outside, and claims its tasks.
    """

    node: str
    agent: str
    state: str
    load: float = 0.0
    barred: str = ""
    attached: bool = False


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What there is beside the task: who could do it, how many are before it (None: not known), who is away.

    `node_state` is how the node is that works on it, or that it is meant for; "" when nobody has seen it. `spin_up` says
    what becomes of starting an agent for it; "" when none is missing. `dropped`: it is dead, and its letter is gone.
    `held`: what it is part of is paused.
    """

    agents: Sequence[Seen] = ()
    before: int | None = None
    node_state: str = ""
    lease_s: float = 10.0
    spin_up: str = ""
    dropped: bool = False
    held: bool = False


@dataclass(frozen=True, slots=True)
class Considered:
    """One agent, and why it does not take the task now; "" when it may."""

    agent: Seen
    why_not: str


def routed(task: Task) -> str:
    """Return how a task is routed."""
    if task.agent:
        by = f"to agent {task.agent} on node {task.node}" if task.node else f"to any agent called {task.agent}"
    else:
        by = f"to any agent with capability {task.capability}"
    limit = "" if task.boundary == records.NO_BOUNDARY else f" that accepts {task.boundary}"
    return by + limit + (f"; {task.why}" if task.why else "")


def consider(task: Task, agents: Sequence[Seen]) -> list[Considered]:
    """Return every agent that could be meant, with what stands against it; those that may take it first."""
    found = [Considered(seen, _against(task, seen)) for seen in agents]
    return sorted(found, key=lambda one: (bool(one.why_not), one.agent.node, one.agent.agent))


def _against(task: Task, seen: Seen) -> str:
    if task.node and seen.node != task.node:
        return f"it is meant for node {task.node}"
    if barred := _beside(task, seen) or seen.barred:
        return barred
    if seen.state != "online":
        return "its node drains: it takes nothing new" if seen.state == "draining" else f"its node is {seen.state}"
    if seen.load >= 1:
        return "all its places are taken"
    return ""


def _beside(task: Task, seen: Seen) -> str:
    """Return why an agent does not ask the queue that a task by capability waits in, "" when it does."""
    if subjects.circle_of(task.queue):
        return CLAIMED if seen.attached else NO_EXECUTOR
    chosen = task.queue.replace("=", "/")
    if "=" in task.queue and not task.agent and chosen != f"{seen.node}/{seen.agent}":
        return f"a router chose {chosen}"
    return ""


def explain(sight: Sight, around: Surroundings, now_ns: int) -> str:
    """Return why a task is where it is, in one or two sentences."""
    if sight.state in records.FINAL:
        return _ended(sight, dropped=around.dropped)
    if sight.state == "running":
        return _running(sight, around, now_ns)
    if sight.state == "waiting" and sight.outcome is not None:
        left_s = max(0.0, (sight.outcome.due_ns - now_ns) / S)
        number, most = sight.task.number, sight.task.retry.max_attempts
        tried = f"{number} of {most}" if number <= most else f"{number}"  # a redriven one has had all of them before
        return f"Attempt {tried} begins at {_at(sight.outcome.due_ns)}, in {left_s:.1f} s. {_failed(sight)}"
    return _pending(sight, around)


def _ended(sight: Sight, *, dropped: bool) -> str:
    outcome = sight.outcome
    if outcome is None:
        return f"It is {sight.state}."
    who = f"{outcome.node}/{outcome.agent}" if outcome.agent else outcome.node or "nobody"
    if sight.state == "completed":
        return f"{who} completed it at {_at(outcome.ended_ns)}, in attempt {sight.task.number}."
    error = outcome.error or {}
    said = f"{error.get('message', '')} ({error.get('code', '')})"
    if sight.state == "dead":
        again = f"`knotwork dead redrive {sight.task.run}` revives it."
        if dropped:
            again = f"Its dead letter is gone; `knotwork task retry {sight.task.run}` submits it anew."
        return f"It is dead since {_at(outcome.ended_ns)}: {said} {again}"
    return f"It ended as {sight.state} at {_at(outcome.ended_ns)} by {who}: {said}{_no_more(sight, error)}"


def _no_more(sight: Sight, error: dict[str, Any]) -> str:
    """Return why no attempt followed a failure although the task may have more of them; "" when there is no more to say."""
    retry, code = sight.task.retry, error.get("code", "")
    failed = sight.state == "failed" or (sight.state == "timed-out" and code != "work.deadline")
    if not failed or retry.max_attempts == 1 or settle.may_retry(retry, error):
        return ""
    if retry.on:
        return f". It was not tried again: its `retry_on` names {', '.join(retry.on)}."
    return ". It was not tried again: the failure does not say that it may pass. `retry_on` may name its code."


def _running(sight: Sight, around: Surroundings, now_ns: int) -> str:
    started = sight.started
    if started is None:
        return "It runs."
    for_s = max(0.0, (now_ns - started.started_ns) / S)
    text = f"{started.node}/{started.agent} has it since {_at(started.started_ns)} ({for_s:.1f} s), in attempt {sight.task.number}."
    if around.node_state in ("online", "draining"):
        return text
    state = around.node_state or "gone"
    return (
        f"{text} That node is {state}: {around.lease_s:g} s after its last sign of life the task waits again, "
        "for whoever can do it."
    )


def _failed(sight: Sight) -> str:
    error = (sight.outcome.error if sight.outcome is not None else None) or {}
    return f"The one before failed: {error.get('message', '')} ({error.get('code', '')})"


def _pending(sight: Sight, around: Surroundings) -> str:
    task = sight.task
    place = f"It waits in queue {subjects.capability_of(task.queue) or subjects.shown(task.queue)}" + (
        "" if task.boundary == records.NO_BOUNDARY else f" of boundary {task.boundary}"
    )
    before = "" if around.before is None else f", lane {task.lane}, with {around.before} before it"
    return f"{place}{before}: {_reason(task, around)}." + (f" {around.spin_up}" if around.spin_up else "")


def _reason(task: Task, around: Surroundings) -> str:
    if around.held:
        return f"{task.labels[LABEL]}, of which it is a part, is paused or has spent its budget"
    considered = consider(task, around.agents)
    if task.node and around.node_state not in ("online", "draining", "stale"):
        return f"node {task.node} is away"
    if not considered:
        name = f"agent {task.agent}" if task.agent else f"capability {task.capability}"
        return f"nobody who is there offers {name}"
    if all(one.why_not for one in considered):
        reasons = list(dict.fromkeys(one.why_not for one in considered))
        if len(reasons) == 1:
            return f"{_count(len(considered))}: {reasons[0]}"
        return f"{_count(len(considered))}, each for a reason of its own"
    return _free([one.agent for one in considered if not one.why_not])


def _free(agents: Sequence[Seen]) -> str:
    """Return who of those that are free takes a task: nobody knows when one comes and asks that came in from outside."""
    soon = next((one for one in agents if not one.attached), None)
    if soon is None:
        return f"{agents[0].node}/{agents[0].agent} can take it, once it asks for work"
    return f"{soon.node}/{soon.agent} is free to take it, within {SOON_S:g} s"


def _count(count: int) -> str:
    return "the one agent that could take it does not" if count == 1 else f"none of {count} agents takes it"


def _at(time_ns: int) -> str:
    moment = datetime.fromtimestamp(time_ns / 1e9, UTC)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")
