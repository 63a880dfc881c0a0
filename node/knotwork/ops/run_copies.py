"""How do runs go elsewhere and come back? Written down whole as JSON, one or many; and held against today's rules."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Annotated, Any

from pydantic import Field

from knotwork.ops import flow_replies, replies
from knotwork.ops.op import Caller, CliForm, Example, Request, op
from knotwork.ops.ports import NodeControl
from knotwork.ops.run_words import ID, FilterRequest, RunId, RunRequest
from knotwork.sdk.errors import Invalid

EXPORT_MAX = 1000
IMPORT_MAX = 1000
WRITTEN = {
    "id": ID, "definition": {"name": "hello", "steps": {"a": {"kind": "choice", "cases": [{}]}}},
    "facts": [
        {"s": f"run.w6.{ID}.start", "q": 1, "t": "2026-05-01T12:00:00Z", "d": {"workflow": "hello", "digest": "71b8359b52ed6d74fb699399a122d888"}},
        {"s": f"run.w6.{ID}.ended", "q": 2, "t": "2026-05-01T12:00:01Z", "d": {"state": "completed"}},
    ],
}  # fmt: skip
"""A run that had nothing to do, as `run export` writes it."""
Pieces = AsyncIterator[replies.Chunk | flow_replies.Exported]


@op(
    "run.replay", RunRequest, flow_replies.Replay, effect="read",
    cli=CliForm(("run", "replay"), positional=("id",)),
    summary="Say whether this version would lead to the recorded history of a run.",
    help="Nothing is done: its facts are given to the rules again, and the first that they did not expect is told.",
    examples=(Example("Would it go the same way today?", {"id": ID}),),
)  # fmt: skip
async def replay(request: RunRequest, node: NodeControl, caller: Caller) -> flow_replies.Replay:
    """Compare."""
    return await node.flows(caller.project, caller.who).replay(request.id)


class ExportRequest(FilterRequest):
    """Which run, or all that fit a filter."""

    id: RunId | None = Field(default=None, description="id of a run")
    all: bool = Field(default=False, description="every run, when no filter is given")
    limit: int = Field(default=100, ge=1, le=EXPORT_MAX, description="runs in one answer; `next` goes on")


@op(
    "run.export", ExportRequest, flow_replies.Exported, effect="read", streams=True,
    cli=CliForm(("run", "export"), positional=("id",), silent=True),
    summary="Write runs down as JSON lines: each with its definition and all its facts.",
    help="One by its id, or all that fit a filter, however many: one line for each, the newest first. `run import` "
    "reads them back, here or elsewhere. With filters, runs that have not ended are left out and counted. Over HTTP as server-sent events: a `chunk` for each run, then `result` with "
    "`next`, which goes on as `cursor`; of one run the result is the run. A run with more facts than one message holds "
    "makes several lines, numbered by `part`, all but the last with `more`: of one run, chunks before the result.",
    examples=(Example("Keep it", {"id": ID}), Example("Keep what ended badly", {"state": ["failed"], "since": "30d"})),
)  # fmt: skip
async def export(request: ExportRequest, node: NodeControl, caller: Caller) -> Pieces:
    """Yield each, then how to go on."""
    flows = node.flows(caller.project, caller.who)
    if request.id is not None:
        async with aclosing(flows.exported(request.id)) as parts:
            async for part in parts:
                yield part
        return
    wanted = request.wanted()
    if not (request.all or wanted.narrows):
        raise Invalid(
            "Neither a run nor a filter is given.", code="flow.filter_needed",
            hint="Name an id, give a filter such as a workflow or a time, or say all.",
        )  # fmt: skip
    async with aclosing(flows.exported_all(wanted, request.limit)) as pieces:
        async for piece in pieces:
            yield piece


class ImportRequest(Request):
    """Runs that were written down."""

    run: Any = Field(default=None, description="what `run export` gave: `@file` reads a file, `-` standard input")
    runs: Annotated[list[Any], Field(max_length=IMPORT_MAX)] = Field(default=[], description="many of them")


@op(
    "run.import", ImportRequest, flow_replies.AllChanged, effect="write",
    cli=CliForm(("run", "import"), positional=("run",), rows="runs", columns=flow_replies.CHANGED),
    summary="Put runs that are over, and were written down, into the past.",
    help="They can be shown, listed, replayed and forked like any other. Nothing of them is done again. A file may hold "
    "any number of them, one a line: a bad line is told with its number, the others are kept, and the exit code is 1. "
    "The parts of a large run are put by until the last of them comes. "
    "What is there already stays, so a file can be read again.",
    examples=(Example("Bring one back (`@runs.jsonl` reads a file)", {"run": WRITTEN}),),
)  # fmt: skip
async def bring_in(request: ImportRequest, node: NodeControl, caller: Caller) -> flow_replies.AllChanged:
    """Keep them."""
    flows = node.flows(caller.project, caller.who)
    if not request.runs:
        kept = await flows.imported(request.run)
        return flow_replies.AllChanged(runs=[kept], matched=1, done=int(kept.changed))
    if request.run is not None:
        raise Invalid("Give one of run and runs.", code="flow.bad_history")
    return await flows.imported_all(request.runs)
