"""What is recorded of a run? Each fact has one place in FACTS, which can be filled once; here they are written and read (pure).

The outcomes of steps are those of tasks (`work.records.Outcome`): a step that an agent carries out is a task of its run.
Runs of workflows have shards of their own, so that who follows them is not told of every task there is.
"""

from __future__ import annotations

from typing import Annotated, Any, Protocol

import msgspec

from knotwork.bus import subjects
from knotwork.sdk.errors import Invalid
from knotwork.work import records
from knotwork.work.records import FINAL, Ended, Final, Name, Text, Token, Whole

SHARDS = tuple(f"{records.WORKFLOW}{number:x}" for number in range(records.SHARDS))
NULL = msgspec.Raw(b"null")
CHILD = "--c"
"""What sets off the number of what a worker started, in a name on the wire."""
DEPTH_MAX = 8
"""How deep runs may start runs."""


class Parent(msgspec.Struct, frozen=True):
    """The step that waits for a run: its run, and its name on the wire."""

    run: Token
    step: Token


class Spawn(msgspec.Struct, frozen=True, omit_defaults=True):
    """That whoever holds a step of a run starts a run, or a task, under the budget of that step.

    With `below` it is a run below this one that does: it counts here, and is started there.
    """

    workflow: Token = ""
    capability: Token = ""
    input: msgspec.Raw = NULL
    blob: Name = ""
    key: Name = ""
    by: Name = ""
    below: Token = ""


class Handed(msgspec.Struct, frozen=True, omit_defaults=True):
    """What a step is given in place of what its definition says."""

    input: msgspec.Raw = NULL
    blob: Name = ""


class Left(msgspec.Struct, frozen=True, omit_defaults=True):
    """What a step that was not done leaves to the one of a new run.

    Of a map the outputs of the items that were done, as an object by their numbers; of a sub-workflow the run that it was.
    """

    items: msgspec.Raw = NULL
    blob: Name = ""
    run: Token = ""


class Start(msgspec.Struct, frozen=True, omit_defaults=True):
    """That a run was started: of which definition (`digest`), with what, by whom. Times are nanoseconds since 1970.

    `given` are the ends of steps that it takes over from the run `of`, and does not do again; `left` is how far others
    were that it does again; `handed` are inputs of steps in place of what the definition says. A run that goes on for others is the `number`-th after the `first`; the one before it saw its own facts up to the place `after`. What a
    worker started counts against the budget of the step at the root of its `tree`, `tree_depth` above.
    """

    workflow: Token
    digest: Name
    input: msgspec.Raw = NULL
    blob: Name = ""
    by: Name = ""
    labels: dict[Token, Name] = {}
    priority: Annotated[int, msgspec.Meta(ge=1, le=10)] = 5
    boundary: Token = ""
    parent: Parent | None = None
    depth: Annotated[int, msgspec.Meta(ge=0, le=DEPTH_MAX)] = 0
    key: Name = ""
    trigger: Name = ""
    traceparent: Name = ""
    started_ns: Whole = 0
    of: Token = ""
    given: dict[Token, StepEnd] = {}
    left: dict[Token, Left] = {}
    handed: dict[Token, Handed] = {}
    first: Token = ""
    number: Whole = 0
    after: Whole = 0
    tree: Parent | None = None
    tree_depth: Whole = 0
    circle: Name = ""
    """Who alone may see it and take its steps (`trust.scopes.circle`); empty: the whole project."""
    paused: bool = False
    """It begins nothing before it is resumed."""
    heard: Whole = 0
    """The order of the last wish of its parent that the run before it heard."""
    asker: records.Asker | None = None
    """With whose eyes agents are looked for that its steps name."""


class StepEnd(msgspec.Struct, frozen=True, omit_defaults=True):
    """How an attempt of a step ended, as far as a run is concerned with it; `due_ns` is when another follows."""

    state: Ended
    output: msgspec.Raw = NULL
    blob: Name = ""
    error: dict[str, Any] | None = None
    node: Name = ""
    agent: Name = ""
    started_ns: Whole = 0
    ended_ns: Whole = 0
    due_ns: Whole = 0


class Wish(msgspec.Struct, frozen=True, omit_defaults=True):
    """That somebody wants a run cancelled, paused or resumed.

    The wishes of a parent have an `order`: one that comes behind a later one, from an owner that lags, counts no more.
    """

    by: Name = ""
    why: Text = ""
    order: Whole = 0


class Signal(msgspec.Struct, frozen=True, omit_defaults=True):
    """That a signal was sent to a run."""

    payload: msgspec.Raw = NULL
    by: Name = ""


class Finish(msgspec.Struct, frozen=True, omit_defaults=True):
    """That a run is over, and how; `next` is the run that goes on for it."""

    state: Final
    output: msgspec.Raw = NULL
    blob: Name = ""
    error: dict[str, Any] | None = None
    ended_ns: Whole = 0
    next: Token = ""


Body = Start | StepEnd | Wish | Signal | Spawn | Finish | None


class Fact(msgspec.Struct, frozen=True):
    """One fact of a run: what it is (`start`, `outcome`, `fired`, …), about what, and when the server stored it."""

    what: str
    about: str
    body: Body
    at_ns: int
    seq: int


_DECODERS: dict[str, Any] = {
    "start": msgspec.json.Decoder(Start),
    "outcome": msgspec.json.Decoder(StepEnd),
    "cancel": msgspec.json.Decoder(Wish),
    "pause": msgspec.json.Decoder(Wish),
    "resume": msgspec.json.Decoder(Wish),
    "signal": msgspec.json.Decoder(Signal),
    "spawned": msgspec.json.Decoder(Spawn),
    "ended": msgspec.json.Decoder(Finish),
}
KNOWN = frozenset({*_DECODERS, "admitted", "fired", "started", "released", "next", "redriven"})
"""Every kind of fact that this version knows; a run with another is left to newer ones."""
_TRACES = frozenset({"started", "released", "next", "redriven"})
encode = msgspec.json.Encoder().encode
_BROKEN = (msgspec.DecodeError, UnicodeDecodeError, RecursionError, ValueError)


class Unknown(Exception):
    """A fact of a kind that this version does not know."""


def read(subject: str, data: bytes, at_ns: int, seq: int) -> Fact | None:
    """Return the fact stored on a subject; None for one that changes nothing.

    Raises `Unknown` for a kind of fact that a newer version recorded, `Invalid` (`flow.bad_fact`) for garbage.
    """
    parts = subject.split(".")
    if len(parts) < 4:  # noqa: PLR2004  run.<shard>.<run>.<what>
        raise Invalid("It stands where no fact can stand.", code="flow.bad_fact")
    what = parts[3]
    if what in _TRACES:
        return None
    if what not in KNOWN:
        raise Unknown(what)
    about = parts[4] if len(parts) > 4 else ""  # noqa: PLR2004
    if what in ("fired", "admitted"):
        return Fact(what, about, None, at_ns, seq)
    try:
        body = _DECODERS[what].decode(data)
    except _BROKEN as error:
        raise Invalid(f"This is no {what}: {error}.", code="flow.bad_fact") from error
    if what == "outcome" and body.state not in FINAL:
        # another attempt follows: by itself, or, after a pause, when its limit admits it
        return Fact("again", about, body, at_ns, seq) if body.due_ns else None
    if what == "spawned":
        about = f"{about}{CHILD}{parts[5] if len(parts) > 5 else ''}"  # noqa: PLR2004
    return Fact(what, about, body, at_ns, seq)


class Stored(Protocol):
    """A message of a stream, as `bus.reading.Stored` is."""

    @property
    def subject(self) -> str:
        """Return where it stands."""

    @property
    def data(self) -> bytes:
        """Return what it says."""

    @property
    def seq(self) -> int:
        """Return its place in the stream."""

    @property
    def time_ns(self) -> int:
        """Return when it was stored, in nanoseconds since 1970."""


def read_stored(stored: Stored) -> Fact | None:
    """Do the same for a message of a stream."""
    return read(stored.subject, stored.data, stored.time_ns, stored.seq)


def shard(run: str) -> str:
    """Return the shard of a run, the same everywhere and always."""
    return records.shard(run)


def subject(run: str, *what: str) -> str:
    """Return the one place of a fact of a run."""
    return subjects.fact(shard(run), run, *what)


def is_run(run: str) -> bool:
    """Return whether an id is that of a run of a workflow."""
    return records.is_run(run) and run.startswith(records.WORKFLOW)


def root(step: str) -> str:
    """Return the step, or the item of one, below which something is done that was spawned; itself when it was not (pure)."""
    return step.partition(CHILD)[0]


def child_run(run: str, token: str) -> str:
    """Return the id of the run that a step starts: the same whoever starts it, and however often."""
    return derived_run(f"{run}.{token}")


def chained(first: str, number: int) -> str:
    """Return the id of the `number`-th run that goes on for a first one: the same whoever starts it, and however often."""
    return derived_run(f"{first}\0next {number}") if number else first


def derived_run(of: str) -> str:
    """Return the id of the run that a text stands for."""
    return records.derived(records.WORKFLOW, of, 22)
