"""Which tools are about workflows? To start a run, look at it, tell it something, answer what it asks."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, StringConstraints

from knotwork.mcp import meant, spoken, wording
from knotwork.mcp.shapes import many, record
from knotwork.mcp.tool import ADDS, HANDS_OUT, READS, Cursor, Input, PageInput, Session, tool, without
from knotwork.ops.task_words import Key
from knotwork.ops.words import NAMED, Text, Token

WAIT_MAX_S = 3600.0
_RUN_ID = r"^[wo][a-z0-9]{7,39}$"
NAMED[_RUN_ID] = ("not the id of a run", "Ids of runs begin with w: `knotwork run list` shows them.")
_RUN = record(
    run_id="text", workflow="text", status="text", done="int", steps="int", started_at="text?", ended_at="text?",
    output="any?", error="object?", progress="rows?", waits="rows?",
)  # fmt: skip


_STEPS_CHARS = wording.RESULT_MAX_CHARS * 2 // 3
"""So much the steps of a run have at most: what it waits for stands beside them."""
_BEGIN_CHARS = 256
"""A shorter beginning of an output tells nothing."""


def _shown(run: dict[str, Any]) -> dict[str, Any]:
    shown: dict[str, Any] = {
        "run_id": run["id"], "workflow": run["workflow"], "status": run["state"], "done": run["done"],
        "steps": run["steps"],
    }  # fmt: skip
    shown |= without(
        {"started_at": run["started_at"], "ended_at": run["ended_at"], "error": spoken.told(run.get("error"))}
    )
    if run["state"] == "completed":
        shown["output"] = {"blob": run["output_blob"]} if run.get("output_blob") else run.get("output")
    return shown


class StartInput(Input):
    """Which workflow, with what."""

    workflow: Token = Field(description="its name, see list_workflows")
    input: Any = Field(default=None, description="any JSON")
    key: Key = Field(default="", description="the same key starts the same run only once")
    wait_secs: float = Field(default=0, ge=0, le=WAIT_MAX_S, description="seconds to wait for its end")


@tool(
    "start_workflow", StartInput, _RUN, title="Start a workflow",
    description="Start a durable run of a workflow. Look at it with get_run; await_work and cancel_work take a run_id, too.",
    hints=HANDS_OUT,
)  # fmt: skip
async def start_workflow(given: StartInput, session: Session) -> dict[str, Any]:
    """Start a run."""
    run = await session.ask(
        "run.start", workflow=given.workflow, input=given.input, wait_s=given.wait_secs, **_key(given, session)
    )
    return _shown(run)


def _key(given: StartInput | SignalInput, session: Session) -> dict[str, str]:
    """Return the idempotency key that an agent gave, else that of its call."""
    return {"key": given.key} if given.key else session.key


class RunInput(Input):
    """Which run."""

    run_id: Annotated[str, StringConstraints(pattern=_RUN_ID, max_length=40)] = Field(
        description="id of a run, or of an orchestration"
    )


@tool(
    "get_run", RunInput, _RUN, title="Look at a run",
    description="Say how far a run is, what each step gave, and what it waits for.", hints=READS,
)  # fmt: skip
async def get_run(given: RunInput, session: Session) -> dict[str, Any]:
    """Return one run."""
    run_id = await meant.work(session.ask, given.run_id)
    run = await session.ask("run.show", id=run_id)
    shown = _shown(run) | {"progress": _steps(run["progress"])}
    if run["state"] in ("running", "paused", "stopping", "scheduled"):
        why = await session.ask("run.why", id=run_id)
        shown["waits"] = [without(wait) for wait in why["waits"]]
    return shown


def _steps(progress: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return a row for every step: outputs are cut, the longest ones first, until all have room."""
    most = _STEPS_CHARS
    while True:
        rows = [
            without(
                {
                    "id": step["id"], "kind": step["kind"], "status": step["state"],
                    "output": _begin(step["output"], most), "error": step["error"],
                }
            )
            for step in progress
        ]  # fmt: skip
        if most < _BEGIN_CHARS or wording.size(rows) <= _STEPS_CHARS:
            return rows
        most //= 2


def _begin(output: Any, most: int) -> Any:
    if wording.size(output) <= most:
        return output
    return wording.fit(output, most) if most >= _BEGIN_CHARS else "…"


class SignalInput(RunInput):
    """Which run is told what."""

    signal: Token = Field(description="name of the signal")
    payload: Any = Field(default=None, description="any JSON")
    key: Key = Field(default="", description="sent twice with the same key, it counts once")


_CHANGED = record(run_id="text", changed="flag", why="text?")


@tool(
    "signal_run", SignalInput, _CHANGED, title="Signal a run",
    description="Send a signal to a run; it is kept until a step waits for it.", hints=ADDS,
)  # fmt: skip
async def signal_run(given: SignalInput, session: Session) -> dict[str, Any]:
    """Send a signal."""
    reply = await session.ask(
        "run.signal",
        id=await meant.work(session.ask, given.run_id),
        signal=given.signal,
        payload=given.payload,
        **_key(given, session),
    )
    return without({"run_id": reply["id"], "why": reply["why"]}) | {"changed": reply["changed"]}


class ApproveInput(RunInput):
    """Which question, and what to say to it."""

    step: Token = Field(description="the step that asks, see get_run")
    decision: Literal["approve", "reject"] = "approve"
    comment: Text = Field(default="", description="kept with the answer")


@tool(
    "approve", ApproveInput, _CHANGED, title="Approve or reject",
    description="Answer a run that asks for approval. The first answer counts and cannot be taken back: ask your user "
    "first.",
    hints=HANDS_OUT,
)  # fmt: skip
async def approve(given: ApproveInput, session: Session) -> dict[str, Any]:
    """Answer an approval step."""
    op = "run.approve" if given.decision == "approve" else "run.reject"
    run_id = await meant.work(session.ask, given.run_id)
    reply = await session.ask(op, id=run_id, step=given.step, comment=given.comment)
    return without({"run_id": reply["id"], "why": reply["why"]}) | {"changed": reply["changed"]}


@tool(
    "list_workflows", PageInput,
    record(workflows=many(record(name="text", description="text?", steps="int")), next="text?"), title="List workflows",
    description="List the workflows that can be started.", hints=READS, rows="workflows",
)  # fmt: skip
async def list_workflows(given: PageInput, session: Session) -> dict[str, Any]:
    """Return all workflows."""
    found = await session.ask("workflow.list")
    rows = [
        without({"name": one["name"], "description": one["description"]}) | {"steps": one["steps"]}
        for one in found["workflows"]
    ]
    return given.of("workflows", rows, lambda one: str(one["name"]))


class RunsInput(Input):
    """Which runs."""

    workflow: Token | None = Field(default=None, description="of this workflow alone")
    status: Annotated[
        list[Literal["scheduled", "running", "paused", "stopping", "completed", "failed", "cancelled", "timed-out"]],
        Field(max_length=8),
    ] = Field(default=[], description="in one of these states; scheduled: to start at `started_at`")
    limit: int = Field(default=20, ge=1, le=100)
    cursor: Cursor = Field(default="", description="`next` of the page before")


@tool(
    "list_runs", RunsInput,
    record(
        runs=many(
            record(run_id="text", workflow="text", status="text", done="int", steps="int", started_at="text?", code="text?")
        ),
        next="text?",
    ),
    title="List runs", description="List runs of workflows, those to come too, the newest first.", hints=READS, rows="runs",
)  # fmt: skip
async def list_runs(given: RunsInput, session: Session) -> dict[str, Any]:
    """Return the newest runs."""
    found = await session.ask(
        "run.list", state=given.status, limit=given.limit, cursor=given.cursor, **without({"workflow": given.workflow})
    )
    rows = [
        {"run_id": one["id"], "workflow": one["workflow"], "status": one["state"], "done": one["done"], "steps": one["steps"]}
        | without({"started_at": one["started_at"], "code": one["code"]})
        for one in found["runs"]
    ]  # fmt: skip
    return without({"next": found["next"]}) | {"runs": rows}
