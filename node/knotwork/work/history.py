"""What happened to a run? Its facts, and what its attempts carry along of earlier ones, as one list in order (pure).

Facts of attempts that ended are packed away after a while; the task itself remembers them (`Task.past`).
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, NamedTuple

import msgspec

from knotwork.bus import digits
from knotwork.sdk.errors import Invalid
from knotwork.work import fold, records, settle
from knotwork.work.records import Past, Released, Started, State, Task

if TYPE_CHECKING:
    from knotwork.bus.reading import Stored
    from knotwork.work.records import Outcome

_NULL = msgspec.Raw(b"null")
_TRACE_PARTS = 8  # run.<shard>.<run>.started.<step>.<iteration>.<number>.<delivery>
_BEFORE, _WITHIN, _END = 0, 1, 2
"""Where a thing stands within its attempt, whatever the clocks of two nodes say."""


class Happened(NamedTuple):
    """One thing that happened, at `at_ns` (nanoseconds since 1970): `what` it was, and the state of the run since."""

    iteration: int
    number: int
    rank: int
    at_ns: int
    what: str
    state: State
    node: str = ""
    agent: str = ""
    due_ns: int = 0
    code: str = ""
    message: str = ""

    @property
    def beginning(self) -> tuple[int, int, str, str]:
        """Return what two tellings of the same beginning share: its outcome tells of it, and so may a trace."""
        return self.iteration, self.number, self.node, self.agent

    @property
    def moment(self) -> tuple[int, int, str, int]:
        """Return what two tellings of the same beginning share, of whichever node: an agent may tell another how it ended."""
        return self.iteration, self.number, self.agent, self.at_ns


def transitions(task: Task, facts: Iterable[Stored], ended: Outcome | None = None) -> list[Happened]:
    """Return everything that happened to a run, in order. `task` is its latest attempt, `ended` its end when known."""
    told: list[Happened] = []
    ends: dict[tuple[int, int], Happened] = {}
    begun: dict[tuple[int, int, str, str], Happened] = {}
    outcomes = [_of_past(past) for past in task.past if past.state != settle.CRASHED]
    outcomes += [_of_outcome(ended)] if ended is not None else []
    for stored in facts:
        found = fold.outcome_at(stored.subject, stored.data)
        if found is not None:
            outcomes.append(_of_outcome(found[1]))
        else:
            told += _of_trace(stored)
    for start, end in outcomes:
        ends[end.iteration, end.number] = end
        if start is not None:
            begun[start.beginning] = start
    traced = [one for one in told if one.what == "started"]
    known, moments = {one.beginning for one in traced}, {one.moment for one in traced}
    told += [one for key, one in begun.items() if key not in known and one.moment not in moments]
    crashed = (_of_past(past)[0] for past in task.past if past.state == settle.CRASHED)
    moments |= {one.moment for one in begun.values()}
    told += [one for one in crashed if one is not None and one.moment not in moments]
    revived = {(one.iteration, one.number) for one in told if one.what == "redriven"}
    told += [one for one in _of_redrives(task) if (one.iteration, one.number) not in revived]
    first = Happened(0, 1, _BEFORE, task.submitted_ns, "submitted", "pending")
    happened = [first, *told, *ends.values()]
    if ended is not None:  # what is behind the end was written by somebody else
        happened = [one for one in happened if (one.iteration, one.number) <= fold.place_of(task)]
    return sorted(happened, key=lambda one: (one.iteration, one.number, one.rank, one.at_ns))


def without_values(stored: Stored) -> Stored:
    """Return a fact without its input and output, which may be large and say nothing about what happened."""
    found = fold.outcome_at(stored.subject, stored.data)
    if found is None:
        return stored
    outcome = found[1]
    task = msgspec.structs.replace(records.decode_task(bytes(outcome.task)), input=_NULL, past=())
    light = msgspec.structs.replace(outcome, task=records.raw(task), output=_NULL)
    return msgspec.structs.replace(stored, data=records.encode(light))


def told(stored: Stored) -> list[Happened]:
    """Return what one fact tells, as it was just stored."""
    found = fold.outcome_at(stored.subject, stored.data)
    return [_of_outcome(found[1])[1]] if found is not None else _of_trace(stored)


def redriven(by: str) -> str:
    """Return how it is told that somebody redrove a dead task."""
    return f"redriven by {by}"


def _of_redrives(task: Task) -> list[Happened]:
    return [
        Happened(
            past.iteration, past.number + 1, _BEFORE, past.redriven_ns, "redriven", "pending",
            message=redriven(past.redriven_by),
        )
        for past in task.past
        if past.redriven_ns
    ]  # fmt: skip


def _of_past(past: Past) -> tuple[Happened | None, Happened]:
    who = past.node, past.agent
    return (
        Happened(past.iteration, past.number, _WITHIN, past.started_ns, "started", "running", *who)
        if past.started_ns
        else None,
        Happened(
            past.iteration, past.number, _END, past.ended_ns, past.state, _state(past.state), *who, 0, past.code,
            past.message,
        ),
    )  # fmt: skip


def _of_outcome(outcome: Outcome) -> tuple[Happened | None, Happened]:
    task, error, who = records.decode_task(bytes(outcome.task)), outcome.error or {}, (outcome.node, outcome.agent)
    return (
        Happened(task.iteration, task.number, _WITHIN, outcome.started_ns, "started", "running", *who)
        if outcome.started_ns
        else None,
        Happened(
            task.iteration, task.number, _END, outcome.ended_ns, outcome.state, _state(outcome.state), *who,
            outcome.due_ns, str(error.get("code", "")), str(error.get("message", "")),
        ),
    )  # fmt: skip


def _of_trace(stored: Stored) -> list[Happened]:
    """Return what any other fact tells; what is none of ours tells nothing."""
    parts = stored.subject.split(".")
    try:
        if parts[3] == "redriven":
            task = records.decode_task(stored.data)
            place = task.iteration, task.number, _BEFORE
            return [Happened(*place, stored.time_ns, "redriven", "pending", message=task.why)]
        if (
            len(parts) != _TRACE_PARTS
            or (iteration := digits.read(parts[5])) is None
            or (number := digits.read(parts[6])) is None
        ):
            return []
        place = iteration, number, _WITHIN
        if parts[3] == "started":
            begun = msgspec.json.decode(stored.data, type=Started)
            return [Happened(*place, begun.started_ns, "started", "running", begun.node, begun.agent)]
        if parts[3] == "released":
            back = msgspec.json.decode(stored.data, type=Released)
            who = back.node, back.agent
            return [Happened(*place, back.at_ns, "released", "pending", *who, code=back.code, message=back.why)]
    except (Invalid, msgspec.DecodeError, UnicodeDecodeError):
        return []
    return []


def _state(ended: str) -> State:
    """Return the state of a run after an attempt that ended like this."""
    match ended:
        case "completed" | "failed" | "cancelled" | "timed-out" | "dead" | "waiting":
            return ended
        case _:
            return "pending"
