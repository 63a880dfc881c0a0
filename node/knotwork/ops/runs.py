"""What may be asked about runs of workflows, and of them: start, look, wait, steer."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Annotated, Any, Literal

from pydantic import Field, StringConstraints

from knotwork.ops import flow_replies, replies, task_words
from knotwork.ops.flow_ports import NewRun
from knotwork.ops.op import Caller, CliForm, Example, Request, op
from knotwork.ops.ports import NodeControl
from knotwork.ops.task_words import Key, Labels, Moment
from knotwork.ops.words import Text, Token
from knotwork.sdk.errors import Invalid

WEEK_S, YEAR_S = 7 * 86400.0, 365 * 86400.0
ID = "w0198c0ffee0012345678ab"
RunId = Annotated[str, StringConstraints(pattern=r"^w[a-z0-9]{7,39}$", max_length=40)]
Topic = Annotated[str, StringConstraints(pattern=r"^[a-z0-9_-]{1,64}(\.[a-z0-9_-]{1,64}){0,7}$")]
LIVING = frozenset({"running", "paused", "stopping"})
COLUMNS = ("id", "workflow", "state", "done", "steps", "by", "started_at", "ended_at", "code")


class StartRequest(Request):
    """Which workflow, with what."""

    workflow: Token = Field(description="name or digest of a workflow")
    input: Any = Field(default=None, description="any JSON value")
    key: Key = Field(default="", description="idempotency key: however often it is started, it is one run")
    labels: Labels = Field(default=[], description="key=value, for lists and for every task of the run")
    priority: int | None = Field(default=None, ge=1, le=10, description="10 is the most urgent")
    boundary: Token | None = Field(default=None, description="data class of the input")
    wait_s: float = Field(default=0.0, ge=0, le=WEEK_S, description="seconds to wait for its end")
    at: Moment = Field(default="", description="start it at this time (RFC 3339), not now")
    in_s: float = Field(default=0.0, ge=0, le=YEAR_S, description="start it in so many seconds, not now")


@op(
    "run.start", StartRequest, flow_replies.RunInfo, effect="write",
    cli=CliForm(("run", "start"), positional=("workflow", "input"), answer="id", answer_when={"wait_s": "output"}, short={"key": "k"}),
    summary="Start a run of a workflow.",
    help="It is durable when its id is answered, and then survives any crash. With --wait the answer is its output. With --at or --in it is a trigger that fires once.",
    examples=(
        Example("Start it", {"workflow": "hello", "input": {"who": "world"}}),
        Example("Start it once, and wait for its output", {"workflow": "hello", "key": "today", "wait_s": 30.0}),
    ),
)  # fmt: skip
async def start(request: StartRequest, node: NodeControl, caller: Caller) -> flow_replies.RunInfo:
    """Start it, and wait when that is wanted."""
    flows = node.flows(caller.project)
    wanted = NewRun(
        request.workflow, request.input, request.key, task_words.labels(request.labels), request.priority,
        request.boundary or "",
    )  # fmt: skip
    if request.at or request.in_s:
        if (request.at and request.in_s) or request.wait_s:
            raise Invalid("Give one of at, in_s and wait_s.", code="flow.bad_start")
        return await node.triggers(caller.project).later(wanted, request.at or f"{request.in_s:.3f}s", caller)
    info = await flows.start(wanted, caller)
    return (await flows.ended(info.id, request.wait_s)).model_copy(update={"new": info.new}) if request.wait_s else info


class ListRequest(Request):
    """Which runs."""

    workflow: Token | None = Field(default=None, description="of this workflow alone")
    state: list[Literal["running", "paused", "stopping", "completed", "failed", "cancelled", "timed-out"]] = Field(
        default=[], max_length=7, description="in one of these states"
    )
    limit: int = Field(default=50, ge=1, le=1000, description="at most so many")


@op(
    "run.list", ListRequest, flow_replies.RunList, effect="read",
    cli=CliForm(("run", "list"), rows="runs", columns=COLUMNS, also=("runs",)),
    summary="List runs, the newest first.",
    help="Those under way, and those that ended in the last month.",
    examples=(Example("What is under way?", {"state": ["running"]}),),
)  # fmt: skip
async def all_of_them(request: ListRequest, node: NodeControl, caller: Caller) -> flow_replies.RunList:
    """Return those that fit."""
    found = await node.flows(caller.project).runs(
        workflow=request.workflow or "", states=frozenset(request.state), limit=request.limit
    )
    return flow_replies.RunList(runs=found)


class RunRequest(Request):
    """Which run."""

    id: RunId = Field(description="id of a run")


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
    return await node.flows(caller.project).run(request.id, up_to=request.at)


@op(
    "run.output", RunRequest, flow_replies.RunInfo, effect="read",
    cli=CliForm(("run", "output"), positional=("id",), answer="output"),
    summary="Show what a run gave.",
    help="Null while it has not ended, and when it failed.",
    examples=(Example("What came out?", {"id": ID}),),
)  # fmt: skip
async def output(request: RunRequest, node: NodeControl, caller: Caller) -> flow_replies.RunInfo:
    """Return it."""
    return await node.flows(caller.project).run(request.id)


class AwaitRequest(RunRequest):
    """Which run, and for how long."""

    timeout_s: float = Field(default=WEEK_S, ge=0, le=WEEK_S, description="seconds to wait")


@op(
    "run.await", AwaitRequest, flow_replies.RunInfo, effect="read",
    cli=CliForm(("run", "await"), positional=("id",), answer="output"),
    summary="Wait for a run to end.",
    help="From any node, any number of times, before or after its end.",
    examples=(Example("Wait a minute at most", {"id": ID, "timeout_s": 60.0}),),
)  # fmt: skip
async def wait(request: AwaitRequest, node: NodeControl, caller: Caller) -> flow_replies.RunInfo:
    """Return it when it has ended."""
    return await node.flows(caller.project).ended(request.id, request.timeout_s)


@op(
    "run.watch", AwaitRequest, flow_replies.RunInfo, effect="read", streams=True,
    cli=CliForm(("run", "watch"), positional=("id",), answer="output"),
    summary="Watch a run until it ends.",
    help="Each fact as it is stored; the answer is its output.",
    examples=(Example("Look on", {"id": ID}),),
)  # fmt: skip
async def watch(
    request: AwaitRequest, node: NodeControl, caller: Caller
) -> AsyncIterator[replies.Progress | flow_replies.RunInfo]:
    """Yield what happens, then the run."""
    flows = node.flows(caller.project)
    async with aclosing(flows.watch(request.id, request.timeout_s)) as events:
        async for event in events:
            told = " ".join(part for part in (event.step, event.what, event.state, event.message) if part)
            yield replies.Progress(percent=None, text=told)
    yield await flows.run(request.id)


@op(
    "run.why", RunRequest, flow_replies.RunWhy, effect="read",
    cli=CliForm(("run", "why"), positional=("id",), rows="waits", columns=("step", "what", "since", "until")),
    summary="Say what a run waits for.",
    help="A task in a queue, a timer, a signal, an event, an approval, another run: nothing waits without a reason.",
    examples=(Example("Why does it not go on?", {"id": ID}),),
)  # fmt: skip
async def why(request: RunRequest, node: NodeControl, caller: Caller) -> flow_replies.RunWhy:
    """Return the reasons."""
    return await node.flows(caller.project).why(request.id)


@op(
    "run.events", RunRequest, flow_replies.RunEvents, effect="read",
    cli=CliForm(("run", "events"), positional=("id",), rows="events", columns=("number", "at", "what", "step", "state", "by", "message")),
    summary="Show everything that happened to a run.",
    help="Each line is a fact on record; the run is what they add up to.",
    examples=(Example("What happened?", {"id": ID}),),
)  # fmt: skip
async def events(request: RunRequest, node: NodeControl, caller: Caller) -> flow_replies.RunEvents:
    """Return the facts."""
    return flow_replies.RunEvents(id=request.id, events=await node.flows(caller.project).events(request.id))


class CancelRequest(Request):
    """Which runs, by id or all of a workflow, and why."""

    ids: Annotated[list[RunId], Field(max_length=1000)] = Field(default=[], description="ids of runs")
    workflow: Token | None = Field(default=None, description="every run of this workflow that goes on")
    all: bool = Field(default=False, description="every run that goes on")
    dry_run: bool = Field(default=False, description="only say which")
    why: Text = Field(default="", description="a reason, kept with the run")


@op(
    "run.cancel", CancelRequest, flow_replies.AllChanged, effect="write",
    cli=CliForm(("run", "cancel"), positional=("ids",), rows="runs", columns=("id", "changed", "why")),
    summary="Stop runs, and all that they started.",
    help="Steps that run are stopped within two seconds; what has ended stays as it is.",
    examples=(
        Example("Stop it", {"ids": [ID]}),
        Example("Which would be stopped?", {"workflow": "hello", "dry_run": True}),
    ),
)  # fmt: skip
async def cancel(request: CancelRequest, node: NodeControl, caller: Caller) -> flow_replies.AllChanged:
    """Stop them."""
    flows = node.flows(caller.project)
    ids = list(request.ids)
    if not ids:
        if not (request.workflow or request.all):
            raise task_words.filter_needed()
        living = await flows.runs(workflow=request.workflow or "", states=LIVING, limit=10_000)
        ids = [one.id for one in living]
    if request.dry_run:
        return flow_replies.AllChanged(runs=[flow_replies.Changed(id=one, changed=False, why="dry run") for one in ids])
    return flow_replies.AllChanged(runs=await flows.cancel(ids, request.why, caller))


@op(
    "run.pause", RunRequest, flow_replies.Changed, effect="write",
    cli=CliForm(("run", "pause"), positional=("id",)),
    summary="Begin no new steps of a run.",
    help="What runs goes on to its end.",
    examples=(Example("Hold it", {"id": ID}),),
)  # fmt: skip
async def pause(request: RunRequest, node: NodeControl, caller: Caller) -> flow_replies.Changed:
    """Hold it."""
    return await node.flows(caller.project).hold(request.id, caller, resume=False)


@op(
    "run.resume", RunRequest, flow_replies.Changed, effect="write",
    cli=CliForm(("run", "resume"), positional=("id",)),
    summary="Let a paused run go on.",
    help="Steps whose turn came meanwhile begin at once.",
    examples=(Example("Go on", {"id": ID}),),
)  # fmt: skip
async def resume(request: RunRequest, node: NodeControl, caller: Caller) -> flow_replies.Changed:
    """Let it go on."""
    return await node.flows(caller.project).hold(request.id, caller, resume=True)


class SignalRequest(RunRequest):
    """Which run, which signal, and what to send along."""

    signal: Token = Field(description="name of the signal")
    payload: Any = Field(default=None, description="any JSON value")
    key: Key = Field(default="", description="idempotency key: sent twice, it counts once")


@op(
    "run.signal", SignalRequest, flow_replies.Changed, effect="write",
    cli=CliForm(("run", "signal"), positional=("id", "signal", "payload"), short={"key": "k"}),
    summary="Send a signal to a run.",
    help="It is kept until a step waits for it.",
    examples=(Example("Tell it to go on", {"id": ID, "signal": "go", "payload": {"with": "care"}}),),
)  # fmt: skip
async def signal(request: SignalRequest, node: NodeControl, caller: Caller) -> flow_replies.Changed:
    """Send it."""
    return await node.flows(caller.project).signal(request.id, request.signal, request.payload, request.key, caller)


class AnswerRequest(RunRequest):
    """Which question, and what to say to it."""

    step: Token = Field(description="the step that asks")
    comment: Text = Field(default="", description="kept with the answer")


@op(
    "run.approve", AnswerRequest, flow_replies.Changed, effect="write",
    cli=CliForm(("run", "approve"), positional=("id", "step")),
    summary="Approve what a run asks for.",
    help="The first answer counts, and it is on record before it is acknowledged; a later one is refused and told which stands.",
    examples=(Example("Yes", {"id": ID, "step": "ask"}),),
)  # fmt: skip
async def approve(request: AnswerRequest, node: NodeControl, caller: Caller) -> flow_replies.Changed:
    """Say yes."""
    return await node.flows(caller.project).answer(request.id, request.step, request.comment, caller, approve=True)


@op(
    "run.reject", AnswerRequest, flow_replies.Changed, effect="write",
    cli=CliForm(("run", "reject"), positional=("id", "step")),
    summary="Reject what a run asks for.",
    help="The step fails with the comment; the workflow says what follows.",
    examples=(Example("No", {"id": ID, "step": "ask", "comment": "not on a Friday"}),),
)  # fmt: skip
async def reject(request: AnswerRequest, node: NodeControl, caller: Caller) -> flow_replies.Changed:
    """Say no."""
    return await node.flows(caller.project).answer(request.id, request.step, request.comment, caller, approve=False)


class RetryRequest(RunRequest):
    """Which run, from where on, and with what."""

    step: Token | None = Field(default=None, description="from this step on; left out: whatever was not done")
    key: Key = Field(default="", description="idempotency key")


@op(
    "run.retry", RetryRequest, flow_replies.RunInfo, effect="write",
    cli=CliForm(("run", "retry"), positional=("id", "step"), answer="id", short={"key": "k"}),
    summary="Do a run again, without what was done.",
    help="It becomes a run of its own, with the same definition. What was done before the step is taken over.",
    examples=(Example("Whatever failed, and all behind it", {"id": ID}), Example("From a step on", {"id": ID, "step": "ship"})),
)  # fmt: skip
async def retry(request: RetryRequest, node: NodeControl, caller: Caller) -> flow_replies.RunInfo:
    """Start it."""
    return await node.flows(caller.project).fork(request.id, request.step or "", {}, request.key, caller)


class ForkRequest(RunRequest):
    """Which run, from where on, and with which input."""

    step: Token = Field(description="from this step on")
    input: Any = Field(default=None, description="the new input of that step (of a map: its items)")
    run_input: Any = Field(default=None, description="the new input of the run, for all that is done anew")
    key: Key = Field(default="", description="idempotency key")


@op(
    "run.fork", ForkRequest, flow_replies.RunInfo, effect="write",
    cli=CliForm(("run", "fork"), positional=("id", "step", "input"), answer="id", short={"key": "k"}),
    summary="Go another way from a step of a run on, with another input of that step.",
    help="It becomes a run of its own. What was done before the step is taken over as it was; the input stands in place of what the definition gives the step.",
    examples=(Example("Once more, with feeling", {"id": ID, "step": "ship", "input": {"feeling": True}}),),
)  # fmt: skip
async def fork(request: ForkRequest, node: NodeControl, caller: Caller) -> flow_replies.RunInfo:
    """Start it."""
    inputs: dict[str, Any] = {
        one: getattr(request, one) for one in ("input", "run_input") if one in request.model_fields_set
    }
    return await node.flows(caller.project).fork(request.id, request.step, inputs, request.key, caller)


@op(
    "run.replay", RunRequest, flow_replies.Replay, effect="read",
    cli=CliForm(("run", "replay"), positional=("id",)),
    summary="Say whether this version would lead to the recorded history of a run.",
    help="Nothing is done: its facts are given to the rules again, and the first that they did not expect is told.",
    examples=(Example("Would it go the same way today?", {"id": ID}),),
)  # fmt: skip
async def replay(request: RunRequest, node: NodeControl, caller: Caller) -> flow_replies.Replay:
    """Compare."""
    return await node.flows(caller.project).replay(request.id)


@op(
    "run.export", RunRequest, flow_replies.Exported, effect="read",
    cli=CliForm(("run", "export"), positional=("id",)),
    summary="Write a run down: its definition and all its facts.",
    help="As JSON, with `-o json`; `run import` reads it back, here or elsewhere.",
    examples=(Example("Keep it", {"id": ID}),),
)  # fmt: skip
async def export(request: RunRequest, node: NodeControl, caller: Caller) -> flow_replies.Exported:
    """Return it."""
    return await node.flows(caller.project).exported(request.id)


class ImportRequest(Request):
    """A run that was written down."""

    run: Any = Field(description="what `run export -o json` gave: `@file` reads a file, `-` standard input")


@op(
    "run.import", ImportRequest, flow_replies.Changed, effect="write",
    cli=CliForm(("run", "import"), positional=("run",)),
    summary="Put a run that is over, and was written down, into the past.",
    help="It can be shown, listed, replayed and forked like any other. Nothing of it is done again.",
    examples=(Example("Bring it back", {"run": {"id": ID, "definition": {}, "facts": []}}),),
)  # fmt: skip
async def bring_in(request: ImportRequest, node: NodeControl, caller: Caller) -> flow_replies.Changed:
    """Keep it."""
    return await node.flows(caller.project).imported(request.run)


class PublishRequest(Request):
    """An event."""

    kind: Topic = Field(description="what happened, such as order.paid")
    body: Any = Field(default=None, description="any JSON value")


@op(
    "event.publish", PublishRequest, flow_replies.Published, effect="write",
    cli=CliForm(("event", "publish"), positional=("kind", "body")),
    summary="Publish an event that runs may wait for.",
    help="It is stored for two weeks; every run that waits for its kind is given it, if it matches.",
    examples=(Example("An order was paid", {"kind": "order.paid", "body": {"order": 7}}),),
)  # fmt: skip
async def publish(request: PublishRequest, node: NodeControl, caller: Caller) -> flow_replies.Published:
    """Store it."""
    number = await node.flows(caller.project).publish(request.kind, request.body)
    return flow_replies.Published(kind=request.kind, number=number)
