"""What may be asked about the nodes of a project."""

from __future__ import annotations

from pydantic import Field

from knotwork.ops import replies
from knotwork.ops.op import Caller, CliForm, Example, Request, op
from knotwork.ops.ports import NodeControl


class NodesRequest(Request):
    """Which nodes."""

    online: bool = Field(default=False, description="leave offline nodes out")


@op(
    "nodes.list", NodesRequest, replies.NodeList, effect="read",
    cli=CliForm(("nodes",), rows="nodes", columns=("name", "state", "agents", "version", "host", "seen_s", "node")),
    summary="List the nodes of the project.",
    help="A node is stale after 2 missed heartbeats and offline after 3 (configurable under [mesh]).",
    examples=(Example("List every node"), Example("Only those that are there", {"online": True})),
)  # fmt: skip
async def list_nodes(request: NodesRequest, node: NodeControl, caller: Caller) -> replies.NodeList:
    """Return the nodes."""
    rows = await node.mesh(caller.project, caller.who).nodes()
    return replies.NodeList(nodes=[row for row in rows if not request.online or row.state != "offline"])
