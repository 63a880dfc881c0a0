"""What is a step to whoever carries it out? A task of `work`, or the start of a run of another workflow."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from knotwork.bus import subjects
from knotwork.flow import facts
from knotwork.work import queues, records

if TYPE_CHECKING:
    from knotwork.flow.effects import StartChild
    from knotwork.flow.facts import Start
    from knotwork.flow.model import Retry, Work
    from knotwork.flow.outputs import Value
    from knotwork.flow.run import Run


def as_task(run: Run, token: str, spec: Work, value: Value, now_ns: int) -> records.Task:
    """Return a step, or an item of one, as the task that it is; `token` is its name on the wire."""
    workflow, start = run.graph.workflow, run.start
    node, _, agent = (spec.agent or "").rpartition("/")
    loop = None
    if spec.kind == "agent_loop":  # type: ignore[attr-defined]  # every step has a kind
        loop = _loop(run.steps[token.partition("--")[0]].begun_ns or run.now_ns, spec)
    return records.Task(
        run=run.id, step=token, queue=_queue(start.circle, spec.capability or "", agent, node),
        capability=spec.capability or "",
        agent=agent, node=node, boundary=spec.boundary or start.boundary or workflow.boundary or records.NO_BOUNDARY,
        priority=spec.priority or start.priority, input=msgspec.Raw(value[0]), blob=value[1], timeout_s=spec.timeout,
        retry=_retry(spec.retry or workflow.retry), labels={**workflow.labels, **start.labels, **spec.labels},
        traceparent=start.traceparent, by=start.by, asker=start.asker, submitted_ns=now_ns, loop=loop,
        start_within_s=spec.schedule_to_start,
        start_by_ns=now_ns + int(spec.schedule_to_start * 1e9) if spec.schedule_to_start is not None else 0,
        heartbeat_s=spec.heartbeat_timeout, gated=spec.limit is not None,
    )  # fmt: skip


def as_run(run: Run, effect: StartChild, digest: str, value: Value, now_ns: int) -> Start:
    """Return the start of the run that a step is; `digest` is that of its definition."""
    parent = None if effect.detach else facts.Parent(run.id, effect.token)
    tree, depth = run.start.tree, run.start.tree_depth
    if effect.spawned:
        tree = tree or facts.Parent(run.id, facts.root(effect.token))
        depth += effect.token.count(facts.CHILD)
    return facts.Start(
        effect.workflow, digest, msgspec.Raw(value[0]), value[1], run.start.by, run.start.labels,
        run.start.priority, run.start.boundary, parent, run.start.depth + 1, traceparent=run.start.traceparent,
        started_ns=now_ns, tree=tree, tree_depth=depth, circle=run.start.circle, paused=effect.paused,
        asker=run.start.asker,
    )  # fmt: skip


def boundary_below(run: Run, effect: StartChild) -> str:
    """Return the boundary of what a run that names none starts: that of the step whose worker wants it, or of the workflow."""
    spec = run.steps[effect.token.partition("--")[0]].box.spec
    return getattr(spec, "boundary", None) or run.graph.workflow.boundary or ""


def _queue(circle: str, capability: str, agent: str, node: str) -> str:
    """Return what a step is routed by: within a circle by its capability there, unless an agent is named."""
    return subjects.own(circle, capability) if circle and not agent else queues.routed(capability, agent, node)


def _loop(begun_ns: int, spec: Any) -> records.Loop:
    until_ns = begun_ns + int(spec.max_duration * 1e9) if spec.max_duration is not None else 0
    return records.Loop(spec.max_iterations, spec.delay, until_ns, spec.budget)


def _retry(retry: Retry) -> records.Retry:
    return records.Retry(
        retry.max_attempts, retry.backoff, retry.delay, retry.multiplier, retry.longest_pause(), retry.jitter, retry.on,
        retry.max_crashes,
    )  # fmt: skip
