"""How do orchestrations look to those who ask? Records and views as the ops' replies (pure)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from knotwork.crew import plan
from knotwork.desk.moments import moment
from knotwork.desk.tasks.rows import error_of
from knotwork.ops import crew_replies

if TYPE_CHECKING:
    from collections.abc import Collection

    from knotwork.crew.budget import Spent
    from knotwork.crew.records import Record, Result
    from knotwork.crew.sight import PartSight, View
    from knotwork.ops.task_replies import TaskError

TASK_SHOWN = 200
"""How much of a task stands in a list."""
ERRORS_MAX_BYTES = 3 * 1024 * 1024
"""Errors of all parts in one answer, which is one message: of those that are longer the beginning is told."""


def planned(record: Record) -> crew_replies.CrewPlan:
    """Return a plan."""
    size = record.complexity
    return crew_replies.CrewPlan(
        id=record.id, phase=record.phase, revision=record.revision,
        parts=[
            crew_replies.PlannedPart(
                id=part.id, title=part.title, instructions=part.instructions, capability=part.capability,
                agent=part.agent, needs=list(part.needs), acceptance=list(part.acceptance), timeout_s=part.timeout_s,
                attempts=part.attempts, why=part.why,
            )
            for part in record.parts
        ],
        groups=plan.groups(record.parts), order=plan.drawn(record.parts),
        complexity=crew_replies.Complexity(
            level=size.level, score=size.score, reasons=list(size.reasons), split=size.split
        ),
        planned_by=record.planned_by, notes=list(record.remarks), scope=record.scope, parent=record.parent,
        task=record.task,
        created_at=moment(record.created_ns),
    )  # fmt: skip


def row(view: View) -> crew_replies.CrewRow:
    """Return an orchestration in short."""
    record = view.record
    return crew_replies.CrewRow(
        id=record.id, phase=view.phase, percent=view.percent, done=len(view.named("completed")), parts=len(view.parts),
        task=record.task[:TASK_SHOWN], by=record.by.name, held=record.held, scope=record.scope, parent=record.parent,
        created_at=moment(record.created_ns), ended_at=moment(record.ended_ns),
    )  # fmt: skip


def over(record: Record) -> crew_replies.CrewRow:
    """Return one that is over in short: its runs need not be looked at."""
    done, parts = len(record.done), len(record.parts)
    return crew_replies.CrewRow(
        id=record.id, phase=record.phase, percent=round(100 * done / parts, 1) if parts else 0.0, done=done, parts=parts,
        task=record.task[:TASK_SHOWN], by=record.by.name, scope=record.scope, parent=record.parent,
        created_at=moment(record.created_ns),
        ended_at=moment(record.ended_ns),
    )  # fmt: skip


def state(view: View, used: Spent, why: str, now_ns: int) -> crew_replies.CrewState:
    """Return everything about an orchestration."""
    record = view.record
    limit = record.budget
    room = room_for_errors(view.parts.values())
    took_s = ((record.ended_ns or now_ns) - record.spawned_ns) / 1e9 if record.spawned_ns else 0.0
    return crew_replies.CrewState(
        id=record.id, phase=view.phase, percent=view.percent,
        parts=[_part(record, view.parts[part.id], room) for part in record.parts if part.id in view.parts],
        order=plan.drawn(record.parts), held=record.held, why=why or _stopped(view),
        task=record.task, synthesis=record.synthesis.how,
        synthesizer=_part(record, view.synthesis, room) if view.synthesis is not None else None,
        budget=crew_replies.Allowance(
            depth=limit.depth, children=limit.children, time_s=limit.time_s, tokens=limit.tokens, cost=limit.cost
        ),
        used=crew_replies.Used(
            children=record.charged, time_s=round(took_s, 3), tokens=used.tokens, cost=round(used.cost, 9)
        ),
        scope=record.scope, parent=record.parent, below=list(record.subs),
        runs=[one.run for one in record.rounds], by=record.by.name,
        node=record.node,
        notes=[
            crew_replies.CrewNote(at=moment(one.at_ns), by=one.by, text=one.text, part=one.part, phase=one.phase)
            for one in record.notes
        ],
        error=error_of(record.error), created_at=moment(record.created_ns), spawned_at=moment(record.spawned_ns),
        ended_at=moment(record.ended_ns),
    )  # fmt: skip


def _stopped(view: View) -> str:
    """Return why it ends on purpose, "" when it does not."""
    stop = view.record.stop
    if stop is None:
        return ""
    return stop.why or ("It is being stopped." if view.record.live else "")


def room_for_errors(parts: Collection[PartSight]) -> int:
    """Return how many bytes each error of these parts may have in one answer."""
    return ERRORS_MAX_BYTES // max(1, sum(part.error is not None for part in parts))


def _error(part: PartSight, room: int) -> TaskError | None:
    """Return what went wrong with a part, its beginning when it has more bytes than there is room."""
    found = error_of(part.error)
    if found is None or len(found.model_dump_json()) <= room:
        return found
    letters = room // 8  # of which each has six bytes at most, beside hint and code
    return found.model_copy(update={"message": f"{found.message[:letters]}…", "hint": found.hint[:500], "detail": {}})


def _part(record: Record, part: PartSight, room: int) -> crew_replies.PartState:
    planned_part = next((one for one in record.parts if one.id == part.id), None)
    return crew_replies.PartState(
        id=part.id, title=planned_part.title if planned_part is not None else "", state=part.state,
        capability=planned_part.capability if planned_part is not None else record.synthesis.capability,
        agent=part.agent, node=part.node, percent=part.percent, text=part.text, attempt=part.attempt,
        needs=list(planned_part.needs) if planned_part is not None else [], run=part.run,
        begun_at=moment(part.begun_ns), ended_at=moment(part.ended_ns), tokens=part.used.tokens,
        cost=round(part.used.cost, 9), error=_error(part, room),
    )  # fmt: skip


def part_result(record: Record, part: PartSight, output: Any, blob: str, room: int) -> crew_replies.PartResult:
    """Return what a part gave."""
    title = next((one.title for one in record.parts if one.id == part.id), "")
    return crew_replies.PartResult(
        id=part.id, title=title, state=part.state, agent=part.agent, output=output, blob=blob,
        error=_error(part, room),
    )  # fmt: skip


def result(view: View, found: Result, output: Any, blob: str) -> crew_replies.CrewResult:
    """Return what the results add up to."""
    return crew_replies.CrewResult(
        id=view.record.id, phase=view.phase, how=found.how, output=output, blob=blob,
        conflicts=[crew_replies.Contradiction(**msgspec.json.decode(one)) for one in found.conflicts],
        missing=list(found.missing), by=found.by, at=moment(found.at_ns),
    )  # fmt: skip
