"""What is one op: the row that a CLI verb, an HTTP route, a NATS subject and an MCP tool are made from."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

import msgspec
from pydantic import BaseModel, ConfigDict

from knotwork.ops.form import CliForm, Effect, Example
from knotwork.sdk.checked import Checked
from knotwork.trust.who import NOBODY, Who

EFFECTS: tuple[Effect, ...] = ("read", "write", "admin")
Door = Literal["cli", "http", "nats", "mcp", "node"]


class Request(Checked):
    """What an op is asked with; frozen, unknown fields are refused. Built at its first use: most are never used."""

    model_config = ConfigDict(frozen=True, extra="forbid", defer_build=True)


class Reply(BaseModel):
    """What an op answers with."""

    model_config = ConfigDict(frozen=True, extra="forbid", defer_build=True)


class Caller(msgspec.Struct, frozen=True):
    """Who asks, as the door established it. `may` is the strongest effect allowed.

    `who` is the agent whose session it is, else the person who owns the node; both written by the node. `label` is
    what the sender calls itself: shown beside the name, never trusted. `undo` is what a handler wants done
    when its answer does not reach whoever asked: the door sees to it.
    """

    name: str
    project: str = "default"
    door: Door = "node"
    may: Effect = "read"
    label: str = ""
    traceparent: str = ""
    who: Who = NOBODY
    undo: list[Callable[[], None]] = msgspec.field(default_factory=list)

    def received(self) -> None:
        """Take note that the answer reached whoever asked."""
        self.undo.clear()

    def take_back(self) -> None:
        """Do what is to be done when the answer was not received; once."""
        while self.undo:
            self.undo.pop()()

    def allows(self, effect: Effect) -> bool:
        """Say whether this caller may use an op of that effect."""
        return EFFECTS.index(effect) <= EFFECTS.index(self.may)


@dataclass(frozen=True, slots=True)
class Op:
    """One row. `name` is `room.verb`; a streaming op's handler yields pieces and ends with exactly one reply.

    `live` marks a stream whose pieces are the point and which may never end: a door does not wait for its reply.
    """

    name: str
    request: type[Request]
    reply: type[Reply]
    effect: Effect
    summary: str
    help: str
    cli: CliForm
    handler: Callable[[Any, Any, Caller], Any]
    streams: bool = False
    live: bool = False
    examples: tuple[Example, ...] = ()

    @property
    def room(self) -> str:
        """Return the part before the dot."""
        return self.name.partition(".")[0]

    @property
    def verb(self) -> str:
        """Return the part after the dot."""
        return self.name.partition(".")[2]


REGISTERED: dict[str, Op] = {}

H = TypeVar("H", bound=Callable[..., Any])


def op(
    name: str,
    request: type[Request],
    reply: type[Reply],
    *,
    effect: Effect,
    summary: str,
    cli: CliForm,
    help: str = "",  # noqa: A002 - the word of the row
    examples: tuple[Example, ...] = (),
    streams: bool = False,
    live: bool = False,
) -> Callable[[H], H]:
    """Put a handler into the table: `async def verb(request, node, caller) -> Reply`, or an async generator of pieces."""

    def register(handler: H) -> H:
        assert name not in REGISTERED, f"two ops are called {name}"
        assert set(cli.positional) <= set(request.model_fields), f"{name}: a positional is no field of the request"
        REGISTERED[name] = Op(
            name=name, request=request, reply=reply, effect=effect, summary=summary, help=help, cli=cli,
            handler=handler, streams=streams, live=live, examples=examples,
        )  # fmt: skip
        return handler

    return register


__all__ = [
    "EFFECTS", "REGISTERED", "Caller", "CliForm", "Door", "Effect", "Example", "Op", "Reply", "Request", "op",
]  # fmt: skip
