"""What is one tool: the row that a client's list, a call and the catalogue's data are made from?

A tool is a way for a model to use ops: its name and its parameters are those that agents know, its rules are the ops'.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any, Protocol, TypeVar

from pydantic import AfterValidator, BeforeValidator, ConfigDict, Field, StringConstraints
from pydantic.alias_generators import to_camel
from pydantic.fields import FieldInfo

from knotwork.mcp import wording
from knotwork.mcp.shapes import Schema
from knotwork.ops import pages, task_words
from knotwork.ops.task_words import Moment
from knotwork.ops.words import TOKEN
from knotwork.sdk.checked import Checked
from knotwork.trust import unseen
from knotwork.trust.who import Who


class Input(Checked):
    """The arguments of a tool; frozen, unknown ones are refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", defer_build=True, allow_inf_nan=False)


class CamelInput(Input):
    """The same for tools whose arguments are written `likeThis`; `like_this` is understood, too."""

    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True)


def arguments_of(model: type[Input]) -> dict[str, FieldInfo]:
    """Return the arguments of a tool by the names that agents write."""
    return {field.alias or name: field for name, field in model.model_fields.items()}


class Session(Protocol):
    """What a tool's handler may use: the ops, in the name of the agent whose session it is."""

    @property
    def who(self) -> Who:
        """Return the agent that called the tool."""
        ...

    @property
    def key(self) -> dict[str, str]:
        """Return the idempotency key of this call as a field of an op, nothing when there is none."""
        ...

    async def ask(self, op: str, **fields: Any) -> dict[str, Any]:
        """Return the reply of an op; raises what the op raises. Its progress is the tool's."""
        ...

    async def pieces(self, op: str, **fields: Any) -> tuple[list[Any], dict[str, Any]]:
        """Return the data of an op's chunks, and its reply; for ops whose answers are bounded."""
        ...

    def progress(self, percent: float | None, text: str) -> None:
        """Tell the client how far the call is."""
        ...

    def holds(self, work_id: str, claim: str, step: str = "") -> None:
        """Remember what the agent shows for work that it claimed, or for a step of it."""
        ...

    async def claim_of(self, work_id: str, given: str) -> str:
        """Return what the agent shows for its work: what it gave, else what is remembered; raises `Invalid`."""
        ...

    def done_with(self, work_id: str, claim: str = "") -> None:
        """Forget a claim that the agent holds no longer, every one on this work when none is named."""
        ...


Handler = Callable[[Any, Session], Awaitable[dict[str, Any]]]


@dataclass(frozen=True, slots=True)
class Hints:
    """What a client may tell its user before a call; the four annotations of the protocol, each said truthfully."""

    reads: bool = False
    destroys: bool = False
    repeats: bool = False
    """Calling it again with the same arguments changes nothing more."""
    open_world: bool = False

    def annotations(self) -> dict[str, bool]:
        """Return them as the protocol names them."""
        return {
            "readOnlyHint": self.reads,
            "destructiveHint": self.destroys,
            "idempotentHint": self.repeats,
            "openWorldHint": self.open_world,
        }


READS = Hints(reads=True, repeats=True)
ADDS = Hints()
SETS = Hints(repeats=True)
TAKES_AWAY = Hints(destroys=True, repeats=True)
HANDS_OUT = Hints(open_world=True)
"""Others do work because of it, who may do whatever they can."""


@dataclass(frozen=True, slots=True)
class Tool:
    """One row. `rows` names the list in its result, which is cut where a page ends (`limit`, `cursor`)."""

    name: str
    title: str
    description: str
    input: type[Input]
    output: Schema
    hints: Hints
    handler: Handler = field(repr=False)
    rows: str = ""
    text: Callable[[dict[str, Any]], str] | None = field(default=None, repr=False)
    """How its result is read by a model, when that is more than its fields."""


REGISTERED: dict[str, Tool] = {}
H = TypeVar("H", bound=Handler)


def tool(
    name: str,
    given: type[Input],
    output: Schema,
    *,
    title: str,
    description: str,
    hints: Hints,
    rows: str = "",
    text: Callable[[dict[str, Any]], str] | None = None,
) -> Callable[[H], H]:
    """Put a handler into the table: `async def name(given, session) -> result`, which fits `output`."""

    def register(handler: H) -> H:
        assert name not in REGISTERED, f"two tools are called {name}"
        REGISTERED[name] = Tool(name, title, description, given, output, hints, handler, rows, text)
        return handler

    return register


def _as_token(value: Any) -> Any:
    """Return a name as it is routed by: people and models write `Code Review` and mean `code-review`."""
    return "-".join(value.lower().split()) if isinstance(value, str) and len(value) <= 64 else value  # noqa: PLR2004


def _seen(text: str) -> str:
    """Return a text; raises `ValueError` when there is nothing in it to be read."""
    if unseen.blank(text):
        raise ValueError("it is blank: write what you mean in words")
    return text


class Nothing(Input):
    """No arguments."""


class PageInput(Input):
    """Which page of a list."""

    limit: int = Field(default=100, ge=1, le=1000)
    cursor: Annotated[str, StringConstraints(max_length=1024)] = Field(
        default="", description="`next` of the page before"
    )

    def of(self, name: str, rows: Sequence[dict[str, Any]], key: Callable[[dict[str, Any]], str]) -> dict[str, Any]:
        """Return a page of rows under a name, and where it goes on; raises `Invalid` (`ops.bad_cursor`).

        `key` gives each row a text that no other has, in whose order they are.
        """
        shown, following = pages.page(rows, key, self.cursor, self.limit)
        return without({"next": following}) | {name: shown}


Capability = Annotated[str, StringConstraints(pattern=rf"^{TOKEN}$", max_length=64), BeforeValidator(_as_token)]
Words = Annotated[str, StringConstraints(max_length=1024 * 1024), AfterValidator(_seen)]
JobWords = Annotated[str, StringConstraints(max_length=128 * 1024), AfterValidator(_seen)]
"""A type of its own: of two limits pydantic heeds the inner one, when a validator stands behind it."""
Cursor = Annotated[str, StringConstraints(max_length=1024)]
Priority = Annotated[int, Field(ge=1, le=10)]
WorkId = Annotated[str, StringConstraints(pattern=r"^[a-z0-9]{8,40}$")]
Since = Annotated[Moment, AfterValidator(task_words.bound)]
"""A moment in the past: `24h`, or an RFC 3339 time."""
Until = Annotated[Moment, AfterValidator(task_words.deadline)]
"""A moment to come: `30m`, or an RFC 3339 time."""
ClaimToken = Annotated[str, StringConstraints(max_length=2048)]


without = wording.without
"""Fields without those that say nothing; here, too, because every tool needs it."""
