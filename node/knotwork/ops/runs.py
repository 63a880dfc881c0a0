"""What may be asked about runs of workflows: start, list, show, wait, watch, why, events."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Any

from pydantic import Field, ValidationInfo, field_validator

from knotwork.ops import flow_replies, replies, task_words
from knotwork.ops.flow_ports import NewRun
from knotwork.ops.op import Caller, CliForm, Example, Request, op
from knotwork.ops.ports import NodeControl
from knotwork.ops.run_words import FILTERS, ID, FilterRequest, RunRequest
from knotwork.ops.task_words import Digest, Key, Labels, Moment
from knotwork.ops.words import Token
from knotwork.sdk.errors import Invalid, TooLarge

WEEK_S, YEAR_S = 7 * 86400.0, 365 * 86400.0
COLUMNS = ("id", "workflow", "state", "done", "steps", "by", "started_at", "ended_at", "code")


class StartRequest(Request):
    """Which workflow, with what."""

    workflow: Token = Field(description="name or digest of a workflow")
    input: Any = Field(default=None, description="any JSON value")
    blob: Digest | None = Field(default=None, description="digest of a kept input (`blob.put`) instead of input")
    key: Key = Field(default="", description="idempotency key: however often it is started, it is one run")
    labels: Labels = Field(default=[], description="key=value, for lists and for every task of the run")
    priority: int | None = Field(default=None, ge=1, le=10, description="10 is the most urgent")
    boundary: Token | None = Field(default=None, description="data class of the input")
    wait_s: float = Field(default=0.0, ge=0, le=WEEK_S, description="seconds to wait for its end")
    at: Moment = Field(default="", description="start it at this time (RFC 3339; UTC when it names no zone), not now")
    in_s: float = Field(default=0.0, ge=0, le=YEAR_S, description="start it in so many seconds, not now")

    @field_validator("blob")
    @classmethod
    def _one_input(cls, value: str | None, info: ValidationInfo) -> str | None:
        if value is not None and info.data.get("input") is not None:
            raise ValueError("give either input or blob")
        return value


@op(
    "run.start", StartRequest, flow_replies.RunInfo, effect="write",
    cli=CliForm(("run", "start"), positional=("workflow", "input"), answer="id", answer_when={"wait_s": "output"}, short={"key": "k"}),
    summary="Start a run of a workflow.",
    help="It is durable when its id is answered, and then survives any crash. With --wait the answer is its output, and the exit code that of `run await`; --watch shows it as `run watch` does. With --at or --in it is a trigger that fires once.",
    examples=(
        Example("Start it", {"workflow": "hello", "input": {"who": "world"}}),
        Example("Start it once, and wait for its output", {"workflow": "hello", "key": "today", "wait_s": 30.0}),
    ),
)  # fmt: skip
async def start(request: StartRequest, node: NodeControl, caller: Caller) -> flow_replies.RunInfo:
    """Start it, and wait when that is wanted."""
    flows = node.flows(caller.project, caller.who)
    wanted = NewRun(
        request.workflow, request.input, request.key, task_words.labels(request.labels), request.priority,
        request.boundary or "", request.blob or "",
    )  # fmt: skip
    if request.at or request.in_s:
        if (request.at and request.in_s) or request.wait_s:
            raise Invalid("Give one of at, in_s and wait_s.", code="flow.bad_start")
        if wanted.blob:
            raise TooLarge(
                "The input of a run that starts later is kept with its trigger: 512 KiB at most.", code="trigger.too_large",
                hint="Start it now, or with an input that says where its data are.",
            )  # fmt: skip
        later = await node.triggers(caller.project).later(wanted, request.at or f"{request.in_s:.3f}s", caller)
        return later if later.state == "scheduled" else await flows.run(later.id)  # its key began it before
    info = await flows.start(wanted, caller)
    return (await flows.ended(info.id, request.wait_s)).model_copy(update={"new": info.new}) if request.wait_s else info


class ListRequest(FilterRequest):
    """Which runs, and how many."""

    limit: int = Field(default=50, ge=1, le=1000, description="at most so many")


@op(
    "run.list", ListRequest, flow_replies.RunList, effect="read",
    cli=CliForm(("run", "list"), rows="runs", columns=COLUMNS, also=("runs",), short=FILTERS),
    summary="List runs, the newest first.",
    help="Those to come (`scheduled`: `run start --at` and triggers that fire once), those under way, and those that ended in "
    "the time that runs are kept. Whatever is given must all fit.",
    examples=(
        Example("What is under way?", {"state": ["running"]}),
        Example("What failed today?", {"state": ["failed", "timed-out"], "since": "1d"}),
        Example("What is planned?", {"state": ["scheduled"]}),
    ),
)  # fmt: skip
async def all_of_them(request: ListRequest, node: NodeControl, caller: Caller) -> flow_replies.RunList:
    """Return those that fit."""
    return await node.flows(caller.project, caller.who).runs(request.wanted(), request.limit)


class ShowRequest(RunRequest):
    """Which run, and as of when."""

    at: int | None = Field(default=None, ge=1, description="as it was after so many of its facts")


@op(
    "run.show", ShowRequest, flow_replies.RunInfo, effect="read",
    cli=CliForm(("run", "show"), positional=("id",)),
    summary="Show a run and its steps.",
    help="Ended runs are kept for a month. --at shows it as it was.",
    examples=(Example("How far is it?", {"id": ID}),),
)  # fmt: skip
async def show(request: ShowRequest, node: NodeControl, caller: Caller) -> flow_replies.RunInfo:
    """Return it."""
    return await node.flows(caller.project, caller.who).run(request.id, up_to=request.at)


@op(
    "run.output", RunRequest, flow_replies.RunInfo, effect="read",
    cli=CliForm(("run", "output"), positional=("id",), answer="output"),
    summary="Show what a run gave.",
    help="Null while it has not ended, and when it failed. Of a run that started itself anew it is what the last one gave.",
    examples=(Example("What came out?", {"id": ID}),),
)  # fmt: skip
async def output(request: RunRequest, node: NodeControl, caller: Caller) -> flow_replies.RunInfo:
    """Return it, or that of the last run which goes on for it, as `run.await` does."""
    flows = node.flows(caller.project, caller.who)
    found = await flows.run(request.id)
    return await flows.ended(found.next, 0.0) if found.next else found


class AwaitRequest(RunRequest):
    """Which run, and for how long."""

    timeout_s: float = Field(default=WEEK_S, ge=0, le=WEEK_S, description="seconds to wait")


@op(
    "run.await", AwaitRequest, flow_replies.RunInfo, effect="read",
    cli=CliForm(("run", "await"), positional=("id",), answer="output"),
    summary="Wait for a run to end.",
    help="From any node, any number of times, before or after its end. Exit code 0: it is completed; 1: it failed or was "
    "cancelled; 75: it timed out, or has not ended within --timeout.",
    examples=(Example("Wait a minute at most", {"id": ID, "timeout_s": 60.0}),),
)  # fmt: skip
async def wait(request: AwaitRequest, node: NodeControl, caller: Caller) -> flow_replies.RunInfo:
    """Return it when it has ended."""
    return await node.flows(caller.project, caller.who).ended(request.id, request.timeout_s)


class WatchRequest(AwaitRequest):
    """Which run, for how long, and how much of it."""

    tree: bool = Field(default=False, description="its steps as they are, too, each time they change")


@op(
    "run.watch", WatchRequest, flow_replies.RunInfo, effect="read", streams=True,
    cli=CliForm(("run", "watch"), positional=("id",), answer="output"),
    summary="Watch a run until it ends.",
    help="Each fact as it is stored, and what workers say about how far they are; the answer is its output. On a terminal "
    "its steps are drawn in place, with bars; Ctrl-C stops the looking, not the run. Runs that go on for it are "
    "followed. Over HTTP as server-sent events: `progress`, with the share of steps that are done as `percent`; with "
    "`tree` also `chunk` with the run and the steps that `changed`; then `result`. Exit codes are those of `run await`.",
    examples=(Example("Look on", {"id": ID}),),
)  # fmt: skip
async def watch(
    request: WatchRequest, node: NodeControl, caller: Caller
) -> AsyncIterator[replies.Progress | replies.Chunk | flow_replies.RunInfo]:
    """Yield what happens, then the run."""
    flows = node.flows(caller.project, caller.who)
    async with aclosing(flows.watch(request.id, request.timeout_s, tree=request.tree)) as pieces:
        async for piece in pieces:
            yield piece
    yield await flows.ended(request.id, 0.0)


@op(
    "run.why", RunRequest, flow_replies.RunWhy, effect="read",
    cli=CliForm(("run", "why"), positional=("id",), rows="waits", columns=("step", "what", "since", "until", "why")),
    summary="Say what a run waits for.",
    help="A task in a queue, a timer, a signal, an event, an approval, another run: nothing waits without a reason.",
    examples=(Example("Why does it not go on?", {"id": ID}),),
)  # fmt: skip
async def why(request: RunRequest, node: NodeControl, caller: Caller) -> flow_replies.RunWhy:
    """Return the reasons."""
    return await node.flows(caller.project, caller.who).why(request.id)


@op(
    "run.events", RunRequest, flow_replies.RunEvents, effect="read",
    cli=CliForm(("run", "events"), positional=("id",), rows="events", columns=("number", "at", "what", "step", "state", "by", "message")),
    summary="Show everything that happened to a run.",
    help="Each line is a fact on record; the run is what they add up to.",
    examples=(Example("What happened?", {"id": ID}),),
)  # fmt: skip
async def events(request: RunRequest, node: NodeControl, caller: Caller) -> flow_replies.RunEvents:
    """Return the facts."""
    return flow_replies.RunEvents(id=request.id, events=await node.flows(caller.project, caller.who).events(request.id))
