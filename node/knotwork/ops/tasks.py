"""What may be asked about durable tasks, and of them: submit, get, await, list, watch, stats."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationInfo, field_validator

from knotwork.ops import replies, task_replies, task_words
from knotwork.ops.node import Nothing
from knotwork.ops.op import Caller, CliForm, Example, Request, op
from knotwork.ops.ports import NodeControl
from knotwork.ops.task_ports import NewTask, RetryWish, TaskFilter
from knotwork.ops.task_replies import TaskState
from knotwork.ops.task_words import Code, Cursor, Digest, Key, Labels, Moment, Run, TaskId
from knotwork.ops.words import Target, Text, Token
from knotwork.sdk.errors import Invalid
from knotwork.trust.scopes import Scope
from knotwork.work.records import PAUSE_MAX_S

DAY_S = 86400.0
WEEK_S = 7 * DAY_S
COLUMNS = ("id", "state", "capability", "agent", "worker", "attempt", "submitted_at", "ended_at", "code")
Priority = Annotated[int, Field(ge=1, le=10)]
Wait = Annotated[float, Field(ge=0, le=WEEK_S)]


class SubmitRequest(Request):
    """What is to be done, by whom, and how hard to try."""

    target: Target | None = Field(default=None, description="agent, or node/agent")
    input: Any = Field(default=None, description="any JSON value")
    capability: Token | None = Field(
        default=None, validate_default=True, description="any agent with this capability instead"
    )
    blob: Digest | None = Field(default=None, description="digest of a kept input (`blob.put`) instead of input")
    boundary: Token | None = Field(default=None, description="data class of the input")
    priority: Priority = Field(default=5, description="10 is the most urgent")
    deadline: Moment = Field(default="", description="end it then: from now (`30m`), or an RFC 3339 time")
    attempt_timeout_s: float | None = Field(
        default=None, ge=0.01, le=WEEK_S, description="seconds for one attempt; no limit when left out"
    )
    max_attempts: int = Field(default=1, ge=1, le=1000, description="how often a failure that may pass is tried in all")
    backoff: Literal["fixed", "linear", "exponential"] = Field(
        default="exponential", description="how pauses between attempts grow"
    )
    retry_delay_s: float = Field(default=1.0, ge=0, le=DAY_S, description="seconds before the second attempt")
    multiplier: float = Field(default=2.0, ge=1, le=100, description="growth of an exponential backoff")
    retry_max_delay_s: float | None = Field(
        default=None, ge=0, le=30 * DAY_S,
        description="seconds a pause may grow to [default: 300, or a longer retry delay]",
    )  # fmt: skip
    no_jitter: bool = Field(default=False, description="pause exactly so long, not a random part of it")
    retry_on: Annotated[list[Code], Field(max_length=64)] = Field(
        default=[], description="error codes worth another attempt, instead of those that say so themselves"
    )
    max_crashes: int = Field(default=3, ge=1, le=100, description="workers it may kill before it counts as poison")
    key: Key = Field(default="", description="idempotency key: the same key and work is the same task for a day")
    labels: Labels = Field(default=[], description="key=value, to find it by")
    parent: Run | None = Field(default=None, description="the task it belongs to")
    scope: Scope = Field(
        default="team",
        description="who sees and may claim it: private (you and your sub-agents), personal (agents of your owner), team",
    )
    wait: bool = Field(default=False, description="return when it has ended")
    timeout_s: Wait = Field(default=DAY_S, description="seconds to wait at most, with wait")

    @field_validator("capability")
    @classmethod
    def _one_of_both(cls, value: str | None, info: ValidationInfo) -> str | None:
        if "target" in info.data and (info.data["target"] is None) == (value is None):
            raise ValueError("give either target or capability")
        return value

    @field_validator("scope")
    @classmethod
    def _by_capability(cls, value: Scope, info: ValidationInfo) -> Scope:
        if value in ("private", "personal") and info.data.get("target") is not None:
            raise ValueError(f"{value} work goes by capability: an agent that is named gets it from whoever names it")
        return value

    @field_validator("blob")
    @classmethod
    def _one_input(cls, value: str | None, info: ValidationInfo) -> str | None:
        if value is not None and info.data.get("input") is not None:
            raise ValueError("give either input or blob")
        return value

    @field_validator("deadline")
    @classmethod
    def _in_time(cls, value: str) -> str:
        return task_words.deadline(value)


def _longest_pause_s(request: SubmitRequest) -> float:
    """Return how long a pause between attempts may be: the default of that bound cuts nothing short."""
    asked_s = request.retry_max_delay_s
    return max(PAUSE_MAX_S, request.retry_delay_s) if asked_s is None else asked_s


@op(
    "task.submit", SubmitRequest, task_replies.TaskInfo, effect="write",
    cli=CliForm(
        ("task", "submit"), positional=("target", "input"), also=("submit",), answer="id", answer_when={"wait": "output"},
        short={"capability": "c", "wait": "w", "labels": "l", "priority": "p"}, instead={"capability": "target"},
    ),
    summary="Store a task durably; an agent does it as soon as one can.",
    help="It is stored before this returns its id, and ends in exactly one outcome, whatever crashes. Nobody has to be "
    "there to do it yet. Input is JSON; bare words are taken as text, `@file` reads a file and `-` standard input. "
    "With --wait the exit code is that of `task await`, and the id is told on standard error first.",
    examples=(
        Example("Have a capability do it, and print the id", {"capability": "summarize", "input": "a long text"}),
        Example("Wait for what comes of it", {"target": "reviewer", "input": {"path": "README.md"}, "wait": True}),
        Example(
            "Try five times, give up in an hour",
            {"capability": "deploy", "input": {}, "max_attempts": 5, "retry_delay_s": 10, "deadline": "1h"},
        ),
        Example("Once, however often it is sent", {"capability": "bill", "input": 17, "key": "invoice-17"}),
    ),
)  # fmt: skip
async def submit(request: SubmitRequest, node: NodeControl, caller: Caller) -> task_replies.TaskInfo:
    """Store a task, and wait for its end when that was asked for."""
    if request.scope == "public":
        raise Invalid(
            "Work does not leave its project: it lies in the queues of that project's account.", code="work.not_public",
            hint="Offer it as team; agents of other projects can be asked by `knotwork message send`.",
        )  # fmt: skip
    tasks = node.tasks(caller.project, caller.who)
    wanted = NewTask(
        input=request.input, target=request.target or "", capability=request.capability or "", blob=request.blob or "",
        boundary=request.boundary or "", priority=request.priority,
        deadline_ns=task_words.moment_ns(request.deadline, past=False),
        attempt_timeout_s=request.attempt_timeout_s,
        retry=RetryWish(
            request.max_attempts, request.backoff, request.retry_delay_s, request.multiplier,
            _longest_pause_s(request), not request.no_jitter, tuple(request.retry_on), request.max_crashes,
        ),
        key=request.key, labels=task_words.labels(request.labels), parent=request.parent or "", scope=request.scope,
    )  # fmt: skip
    stored = await tasks.submit(wanted, caller)
    if not request.wait:
        return stored
    ended = await tasks.ended(stored.id, request.timeout_s)
    return ended.model_copy(update={"new": stored.new, "note": stored.note})


class TaskRequest(Request):
    """Which task."""

    id: TaskId = Field(description="the task's id")


class GetRequest(TaskRequest):
    """Which task, and how much of it."""

    with_input: bool = Field(default=False, description="its input, too")


@op(
    "task.get", GetRequest, task_replies.TaskInfo, effect="read",
    cli=CliForm(("task", "get"), positional=("id",), hidden=("ended", "new")),
    summary="Show a task as it is now.",
    help="Any node can say it, at any time, as often as wanted.",
    examples=(Example("Show a task", {"id": "t0198c0ffee00d15ea5e0ddba11"}),),
)  # fmt: skip
async def get(request: GetRequest, node: NodeControl, caller: Caller) -> task_replies.TaskInfo:
    """Return one task."""
    return await node.tasks(caller.project, caller.who).get(request.id, with_input=request.with_input)


class AwaitRequest(TaskRequest):
    """Which task, and for how long."""

    timeout_s: Wait = Field(default=DAY_S, description="seconds to wait at most")


@op(
    "task.await", AwaitRequest, task_replies.TaskInfo, effect="read",
    cli=CliForm(("task", "await"), positional=("id",), answer="output"),
    summary="Wait until a task has ended, and print what came of it.",
    help="From any node, any number of times, before or after the end; a second await answers at once. Exit code 0: it "
    "is completed; 1: it failed, is dead or was cancelled; 75: it timed out, or has not ended within --timeout. Over "
    "HTTP the answer says so in `state` and `ended`.",
    examples=(
        Example("Wait for a task", {"id": "t0198c0ffee00d15ea5e0ddba11"}),
        Example("At most half a minute", {"id": "t0198c0ffee00d15ea5e0ddba11", "timeout_s": 30}),
    ),
)  # fmt: skip
async def await_(request: AwaitRequest, node: NodeControl, caller: Caller) -> task_replies.TaskInfo:
    """Return the task when it has ended, or as it is when the time is over."""
    return await node.tasks(caller.project, caller.who).ended(request.id, request.timeout_s)


@op(
    "task.watch", AwaitRequest, task_replies.TaskInfo, effect="read", streams=True,
    cli=CliForm(("task", "watch"), positional=("id",), answer="output"),
    summary="Show progress, live output and changes of state as they happen.",
    help="Ends with the task, like `task await`, with the same exit codes. Over HTTP as server-sent events: `progress`; "
    '`chunk` with `{"output": …}` or `{"state": …}`; then `result`.',
    examples=(Example("Watch a task", {"id": "t0198c0ffee00d15ea5e0ddba11"}),),
)  # fmt: skip
async def watch(
    request: AwaitRequest, node: NodeControl, caller: Caller
) -> AsyncIterator[replies.Progress | replies.Chunk | task_replies.TaskInfo]:
    """Yield what happens, then the task as it ended."""
    async with aclosing(node.tasks(caller.project, caller.who).watch(request.id, request.timeout_s)) as pieces:
        async for piece in pieces:
            yield piece


FILTERS = {"capability": "c", "state": "s", "labels": "l"}
"""How a filter of tasks is written in short, whatever is to be done with them."""


class FilterRequest(Request):
    """Which tasks; all that is given must fit."""

    state: list[TaskState] = Field(default=[], description="in one of these states")
    capability: Token | None = Field(default=None, description="for this capability")
    agent: Token | None = Field(default=None, description="for, or done by, this agent")
    node: Token | None = Field(default=None, description="for, or done by, this node")
    boundary: Token | None = Field(default=None, description="of this data class")
    labels: Labels = Field(default=[], description="with all of these labels, key=value")
    priority_min: Priority = Field(default=1, description="of this priority or higher")
    priority_max: Priority = Field(default=10, description="of this priority or lower")
    since: Moment = Field(default="", description="submitted after that: so long ago (`2h`), or an RFC 3339 time")
    until: Moment = Field(default="", description="submitted before that")

    @field_validator("since", "until")
    @classmethod
    def _makes_sense(cls, value: str) -> str:
        return task_words.bound(value)

    def wanted(self, *, limit: int = 100, cursor: str = "", text: str = "") -> TaskFilter:
        """Return what is meant."""
        return TaskFilter(
            states=frozenset(self.state), capability=self.capability or "", agent=self.agent or "",
            node=self.node or "", boundary=self.boundary or "",
            labels=frozenset(task_words.labels(self.labels).items()),
            since_ns=task_words.moment_ns(self.since, past=True), until_ns=task_words.moment_ns(self.until, past=True),
            moving=(task_words.moving(self.since), task_words.moving(self.until)),
            priority_min=self.priority_min, priority_max=self.priority_max, text=text, limit=limit, cursor=cursor,
        )  # fmt: skip


class ListRequest(FilterRequest):
    """Which tasks, and how many."""

    text: Text = Field(default="", description="with all of these words in input, output or error")
    limit: int = Field(default=100, ge=1, le=10_000, description="at most so many")
    cursor: Cursor = Field(default="", description="go on behind the page before: its `next`")


@op(
    "task.list", ListRequest, task_replies.TaskList, effect="read",
    cli=CliForm(("task", "list"), rows="tasks", columns=COLUMNS, short={**FILTERS, "limit": "n"}),
    summary="List tasks, the newest first.",
    help="From the view of the past, which follows within a second. Whatever is given must all fit; --text looks for whole "
    "words in id, capability, labels, error, and in small inputs and outputs.",
    examples=(
        Example("The latest"),
        Example("What failed today?", {"state": ["failed", "dead", "timed-out"], "since": "1d"}),
        Example("By capability and label", {"capability": "bill", "labels": ["customer=17"]}),
    ),
)  # fmt: skip
async def list_tasks(request: ListRequest, node: NodeControl, caller: Caller) -> task_replies.TaskList:
    """Return a page of tasks."""
    wanted = request.wanted(limit=request.limit, cursor=request.cursor, text=request.text)
    return await node.tasks(caller.project, caller.who).list(wanted)


@op(
    "task.stats", Nothing, task_replies.TaskStats, effect="read", cli=CliForm(("task", "stats")),
    summary="Show how much there is to do.",
    help="Queues as they stand this second, dead letters, and tasks by state.",
    examples=(Example("How long are the queues?"),),
)  # fmt: skip
async def stats(_: Nothing, node: NodeControl, caller: Caller) -> task_replies.TaskStats:
    """Return counts."""
    return await node.tasks(caller.project, caller.who).stats()
