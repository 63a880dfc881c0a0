"""What may be asked about the configuration of a running node."""

from __future__ import annotations

from pydantic import Field

from knotwork.ops import replies
from knotwork.ops.node import Nothing
from knotwork.ops.op import Caller, CliForm, Example, Request, op
from knotwork.ops.ports import NodeControl
from knotwork.ops.words import Text


class ShowRequest(Request):
    """Which values."""

    prefix: Text = Field(default="", description="only keys that begin with this")
    origin: bool = Field(default=False, description="say for each value which file and line it came from")


@op(
    "config.show", ShowRequest, replies.ConfigShown, effect="read",
    cli=CliForm(("config", "show"), positional=("prefix",), rows="settings", columns=("key", "value", "origin")),
    summary="Show the configuration in force.",
    help="What the running node uses; secrets are shown as references. Without a node, use `knotwork config check`.",
    examples=(Example("Show everything, and where it came from", {"origin": True}), Example("Show one table", {"prefix": "mesh."})),
)  # fmt: skip
async def show(request: ShowRequest, node: NodeControl, _: Caller) -> replies.ConfigShown:
    """Return the settings that begin with the prefix."""
    shown = await node.show_config()
    kept = [setting for setting in shown.settings if setting.key.startswith(request.prefix)]
    if not request.origin:
        kept = [setting.model_copy(update={"origin": ""}) for setting in kept]
    return shown.model_copy(update={"settings": kept})


@op(
    "config.plan", Nothing, replies.ConfigPlan, effect="read",
    cli=CliForm(("config", "plan"), rows="changes", columns=("how", "what", "why")),
    summary="Show what a reload would do now.",
    help="Nothing is changed. `restart` marks what cannot be changed while the node runs.",
    examples=(Example("See what an edit would do"),),
)  # fmt: skip
async def plan(_: Nothing, node: NodeControl, __: Caller) -> replies.ConfigPlan:
    """Return the plan."""
    return await node.plan()


@op(
    "config.revisions", Nothing, replies.RevisionList, effect="read",
    cli=CliForm(("config", "revisions"), rows="revisions", columns=("number", "at", "current", "files")),
    summary="List the last 20 accepted configurations.",
    help="Each start and each applied reload makes one.",
    examples=(Example("List them"),),
)  # fmt: skip
async def revisions(_: Nothing, node: NodeControl, __: Caller) -> replies.RevisionList:
    """Return the revisions kept."""
    return replies.RevisionList(revisions=list(await node.revisions()))


class RollbackRequest(Request):
    """Which revision."""

    number: int = Field(ge=1, description="a revision of `config revisions`")


@op(
    "config.rollback", RollbackRequest, replies.ReloadVerdict, effect="admin",
    cli=CliForm(("config", "rollback"), positional=("number",)),
    summary="Put an earlier configuration into force.",
    help="The files are written again as they were then, and go through the same steps as any reload. With no node running "
    "they are only written, for the next start.",
    examples=(Example("Go back to revision 3", {"number": 3}),),
)  # fmt: skip
async def rollback(request: RollbackRequest, node: NodeControl, _: Caller) -> replies.ReloadVerdict:
    """Roll back."""
    return await node.rollback(request.number)
