"""What does a node answer about tasks? The reply models of the room `task`, filled in by the host.

Times are RFC 3339 strings in UTC, empty when it has not happened; durations are seconds, sizes bytes.
"""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from knotwork.ops.op import Reply

TaskState = Literal["pending", "running", "waiting", "completed", "failed", "cancelled", "timed-out", "dead"]
ENDED: frozenset[str] = frozenset({"completed", "failed", "cancelled", "timed-out", "dead"})
"""The states that are final; a dead task comes back only by a redrive."""


class TaskError(Reply):
    """Why an attempt did not succeed."""

    kind: str = ""
    code: str = ""
    message: str = ""
    hint: str = ""
    detail: dict[str, Any] = Field(default={})


class TaskRow(Reply):
    """One task, in short."""

    id: str
    state: TaskState
    capability: str = ""
    agent: str = Field(default="", description="the agent it was meant for, or node/agent")
    boundary: str = ""
    priority: int = 5
    attempt: int = 1
    iteration: int = Field(default=0, description="how often an agent said that it has more to do")
    worker: str = Field(default="", description="node/agent that has it, or had it last")
    submitted_at: str = ""
    started_at: str = ""
    ended_at: str = ""
    due_at: str = Field(default="", description="when the next attempt begins")
    deadline: str = ""
    code: str = Field(default="", description="the code of the last error")
    by: str = Field(default="", description="who submitted it")
    parent: str = ""
    labels: dict[str, str] = Field(default={})


class Attempt(Reply):
    """One attempt that ended."""

    attempt: int
    iteration: int = 0
    state: str
    worker: str = ""
    started_at: str = ""
    ended_at: str = ""
    code: str = ""
    message: str = ""


class TaskInfo(TaskRow):
    """One task with what came of it. Values over 4 MiB stand here as a digest: read them with `blob.get`."""

    ended: bool = Field(default=False, description="it has ended, whichever way")
    output: Any = None
    output_blob: str = ""
    output_bytes: int | None = None
    error: TaskError | None = None
    attempts: list[Attempt] = Field(default=[], description="every attempt that ended, the oldest first")
    max_attempts: int = 1
    attempt_timeout_s: float | None = None
    key: str = Field(default="", description="its idempotency key")
    input: Any = None
    input_blob: str = ""
    traceparent: str = ""
    new: bool = Field(default=False, description="it was stored by this very request")
    note: str = Field(default="", description="what whoever submits should know")


class TaskList(Reply):
    """Tasks that fit, the newest first. `next` is the cursor of the following page, empty at the end."""

    tasks: list[TaskRow]
    next: str = ""
    total: int | None = Field(default=None, description="how many fit in all, when that is known")


class Cancelled(Reply):
    """One task that was to be cancelled. `changed` is false when it had ended before; with an `error` it is as it was."""

    id: str
    state: str
    changed: bool
    why: str = ""
    error: TaskError | None = None


class CancelledTasks(Reply):
    """What became of each."""

    tasks: list[Cancelled]
    changed: int = 0


class Transition(Reply):
    """One thing that happened to a task. `attempt` 0 is none in particular."""

    at: str
    what: str = Field(description="submitted, started, released, waiting, continued, redriven or a final state")
    state: TaskState
    attempt: int = 0
    iteration: int = 0
    worker: str = ""
    due_at: str = ""
    code: str = ""
    message: str = ""


class TaskHistory(Reply):
    """Everything that is on record about a task, the oldest first."""

    id: str
    state: TaskState
    transitions: list[Transition]


class Considered(Reply):
    """One agent that could be meant, and why it does not take the task now; an empty `why_not` says that it may."""

    agent: str = Field(description="node/agent")
    state: str
    why_not: str = ""


class TaskWhy(Reply):
    """Why a task is where it is."""

    id: str
    state: TaskState
    why: str
    routed: str = Field(default="", description="how it is routed, and by whom that was decided")
    before: int | None = Field(default=None, description="tasks before it in its queue")
    due_at: str = ""
    agents: list[Considered] = Field(default=[])


class QueueRow(Reply):
    """One queue. `waiting` tasks wait for a worker, `taken` are with one."""

    boundary: str
    route: str = Field(description="a capability, =agent or node=agent; ==circle=capability for work of one scope")
    capability: str = Field(default="", description="what is waited for; empty when an agent is named")
    scope: str = Field(default="", description="private or personal when only such agents see and take it")
    lane: str
    waiting: int
    taken: int


class TaskStats(Reply):
    """How much there is to do."""

    waiting: int = Field(description="tasks that wait for a worker")
    taken: int = Field(description="tasks that are with a worker")
    timers: int = Field(default=0, description="retries and deadlines that are to come")
    dead: int = Field(default=0, description="dead letters")
    running_here: int = Field(default=0, description="attempts that this node works on")
    refused_here: int = Field(default=0, description="late outcomes that this node was refused")
    by_state: dict[str, int] = Field(default={}, description="tasks by state, when the view is there to count them")
    queues: list[QueueRow] = Field(default=[])


class DeadRow(Reply):
    """One dead letter, in short."""

    id: str
    step: str = Field(default="", description="of a run: the step of it that died")
    died_at: str
    code: str = ""
    message: str = ""
    capability: str = ""
    agent: str = ""
    boundary: str = ""
    attempts: int = 1
    worker: str = ""
    labels: dict[str, str] = Field(default={})


class DeadList(Reply):
    """Dead letters, the oldest first. `next` is the cursor of the following page, empty at the end."""

    dead: list[DeadRow]
    next: str = ""
    total: int = Field(default=0, description="how many there are in all, whatever the filter")


class Redriven(Reply):
    """One dead letter that was given another chance, or would be."""

    id: str
    attempt: int = 0
    run: str = Field(
        default="",
        description="of a step: the run that takes the place of its own; of a dry run the one that would be retried",
    )
    done: bool = True
    why: str = ""


class RedrivenTasks(Reply):
    """What became of each. `changed` counts those that run again; a dry run changes nothing."""

    tasks: list[Redriven]
    changed: int = 0
    dry_run: bool = False


class NoLetter(Reply):
    """A task that was named, and has no dead letter."""

    id: str
    why: str


class Dropped(Reply):
    """Dead letters that are gone; their tasks stay dead for good. `missing` are those named that there are none of."""

    ids: list[str]
    changed: int = 0
    missing: list[NoLetter] = Field(default=[], description="ids that were named, and why there is nothing to drop")


class BlobKept(Reply):
    """A value that is kept, or is being put: `digest` is empty until its last piece was."""

    upload: str = ""
    digest: str = ""
    size_bytes: int = 0
    next: int = Field(default=0, description="place behind this piece, when one piece was asked for; 0: nothing came")
