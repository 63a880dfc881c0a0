"""What do messages change in the rows? Worked out for a batch at once, from the rows that are there (pure).

Rows are joined, not replaced: of two entries of one task the later attempt stands, and the first end that is final
stands for ever. So it makes no difference in which order messages are read, or how often.
"""

from __future__ import annotations

import zlib
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

import msgspec

from knotwork.bus import subjects
from knotwork.view import evidence
from knotwork.view.evidence import Entry, Garbage, Trace

ORD_BITS = 11
"""A task's `ord` is the microsecond of its submission and so many bits that tell tasks of the same one apart."""
ORD_SPREAD = 0xFFFFFF
"""How far from its microsecond a task may stand when the places there are taken."""
ORD_TRIES = 16
"""So many places of its own microsecond are tried before."""
_ORD_MASK = (1 << ORD_BITS) - 1


class Message(NamedTuple):
    """One stored message; `archived` is the place of the segment it was packed in, else 0."""

    subject: str
    data: bytes
    seq: int
    archived: int = 0


class Known(NamedTuple):
    """What the database has of a task, as far as it matters here."""

    id: str
    ord: int
    rank: int
    seq: int
    state: str
    capability: str
    boundary: str
    agent: str
    target: str
    labels: str
    submitted_ns: int
    archived: int


class Running(NamedTuple):
    """A change of a task that waits in TASKS: it was begun, or handed back."""

    state: str
    started_ns: int
    node: str
    agent: str
    worker: str
    ord: int


@dataclass(slots=True)
class Evidence:
    """What a batch of messages tells, joined for each task. `ends` are those after which another attempt may follow."""

    entries: dict[str, Entry] = field(default_factory=dict)
    traces: dict[str, Trace] = field(default_factory=dict)
    ends: dict[tuple[str, int], Entry] = field(default_factory=dict)
    garbage: list[tuple[str, str]] = field(default_factory=list)


@dataclass(slots=True)
class Changes:
    """What to write. `fresh` and `again` are new rows and new contents of rows, with their `ord`."""

    fresh: list[tuple[int, Entry]] = field(default_factory=list)
    again: list[tuple[int, Entry]] = field(default_factory=list)
    gone: list[int] = field(default_factory=list)
    running: list[Running] = field(default_factory=list)
    traces: list[Trace] = field(default_factory=list)
    traced_to: list[tuple[str, int]] = field(default_factory=list)
    counts: Counter[tuple[str, str, str, str]] = field(default_factory=Counter)


# -- joining -------------------------------------------------------------------------------------------------------------


def later(one: Entry, other: Entry) -> Entry:
    """Return which of two entries of a task stands."""
    return max(one, other, key=lambda entry: (*weight(entry), entry.archived))


def weight(entry: Entry | Known) -> tuple[int, int, int]:
    """Return what orders the entries of a task: the greater is the truth.

    Of two ends that are final the first is, by attempt and then by place: nothing comes after such an end, so the other
    was written by somebody else.
    """
    if entry.rank >= evidence.CLOSED:
        return 1, -entry.rank, -entry.seq
    return 0, entry.rank, entry.seq


def both(one: Trace, other: Trace) -> Trace:
    """Return what two traces of a task tell together."""
    if one.attempt != other.attempt:
        return one if one.attempt > other.attempt else other
    begun = max(one, other, key=lambda trace: (trace.started, trace.at_ns, trace.node, trace.agent, trace.claimed))
    return msgspec.structs.replace(begun, released=max(one.released, other.released))


def gather(messages: Iterable[Message]) -> Evidence:
    """Return what messages tell; what is garbage is passed over and listed with its reason.

    An attempt in TASKS whose end is in the same batch is not even decoded, so ends are best given first.
    """
    found = Evidence()
    for message in messages:
        try:
            _take(found, message)
        except Garbage as error:
            found.garbage.append((message.subject, str(error)))
    return found


def _take(found: Evidence, message: Message) -> None:
    subject = message.subject
    if subject.startswith("task."):
        if not _is_over(found, subject):
            _enter(found, evidence.read_task(subject, message.data, message.seq))
        return
    told = evidence.read_fact(subject, message.data, message.seq, message.archived)
    if isinstance(told, Trace):
        before = found.traces.get(told.id)
        found.traces[told.id] = told if before is None else both(before, told)
        return
    _enter(found, told)
    if told is not None and told.rank < evidence.CLOSED:
        place = told.id, evidence.attempt_of(told.rank)
        standing = found.ends.get(place)
        found.ends[place] = told if standing is None else later(standing, told)


def _enter(found: Evidence, entry: Entry | None) -> None:
    if entry is not None:
        before = found.entries.get(entry.id)
        found.entries[entry.id] = entry if before is None else later(before, entry)
        if before is not None:
            _pass_over(found, before, entry)


def _pass_over(found: Evidence, one: Entry | Known, other: Entry) -> None:
    """List as garbage what stands behind the end of a task."""
    if one.rank >= evidence.CLOSED and other.rank >= evidence.CLOSED and one.rank != other.rank:
        behind = evidence.attempt_of(max(one.rank, other.rank))
        subject = subjects.outcome(one.id, subjects.STEP, behind >> 10, behind & 1023)
        found.garbage.append((subject, "the task had ended before"))


def _is_over(found: Evidence, subject: str) -> bool:
    """Return whether something later than an attempt in TASKS is known from this batch."""
    parts = subject.split(".")
    if len(parts) != 8:  # noqa: PLR2004
        return False
    entry = found.entries.get(parts[4])
    if entry is None or not parts[6].isdecimal() or not parts[7].isdecimal() or parts[5] != subjects.STEP:
        return False
    return entry.rank > evidence.attempt(int(parts[6]), int(parts[7])) << 1


def run_of(subject: str) -> str:
    """Return the run that a fact is about, "" when it is none."""
    parts = subject.split(".", 3)
    return parts[2] if len(parts) > 3 else ""  # noqa: PLR2004


def is_same(message: Message, known: Known) -> bool:
    """Return whether a packed outcome is the one that the database has of its task, judged without decoding it."""
    parts = message.subject.split(".")
    if len(parts) != 7 or known.seq != message.seq or not evidence.is_end(known.rank):  # noqa: PLR2004
        return False
    try:
        place = evidence.attempt(int(parts[5]), int(parts[6]))
    except ValueError:
        return False
    return parts[2] == known.id and parts[3] == "outcome" and evidence.attempt_of(known.rank) == place


# -- what that changes ---------------------------------------------------------------------------------------------------


def plan(
    found: Evidence, known: Mapping[str, Known], traces: Mapping[str, Trace], is_taken: Callable[[int], bool]
) -> Changes:
    """Return what to write.

    `known` and `traces` are what the database has of these tasks, `is_taken` says whether it uses an `ord` already.
    """
    changes, places = Changes(), _Places(is_taken)
    for run, entry in found.entries.items():
        old = known.get(run)
        if old is None:
            _add(changes, entry, places.free(entry))
        elif weight(entry) > weight(old):
            _replace(changes, old, entry, places)
        if old is not None:
            _pass_over(found, old, entry)
    _trace(changes, found, known, traces)
    return changes


def first_place(entry: Entry) -> int:
    """Return the `ord` that a task gets when no other has it."""
    return (entry.submitted_ns // 1000 << ORD_BITS) + (zlib.crc32(entry.id.encode()) & _ORD_MASK)


class _Places:
    """Gives new rows their `ord`."""

    def __init__(self, is_taken: Callable[[int], bool]) -> None:
        self._is_taken, self._given = is_taken, set[int]()

    def free(self, entry: Entry) -> int:
        """Return where a task stands in the order of submission; tasks of one moment get places near each other."""
        base, place, turn = entry.submitted_ns // 1000 << ORD_BITS, first_place(entry), 0
        while place in self._given or self._is_taken(place):
            turn += 1
            within = _ORD_MASK if turn < ORD_TRIES else ORD_SPREAD
            place = base + (zlib.crc32(f"{entry.id}{turn}".encode()) & within)
        self._given.add(place)
        return place


def _add(changes: Changes, entry: Entry, place: int) -> None:
    changes.fresh.append((place, entry))
    changes.counts[counted(entry)] += 1


def _replace(changes: Changes, old: Known, entry: Entry, places: _Places) -> None:
    changes.counts[counted(old)] -= 1
    if old.submitted_ns == entry.submitted_ns and old.labels == entry.labels:
        changes.again.append((old.ord, entry))
        changes.counts[counted(entry)] += 1
        return
    changes.gone.append(old.ord)
    _add(changes, entry, places.free(entry))


def _trace(changes: Changes, found: Evidence, known: Mapping[str, Known], traces: Mapping[str, Trace]) -> None:
    """Work out which tasks that wait in TASKS are running, and which traces are still worth keeping."""
    standing = {entry.id: (place, entry) for place, entry in (*changes.fresh, *changes.again)}
    waiting = set()
    for run, (_, entry) in standing.items():
        changes.traced_to.append((run, (entry.rank & (evidence.CLOSED - 1)) + 1 >> 1))
        if not evidence.is_end(entry.rank):
            waiting.add(run)
    for run in {*found.traces, *waiting}:
        told, before = found.traces.get(run), traces.get(run)
        trace = both(told, before) if told and before else told or before
        fresh = standing.get(run)
        row: Entry | Known | None = fresh[1] if fresh else known.get(run)
        if trace is None or (row is not None and _is_past(trace, row.rank)):
            continue
        if told and trace != before:
            changes.traces.append(trace)
        if row is not None and evidence.attempt_of(row.rank) == trace.attempt:
            _show(changes, trace, row, fresh[0] if fresh else known[run].ord)


def _is_past(trace: Trace, rank: int) -> bool:
    """Return whether a trace is of an attempt that has ended."""
    attempt = evidence.attempt_of(rank)
    return rank >= evidence.CLOSED or trace.attempt < attempt or (trace.attempt == attempt and evidence.is_end(rank))


def _show(changes: Changes, trace: Trace, row: Entry | Known, place: int) -> None:
    """Let a task that waits in TASKS be shown as its trace says: it runs, or it waits again as it was asked for."""
    state, at_ns, worker = "running", trace.at_ns, f"{trace.node}/{trace.agent}"
    node, agent = trace.node, trace.agent
    if trace.started <= trace.released:
        state, at_ns, worker = "pending", 0, ""
        node, agent = evidence.asked(row.target)
    changes.counts[counted(row)] -= 1
    changes.counts[state, row.capability, row.boundary, agent] += 1
    changes.running.append(Running(state, at_ns, node, agent, worker, place))


def counted(row: Entry | Known) -> tuple[str, str, str, str]:
    """Return under what a task is counted."""
    return row.state, row.capability, row.boundary, row.agent
