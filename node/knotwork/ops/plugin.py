"""What may be asked about the plugins of a running node."""

from __future__ import annotations

import re
from typing import Annotated, Literal, Self, get_args

from pydantic import Field, StringConstraints, model_validator

from knotwork.ops import replies
from knotwork.ops.node import Nothing
from knotwork.ops.op import Caller, CliForm, Example, Request, op
from knotwork.ops.ports import NodeControl
from knotwork.ops.words import TOKEN, Token

Kind = Literal["executors", "routers", "memories", "spinups", "telemetry", "triggers"]
KINDS: tuple[Kind, ...] = get_args(Kind)
_WORDS: dict[str, Kind] = {
    **{kind: kind for kind in KINDS},
    "executor": "executors",
    "router": "routers",
    "memory": "memories",
    "spinup": "spinups",
    "trigger": "triggers",
    "targets": "spinups",
    "target": "spinups",  # what their tables are called
}


@op(
    "plugin.list", Nothing, replies.PluginList, effect="read",
    cli=CliForm(("plugin", "list"), rows="plugins", columns=("kind", "type", "summary", "origin", "broken")),
    summary="List the plugins that can be configured.",
    help="Bundled and foreign ones; those that cannot be used say why. Works without a node, too.",
    examples=(Example("List them"),),
)  # fmt: skip
async def list_plugins(_: Nothing, node: NodeControl, __: Caller) -> replies.PluginList:
    """Return types and slots."""
    return await node.plugins()


class PluginRequest(Request):
    """Which type."""

    type: Annotated[str, StringConstraints(min_length=1, max_length=256)] = Field(description="the plugin's type name")
    kind: Kind | None = Field(default=None, description="when a name exists in several kinds")


@op(
    "plugin.info", PluginRequest, replies.PluginInfo, effect="read",
    cli=CliForm(("plugin", "info"), positional=("type",), hidden=("config_schema",)),
    summary="Show one plugin: options, abilities, instances.",
    help="As JSON with the JSON Schema of its options. Works without a node, too.",
    examples=(Example("Show a plugin", {"type": "process"}),),
)  # fmt: skip
async def info(request: PluginRequest, node: NodeControl, _: Caller) -> replies.PluginInfo:
    """Return one type."""
    return await node.plugin(request.kind or "", request.type)


class RestartRequest(Request):
    """Which instance."""

    kind: Annotated[str, StringConstraints(min_length=1, max_length=128)] = Field(
        description="kind and id as in TOML, `executors.reviewer`, or the kind alone"
    )
    id: Token | None = Field(default=None, description="the instance's name in TOML, after the kind alone")

    @model_validator(mode="after")
    def _named(self) -> Self:
        """See that both parts are there, in one way or the other."""
        self.parts()
        return self

    def parts(self) -> tuple[Kind, str]:
        """Return kind and id; raises ValueError when they are not said. One of a kind is a kind, too: `executor`."""
        word, _, name = self.kind.partition(".")
        kind = _WORDS.get(word)
        if kind is None:
            raise ValueError(f"{word[:64]!r} is no kind: {', '.join(KINDS)}")
        if bool(name) == bool(self.id):
            raise ValueError(f"name one instance, like {kind}.{self.id or 'reviewer'}")
        if name and not re.fullmatch(TOKEN, name):
            raise ValueError(f"{name[:64]!r} is not a name: a-z, 0-9, - and _")
        return kind, name or str(self.id)


@op(
    "plugin.restart", RestartRequest, replies.Slot, effect="admin",
    cli=CliForm(("plugin", "restart"), positional=("kind", "id")),
    summary="Stop and start one plugin instance.",
    help="Brings an instance out of quarantine, too.",
    examples=(Example("Restart an executor", {"kind": "executors.reviewer"}),),
)  # fmt: skip
async def restart(request: RestartRequest, node: NodeControl, _: Caller) -> replies.Slot:
    """Restart one instance."""
    return await node.restart_plugin(*request.parts())
