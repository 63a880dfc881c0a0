"""What may be asked by agents that are no plugins? To be let in, to claim tasks, to say how they go and how they ended."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Annotated, Any, Self

from pydantic import Field, StringConstraints, model_validator

from knotwork.ops import claim_replies, replies
from knotwork.ops.claim_ports import Shown, Worker
from knotwork.ops.op import Caller, CliForm, Example, Request, op
from knotwork.ops.ports import NodeControl
from knotwork.ops.task_words import Code, Cursor, Run
from knotwork.ops.words import Text, Token
from knotwork.sdk.errors import Denied

WAIT_MAX_S = 60.0
LEASE_MIN_S, LEASE_MAX_S = 5.0, 86400.0
SHOWN = "kc1.gsR0aGU.c2VhbA"
Tokens = Annotated[list[Token], Field(max_length=64)]
Lease = Annotated[float, Field(ge=LEASE_MIN_S, le=LEASE_MAX_S)]
Claim = Annotated[str, StringConstraints(min_length=1, max_length=2048)]
Message = Annotated[str, StringConstraints(max_length=16_384)]


class WorkerRequest(Request):
    """Who you are, and what you do."""

    worker: Token = Field(description="your name: tasks for an agent of this name are yours, too")
    capabilities: Tokens = Field(default=[], description="what you can do")
    boundaries: Tokens = Field(default=[], description="data classes you accept; all when empty")
    kind: Token | None = Field(
        default=None, description="what you are, as an executor type such as claude-code: boundaries may name it"
    )

    def described(self, *, description: str = "", max_tasks: int = 1) -> Worker:
        """Return who asks."""
        return Worker(
            self.worker, tuple(self.capabilities), tuple(self.boundaries), self.kind or "", description, max_tasks
        )


def _itself(request: WorkerRequest | ClaimedRequest, caller: Caller) -> None:
    """Let an agent with a session ask for work in its own name alone; raises `Denied` (`claim.not_you`)."""
    if caller.who.kind == "agent" and request.worker != caller.who.name:
        raise Denied(
            f"You are {caller.who.name}, and cannot take work as {request.worker}.", code="claim.not_you",
            hint=f"Give worker={caller.who.name}, or change your handle with session.update.",
        )  # fmt: skip


class ConnectRequest(WorkerRequest):
    """Who you are, what you do, and how much at once."""

    description: Text = Field(default="", description="one line for people and agents: what you are good for")
    max_tasks: int = Field(default=1, ge=1, le=10_000, description="tasks you work on at once")


@op(
    "work.connect", ConnectRequest, claim_replies.Parted, effect="write", streams=True, live=True,
    cli=CliForm(("work", "connect"), positional=("worker",), short={"capabilities": "c"}),
    summary="Be shown in the directory, and be told when work is taken from you.",
    help='For as long as you listen. First comes `{"event": "connected"}`, then `{"event": "lost", "id": …, "why": '
    '"ended" or "expired"}` for each task that is yours no more: cancelled, past its deadline, or silent for too '
    "long. You may claim tasks without it.",
    examples=(Example("Come in as a reviewer", {"worker": "laptop", "capabilities": ["code-review"]}),),
)  # fmt: skip
async def connect(
    request: ConnectRequest, node: NodeControl, caller: Caller
) -> AsyncIterator[replies.Chunk | claim_replies.Parted]:
    """Yield what an agent is told."""
    _itself(request, caller)
    worker = request.described(description=request.description, max_tasks=request.max_tasks)
    count = 0
    async with aclosing(node.claims(caller.project).connect(worker, caller)) as notices:
        async for notice in notices:
            count += 1
            yield notice
    yield claim_replies.Parted(worker=request.worker, notices=count - 1)


class ClaimRequest(WorkerRequest):
    """Who asks for work, for how much, and for how long."""

    max_tasks: int = Field(default=1, ge=1, le=64, description="at most so many")
    wait_s: float = Field(default=5.0, ge=0, le=WAIT_MAX_S, description="seconds to wait for the first")
    lease_s: Lease = Field(default=60.0, description="seconds you may be silent before a task goes to somebody else")


@op(
    "work.claim", ClaimRequest, claim_replies.ClaimedTasks, effect="write",
    cli=CliForm(
        ("work", "claim"), positional=("worker",), rows="tasks", columns=("id", "capability", "attempt", "input", "claim"),
        short={"capabilities": "c"},
    ),
    summary="Take tasks to do, as soon as there are some.",
    help="Tasks for your name, and for your capabilities (those you connected with, when you give none), the urgent ones "
    "first. Each is yours until you say how it ended; be silent for `lease_s` and it goes to somebody else. No tasks "
    "after `wait_s` is an answer, too: ask again.",
    examples=(
        Example("Wait for one task", {"worker": "laptop", "capabilities": ["code-review"], "wait_s": 30}),
        Example("Take up to ten", {"worker": "laptop", "capabilities": ["code-review"], "max_tasks": 10, "lease_s": 600}),
    ),
)  # fmt: skip
async def claim(request: ClaimRequest, node: NodeControl, caller: Caller) -> claim_replies.ClaimedTasks:
    """Return tasks."""
    _itself(request, caller)
    return await node.claims(caller.project).claim(
        request.described(), caller, count=request.max_tasks, wait_s=request.wait_s, lease_s=request.lease_s
    )


class ClaimedRequest(Request):
    """Who you are, and which page of what you hold."""

    worker: Token = Field(description="your name")
    id: Run | None = Field(default=None, description="what you hold of this task or run alone")
    limit: int = Field(default=20, ge=1, le=64, description="at most so many")
    cursor: Cursor = Field(default="", description="`next` of the page before")


@op(
    "work.claimed", ClaimedRequest, claim_replies.ClaimedPage, effect="write",  # whoever has a claim may end the work
    cli=CliForm(
        ("work", "claimed"), positional=("worker",), rows="tasks", columns=("id", "capability", "attempt", "input", "claim"),
    ),
    summary="Show the tasks that you hold.",
    help="With a `claim` for each, as `work.claim` answered it: for one who was restarted, or missed that answer. "
    "Looking does not extend a lease.",
    examples=(Example("What do I hold?", {"worker": "laptop"}),),
)  # fmt: skip
async def claimed(request: ClaimedRequest, node: NodeControl, caller: Caller) -> claim_replies.ClaimedPage:
    """Return what somebody holds."""
    _itself(request, caller)
    return await node.claims(caller.project).claimed(
        request.worker, caller, run=request.id or "", limit=request.limit, cursor=request.cursor
    )


class HeldRequest(Request):
    """Which task of yours."""

    claim: Claim = Field(description="the `claim` that came with the task")
    id: Run | None = Field(default=None, description="the task's id; when given, the claim must be one on this task")

    @property
    def shown(self) -> Shown:
        """Return what is shown for the task."""
        return Shown(self.claim, self.id or "")


class ExtendRequest(HeldRequest):
    """Which task, and how much longer."""

    lease_s: Lease | None = Field(
        default=None, description="seconds you may be silent from now on; not said: as long as until now"
    )


@op(
    "work.extend", ExtendRequest, claim_replies.Held, effect="write",
    cli=CliForm(("work", "extend"), positional=("claim",)),
    summary="Say that you still work on a task.",
    help="Do it well before the lease is over. The answer tells when it is not yours any more: `claim.cancelled`, "
    "`claim.superseded` or `claim.expired`. Stop working on it then.",
    examples=(Example("Ten more minutes", {"claim": SHOWN, "lease_s": 600}),),
)  # fmt: skip
async def extend(request: ExtendRequest, node: NodeControl, caller: Caller) -> claim_replies.Held:
    """Extend a lease."""
    return await node.claims(caller.project).extend(request.shown, request.lease_s)


class ProgressRequest(HeldRequest):
    """Which task, and how far it is."""

    percent: float | None = Field(default=None, ge=0, le=100, description="0 to 100, when that can be said")
    text: Annotated[str, StringConstraints(max_length=4096)] = Field(default="", description="what you are doing")


@op(
    "work.progress", ProgressRequest, claim_replies.Held, effect="write",
    cli=CliForm(("work", "progress"), positional=("claim",)),
    summary="Tell whoever watches a task how far it is.",
    help="It does not extend the lease.",
    examples=(Example("Half done", {"claim": SHOWN, "percent": 50, "text": "tests are running"}),),
)  # fmt: skip
async def progress(request: ProgressRequest, node: NodeControl, caller: Caller) -> claim_replies.Held:
    """Report progress."""
    return await node.claims(caller.project).progress(request.shown, request.percent, request.text)


class DataRequest(HeldRequest):
    """Which task, and a value."""

    data: Any = Field(default=None, description="any JSON value")


@op(
    "work.stream", DataRequest, claim_replies.Held, effect="write",
    cli=CliForm(("work", "stream"), positional=("claim", "data")),
    summary="Send a piece of live output to whoever watches a task.",
    help="It is not stored, and does not extend the lease.",
    examples=(Example("Send a line", {"claim": SHOWN, "data": "compiling …"}),),
)  # fmt: skip
async def stream(request: DataRequest, node: NodeControl, caller: Caller) -> claim_replies.Held:
    """Send live output."""
    return await node.claims(caller.project).stream(request.shown, request.data)


class CheckpointRequest(DataRequest):
    """Which task, and what to keep for it."""

    read: bool = Field(default=False, description="return what is kept instead")

    @model_validator(mode="after")
    def _one_of_both(self) -> Self:
        if self.read and self.data is not None:
            raise ValueError("give either data or read")
        if not self.read and "data" not in self.model_fields_set:  # whoever forgets one loses what is kept
            raise ValueError("give data, which may be null, or read")
        return self


@op(
    "work.checkpoint", CheckpointRequest, claim_replies.Checkpoint, effect="write",
    cli=CliForm(("work", "checkpoint"), positional=("claim", "data"), answer="data"),
    summary="Keep a value for the attempts that follow, or read what is kept.",
    help="One value for each task, the latest, up to 512 KiB; it goes when the task has ended. A later attempt finds it "
    "in `checkpoint` of the task it claims.",
    examples=(
        Example("Keep how far you came", {"claim": SHOWN, "data": {"page": 17}}),
        Example("Read it back", {"claim": SHOWN, "read": True}),
    ),
)  # fmt: skip
async def checkpoint(request: CheckpointRequest, node: NodeControl, caller: Caller) -> claim_replies.Checkpoint:
    """Keep or read a checkpoint."""
    claims = node.claims(caller.project)
    return await (claims.saved(request.shown) if request.read else claims.save(request.shown, request.data))


class OutputRequest(HeldRequest):
    """Which task, and what came of it."""

    output: Any = Field(default=None, description="any JSON value")


@op(
    "work.complete", OutputRequest, claim_replies.Settled, effect="write",
    cli=CliForm(("work", "complete"), positional=("claim", "output"), answer="state"),
    summary="Say that a task is done.",
    help="It is on record when this returns. Saying the same again does no harm; what comes too late is refused.",
    examples=(Example("Done", {"claim": SHOWN, "output": {"findings": []}}),),
)  # fmt: skip
async def complete(request: OutputRequest, node: NodeControl, caller: Caller) -> claim_replies.Settled:
    """Record that it is done."""
    return await node.claims(caller.project).complete(request.shown, request.output)


@op(
    "work.continue", OutputRequest, claim_replies.Settled, effect="write",
    cli=CliForm(("work", "continue"), positional=("claim", "output"), answer="state"),
    summary="Say that there is more to do: the output is the next input.",
    help="Whoever is free takes the next iteration, which is an attempt of its own.",
    examples=(Example("The next page", {"claim": SHOWN, "output": {"page": 2}}),),
)  # fmt: skip
async def continue_(request: OutputRequest, node: NodeControl, caller: Caller) -> claim_replies.Settled:
    """Record that it goes on."""
    return await node.claims(caller.project).go_on(request.shown, request.output)


class FailRequest(HeldRequest):
    """Which task, what went wrong, and whether to try again."""

    message: Message = Field(description="what went wrong, and why")
    code: Code = Field(default="agent.failed", description="a stable word for programs")
    retriable: bool = Field(default=False, description="another attempt may succeed")
    retry_after_s: float | None = Field(
        default=None, ge=0, le=30 * 86400, description="try again after so many seconds, not earlier; means retriable"
    )


@op(
    "work.fail", FailRequest, claim_replies.Settled, effect="write",
    cli=CliForm(("work", "fail"), positional=("claim", "message"), answer="state"),
    summary="Say that a task failed, for good or for now.",
    help="What follows is up to the task's retry policy: another attempt (`waiting`), or the end.",
    examples=(
        Example("For good", {"claim": SHOWN, "message": "there is no such branch"}),
        Example("Try again in a minute", {"claim": SHOWN, "message": "rate limited", "retry_after_s": 60}),
    ),
)  # fmt: skip
async def fail(request: FailRequest, node: NodeControl, caller: Caller) -> claim_replies.Settled:
    """Record that it failed."""
    return await node.claims(caller.project).fail(
        request.shown, request.message, code=request.code,
        retriable=request.retriable or request.retry_after_s is not None, retry_after_s=request.retry_after_s,
    )  # fmt: skip


class ReleaseRequest(HeldRequest):
    """Which task, and why you do not do it."""

    why: Annotated[str, StringConstraints(max_length=256)] = Field(default="", description="why you give it back")


@op(
    "work.release", ReleaseRequest, claim_replies.Released, effect="write",
    cli=CliForm(("work", "release"), positional=("claim",), answer="id"),
    summary="Give a task back unfinished.",
    help="Somebody else takes it at once, and no attempt is used up.",
    examples=(Example("Give it back", {"claim": SHOWN, "why": "going home"}),),
)  # fmt: skip
async def release(request: ReleaseRequest, node: NodeControl, caller: Caller) -> claim_replies.Released:
    """Give a task back."""
    return await node.claims(caller.project).release(request.shown, request.why)


class SignalRequest(Request):
    """Which task is told what."""

    id: Run = Field(description="the task's id")
    name: Token = Field(description="the signal's name")
    data: Any = Field(default=None, description="any JSON value")


@op(
    "work.signal", SignalRequest, claim_replies.Signalled, effect="write",
    cli=CliForm(("work", "signal"), positional=("id", "name", "data")),
    summary="Tell a running task something by name.",
    help="It is stored, once for each name, and reaches whoever waits for it now or later.",
    examples=(Example("Approve it", {"id": "t0198c0ffee00d15ea5e0ddba11", "name": "approved", "data": {"by": "me"}}),),
)  # fmt: skip
async def signal(request: SignalRequest, node: NodeControl, caller: Caller) -> claim_replies.Signalled:
    """Send a signal."""
    return await node.claims(caller.project).signal(request.id, request.name, request.data, caller)


class WaitSignalRequest(Request):
    """Which signal of which task, and for how long."""

    id: Run = Field(description="the task's id")
    name: Token = Field(description="the signal's name")
    wait_s: float = Field(default=30.0, ge=0, le=WAIT_MAX_S, description="seconds to wait for it")


@op(
    "work.wait_signal", WaitSignalRequest, claim_replies.SignalRow, effect="read",
    cli=CliForm(("work", "wait-signal"), positional=("id", "name"), answer="data"),
    summary="Wait until a task is told something by name.",
    help="It answers at once when it was sent before. `sent` is false when none was until now: ask again.",
    examples=(Example("Wait for the approval", {"id": "t0198c0ffee00d15ea5e0ddba11", "name": "approved"}),),
)  # fmt: skip
async def wait_signal(request: WaitSignalRequest, node: NodeControl, caller: Caller) -> claim_replies.SignalRow:
    """Wait for a signal."""
    return await node.claims(caller.project).wait_signal(request.id, request.name, request.wait_s)
