"""How do runs look to those who ask? What the facts of a run add up to, as the ops' replies (pure)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from knotwork.flow import anew, effects, facts
from knotwork.flow.run import OVER, decoded
from knotwork.host.events import rfc3339
from knotwork.ops import flow_replies
from knotwork.ops.task_replies import TaskError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from knotwork.bus.reading import Stored
    from knotwork.flow.listing import Listed
    from knotwork.flow.run import Progress, Run
    from knotwork.flow.runs import Sight

OUTPUT_MAX_BYTES = 64 * 1024
"""What is shown of the output of one step; a larger one is had with the blob or from its task."""


def moment(time_ns: int) -> str:
    """Return a time as it is shown, empty for none."""
    return rfc3339(time_ns) if time_ns else ""


def info(sight: Sight) -> flow_replies.RunInfo:
    """Return a run whole."""
    finish = sight.finish
    error = finish.error if finish is not None else sight.run.error
    parent = sight.start.parent
    return flow_replies.RunInfo(
        **row(sight).model_dump(),
        digest=sight.start.digest,
        parent=f"{parent.run}/{parent.step}" if parent is not None else "",
        previous=anew.before(sight.start),
        number=sight.start.number,
        input=decoded(bytes(sight.start.input)),
        output=decoded(bytes(finish.output)) if finish is not None else None,
        blob=finish.blob if finish is not None else "",
        error=_error(error),
        facts=len(sight.facts),
        progress=[_step(sight.run, step) for step in sight.run.steps.values()],
        children=[child(sight.run, token) for token in sight.run.spawned],
    )


def child(run: Run, token: str) -> flow_replies.Child:
    """Return what a worker started."""
    one = run.spawned[token]
    end = one.end
    return flow_replies.Child(
        step=token, what=one.what, run=facts.child_run(run.id, token) if one.is_run else "",
        state=end.state if end is not None else "open", error=_error(end.error) if end is not None else None,
        output=decoded(bytes(end.output)) if end is not None and len(end.output) <= OUTPUT_MAX_BYTES else None,
    )  # fmt: skip


def row(sight: Sight) -> flow_replies.RunRow:
    """Return a run in short."""
    run, start, finish = sight.run, sight.start, sight.finish
    counted = [step for step in run.steps.values() if not _idle_handler(run, step)]
    error = finish.error if finish is not None else run.error
    return flow_replies.RunRow(
        id=sight.id, workflow=start.workflow, state=state_of(run, sight.finish),
        done=sum(step.state in OVER for step in counted), steps=len(counted), by=start.by,
        trigger=start.trigger, started_at=moment(start.started_ns),
        ended_at=moment(finish.ended_ns) if finish is not None else "", code=str((error or {}).get("code", "")),
        labels=start.labels, next=finish.next if finish is not None else "",
    )  # fmt: skip


def ended(one: Listed, steps: int) -> flow_replies.RunRow:
    """Return a run that is over in short."""
    assert one.finish is not None
    start, state = one.start, one.finish.state
    return flow_replies.RunRow(
        id=one.id, workflow=start.workflow, state=state if state != "dead" else "failed", done=steps, steps=steps,
        by=start.by, trigger=start.trigger, started_at=moment(start.started_ns), ended_at=moment(one.finish.ended_ns),
        code=str((one.finish.error or {}).get("code", "")), labels=start.labels, next=one.finish.next,
    )  # fmt: skip


def past(one: Mapping[str, Any], steps: int) -> flow_replies.RunRow:
    """Return a run that is over in short, as the view has it."""
    return flow_replies.RunRow(
        id=one["id"], workflow=one["workflow"], state=one["state"] if one["state"] != "dead" else "failed", done=steps,
        steps=steps, by=one["submitter"], trigger=one["trigger"], started_at=moment(one["started_ns"]),
        ended_at=moment(one["ended_ns"]), code=one["code"], labels=one["labels"], next=one["next"],
    )  # fmt: skip


def state_of(run: Run, finish: facts.Finish | None) -> flow_replies.RunState:
    """Return what a run is doing, in one word."""
    if finish is not None:
        return finish.state if finish.state != "dead" else "failed"
    if run.phase != "running":
        return "stopping"
    return "paused" if run.paused else "running"


def _step(run: Run, step: Progress) -> flow_replies.StepInfo:
    shown = decoded(step.output) if len(step.output) <= OUTPUT_MAX_BYTES else None
    items = step.items
    return flow_replies.StepInfo(
        id=step.box.id, kind=step.box.spec.kind, state="handler" if _idle_handler(run, step) else step.state,
        items=f"{len(items.outputs) - items.left}/{len(items.outputs)}" if items is not None else "",
        begun_at=moment(step.begun_ns), ended_at=moment(step.ended_ns), output=shown, error=_error(step.error),
    )  # fmt: skip


def _idle_handler(run: Run, step: Progress) -> bool:
    return step.box.id in run.graph.handlers and step.state == "blocked"


def _error(error: dict[str, Any] | None) -> TaskError | None:
    if error is None:
        return None
    return TaskError(**{key: error[key] for key in ("kind", "code", "message", "hint", "detail") if error.get(key)})


def waits(run: Run) -> list[flow_replies.Wait]:
    """Return everything that a run waits for."""
    found = [_wait(run, effect) for effect in run.open.values()]
    if run.paused:
        found.append(flow_replies.Wait(step="", what="somebody to resume it"))
    return [one for one in found if one is not None]


def _wait(run: Run, effect: effects.Effect) -> flow_replies.Wait | None:  # noqa: C901, PLR0911  one answer for each kind
    token = getattr(effect, "token", "")
    step = run.steps.get(token.partition("--")[0])
    since = moment(step.begun_ns) if step is not None else ""
    match effect:
        case effects.Dispatch(spec=spec, near=near):
            agent, capability = getattr(spec, "agent", None), getattr(spec, "capability", None)
            whom = f"agent {agent}" if agent else f"any agent with {capability}"
            if near is not None:
                whom += f" on {near.node}{'' if near.hard else ', or elsewhere when nobody there can do it'}"
            return flow_replies.Wait(step=token, what=f"its task: {whom}", since=since)
        case effects.Readmit():
            told = "the time of its next attempt, and its place in the limit"
            return flow_replies.Wait(step=token, what=told, since=since, until=moment(effect.due_ns))
        case effects.SetTimer():
            name = effect.timer.partition("-")[2]
            return flow_replies.Wait(step=name, what="a time", since=since, until=moment(effect.due_ns))
        case effects.StartChild():
            child = facts.child_run(run.id, token)
            return flow_replies.Wait(step=token, what=f"the run {child} of {effect.workflow}", since=since)
        case effects.WatchEvent():
            told = f"an event {effect.event}" + (f" where {effect.match}" if effect.match else "")
            return flow_replies.Wait(step=token, what=told, since=moment(effect.since_ns))
        case effects.Expect():
            return flow_replies.Wait(step=token, what=f"the signal {effect.signal}", since=moment(effect.since_ns))
        case effects.Ask():
            return flow_replies.Wait(step=token, what="somebody to approve or reject", since=moment(effect.since_ns))
        case effects.Withdraw() | effects.CancelChild():
            return flow_replies.Wait(step=token, what="its work to stop", since=since)
        case effects.End():
            return flow_replies.Wait(step="", what="its end to be recorded")
        case _:
            return flow_replies.Wait(step=token, what="to be carried out", since=since)


def event(number: int, stored: Stored) -> flow_replies.RunEvent:
    """Return a fact as a line."""
    parts = stored.subject.split(".")
    what, about = parts[3], parts[4] if len(parts) > 4 else ""  # noqa: PLR2004  run.<shard>.<run>.<what>.<about>
    told: dict[str, Any] = {}
    try:
        body = decoded(stored.data) if stored.data else None
    except ValueError:
        body = None
    if isinstance(body, dict):
        error = body.get("error") or {}
        told = {
            "state": str(body.get("state", "")), "by": str(body.get("by", "") or body.get("node", "")),
            "message": str(error.get("message", "") if isinstance(error, dict) else "")[:300] or str(body.get("why", "")),
        }  # fmt: skip
    return flow_replies.RunEvent(number=number, at=moment(stored.time_ns), what=what, step=about, **told)
