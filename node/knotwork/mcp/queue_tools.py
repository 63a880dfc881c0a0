"""Which tools look at work? At what waits for a capability, at the queues, and at what is too long for one answer."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any, Literal, Self

from pydantic import Field, model_validator

from knotwork.mcp import meant, wording
from knotwork.mcp.shapes import many, record
from knotwork.mcp.tool import (
    READS,
    SETS,
    CamelInput,
    Capability,
    Cursor,
    Input,
    PageInput,
    Priority,
    Session,
    WorkId,
    tool,
    without,
)
from knotwork.mcp.work_values import PART_CHARS, is_due, queue_rows, told_short, words_of, work_row
from knotwork.ops.task_words import Moment
from knotwork.sdk.errors import NotFound

_SHORT = frozenset({"work_id", "step", "claim", "priority", "attempt", "lease_secs", "deadline", "input_blob"})
"""What a list says of each work beside what it is about."""
PAGES_MAX = 20
"""Pages that are looked through for one that has some which fit."""
_ROW = record(
    work_id="text", taskId="text?", capability="text?", agent="text?", status="text", priority="int?", description="text?",
    submitted_at="text?", deadline="text?", attempt="int?",
)  # fmt: skip


class ListInput(CamelInput):
    """Which waiting work."""

    capability: Capability = Field(description="work of this capability")
    min_priority: Priority = 1
    max_priority: Priority = 10
    deadline_before: Moment = Field(default="", description="RFC 3339")
    deadline_after: Moment = Field(default="", description="RFC 3339")
    limit: int = Field(default=20, ge=1, le=100)
    cursor: Cursor = Field(default="", description="`next` of the page before")

    @model_validator(mode="after")
    def _makes_sense(self) -> Self:
        if self.min_priority > self.max_priority:
            raise ValueError("minPriority is above maxPriority")
        for text in (self.deadline_before, self.deadline_after):
            _time(text)
        return self


def _time(text: str) -> datetime | None:
    if not text:
        return None
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        raise ValueError("deadlines are RFC 3339 times such as 2026-05-01T12:00:00Z") from None
    return found if found.tzinfo is not None else found.replace(tzinfo=UTC)


@tool(
    "list_work", ListInput, record(work=many(_ROW), next="text?"), title="List waiting work",
    description="Show work that waits for a capability without taking it, the newest first.", hints=READS, rows="work",
)  # fmt: skip
async def list_work(given: ListInput, session: Session) -> dict[str, Any]:
    """Return a page of waiting tasks."""
    tasks, following = await _fitting(given, session)
    rows = [
        without(
            {
                "work_id": task["id"], "capability": task["capability"], "agent": task["agent"], "status": task["state"],
                "priority": task["priority"], "submitted_at": task["submitted_at"], "deadline": task["deadline"],
                "attempt": task["attempt"],
            }
        ) | await _about(task["id"], session)
        for task in tasks
    ]  # fmt: skip
    return without({"next": following}) | {"work": rows}


async def _fitting(given: ListInput, session: Session) -> tuple[list[dict[str, Any]], str]:
    """Return the tasks of the first page with some that fit, and the cursor of the page behind it, "" for none.

    After `PAGES_MAX` pages without any it is for whoever asks to go on from that cursor.
    """
    before, after, following = _time(given.deadline_before), _time(given.deadline_after), given.cursor
    found: list[dict[str, Any]] = []
    for _ in range(PAGES_MAX):
        page = await session.ask(
            "task.list", state=["pending", "waiting"], capability=given.capability, priority_min=given.min_priority,
            priority_max=given.max_priority, limit=given.limit, cursor=following,
        )  # fmt: skip
        found = [one for one in page["tasks"] if is_due(one, before, after)]
        following = page["next"]
        if found or not following:
            break
    return found, following


async def _about(work_id: str, session: Session) -> dict[str, Any]:
    """Return what work is about; nothing for a step of a run, or when it has just gone."""
    try:
        return told_short((await session.ask("task.get", id=work_id, with_input=True))["input"])
    except NotFound:
        return {}


class ClaimedInput(PageInput):
    """Which page of one's own work."""

    limit: int = Field(default=20, ge=1, le=64)
    work_id: WorkId | None = Field(default=None, description="this work alone, and whole")


_CLAIMED = record(
    work_id="text", step="text?", claim="text", taskId="text?", description="text?", contextData="any?", input="any?",
    priority="int?", attempt="int?", lease_secs="number", deadline="text?", cut="int?", input_blob="text?",
)  # fmt: skip


@tool(
    "list_claimed_work", ClaimedInput, record(work=many(_CLAIMED), next="text?"), title="List your work",
    description="Show the work that you hold, with the claim of each: after a restart, or when an answer of claim_work "
    "was lost. This session keeps it from now on.",
    hints=SETS, rows="work",
)  # fmt: skip
async def list_claimed_work(given: ClaimedInput, session: Session) -> dict[str, Any]:
    """Return a page of what the agent holds."""
    page = await session.ask(
        "work.claimed", worker=session.who.name, limit=given.limit, cursor=given.cursor,
        **without({"id": given.work_id}),
    )  # fmt: skip
    rows = []
    for task in page["tasks"]:
        session.holds(task["id"], task["claim"], task["step"])
        row = work_row(task)
        del row["claimed"]
        if given.work_id is None:
            row = {name: value for name, value in row.items() if name in _SHORT} | told_short(task["input"])
        rows.append(without(row))
    return without({"next": page["next"]}) | {"work": rows}


class StatusInput(PageInput):
    """Which queue."""

    capability: Capability | None = Field(default=None, description="this one alone")


_QUEUE = record(capability="text?", scope="text?", agent="text?", node="text?", waiting="int", taken="int")


@tool(
    "work_queue_status", StatusInput, record(queues=many(_QUEUE), dead="int", next="text?"), title="Look at the queues",
    description="Say how much work waits and how much is being done, by capability, then by agent.", hints=READS, rows="queues",
)  # fmt: skip
async def work_queue_status(given: StatusInput, session: Session) -> dict[str, Any]:
    """Return how long the queues are."""
    stats = await session.ask("task.stats")
    rows = queue_rows(stats["queues"], given.capability)
    return given.of("queues", rows, _whose) | {"dead": stats["dead"]}


def _whose(row: dict[str, Any]) -> str:
    """Return whose queue a row is about: capabilities come first."""
    names = [str(row.get(name, "")) for name in ("capability", "agent", "node", "scope")]
    return " ".join(["0" if names[0] else "1", *names])


class ReadInput(Input):
    """Which value of which work, and from where on."""

    work_id: WorkId = Field(description="id of work, a run or an orchestration")
    part: Literal["input", "result"] = "result"
    offset: int = Field(default=0, ge=0, le=64 * 1024 * 1024, description="`cut` of what you read before")


@tool(
    "read_work", ReadInput, record(work_id="text", text="text", cut="int?", total="int"), title="Read a long value",
    description="Read what work was given or what came of it, when it is too long for one answer: from `cut` on.",
    hints=READS,
)  # fmt: skip
async def read_work(given: ReadInput, session: Session) -> dict[str, Any]:
    """Return a part of an input or a result."""
    work_id = await meant.work(session.ask, given.work_id)
    if meant.is_workflow_run(work_id):
        found = await meant.whole(session.ask, given.work_id, await session.ask("run.show", id=work_id))
    else:
        found = await session.ask("task.get", id=work_id, with_input=given.part == "input")
    if blob := found["input_blob" if given.part == "input" else "output_blob"]:
        raise NotFound(
            f"It is kept as the blob {blob}: too large to stand here.", code="tool.in_blob",
            hint=f"`knotwork blob get {blob}` reads it.",
        )  # fmt: skip
    whole = words_of(found["input" if given.part == "input" else "output"])
    text = wording.part(whole, given.offset, PART_CHARS)
    end = given.offset + len(text)
    shown = {"work_id": given.work_id, "text": text, "total": len(whole)}
    return shown | ({"cut": end} if end < len(whole) else {})
