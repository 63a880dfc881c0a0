"""What may be done about runs that are there: cancel, pause, resume, retry, one or many; fork, signal, approve, reject."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Annotated, Any

from pydantic import Field, StringConstraints

from knotwork.ops import flow_replies, replies
from knotwork.ops.flow_ports import RunBatch, Wish
from knotwork.ops.op import Caller, CliForm, Example, Request, op
from knotwork.ops.ports import NodeControl
from knotwork.ops.run_words import FILTERS, ID, BatchRequest, RunRequest
from knotwork.ops.task_words import Key
from knotwork.ops.words import NAMED, Text, Token

_TOPIC = r"^[a-z0-9_-]{1,64}(\.[a-z0-9_-]{1,64}){0,7}$"
Topic = Annotated[str, StringConstraints(pattern=_TOPIC)]
NAMED[_TOPIC] = (
    "not the kind of an event",
    "Kinds are up to eight words of a-z, 0-9, - and _ with dots between them, such as order.paid.",
)
Pieces = AsyncGenerator[replies.Progress | flow_replies.AllChanged, None]
_MANY = "By id, or all that fit a filter: --dry-run tells which. Each run has an answer of its own; `next` goes on with --cursor."


async def _each(
    request: BatchRequest,
    what: Wish,
    node: NodeControl,
    caller: Caller,
    *,
    why: str = "",
    step: str = "",
    key: str = "",
) -> Pieces:
    """Yield how far it is, then what became of each run."""
    request.must_mean_some()
    batch = RunBatch(
        what, tuple(dict.fromkeys(request.ids)), request.wanted(), request.limit, request.timeout_s,
        dry_run=request.dry_run, why=why, step=step, key=key,
    )  # fmt: skip
    async with aclosing(node.flows(caller.project, caller.who).change(batch, caller)) as pieces:
        async for piece in pieces:
            yield piece


class CancelRequest(BatchRequest):
    """Which runs, and why."""

    why: Text = Field(default="", description="a reason, kept with the run")


@op(
    "run.cancel", CancelRequest, flow_replies.AllChanged, effect="write", streams=True,
    cli=CliForm(("run", "cancel"), positional=("ids",), rows="runs", columns=flow_replies.CHANGED, short=FILTERS),
    summary="Stop runs, and all that they started.",
    help="Steps that run are stopped within two seconds; what has ended stays as it is. A filter means runs that are planned "
    f"only where it says so (state `scheduled`): their triggers are removed. {_MANY}",
    examples=(
        Example("Stop it", {"ids": [ID]}),
        Example("Which would be stopped?", {"workflow": "hello", "dry_run": True}),
    ),
)  # fmt: skip
def cancel(request: CancelRequest, node: NodeControl, caller: Caller) -> Pieces:
    """Stop them."""
    return _each(request, "cancel", node, caller, why=request.why)


@op(
    "run.pause", BatchRequest, flow_replies.AllChanged, effect="write", streams=True,
    cli=CliForm(("run", "pause"), positional=("ids",), rows="runs", columns=flow_replies.CHANGED, short=FILTERS),
    summary="Begin no new steps of runs.",
    help=f"What runs goes on to its end. Attached runs below are paused, too. {_MANY}",
    examples=(Example("Hold it", {"ids": [ID]}), Example("Hold all of a customer's", {"labels": ["customer=17"]})),
)  # fmt: skip
def pause(request: BatchRequest, node: NodeControl, caller: Caller) -> Pieces:
    """Hold them."""
    return _each(request, "pause", node, caller)


@op(
    "run.resume", BatchRequest, flow_replies.AllChanged, effect="write", streams=True,
    cli=CliForm(("run", "resume"), positional=("ids",), rows="runs", columns=flow_replies.CHANGED, short=FILTERS),
    summary="Let paused runs go on.",
    help=f"Steps whose turn came meanwhile begin at once. Attached runs below go on, too. {_MANY}",
    examples=(Example("Go on", {"ids": [ID]}), Example("Let all go on", {"all": True})),
)  # fmt: skip
def resume(request: BatchRequest, node: NodeControl, caller: Caller) -> Pieces:
    """Let them go on."""
    return _each(request, "resume", node, caller)


class RetryRequest(BatchRequest):
    """Which runs, and from where on."""

    step: Token | None = Field(default=None, description="from this step on; left out: whatever was not done")
    key: Key = Field(default="", description="idempotency key: each run is retried once with it, however often")


@op(
    "run.retry", RetryRequest, flow_replies.AllChanged, effect="write", streams=True,
    cli=CliForm(
        ("run", "retry"), positional=("ids",), rows="runs", columns=flow_replies.CHANGED, answer_when={"ids": "id"},
        short={**FILTERS, "key": "k"},
    ),
    summary="Do runs again, without what was done.",
    help="Each becomes a run of its own, with the same definition: its id is the answer. What was done before the step is "
    f"taken over, single items of maps and steps of runs below, too; of a chain that started itself anew its last run is retried. {_MANY} Give a --key, so that going on "
    "retries none twice.",
    examples=(
        Example("Whatever failed, and all behind it", {"ids": [ID]}),
        Example("From a step on", {"ids": [ID], "step": "ship"}),
        Example("What failed today", {"state": ["failed"], "since": "1d", "key": "today"}),
    ),
)  # fmt: skip
def retry(request: RetryRequest, node: NodeControl, caller: Caller) -> Pieces:
    """Start them anew."""
    return _each(request, "retry", node, caller, step=request.step or "", key=request.key)


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
    return await node.flows(caller.project, caller.who).signal(
        request.id, request.signal, request.payload, request.key, caller
    )


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
    return await node.flows(caller.project, caller.who).answer(
        request.id, request.step, request.comment, caller, approve=True
    )


@op(
    "run.reject", AnswerRequest, flow_replies.Changed, effect="write",
    cli=CliForm(("run", "reject"), positional=("id", "step")),
    summary="Reject what a run asks for.",
    help="The step fails with the comment; the workflow says what follows.",
    examples=(Example("No", {"id": ID, "step": "ask", "comment": "not on a Friday"}),),
)  # fmt: skip
async def reject(request: AnswerRequest, node: NodeControl, caller: Caller) -> flow_replies.Changed:
    """Say no."""
    return await node.flows(caller.project, caller.who).answer(
        request.id, request.step, request.comment, caller, approve=False
    )


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
    return await node.flows(caller.project, caller.who).fork(request.id, request.step, inputs, request.key, caller)


class PublishRequest(Request):
    """An event."""

    kind: Topic = Field(description="what happened, such as order.paid")
    body: Any = Field(default=None, description="any JSON value")
    key: Key = Field(default="", description="idempotency key: published twice within a day, it counts once")


@op(
    "event.publish", PublishRequest, flow_replies.Published, effect="write",
    cli=CliForm(("event", "publish"), positional=("kind", "body"), short={"key": "k"}),
    summary="Publish an event that runs may wait for.",
    help="It is stored for two weeks; every run that waits for its kind is given it, if it matches.",
    examples=(
        Example("An order was paid", {"kind": "order.paid", "body": {"order": 7}}),
        Example("Said once, however often it is tried", {"kind": "order.paid", "body": {"order": 7}, "key": "order-7"}),
    ),
)  # fmt: skip
async def publish(request: PublishRequest, node: NodeControl, caller: Caller) -> flow_replies.Published:
    """Store it."""
    return await node.flows(caller.project, caller.who).publish(request.kind, request.body, request.key)
