"""Which tools are about work? To offer it, claim it, say how it goes, and see what came of it."""

from __future__ import annotations

import contextlib
from typing import Annotated, Any, Self

from pydantic import Field, StringConstraints, model_validator

from knotwork.mcp import meant, spoken
from knotwork.mcp.blob_tools import kept
from knotwork.mcp.shapes import record
from knotwork.mcp.tool import (
    ADDS,
    HANDS_OUT,
    READS,
    TAKES_AWAY,
    CamelInput,
    Capability,
    ClaimToken,
    Input,
    Priority,
    Session,
    Until,
    Words,
    WorkId,
    tool,
    without,
)
from knotwork.mcp.work_values import result_of, words_of, work_row
from knotwork.ops.words import Target, Token
from knotwork.sdk.errors import Conflict, KnotworkError
from knotwork.trust.scopes import Scope

LEASE_S = 60.0
ATTEMPTS = 3
"""How often work is tried when its failures may pass, before it is a dead letter."""
WAIT_DEFAULT_S, WAIT_MAX_S = 50.0, 3600.0
SEEN = {"public": "Everybody in this project sees it; work does not leave its project."}
"""What is said of work by the scope it was offered with."""
_CLAIM = "when asked for: `claim` of claim_work"


class OfferInput(CamelInput):
    """Work for whoever has a capability."""

    task_id: Annotated[str, StringConstraints(min_length=1, max_length=200)] = Field(description="your own name for it")
    description: Words = Field(description="what is to be done, with all that is needed to know")
    required_capability: Capability = Field(description="what the one who does it must be able to do")
    priority: Priority = Field(default=5, description="10 is the most urgent")
    deadline: Until = Field(default="", description="end it then: RFC 3339, or from now: 30m, 2h")
    context_data: dict[str, Any] | None = Field(default=None, description="data that goes with it")
    scope: Scope = Field(
        default="team",
        description="who sees and claims it: private (you, your sub-agents), personal (your owner's), team",
    )


@tool(
    "broadcast_work_offer", OfferInput,
    record(work_id="text", taskId="text", capability="text", priority="int", status="text", note="text?"),
    title="Offer work",
    description="Put work into the queue of a capability; one agent that has it claims it (claim_work). It is stored "
    "durably and done once, also when the one who claims it dies. Use assign_work for a certain agent, send_message "
    "to tell everybody.",
    hints=HANDS_OUT,
)  # fmt: skip
async def broadcast_work_offer(given: OfferInput, session: Session) -> dict[str, Any]:
    """Submit a task for a capability."""
    body = without({"prompt": given.description, "task_id": given.task_id, "context": given.context_data})
    task = await session.ask(
        "task.submit", input=body, capability=given.required_capability, priority=given.priority,
        deadline=given.deadline, max_attempts=ATTEMPTS, scope="team" if given.scope == "public" else given.scope,
        **session.key,
    )  # fmt: skip
    return without(
        {
            "work_id": task["id"], "taskId": given.task_id, "capability": given.required_capability,
            "priority": given.priority, "status": task["state"], "note": SEEN.get(given.scope, ""),
        }
    )  # fmt: skip


class AssignInput(Input):
    """Work for a certain agent, or for a capability."""

    task: Words = Field(description="what is to be done")
    agent_name: Target | None = Field(default=None, description="who does it, see list_agents")
    agent_id: Target | None = Field(default=None, description="the same by id")
    capability: Capability | None = Field(default=None, description="or: anybody who has it")
    target_station: Token | None = Field(default=None, description="on this node")
    context: dict[str, Any] | None = Field(default=None, description="data that goes with it")
    timeout_secs: float = Field(default=300, ge=1, le=604800, description="for the work itself")
    priority: Priority = 5

    @model_validator(mode="after")
    def _one_of_them(self) -> Self:
        if sum(one is not None for one in (self.agent_name, self.agent_id, self.capability)) != 1:
            raise ValueError("give one of agent_name, agent_id and capability")
        if self.capability is not None and self.target_station is not None:
            raise ValueError("target_station goes with agent_name, not with capability")
        return self


@tool(
    "assign_work", AssignInput, record(success="flag", work_id="text", status="text", note="text?"),
    title="Assign work",
    description="Give a durable task to an agent, or to anybody with a capability; returns its work_id at once. "
    "See check_work, await_work, cancel_work.",
    hints=HANDS_OUT,
)  # fmt: skip
async def assign_work(given: AssignInput, session: Session) -> dict[str, Any]:
    """Submit a task."""
    target = given.agent_name or given.agent_id
    if target and given.target_station and "/" not in target:
        target = f"{given.target_station}/{target}"
    body: Any = {"prompt": given.task, "context": given.context} if given.context else given.task
    fields = without({"target": target, "capability": given.capability})
    task = await session.ask(
        "task.submit",
        input=body,
        attempt_timeout_s=given.timeout_secs,
        priority=given.priority,
        max_attempts=ATTEMPTS,
        **fields,
        **session.key,
    )
    return without({"success": True, "work_id": task["id"], "status": task["state"], "note": task.get("note")})


_TOLD: dict[str, str] = {
    "work_id": "text", "status": "text", "is_complete": "flag", "success": "flag", "result": "any?", "error": "object?",
    "why": "text?", "cut": "int?", "submitted_at": "text?", "started_at": "text?", "ended_at": "text?",
}  # fmt: skip
_RESULT = record(**_TOLD)


class CheckInput(Input):
    """Which work."""

    work_id: WorkId = Field(description="id of work, a run or an orchestration")


@tool(
    "check_work", CheckInput, _RESULT, title="Check work",
    description="Say at once how work stands, and its result when done. At `cut`, read_work goes on.", hints=READS,
)  # fmt: skip
async def check_work(given: CheckInput, session: Session) -> dict[str, Any]:
    """Return one task, or one run."""
    work_id = await meant.work(session.ask, given.work_id)
    kind = "run.show" if meant.is_workflow_run(work_id) else "task.get"
    found = await session.ask(kind, id=work_id)
    shown = result_of(await meant.whole(session.ask, given.work_id, found))
    if kind == "task.get" and found["state"] in ("pending", "waiting"):
        told = await session.ask("task.why", id=work_id)
        if told["state"] != found["state"]:  # it went on meanwhile: one answer does not say both
            return result_of(await session.ask("task.get", id=work_id))
        shown["why"] = spoken.for_agents(told["why"])
    return shown


class AwaitInput(CheckInput):
    """Which work, and for how long."""

    timeout_secs: float = Field(default=WAIT_DEFAULT_S, ge=0, le=WAIT_MAX_S, description="seconds to wait at most")


@tool(
    "await_work", AwaitInput, record(**_TOLD, station_id="text?", duration_ms="int?"), title="Wait for work",
    description="Wait until work has ended and return its result. When the time is over is_complete is false: call "
    "it again, as often as you like.",
    hints=READS,
)  # fmt: skip
async def await_work(given: AwaitInput, session: Session) -> dict[str, Any]:
    """Wait for a task, or for a run."""
    work_id = await meant.work(session.ask, given.work_id)
    kind = "run.watch" if meant.is_workflow_run(work_id) else "task.watch"
    found = await session.ask(kind, id=work_id, timeout_s=given.timeout_secs)
    return result_of(await meant.whole(session.ask, given.work_id, found))


class ClaimInput(Input):
    """What you can do, and how long you wait for it."""

    capability: Capability = Field(description="what you can do")
    timeout: int = Field(default=5000, ge=100, le=30000, description="milliseconds to wait")


@tool(
    "claim_work", ClaimInput,
    record(
        claimed="flag", work_id="text?", step="text?", claim="text?", description="text?", contextData="any?", input="any?",
        lease_secs="number?", cut="int?", input_blob="text?", why="text?",
    ),
    title="Claim work",
    description="Take one piece of work of a capability, the most urgent first. It is yours while this session lives: "
    "end it with complete_work or fail_work. claimed is false when there is none. Of long work get_blob reads `input_blob`.",
    hints=ADDS,
)  # fmt: skip
async def claim_work(given: ClaimInput, session: Session) -> dict[str, Any]:
    """Claim one task."""
    found = await session.ask(
        "work.claim", worker=session.who.name, capabilities=[given.capability], max_tasks=1,
        wait_s=given.timeout / 1000, lease_s=LEASE_S,
    )  # fmt: skip
    if not found["tasks"]:
        return {"claimed": False} | without({"why": found["why"]})
    task = found["tasks"][0]
    session.holds(task["id"], task["claim"], task.get("step", ""))
    shown = work_row(task)
    if task.get("step") and "cut" in shown:  # by its id read_work reads what its whole run was given
        with contextlib.suppress(KnotworkError):  # it is claimed: what is shown of it is told in any case
            shown["input_blob"], _ = await kept(session, words_of(task["input"]))
            del shown["cut"]
    return shown


class HeldInput(Input):
    """Which work of yours."""

    work_id: WorkId = Field(description="work that you claimed")
    claim: ClaimToken = Field(default="", description=_CLAIM)


class CompleteInput(HeldInput):
    """Which work, and what came of it."""

    result: Any = Field(default=None, description="any JSON")
    error: Annotated[str, StringConstraints(max_length=16_384)] = Field(
        default="", description="why it could not be done"
    )

    @model_validator(mode="after")
    def _makes_sense(self) -> Self:
        if self.error and self.result is not None:
            msg = "say `result` when it is done, or `error` when it is not: both at once would lose one"
            raise ValueError(msg)
        return self


_SETTLED = record(work_id="text", status="text", due_at="text?", already="flag?")


@tool(
    "complete_work", CompleteInput, _SETTLED, title="Complete work",
    description="Say that claimed work is done, with its result, or error.",
    hints=ADDS,
)  # fmt: skip
async def complete_work(given: CompleteInput, session: Session) -> dict[str, Any]:
    """End an attempt."""
    claim = await session.claim_of(given.work_id, given.claim)
    if given.error:
        ended = await session.ask("work.fail", claim=claim, id=given.work_id, message=given.error)
    else:
        ended = await session.ask("work.complete", claim=claim, id=given.work_id, output=given.result)
    return _settled(ended, session, claim)


class FailInput(HeldInput):
    """Which work, what went wrong, and whether to try again."""

    error: Annotated[str, StringConstraints(min_length=1, max_length=16_384)] = Field(description="what went wrong")
    recoverable: bool = Field(default=False, description="another attempt may succeed")
    retry_after_secs: float | None = Field(default=None, ge=0, le=30 * 86400, description="not before then")


@tool(
    "fail_work", FailInput, _SETTLED, title="Fail work",
    description="Say that claimed work failed. A recoverable failure is tried again; after three it becomes a dead "
    "letter. Any other ends the work as failed. A step of a run is tried as often as its workflow says.",
    hints=ADDS,
)  # fmt: skip
async def fail_work(given: FailInput, session: Session) -> dict[str, Any]:
    """End an attempt as failed."""
    fields = without({"retry_after_s": given.retry_after_secs})
    claim = await session.claim_of(given.work_id, given.claim)
    ended = await session.ask(
        "work.fail", claim=claim, id=given.work_id, message=given.error, retriable=given.recoverable, **fields
    )
    return _settled(ended, session, claim)


def _settled(ended: dict[str, Any], session: Session, claim: str) -> dict[str, Any]:
    session.done_with(ended["id"], claim)
    return without(
        {"work_id": ended["id"], "status": ended["state"], "due_at": ended["due_at"], "already": ended["already"]}
    )


class ExtendInput(HeldInput):
    """Which work, and how much longer."""

    lease_secs: float = Field(default=LEASE_S, ge=5, le=86400, description="seconds you may be silent from now on")


_HELD = record(work_id="text", until="text?")


@tool(
    "extend_work", ExtendInput, _HELD, title="Keep work",
    description="Keep claimed work for longer. Needed only outside a session, or to be silent for long: a session "
    "keeps what it claimed.",
    hints=ADDS,
)  # fmt: skip
async def extend_work(given: ExtendInput, session: Session) -> dict[str, Any]:
    """Extend a lease."""
    claim = await session.claim_of(given.work_id, given.claim)
    held = await session.ask("work.extend", claim=claim, id=given.work_id, lease_s=given.lease_secs)
    return {"work_id": held["id"], "until": held["until"]}


class ProgressInput(HeldInput):
    """Which work, and how far it is."""

    progress: float | None = Field(default=None, ge=0, le=100, description="percent")
    message: Annotated[str, StringConstraints(max_length=4096)] = Field(default="", description="what you are doing")


@tool(
    "report_progress", ProgressInput, _HELD, title="Report progress",
    description="Tell whoever waits for claimed work how far it is.", hints=ADDS,
)  # fmt: skip
async def report_progress(given: ProgressInput, session: Session) -> dict[str, Any]:
    """Report progress."""
    held = await session.ask(
        "work.progress", claim=await session.claim_of(given.work_id, given.claim), id=given.work_id, text=given.message,
        **without({"percent": given.progress}),
    )  # fmt: skip
    return {"work_id": held["id"], "until": held["until"]}


class CancelInput(CheckInput):
    """Which work, and why."""

    reason: Annotated[str, StringConstraints(max_length=1024)] = Field(default="", description="kept with it")


@tool(
    "cancel_work", CancelInput, record(work_id="text", changed="flag", status="text?", why="text?"),
    title="Cancel work",
    description="End work or a run that has not ended, wherever it is. What has ended stays as it is.",
    hints=TAKES_AWAY,
)  # fmt: skip
async def cancel_work(given: CancelInput, session: Session) -> dict[str, Any]:
    """Cancel a task, a run or an orchestration."""
    if await meant.orchestration(session.ask, given.work_id) is not None:
        return await _cancel_crew(given, session)
    run = meant.is_workflow_run(given.work_id)
    reply = await session.ask("run.cancel" if run else "task.cancel", ids=[given.work_id], why=given.reason)
    one = reply["runs" if run else "tasks"][0]
    session.done_with(given.work_id)
    return without({"work_id": one["id"], "changed": one["changed"], "status": one.get("state"), "why": one["why"]})


async def _cancel_crew(given: CancelInput, session: Session) -> dict[str, Any]:
    try:
        state = await session.ask("crew.cancel", id=given.work_id, **without({"why": given.reason}))
    except Conflict as error:
        if error.code != "crew.over":
            raise
        return {"work_id": given.work_id, "changed": False, "why": error.message}
    return {"work_id": given.work_id, "changed": True, "status": state["phase"]}
