"""What may be done about a task that is there: cancel and retry it, look into its past, ask why it waits."""

from __future__ import annotations

from typing import Annotated, Self

from pydantic import Field, model_validator

from knotwork.ops import task_replies, task_words
from knotwork.ops.op import Caller, CliForm, Example, op
from knotwork.ops.ports import NodeControl
from knotwork.ops.task_words import TaskId
from knotwork.ops.tasks import FILTERS, FilterRequest, TaskRequest
from knotwork.ops.words import Text

ID = "t0198c0ffee00d15ea5e0ddba11"


class CancelRequest(FilterRequest):
    """Which tasks: by id, or all that fit a filter."""

    ids: Annotated[list[TaskId], Field(max_length=10_000)] = Field(default=[], description="ids of tasks")
    all: bool = Field(default=False, description="every task that has not ended, when no filter is given")
    why: Text = Field(default="", description="a reason, kept with the outcome")

    @model_validator(mode="after")
    def _either(self) -> Self:
        task_words.either_ids_or_filter(self, FilterRequest.model_fields)
        return self


@op(
    "task.cancel", CancelRequest, task_replies.CancelledTasks, effect="write",
    cli=CliForm(
        ("task", "cancel"), positional=("ids",), rows="tasks", columns=("id", "state", "changed", "why"), short=FILTERS
    ),
    summary="End tasks now, wherever they are.",
    help="A task in a queue is never begun; one that runs is stopped within two seconds. What has ended stays as it is.",
    examples=(
        Example("Cancel one task", {"ids": [ID]}),
        Example("Everything that waits for a capability", {"capability": "deploy", "state": ["pending"]}),
    ),
)  # fmt: skip
async def cancel(request: CancelRequest, node: NodeControl, caller: Caller) -> task_replies.CancelledTasks:
    """Cancel by id, or by filter."""
    tasks = node.tasks(caller.project, caller.who)
    if request.ids:
        return await tasks.cancel(request.ids, request.why, caller)
    wanted = request.wanted(limit=0)
    if wanted.empty and not request.all:
        raise task_words.filter_needed()
    return await tasks.cancel_where(wanted, request.why, caller)


@op(
    "task.retry", TaskRequest, task_replies.TaskInfo, effect="write",
    cli=CliForm(("task", "retry"), positional=("id",), answer="id"),
    summary="Submit the work of an ended task anew.",
    help="It becomes a task of its own, with the old one as its parent. A dead task comes back as itself with "
    "`knotwork dead redrive`.",
    examples=(Example("Once more", {"id": ID}),),
)  # fmt: skip
async def retry(request: TaskRequest, node: NodeControl, caller: Caller) -> task_replies.TaskInfo:
    """Submit it again."""
    return await node.tasks(caller.project, caller.who).retry(request.id, caller)


@op(
    "task.history", TaskRequest, task_replies.TaskHistory, effect="read",
    cli=CliForm(
        ("task", "history"), positional=("id",), rows="transitions",
        columns=("at", "what", "state", "attempt", "iteration", "worker", "due_at", "code", "message"),
    ),
    summary="Show everything that happened to a task.",
    help="Each line is a fact on record: when, on which node, in which attempt. A short attempt is told by its end alone.",
    examples=(Example("What happened to it?", {"id": ID}),),
)  # fmt: skip
async def history(request: TaskRequest, node: NodeControl, caller: Caller) -> task_replies.TaskHistory:
    """Return its history."""
    return await node.tasks(caller.project, caller.who).history(request.id)


@op(
    "task.why", TaskRequest, task_replies.TaskWhy, effect="read", cli=CliForm(("task", "why"), positional=("id",)),
    summary="Say why a task is where it is.",
    help="What it waits for, how many are before it, which agents could take it and why each does not.",
    examples=(Example("Why does it not begin?", {"id": ID}),),
)  # fmt: skip
async def why(request: TaskRequest, node: NodeControl, caller: Caller) -> task_replies.TaskWhy:
    """Return the reason."""
    return await node.tasks(caller.project, caller.who).why(request.id)
