"""How does a task look to those who ask? What is stored of it, as the ops' replies (pure)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from knotwork.bus import codec, subjects
from knotwork.desk.moments import moment
from knotwork.ops import task_replies
from knotwork.sdk.errors import Invalid
from knotwork.work import lookup, records, settle
from knotwork.work import why as reasons

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from knotwork.work.history import Happened
    from knotwork.work.lookup import Sight
    from knotwork.work.queues import Depth
    from knotwork.work.records import Outcome, Past
    from knotwork.work.why import Surroundings

SPARED = "Its input was not kept: the store had no room for it when it ended."


def place(node: str, agent: str) -> str:
    """Return who works, as `node/agent`; what is not known is left out."""
    return f"{node}/{agent}" if node and agent else agent or node


def queue_rows(depths: Iterable[Depth]) -> list[task_replies.QueueRow]:
    """Return how queues stand; those that are told as one are one, whoever may be meant in each."""
    found: dict[tuple[str, str, str], task_replies.QueueRow] = {}
    for depth in depths:
        routed, lane = depth.queue.routed, depth.queue.lane
        row = task_replies.QueueRow(
            boundary=records.shown_boundary(depth.queue.boundary), route=subjects.shown(routed),
            capability=subjects.capability_of(routed), scope=subjects.circle_of(routed).partition("-")[0], lane=lane,
            waiting=depth.pending, taken=depth.taken,
        )  # fmt: skip
        known = found.setdefault((row.boundary, row.route, lane), row)
        if known is not row:
            more = {"waiting": known.waiting + row.waiting, "taken": known.taken + row.taken}
            found[row.boundary, row.route, lane] = known.model_copy(update=more)
    return list(found.values())


def of_outcome(outcome: Outcome) -> Sight:
    """Return a run that ended like this, wherever its outcome is kept."""
    return lookup.Sight(records.decode_task(bytes(outcome.task)), lookup.final_state(outcome), outcome)


def row(sight: Sight) -> task_replies.TaskRow:
    """Return a task in short."""
    return task_replies.TaskRow(**_row(sight))


def _row(sight: Sight) -> dict[str, Any]:
    task, outcome, started = sight.task, sight.outcome, sight.started
    ended = sight.state in records.FINAL
    began_ns = started.started_ns if started is not None else outcome.started_ns if outcome is not None and ended else 0
    worker = started or (outcome if ended or sight.state == "waiting" else None)
    error = (outcome.error or {}) if outcome is not None else {}
    return {
        "id": task.run,
        "state": sight.state,
        "capability": task.capability,
        "agent": f"{task.node}/{task.agent}" if task.node else task.agent,
        "boundary": records.shown_boundary(task.boundary),
        "priority": task.priority,
        "attempt": task.number,
        "iteration": task.iteration,
        "worker": place(worker.node, worker.agent) if worker is not None and worker.agent else "",
        "submitted_at": moment(task.submitted_ns),
        "started_at": moment(began_ns),
        "ended_at": moment(outcome.ended_ns) if outcome is not None and ended else "",
        "due_at": moment(outcome.due_ns) if outcome is not None and sight.state == "waiting" else "",
        "deadline": moment(task.deadline_ns),
        "code": str(error.get("code", "")) if ended or sight.state == "waiting" else "",
        "by": task.by,
        "parent": task.parent,
        "labels": task.labels,
    }


def info(sight: Sight, *, with_input: bool = False, new: bool = False, note: str = "") -> task_replies.TaskInfo:
    """Return a task with what came of it; values that are kept elsewhere stand as digests."""
    task, outcome = sight.task, sight.outcome
    ended = sight.state in records.FINAL
    output = outcome if outcome is not None and sight.state == "completed" else None
    return task_replies.TaskInfo(
        **_row(sight),
        ended=ended,
        output=value(output.output) if output is not None else None,
        output_blob=output.blob if output is not None else "",
        error=error_of(outcome.error) if outcome is not None and sight.state != "completed" else None,
        attempts=[attempt(past) for past in settle.told(task, outcome if ended else None)],
        max_attempts=task.retry.max_attempts,
        attempt_timeout_s=task.timeout_s,
        key=task.key,
        input=value(task.input) if with_input else None,
        input_blob=task.blob,
        traceparent=task.traceparent,
        new=new,
        note=note or (SPARED if task.spared and with_input else ""),
    )


def value(raw: Any) -> Any:
    """Return a stored JSON value; what is none is shown as nothing, so that it cannot block the rest."""
    try:
        return codec.decode(bytes(raw))
    except Invalid:
        return None


def error_of(wire: Mapping[str, Any] | None) -> task_replies.TaskError | None:
    """Return a stored error."""
    if not wire:
        return None
    detail = wire.get("detail")
    return task_replies.TaskError(
        kind=str(wire.get("kind", "")),
        code=str(wire.get("code", "")),
        message=str(wire.get("message", "")),
        hint=str(wire.get("hint", "")),
        detail=detail if isinstance(detail, dict) else {},
    )


def attempt(past: Past) -> task_replies.Attempt:
    """Return an attempt that ended."""
    return task_replies.Attempt(
        attempt=past.number,
        iteration=past.iteration,
        state=past.state,
        worker=place(past.node, past.agent),
        started_at=moment(past.started_ns),
        ended_at=moment(past.ended_ns),
        code=past.code,
        message=past.message,
    )


def transition(one: Happened) -> task_replies.Transition:
    """Return one thing that happened to a task."""
    return task_replies.Transition(
        at=moment(one.at_ns),
        what=one.what,
        state=one.state,
        attempt=one.number,
        iteration=one.iteration,
        worker=place(one.node, one.agent),
        due_at=moment(one.due_ns),
        code=one.code,
        message=one.message,
    )


def why(sight: Sight, around: Surroundings, now_ns: int) -> task_replies.TaskWhy:
    """Return why a task is where it is."""
    open_ = sight.state not in records.FINAL
    considered = reasons.consider(sight.task, around.agents) if open_ and sight.state != "running" else []
    return task_replies.TaskWhy(
        id=sight.task.run,
        state=sight.state,
        why=reasons.explain(sight, around, now_ns),
        routed=reasons.routed(sight.task),
        before=around.before,
        due_at=moment(sight.outcome.due_ns) if sight.state == "waiting" and sight.outcome is not None else "",
        agents=[
            task_replies.Considered(
                agent=place(one.agent.node, one.agent.agent), state=one.agent.state, why_not=one.why_not
            )
            for one in considered
        ],
    )
