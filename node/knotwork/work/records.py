"""What is stored of a task? The task itself (TASKS), and the outcome of each attempt (FACTS), as JSON.

A task is a run with one step, `task`. An attempt is known by `(run, step, iteration, number)`; exactly one outcome is
recorded for each, because the server refuses a second message on its subject. The run is over when the last outcome is
final. Everything here is read back from the bus, where others may write too: it is bounded and checked by `decode_*`.
"""

from __future__ import annotations

import base64
import hashlib
from typing import Annotated, Any, Literal

import msgspec

from knotwork.bus import subjects
from knotwork.sdk.errors import Invalid

STEP, SHARDS, WORKFLOW = subjects.STEP, subjects.SHARDS, subjects.WORKFLOW
is_run, shard, facts_of, outcome_subject = subjects.is_run, subjects.shard, subjects.facts_of, subjects.outcome
SPARED_BYTES = 4 * 1024
"""An input that is larger is left out of the record of an end where the store has no room; `view.relief` does the same."""
INLINE_MAX_BYTES = 512 * 1024
"""Larger inputs and outputs are kept in BLOBS, and stand here by reference."""
ATTEMPTS_MAX = 1000
WHY_MAX = 4000
"""Letters that are kept of why a task waits where it does."""
NO_BOUNDARY = "none"
"""What stands for work that was given no boundary."""

Name = Annotated[str, msgspec.Meta(max_length=256)]
Token = Annotated[str, msgspec.Meta(max_length=64)]
Text = Annotated[str, msgspec.Meta(max_length=16_384)]
Whole = Annotated[int, msgspec.Meta(ge=0, le=4_000_000_000_000_000_000)]
Few = Annotated[int, msgspec.Meta(ge=1, le=ATTEMPTS_MAX)]
Seconds = Annotated[float, msgspec.Meta(ge=0, le=10 * 365 * 86400)]

State = Literal["pending", "running", "waiting", "completed", "failed", "cancelled", "timed-out", "dead"]
Final = Literal["completed", "failed", "cancelled", "timed-out", "dead"]
Ended = Literal["completed", "failed", "cancelled", "timed-out", "dead", "waiting", "continued"]
"""How an attempt ended; `waiting` means that another follows at `due_ns`, `continued` that the next iteration does."""
CLOSED: frozenset[str] = frozenset({"completed", "failed", "cancelled", "timed-out"})
"""How a task ends that no attempt follows."""
PAUSE_MAX_S = 300.0
"""How long a pause between attempts may grow to when nobody says."""
FINAL: frozenset[str] = frozenset({"completed", "failed", "cancelled", "timed-out", "dead"})


class Retry(msgspec.Struct, frozen=True, omit_defaults=True):
    """When a failed attempt is followed by another. Pauses in seconds; `on` names the codes worth it, empty: what says so."""

    max_attempts: Few = 1
    backoff: Literal["fixed", "linear", "exponential"] = "exponential"
    delay_s: Seconds = 1.0
    multiplier: Annotated[float, msgspec.Meta(ge=1, le=100)] = 2.0
    max_delay_s: Seconds = PAUSE_MAX_S
    jitter: bool = True
    on: tuple[Name, ...] = ()
    max_crashes: Few = 3


class Loop(msgspec.Struct, frozen=True, omit_defaults=True):
    """How long a task may be given its own output again. `budget` is what its worker is told of."""

    max_iterations: Annotated[int, msgspec.Meta(ge=1, le=10_000)] = 10_000
    delay_s: Seconds = 0.0
    until_ns: Whole = 0
    budget: dict[Token, float] = {}


class Past(msgspec.Struct, frozen=True, omit_defaults=True):
    """An earlier attempt, as the next one carries it along. Times are nanoseconds since 1970.

    One that died may have been redriven, and by somebody: what tells that else is packed away with it.
    """

    number: Whole
    state: Name
    code: Name = ""
    message: Text = ""
    node: Name = ""
    agent: Name = ""
    started_ns: Whole = 0
    ended_ns: Whole = 0
    iteration: Whole = 0
    redriven_ns: Whole = 0
    redriven_by: Name = ""


class Asker(msgspec.Struct, frozen=True, omit_defaults=True):
    """Who wants work done, as the node knows it that was asked; nobody (a trigger) sees what the whole project sees."""

    id: Name = ""
    owner: Name = ""


NOBODY = Asker()


class Task(msgspec.Struct, frozen=True, omit_defaults=True):
    """One attempt's worth of work, as it waits in TASKS: what to do, and what became of earlier attempts.

    `queue` is what it is routed by (see `queues`). `input` is JSON, or None with `blob`, the digest of a kept input.
    `timeout_s` bounds one attempt, `deadline_ns` the whole task. `why` says how the route was chosen. `start_within_s`
    bounds the wait in the queue, which for this attempt is over at `start_by_ns` (0: never); `heartbeat_s` is how long
    its worker may be silent. A `gated` one is stored anew, after a pause, by whoever admits it. `spared`: its input was left
    out of this record of its end, because the store had no room. `asked` is what all submissions with its `key` share
    (`keyed.asked`). `asker` is with whose eyes an agent is looked for that it names; None: not recorded.
    """

    run: Token
    queue: Name
    capability: Token = ""
    agent: Token = ""
    node: Token = ""
    boundary: Token = NO_BOUNDARY
    priority: Annotated[int, msgspec.Meta(ge=1, le=10)] = 5
    input: msgspec.Raw = msgspec.Raw(b"null")
    blob: Name = ""
    timeout_s: Seconds | None = None
    deadline_ns: Whole = 0
    retry: Retry = Retry()
    key: Name = ""
    labels: dict[Token, Name] = {}
    parent: Name = ""
    traceparent: Name = ""
    by: Name = ""
    submitted_ns: Whole = 0
    number: Annotated[int, msgspec.Meta(ge=1, le=ATTEMPTS_MAX)] = 1
    iteration: Whole = 0
    past: tuple[Past, ...] = ()
    why: Text = ""
    step: Token = STEP
    loop: Loop | None = None
    start_within_s: Seconds | None = None
    start_by_ns: Whole = 0
    heartbeat_s: Seconds | None = None
    gated: bool = False
    spared: bool = False
    asked: Token = ""
    asker: Asker | None = None

    @property
    def lane(self) -> subjects.Lane:
        """Return the lane of its priority."""
        return subjects.lane(self.priority)

    @property
    def work(self) -> str:
        """Return what all attempts of this work, and nothing else, are known by: the run, with its step when there are several."""
        return self.run if self.step == STEP else f"{self.run}-{self.step}-{self.iteration}"

    @property
    def subject(self) -> str:
        """Return where this attempt waits in TASKS."""
        place = subjects.task_queue(self.boundary, self.queue, self.lane)
        return subjects.task(place, self.run, self.step, self.iteration, self.number)

    @property
    def outcome_subject(self) -> str:
        """Return the place of this attempt's outcome in FACTS."""
        return outcome_subject(self.run, self.step, self.iteration, self.number)


class OnAttempt:
    """What is about one attempt, known by its place in TASKS (`subjects.task`)."""

    __slots__ = ()
    subject: str

    @property
    def run(self) -> str:
        """Return the run it belongs to."""
        return self.subject.split(".")[4]

    @property
    def step(self) -> str:
        """Return the step of that run."""
        return self.subject.split(".")[5]

    @property
    def outcome_subject(self) -> str:
        """Return the place of the attempt's outcome in FACTS."""
        return self.trace_subject("outcome")

    def trace_subject(self, what: str, delivery: int = 0) -> str:
        """Return the place of another fact about it (`trace_subject`)."""
        run, step, iteration, number = self.subject.split(".")[4:]
        return subjects.attempt(run, what, step, int(iteration), int(number), delivery=delivery)


class Outcome(msgspec.Struct, frozen=True, omit_defaults=True):
    """How one attempt ended, with the task itself, so that it can be understood when TASKS has forgotten it.

    `error` is what `KnotworkError.to_wire` gives. `due_ns`: when the next attempt starts (`waiting`).
    """

    state: Ended
    task: msgspec.Raw
    output: msgspec.Raw = msgspec.Raw(b"null")
    blob: Name = ""
    error: dict[str, Any] | None = None
    node: Name = ""
    agent: Name = ""
    started_ns: Whole = 0
    ended_ns: Whole = 0
    due_ns: Whole = 0
    delivery: Whole = 1


class Started(msgspec.Struct, frozen=True, omit_defaults=True):
    """An attempt that takes longer, or was tried before, was begun by this agent."""

    node: Name
    agent: Name
    started_ns: Whole
    delivery: Whole = 1
    claimed: bool = False
    """It came in from outside: it holds the attempt while its claim stands in LEASES."""


class Released(msgspec.Struct, frozen=True, omit_defaults=True):
    """An attempt was handed back unfinished on purpose (a drain, a stopped plugin): not the task's fault."""

    node: Name
    agent: Name
    at_ns: Whole
    why: Name = ""
    code: Name = ""


_encoder = msgspec.json.Encoder()
encode = _encoder.encode
_task = msgspec.json.Decoder(Task)
_outcome = msgspec.json.Decoder(Outcome)
_BROKEN = (msgspec.DecodeError, UnicodeDecodeError, RecursionError, ValueError)


def decode_task(data: bytes) -> Task:
    """Return a stored task; raises `Invalid` (`work.bad_record`) for what no submitter of ours wrote."""
    try:
        task = _task.decode(data)
    except _BROKEN as error:
        raise Invalid(f"This is not a task: {error}.", code="work.bad_record") from error
    if not is_run(task.run):
        raise Invalid("This is not a task: its id is malformed.", code="work.bad_record")
    return task


def decode_outcome(data: bytes) -> Outcome:
    """Return a stored outcome; raises `Invalid` (`work.bad_record`)."""
    try:
        return _outcome.decode(data)
    except _BROKEN as error:
        raise Invalid(f"This is not an outcome: {error}.", code="work.bad_record") from error


def raw(task: Task) -> msgspec.Raw:
    """Return a task as it stands inside an outcome."""
    return msgspec.Raw(encode(task))


def spare(task: Task) -> Task:
    """Return a task as it goes on record while the store has no room: without its input, when that is large (pure)."""
    if len(task.input) <= SPARED_BYTES:
        return task
    return msgspec.structs.replace(task, input=msgspec.Raw(b"null"), spared=True)


def spared_end(outcome: Outcome) -> Outcome:
    """Return an outcome without a large input, when nothing that follows needs that (pure)."""
    if outcome.state not in CLOSED:
        return outcome
    return msgspec.structs.replace(outcome, task=raw(spare(decode_task(bytes(outcome.task)))))


def shown_boundary(boundary: str) -> str:
    """Return a boundary as it is told, "" for none."""
    return "" if boundary == NO_BOUNDARY else boundary


def shown_step(step: str) -> str:
    """Return a step as it is told, "" for the only one of a task."""
    return "" if step == STEP else step


def run_id(text: str) -> str:
    """Return `text` when it may be the id of a run; raises `Invalid` (`work.bad_id`)."""
    if not is_run(text):
        raise Invalid(f"{text[:80]!r} is not the id of a task.", code="work.bad_id", hint="See `knotwork task list`.")
    return text


def derived(kind: str, of: str, length: int) -> str:
    """Return an id that begins with `kind` and is the same for the same text; `length` of its characters tell texts apart."""
    digest = base64.b32encode(hashlib.sha256(of.encode()).digest()).decode().lower()
    return f"{kind}{digest[:length]}"


def next_subject(task: Task) -> str:
    """Return where an attempt that waits for its time is recorded, so that it can be found meanwhile."""
    return trace_subject(task, "next")


def redriven_subject(task: Task) -> str:
    """Return where it is recorded that a dead task was given this attempt."""
    return trace_subject(task, "redriven")


def trace_subject(task: Task, what: str, delivery: int = 0) -> str:
    """Return where it goes on record that a delivery was `started` or `released`; without one what all of them share."""
    return subjects.attempt(task.run, what, task.step, task.iteration, task.number, delivery=delivery)
