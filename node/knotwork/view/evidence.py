"""What does one stored message tell about a task? Read from FACTS, TASKS and ARCHIVE, where others may write too (pure).

An `Entry` is what is shown of a task when nothing later is known of it; a `Trace` tells that an attempt was begun or
handed back. `rank` and `seq` order the entries of one task (`fold.weight`), in whatever order they are read. Whoever wrote something else is `Garbage`.
"""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

import msgspec

from knotwork.bus import subjects
from knotwork.bus.subjects import STEP

NUMBER_MAX, ITERATION_MAX, DELIVERY_MAX = 1000, 1 << 20, 1 << 30
TIME_MAX_NS = 4_000_000_000_000_000_000
WORDS_MAX_BYTES = 4096
"""Longer inputs and outputs are not searched."""
CODE_MAX, MESSAGE_MAX, LABELS_MAX = 256, 2000, 64
"""What is kept of an error and of the labels; a task of ours has no more."""
CLOSED = 1 << 32
"""What a rank has when the task is over for good: nothing later counts any more."""

_NUMBER = re.compile(r"[0-9]{1,10}")

_Name = Annotated[str, msgspec.Meta(max_length=256)]
_Token = Annotated[str, msgspec.Meta(max_length=64)]
_Whole = Annotated[int, msgspec.Meta(ge=0, le=TIME_MAX_NS)]
Ended = Literal["completed", "failed", "cancelled", "timed-out", "dead", "waiting", "continued"]
_OPEN = frozenset({"waiting", "continued", "dead"})
"""Ends after which a later attempt may follow; the dead can be redriven."""


class Garbage(ValueError):
    """A message that none of ours wrote."""


class Body(msgspec.Struct, frozen=True, gc=False):
    """A task as TASKS holds it, as far as it is shown."""

    run: _Token
    queue: _Name
    capability: _Token = ""
    boundary: _Token = "none"
    priority: Annotated[int, msgspec.Meta(ge=1, le=10)] = 5
    input: msgspec.Raw = msgspec.Raw(b"null")
    deadline_ns: _Whole = 0
    key: _Name = ""
    labels: dict[_Token, _Name] = {}
    parent: _Name = ""
    by: _Name = ""
    submitted_ns: _Whole = 0
    number: Annotated[int, msgspec.Meta(ge=1, le=NUMBER_MAX)] = 1
    iteration: Annotated[int, msgspec.Meta(ge=0, lt=ITERATION_MAX)] = 0
    step: _Token = STEP


class Failure(msgspec.Struct, frozen=True, gc=False):
    """An error on the wire, as far as it is shown."""

    code: Any = ""
    message: Any = ""


class End(msgspec.Struct, frozen=True, gc=False):
    """How an attempt ended, as FACTS and ARCHIVE hold it."""

    state: Ended
    task: Body
    output: msgspec.Raw = msgspec.Raw(b"null")
    error: Failure | None = None
    node: _Name = ""
    agent: _Name = ""
    started_ns: _Whole = 0
    ended_ns: _Whole = 0
    due_ns: _Whole = 0


class Mark(msgspec.Struct, frozen=True, gc=False):
    """That an attempt was begun, or handed back."""

    node: _Name
    agent: _Name
    started_ns: _Whole = 0
    claimed: bool = False


class Packed(msgspec.Struct, frozen=True, gc=False):
    """One outcome in a segment of ARCHIVE: its subject and place in FACTS, and the outcome."""

    s: str
    q: _Whole
    d: msgspec.Raw


class Entry(msgspec.Struct, frozen=True, gc=False):
    """A task as it is shown, in the order of the table's columns; `input` and `output` are searched, not kept."""

    id: str
    state: str
    capability: str
    agent: str
    node: str
    boundary: str
    priority: int
    labels: str
    submitted_ns: int
    started_ns: int
    ended_ns: int
    due_ns: int
    deadline_ns: int
    attempts: int
    iteration: int
    code: str
    message: str
    worker: str
    target: str
    parent: str
    key: str
    submitter: str
    rank: int
    seq: int
    archived: int
    input: msgspec.Raw
    output: msgspec.Raw


class Trace(msgspec.Struct, frozen=True, gc=False):
    """What is known of the latest attempt that was begun: by whom, at which delivery, and the last one handed back.

    `claimed`: whoever began it came in from outside, and has it while its claim stands.
    """

    id: str
    attempt: int
    started: int = 0
    at_ns: int = 0
    node: str = ""
    agent: str = ""
    released: int = 0
    claimed: bool = False


_body = msgspec.json.Decoder(Body)
_end = msgspec.json.Decoder(End)
_mark = msgspec.json.Decoder(Mark)
_segment = msgspec.json.Decoder(list[Packed])
_any = msgspec.json.Decoder()
_encode = msgspec.json.Encoder(order="sorted").encode
_BROKEN = (msgspec.DecodeError, UnicodeDecodeError, RecursionError, ValueError)


def attempt(iteration: int, number: int) -> int:
    """Return an attempt as one number: the later, the larger."""
    return iteration << 10 | number


def attempt_of(rank: int) -> int:
    """Return the attempt that a rank is about."""
    return (rank & (CLOSED - 1)) >> 1


def is_end(rank: int) -> bool:
    """Return whether a rank is that of an outcome, and not of an attempt that waits."""
    return bool(rank & 1)


def asked(target: str) -> tuple[str, str]:
    """Return the node and the agent that a task is routed to, "" for any."""
    return subjects.addressee(target) or ("", "")


def read_task(subject: str, data: bytes, seq: int) -> Entry | None:
    """Return what a message of TASKS tells; None when it is about something else than a task. Raises `Garbage`."""
    parts = subject.split(".")  # task.<boundary>.<route>.<lane>.<run>.<step>.<iteration>.<number>
    if len(parts) != 8 or parts[0] != "task":  # noqa: PLR2004
        raise Garbage("it stands where no task can stand")
    if parts[5] != STEP:
        return None
    iteration, number = _place(parts[6], parts[7])
    try:
        body = _body.decode(data)
    except _BROKEN as error:
        raise Garbage(f"it is no task: {error}") from None
    _check(body, parts[4], iteration, number)
    if (body.boundary, body.queue, subjects.lane(body.priority)) != (parts[1], parts[2], parts[3]):
        raise Garbage("it stands in another queue than it says")
    node, agent = asked(body.queue)
    return Entry(
        body.run, "pending", body.capability, agent, node, body.boundary, body.priority, _labels(body),
        _submitted(body), 0, 0, 0, body.deadline_ns, number, iteration, "", "", "", body.queue, body.parent, body.key,
        body.by, attempt(iteration, number) << 1, seq, 0, body.input, msgspec.Raw(b"null"),
    )  # fmt: skip


def read_fact(subject: str, data: bytes, seq: int, archived: int = 0) -> Entry | Trace | None:
    """Return what a message of FACTS tells; None when it is of no interest here. Raises `Garbage`.

    `archived` is the place in ARCHIVE of the segment that an outcome was read from.
    """
    parts = subject.split(".")  # run.<shard>.<run>.<what>.<step>.<iteration>.<number>[.<delivery>]
    if parts[0] != "run" or len(parts) < 7 or parts[4] != STEP:  # noqa: PLR2004
        return None
    what = parts[3]
    if what == "outcome":
        if len(parts) != 7:  # noqa: PLR2004
            raise Garbage("it stands where no outcome can stand")
        return _read_end(parts, data, seq, archived)
    if what in ("started", "released") and len(parts) == 8:  # noqa: PLR2004
        return _read_mark(parts, data)
    return None


def unpack(data: bytes) -> list[Packed]:
    """Return what is in a segment of ARCHIVE; raises `Garbage`."""
    try:
        return _segment.decode(data)
    except _BROKEN as error:
        raise Garbage(f"it is no segment: {error}") from None


def came_ns(run: str) -> int:
    """Return when a task came by its id (`work.ids`), 0 when that does not say it."""
    try:
        return min(int(run[1:13], 16) * 1_000_000, TIME_MAX_NS) if run[0] == "t" else 0
    except ValueError:
        return 0


def words(entry: Entry) -> str:
    """Return the text by which a task is found."""
    labels = entry.labels if entry.labels != "{}" else ""
    parts = (
        entry.id, entry.target, entry.capability, entry.worker, labels, entry.key, entry.code, entry.message,
        _text(entry.input), _text(entry.output),
    )  # fmt: skip
    return " ".join(part for part in parts if part)


def _read_end(parts: list[str], data: bytes, seq: int, archived: int) -> Entry:
    iteration, number = _place(parts[5], parts[6])
    try:
        end = _end.decode(data)
    except _BROKEN as error:
        raise Garbage(f"it is no outcome: {error}") from None
    task, state = end.task, end.state
    _check(task, parts[2], iteration, number)
    _check_shard(parts)
    closed = state not in _OPEN
    over = closed or state == "dead"
    failure = end.error or _NO_FAILURE
    node, agent = (end.node, end.agent) if end.agent else asked(task.queue)
    return Entry(
        task.run, "pending" if state == "continued" else state, task.capability, agent, node,
        task.boundary, task.priority, _labels(task), _submitted(task),
        end.started_ns, end.ended_ns if over else 0, end.due_ns if state == "waiting" else 0, task.deadline_ns, number,
        iteration, _cut(failure.code, CODE_MAX), _cut(failure.message, MESSAGE_MAX),
        f"{end.node}/{end.agent}" if end.agent else "", task.queue, task.parent, task.key, task.by,
        (CLOSED if closed else 0) | attempt(iteration, number) << 1 | 1, seq, archived, task.input, end.output,
    )  # fmt: skip


_NO_FAILURE = Failure()


def _read_mark(parts: list[str], data: bytes) -> Trace:
    iteration, number = _place(parts[5], parts[6])
    if not subjects.is_run(parts[2]) or not _NUMBER.fullmatch(parts[7]) or int(parts[7]) > DELIVERY_MAX:
        raise Garbage("it stands where no fact of ours can stand")
    _check_shard(parts)
    try:
        mark = _mark.decode(data)
    except _BROKEN as error:
        raise Garbage(f"it is no fact of ours: {error}") from None
    which, delivery = attempt(iteration, number), int(parts[7])
    if parts[3] == "released":
        return Trace(parts[2], which, released=delivery)
    return Trace(parts[2], which, delivery, mark.started_ns, mark.node, mark.agent, 0, mark.claimed)


def _place(iteration: str, number: str) -> tuple[int, int]:
    if not (_NUMBER.fullmatch(iteration) and _NUMBER.fullmatch(number)):
        raise Garbage("it is about no attempt")
    found = int(iteration), int(number)
    if found[0] >= ITERATION_MAX or not 1 <= found[1] <= NUMBER_MAX:
        raise Garbage("it is about no attempt that there can be")
    return found


def _check(body: Body, run: str, iteration: int, number: int) -> None:
    if (body.run, body.iteration, body.number, body.step) != (run, iteration, number, STEP):
        raise Garbage("it does not stand where it says")
    if not subjects.is_run(run):
        raise Garbage("its id is malformed")


def _check_shard(parts: list[str]) -> None:
    if parts[1] != subjects.shard(parts[2]):
        raise Garbage("it stands in another shard than its run")


def _labels(body: Body) -> str:
    if not body.labels:
        return "{}"
    return _encode(dict(sorted(body.labels.items())[:LABELS_MAX])).decode()


def _cut(text: object, size_max: int) -> str:
    return text[:size_max] if isinstance(text, str) else ""


def _submitted(body: Body) -> int:
    """Return when a task was submitted; its id tells when nothing else does."""
    return body.submitted_ns or came_ns(body.run)


def _text(value: msgspec.Raw) -> str:
    """Return the words of a JSON value, "" for none and for a long one."""
    data = bytes(value)
    if len(data) > WORDS_MAX_BYTES or data == b"null":
        return ""
    if b"\\" not in data:
        return data.decode("utf-8", "ignore")
    try:
        return " ".join(_strings(_any.decode(data)))
    except _BROKEN:
        return ""


def _strings(value: object) -> list[str]:
    match value:
        case dict():
            return [text for key, item in value.items() for text in (str(key), *_strings(item))]
        case list():
            return [text for item in value for text in _strings(item)]
        case None:
            return []
        case _:
            return [str(value)]
