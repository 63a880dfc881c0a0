"""What must a host offer so that the ops about tasks can be answered? One protocol, implemented by `host.tasks`."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, Protocol

from knotwork.work.records import PAUSE_MAX_S

if TYPE_CHECKING:
    from knotwork.ops import replies, task_replies
    from knotwork.ops.op import Caller
    from knotwork.trust.scopes import Scope


@dataclass(frozen=True, slots=True)
class RetryWish:
    """When a failed attempt is followed by another; pauses in seconds. `on` names the codes worth it."""

    max_attempts: int = 1
    backoff: Literal["fixed", "linear", "exponential"] = "exponential"
    delay_s: float = 1.0
    multiplier: float = 2.0
    max_delay_s: float = PAUSE_MAX_S
    jitter: bool = True
    on: tuple[str, ...] = ()
    max_crashes: int = 3


@dataclass(frozen=True, slots=True)
class NewTask:
    """One task asked for, already checked: exactly one of `target` and `capability` is set.

    `target` is `agent` or `node/agent`. `blob` is the digest of a kept input and takes the place of `input`.
    `deadline_ns` is nanoseconds since 1970, 0 for none; `attempt_timeout_s` bounds one attempt.
    """

    input: Any = None
    target: str = ""
    capability: str = ""
    blob: str = ""
    boundary: str = ""
    priority: int = 5
    deadline_ns: int = 0
    attempt_timeout_s: float | None = None
    retry: RetryWish = RetryWish()
    key: str = ""
    labels: dict[str, str] = field(default_factory=dict)
    parent: str = ""
    scope: Scope = "team"


@dataclass(frozen=True, slots=True)
class TaskFilter:
    """Which tasks are meant; empty fields mean any. Times are nanoseconds since 1970, 0 for no bound."""

    states: frozenset[str] = frozenset()
    capability: str = ""
    agent: str = ""
    node: str = ""
    boundary: str = ""
    labels: frozenset[tuple[str, str]] = frozenset()
    since_ns: int = 0
    until_ns: int = 0
    moving: tuple[str, str] = ("", "")
    priority_min: int = 1
    priority_max: int = 10
    text: str = ""
    limit: int = 100
    cursor: str = ""
    circles: tuple[str, ...] | None = None
    """Whose work is meant beside that of the whole project (`trust.scopes.circles`); None: everybody's."""

    @property
    def empty(self) -> bool:
        """Return whether it means every task there is."""
        return self == TaskFilter(limit=self.limit, cursor=self.cursor)


@dataclass(frozen=True, slots=True)
class DeadFilter:
    """Which dead letters are meant; empty fields mean any."""

    ids: frozenset[str] = frozenset()
    capability: str = ""
    agent: str = ""
    boundary: str = ""
    code: str = ""
    labels: frozenset[tuple[str, str]] = frozenset()
    before_ns: int = 0
    limit: int = 100
    cursor: str = ""
    circles: tuple[str, ...] | None = None


class Tasks(Protocol):
    """One project's tasks. Whatever names a run raises `NotFound` (`work.not_found`) when nobody knows it."""

    async def submit(self, wanted: NewTask, caller: Caller) -> task_replies.TaskInfo:
        """Store a task durably and return it; raises `NotFound` (`work.no_such_node`), `Conflict`, `Unavailable`."""
        ...

    async def get(self, run: str, *, with_input: bool = False) -> task_replies.TaskInfo:
        """Return a task as it is now."""
        ...

    async def ended(self, run: str, timeout_s: float) -> task_replies.TaskInfo:
        """Return a task when it has ended, or as it is after `timeout_s` seconds."""
        ...

    async def list(self, wanted: TaskFilter) -> task_replies.TaskList:
        """Return the tasks that fit, a page at a time."""
        ...

    async def cancel(self, runs: Sequence[str], why: str, caller: Caller) -> task_replies.CancelledTasks:
        """End tasks wherever they are; those that have ended stay as they are."""
        ...

    async def cancel_where(self, wanted: TaskFilter, why: str, caller: Caller) -> task_replies.CancelledTasks:
        """End every task that fits and has not ended."""
        ...

    async def retry(self, run: str, caller: Caller) -> task_replies.TaskInfo:
        """Submit the work of an ended task anew; raises `Conflict` (`work.not_ended`)."""
        ...

    async def history(self, run: str) -> task_replies.TaskHistory:
        """Return everything that is on record about a task."""
        ...

    async def why(self, run: str) -> task_replies.TaskWhy:
        """Return why a task is where it is."""
        ...

    def watch(
        self, run: str, timeout_s: float
    ) -> AsyncGenerator[replies.Progress | replies.Chunk | task_replies.TaskInfo, None]:
        """Yield what happens to a task, then the task as it ended, or as it is after `timeout_s` seconds."""
        ...

    async def stats(self) -> task_replies.TaskStats:
        """Return how much there is to do."""
        ...

    async def dead(self, wanted: DeadFilter) -> task_replies.DeadList:
        """Return dead letters, a page at a time."""
        ...

    async def dead_letter(self, run: str, step: str = "") -> task_replies.TaskInfo:
        """Return a dead letter with its input, of a run that of a step; what is none is told as it is."""
        ...

    async def redrive(
        self, wanted: DeadFilter, *, per_s: float, dry_run: bool, caller: Caller
    ) -> task_replies.RedrivenTasks:
        """Give dead tasks another attempt, `per_s` each second at most (0: as fast as it goes)."""
        ...

    async def drop(self, wanted: DeadFilter, caller: Caller) -> task_replies.Dropped:
        """Remove dead letters; their tasks stay dead."""
        ...

    async def keep(self, data: bytes, upload: str, digest: str) -> task_replies.BlobKept:
        """Keep a piece of a large value, of a new one without `upload`; a piece with the digest is the last."""
        ...

    def read(self, digest: str, after: int | None) -> AsyncGenerator[replies.Chunk | task_replies.BlobKept, None]:
        """Yield the pieces of a large value as base64, or the one behind a place; then what they are together."""
        ...
