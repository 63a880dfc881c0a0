"""What may be asked about workflows: check and keep definitions, list, show and draw them."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from knotwork.ops import flow_replies
from knotwork.ops.node import Nothing
from knotwork.ops.op import Caller, CliForm, Example, Request, op
from knotwork.ops.ports import NodeControl
from knotwork.ops.words import Token

SHOWN = {"name": "hello", "steps": {"greet": {"capability": "greet"}}}


class DefinitionRequest(Request):
    """A workflow, as text or as a table."""

    definition: Any = Field(description="TOML, YAML or JSON: `@file` reads a file, `-` standard input")


@op(
    "workflow.check", DefinitionRequest, flow_replies.Verdict, effect="read",
    cli=CliForm(("workflow", "check"), positional=("definition",), rows="problems", columns=("line", "column", "path", "message", "hint")),
    summary="Say everything that is wrong with a workflow.",
    help="Nothing is kept or started. The exit code is 1 when something is wrong; a warning, such as of a sub-workflow "
    "that is not there yet, is none of that.",
    examples=(Example("Does it make sense?", {"definition": SHOWN}),),
)  # fmt: skip
async def check(request: DefinitionRequest, node: NodeControl, caller: Caller) -> flow_replies.Verdict:
    """Return the verdict."""
    return await node.flows(caller.project).check(request.definition)


@op(
    "workflow.register", DefinitionRequest, flow_replies.Registered, effect="write",
    cli=CliForm(("workflow", "register"), positional=("definition",)),
    summary="Keep a workflow under its name.",
    help="Runs that are under way keep the definition that they were started with.",
    examples=(Example("Keep it", {"definition": SHOWN}),),
)  # fmt: skip
async def register(request: DefinitionRequest, node: NodeControl, caller: Caller) -> flow_replies.Registered:
    """Keep it."""
    return await node.flows(caller.project).register(request.definition)


@op(
    "workflow.list", Nothing, flow_replies.WorkflowList, effect="read",
    cli=CliForm(("workflow", "list"), rows="workflows", columns=("name", "steps", "versions", "owner", "updated_at", "problem", "description"), also=("workflows",)),
    summary="List the workflows.",
    help="Each name with what it means now.",
    examples=(Example("Which are there?"),),
)  # fmt: skip
async def all_of_them(_: Nothing, node: NodeControl, caller: Caller) -> flow_replies.WorkflowList:
    """Return all."""
    return flow_replies.WorkflowList(workflows=await node.flows(caller.project).workflows())


@op(
    "workflow.schema", Nothing, flow_replies.DefinitionSchema, effect="read",
    cli=CliForm(("workflow", "schema"), answer="json_schema"),
    summary="Give the JSON Schema of a workflow.",
    help="Every key with its meaning, default and bounds. Editors complete and check by it: begin a YAML file with "
    "`# yaml-language-server: $schema=FILE`.",
    examples=(Example("Into a file, for an editor: add `> workflow.schema.json`"),),
)  # fmt: skip
async def schema(_: Nothing, node: NodeControl, caller: Caller) -> flow_replies.DefinitionSchema:
    """Return it."""
    return node.flows(caller.project).schema()


class NameRequest(Request):
    """Which workflow."""

    name: Token = Field(description="name or digest of a workflow")


@op(
    "workflow.show", NameRequest, flow_replies.WorkflowInfo, effect="read",
    cli=CliForm(("workflow", "show"), positional=("name",)),
    summary="Show a workflow whole.",
    help="The definition as it is kept, and the digests that its name has meant.",
    examples=(Example("What does it do?", {"name": "hello"}),),
)  # fmt: skip
async def show(request: NameRequest, node: NodeControl, caller: Caller) -> flow_replies.WorkflowInfo:
    """Return it."""
    return await node.flows(caller.project).workflow(request.name)


class GraphRequest(NameRequest):
    """Which workflow, and how to draw it."""

    form: Literal["mermaid", "dot", "svg", "ascii"] = Field(default="ascii", description="kind of picture")


@op(
    "workflow.graph", GraphRequest, flow_replies.Drawing, effect="read",
    cli=CliForm(("workflow", "graph"), positional=("name",), answer="text", short={"form": "f"}),
    summary="Draw a workflow.",
    help="As a picture of letters, or in the language of Mermaid or Graphviz, or as SVG.",
    examples=(Example("Draw it", {"name": "hello", "form": "mermaid"}),),
)  # fmt: skip
async def draw(request: GraphRequest, node: NodeControl, caller: Caller) -> flow_replies.Drawing:
    """Return the picture."""
    return flow_replies.Drawing(text=await node.flows(caller.project).drawn(request.name, request.form))


class RemoveRequest(NameRequest):
    """Which workflow, and what may be left without it."""

    force: bool = Field(
        default=False, description="also when triggers start it, which fail from then on, or a file brought it"
    )


@op(
    "workflow.remove", RemoveRequest, flow_replies.Removed, effect="write",
    cli=CliForm(("workflow", "remove"), positional=("name",)),
    summary="Take a workflow's name away.",
    help="Runs of it go on, and its digest can still be started. What a file brought is removed with the file. "
    "Refused while triggers start it (`flow.in_use`), and where a file brought it (`flow.owned`), except with `force`: so "
    "goes what a node brought that is gone for good, or has another name now. A file that is there brings it again when it "
    "changes, one of another node that waits for the name within seconds.",
    examples=(Example("It is not needed any more", {"name": "hello"}),),
)  # fmt: skip
async def remove(request: RemoveRequest, node: NodeControl, caller: Caller) -> flow_replies.Removed:
    """Take it away."""
    removed = await node.flows(caller.project).remove(request.name, caller, force=request.force)
    return flow_replies.Removed(name=request.name, removed=removed)
