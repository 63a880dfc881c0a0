"""What may be asked about the view of the past: a query of one's own, how it stands, and to read everything again."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, StringConstraints

from knotwork.ops.node import Nothing
from knotwork.ops.op import Caller, CliForm, Example, Request, op
from knotwork.ops.ports import NodeControl
from knotwork.ops.view_replies import Rebuilding, SqlReply, ViewStatus
from knotwork.sdk.errors import Denied


def _for_people(caller: Caller) -> None:
    """Raise `Denied` (`view.not_for_agents`) for an agent: a query knows no scopes."""
    if caller.who.kind == "agent":
        raise Denied(
            "A query sees the work of everybody, so it is for people alone.", code="view.not_for_agents",
            hint="Use `task.list` and `run.list`: they show what you may see.",
        )  # fmt: skip


class SqlRequest(Request):
    """What to find, and how much of it."""

    query: Annotated[str, StringConstraints(min_length=1, max_length=20_000)] = Field(description="one SELECT")
    limit: int = Field(default=1000, ge=1, le=10_000, description="at most so many rows")
    timeout_s: float = Field(default=10.0, ge=0.01, le=30, description="seconds it may take")


@op(
    "view.sql", SqlRequest, SqlReply, effect="read",
    cli=CliForm(("sql",), positional=("query",), rows="rows"),
    summary="Ask the past with SQL: one SELECT, read-only.",
    help="Tables: tasks, attempts, labels, words (full-text), counters. Times are nanoseconds since 1970, 0 for never. "
    "What the query may take is bounded; it can change nothing. It sees the work of every scope: agents with a session are "
    "refused.",
    examples=(
        Example("How many tasks are in which state?", {"query": "select state, count(*) from tasks group by state"}),
        Example(
            "Which failed last, and why?",
            {"query": "select id, code, message from tasks where state = 'failed' order by ord desc limit 5"},
        ),
    ),
)  # fmt: skip
async def ask(request: SqlRequest, node: NodeControl, caller: Caller) -> SqlReply:
    """Return what the query finds."""
    _for_people(caller)
    return await node.past(caller.project).sql(request.query, limit=request.limit, timeout_s=request.timeout_s)


@op(
    "view.status", Nothing, ViewStatus, effect="read",
    cli=CliForm(("view", "status")),
    summary="Show how the view of the past stands.",
    help="It follows the streams in a process of its own, usually within a third of a second.",
    examples=(Example("Is it up to date?"),),
)  # fmt: skip
async def status(_: Nothing, node: NodeControl, caller: Caller) -> ViewStatus:
    """Return how it stands."""
    return await node.past(caller.project).status()


@op(
    "view.rebuild", Nothing, Rebuilding, effect="admin",
    cli=CliForm(("view", "rebuild")),
    summary="Make the view of the past anew from the streams.",
    help="It does so by itself when its file is gone, damaged or of another version. Nothing can get lost: the streams "
    "hold everything. Lists are incomplete until it is done; `knotwork view status` shows how far it is.",
    examples=(Example("Read everything again"),),
)  # fmt: skip
async def rebuild(_: Nothing, node: NodeControl, caller: Caller) -> Rebuilding:
    """Begin to read everything again."""
    return await node.past(caller.project).rebuild()
