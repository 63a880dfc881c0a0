"""What may be asked about questions to people? A link, for somebody who has no token of a node."""

from __future__ import annotations

from pydantic import Field

from knotwork.ops import flow_replies
from knotwork.ops.op import Caller, CliForm, Example, op
from knotwork.ops.ports import NodeControl
from knotwork.ops.run_words import ID, RunRequest
from knotwork.ops.words import Text, Token

DAY_S, MONTH_S = 86400.0, 30 * 86400.0


class LinkRequest(RunRequest):
    """Which question, in whose name, and for how long."""

    step: Token = Field(description="the step that asks")
    by: Text = Field(default="", description="in whose name it answers; left out: in yours")
    expires_s: float = Field(default=DAY_S, gt=0, le=MONTH_S, description="for how many seconds it holds")


@op(
    "run.link", LinkRequest, flow_replies.ApprovalLink, effect="write",
    cli=CliForm(("run", "link"), positional=("id", "step"), answer="url"),
    summary="Make a link by which somebody can approve or reject, once.",
    help="Whoever opens it sees what is asked, and needs no token. It is spent by the answer, and ends with its time or the question.",
    examples=(Example("Ask somebody by mail", {"id": ID, "step": "ask", "by": "alice", "expires_s": 7200.0}),),
)  # fmt: skip
async def link(request: LinkRequest, node: NodeControl, caller: Caller) -> flow_replies.ApprovalLink:
    """Make it."""
    flows = node.flows(caller.project, caller.who)
    return await flows.link(request.id, request.step, request.by, request.expires_s, caller)
