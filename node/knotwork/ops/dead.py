"""What may be done about dead letters: tasks whose attempts are used up, or that killed their workers."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, field_validator

from knotwork.ops import task_replies, task_words
from knotwork.ops.op import Caller, CliForm, Example, Request, op
from knotwork.ops.ports import NodeControl
from knotwork.ops.task_changes import ID
from knotwork.ops.task_ports import DeadFilter
from knotwork.ops.task_words import Code, Cursor, Labels, Moment, Run
from knotwork.ops.words import Token
from knotwork.sdk.errors import NotFound

BATCH_MAX = 100_000
FILTERS = {"capability": "c", "labels": "l", "limit": "n"}
COLUMNS = ("id", "step", "died_at", "capability", "agent", "attempts", "worker", "code", "message")


class DeadRequest(Request):
    """Which dead letters; all that is given must fit."""

    capability: Token | None = Field(default=None, description="for this capability")
    agent: Token | None = Field(default=None, description="for this agent")
    boundary: Token | None = Field(default=None, description="of this data class")
    code: Code | None = Field(default=None, description="with this error code at the end")
    labels: Labels = Field(default=[], description="with all of these labels, key=value")
    before: Moment = Field(default="", description="died before that: so long ago (`2h`), or an RFC 3339 time")

    @field_validator("before")
    @classmethod
    def _makes_sense(cls, value: str) -> str:
        return task_words.bound(value)

    def wanted(self, ids: list[str], *, limit: int, cursor: str = "") -> DeadFilter:
        """Return what is meant."""
        return DeadFilter(
            ids=frozenset(ids), capability=self.capability or "", agent=self.agent or "", boundary=self.boundary or "",
            code=self.code or "", labels=frozenset(task_words.labels(self.labels).items()),
            before_ns=task_words.moment_ns(self.before, past=True), limit=limit, cursor=cursor,
        )  # fmt: skip


class DeadListRequest(DeadRequest):
    """Which dead letters, and how many."""

    limit: int = Field(default=100, ge=1, le=10_000, description="at most so many")
    cursor: Cursor = Field(default="", description="go on behind the page before: its `next`")


@op(
    "task.dead_list", DeadListRequest, task_replies.DeadList, effect="read",
    cli=CliForm(("dead", "list"), rows="dead", columns=COLUMNS, short=FILTERS),
    summary="List dead letters, the oldest first.",
    help="A task is dead when its attempts are used up, or when it killed its workers. It stays here for 90 days.",
    examples=(Example("List them"), Example("What died of one error?", {"code": "work.poison"})),
)  # fmt: skip
async def dead_list(request: DeadListRequest, node: NodeControl, caller: Caller) -> task_replies.DeadList:
    """Return a page of dead letters."""
    return await node.tasks(caller.project, caller.who).dead(
        request.wanted([], limit=request.limit, cursor=request.cursor)
    )


class LetterRequest(Request):
    """Which dead letter: a task, or the run that it was a step of."""

    id: Run = Field(description="the task's id")
    step: Token | None = Field(
        default=None, description="of a run: the step that died; left out: the one that died last"
    )


@op(
    "task.dead_show", LetterRequest, task_replies.TaskInfo, effect="read",
    cli=CliForm(("dead", "show"), positional=("id",), hidden=("ended", "new")),
    summary="Show a dead letter: its input, every attempt and its error.",
    help="The same as `task get` with its input; `task history` tells every step.",
    examples=(Example("Show one", {"id": ID}),),
)  # fmt: skip
async def dead_show(request: LetterRequest, node: NodeControl, caller: Caller) -> task_replies.TaskInfo:
    """Return one dead task with everything about it; raises `NotFound` (`work.not_dead`)."""
    found = await node.tasks(caller.project, caller.who).dead_letter(request.id, request.step or "")
    if found.state != "dead":
        raise NotFound(
            f"{found.id} is no dead letter: it is {found.state}.", code="work.not_dead",
            hint="See `knotwork dead list`; `knotwork task get` shows any task.",
        )  # fmt: skip
    return found


class BatchRequest(DeadRequest):
    """Which dead letters: by id, or all that fit a filter."""

    ids: Annotated[list[Run], Field(max_length=10_000)] = Field(default=[], description="ids of tasks")
    all: bool = Field(default=False, description="every dead letter, when no filter is given")
    limit: int = Field(default=BATCH_MAX, ge=1, le=BATCH_MAX, description="at most so many")

    def meant(self) -> DeadFilter:
        """Return which are meant; raises `Invalid` (`work.filter_needed`) when that is not clear."""
        wanted = self.wanted(self.ids, limit=self.limit)
        if wanted == DeadFilter(limit=self.limit) and not self.all:
            raise task_words.filter_needed()
        return wanted


class RedriveRequest(BatchRequest):
    """Which dead letters, how fast, and whether it is meant."""

    rate: float = Field(default=0.0, ge=0, le=100_000, description="so many each second at most; 0: no limit")
    dry_run: bool = Field(default=False, description="only say what would be done")
    timeout_s: float = Field(default=86400.0, gt=0, le=604800.0, description="seconds for all of it")


@op(
    "task.redrive", RedriveRequest, task_replies.RedrivenTasks, effect="write",
    cli=CliForm(
        ("dead", "redrive"), positional=("ids",), rows="tasks", columns=("id", "attempt", "run", "done", "why"), short=FILTERS
    ),
    summary="Give dead tasks another chance.",
    help="Each comes back as itself: the same id, the next attempt, its history kept, its attempts counted anew. A "
    "deadline that has passed is taken off. For a step of a workflow its run is retried, which takes over what was done.",
    examples=(
        Example("One task", {"ids": [ID]}),
        Example("See what would come back", {"capability": "bill", "dry_run": True}),
        Example("All of them, ten a second", {"all": True, "rate": 10}),
    ),
)  # fmt: skip
async def redrive(request: RedriveRequest, node: NodeControl, caller: Caller) -> task_replies.RedrivenTasks:
    """Bring dead tasks back."""
    tasks = node.tasks(caller.project, caller.who)
    return await tasks.redrive(request.meant(), per_s=request.rate, dry_run=request.dry_run, caller=caller)


@op(
    "task.drop", BatchRequest, task_replies.Dropped, effect="write",
    cli=CliForm(("dead", "drop"), positional=("ids",), short=FILTERS),
    summary="Remove dead letters.",
    help="Their tasks stay dead, and can still be looked at for as long as ended tasks are kept.",
    examples=(Example("Drop one", {"ids": [ID]}), Example("All that died a month ago", {"before": "30d"})),
)  # fmt: skip
async def drop(request: BatchRequest, node: NodeControl, caller: Caller) -> task_replies.Dropped:
    """Drop dead letters."""
    return await node.tasks(caller.project, caller.who).drop(request.meant(), caller)
