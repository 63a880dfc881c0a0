"""What may the facts of a run call for? Each effect has a name, and carrying one out twice does no harm (pure)."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

if TYPE_CHECKING:
    from knotwork.flow.admission import Limit
    from knotwork.flow.model import AnyStep
    from knotwork.work.records import Final

NULL = b"null"


@dataclass(frozen=True, slots=True)
class OfStep:
    """An effect of one step, or of one item of it: `token` is its name on the wire."""

    KIND: ClassVar[str]
    token: str

    @property
    def name(self) -> str:
        """Return what no other effect of the run is called."""
        return f"{self.KIND}.{self.token}"


@dataclass(frozen=True, slots=True)
class Near:
    """The node where a step is to be done, and the agent there that did the one before; `hard`: nowhere else."""

    node: str
    agent: str
    hard: bool


@dataclass(frozen=True, slots=True)
class Dispatch(OfStep):
    """Have an agent carry out a step, or one item of it; `token` is its name on the wire. `input` is JSON."""

    KIND: ClassVar[str] = "do"
    step: str
    spec: AnyStep
    input: bytes = NULL
    blob: str = ""
    limit: Limit | None = None
    """What must admit it before it begins."""
    near: Near | None = None


@dataclass(frozen=True, slots=True)
class Readmit(OfStep):
    """Have the next attempt of a step begin at a time, when its limit admits it; it is the `count`-th that waits so."""

    KIND: ClassVar[str] = "again"
    limit: Limit
    due_ns: int
    count: int


@dataclass(frozen=True, slots=True)
class Admit:
    """Have the run admitted among those of its workflow, or cancelled, or others cancelled for it."""

    limit: Limit
    when_full: str

    @property
    def name(self) -> str:
        """Return what no other effect of the run is called."""
        return "admit"


@dataclass(frozen=True, slots=True)
class Withdraw(OfStep):
    """End a step that an agent may be working on: its result is not wanted any more."""

    KIND: ClassVar[str] = "withdraw"
    spec: AnyStep


@dataclass(frozen=True, slots=True)
class SetTimer:
    """Have a fact recorded at a time, in nanoseconds since 1970."""

    timer: str
    due_ns: int

    @property
    def name(self) -> str:
        """Return what no other effect of the run is called."""
        return f"timer.{self.timer}"


@dataclass(frozen=True, slots=True)
class StartChild(OfStep):
    """Start a run of another workflow, by name or, when a planner made it, by its text; a detached one is not waited for."""

    KIND: ClassVar[str] = "child"
    workflow: str
    input: bytes = NULL
    blob: str = ""
    detach: bool = False
    spawned: bool = False
    """Whoever holds a step wanted it."""
    paused: bool = False
    """It begins nothing before it is resumed, because the run that starts it is paused."""
    made: dict[str, Any] | None = field(default=None, hash=False)


@dataclass(frozen=True, slots=True)
class CancelChild(OfStep):
    """Cancel the run that a step started, and wait for its end."""

    KIND: ClassVar[str] = "cancel-child"


@dataclass(frozen=True, slots=True)
class HoldChild(OfStep):
    """Pause the run that a step started, or resume it; `order` is the place of the fact that says so, in the parent."""

    KIND: ClassVar[str] = "hold-child"
    pause: bool
    order: int


@dataclass(frozen=True, slots=True)
class WatchEvent(OfStep):
    """Record the first event of a kind, published after `since_ns`, that matches; the context is what `match` sees."""

    KIND: ClassVar[str] = "event"
    event: str
    match: str | None
    context: dict[str, Any] = field(hash=False)
    since_ns: int = 0


@dataclass(frozen=True, slots=True)
class Ask(OfStep):
    """Ask people to approve or reject."""

    KIND: ClassVar[str] = "ask"
    spec: AnyStep
    input: bytes
    since_ns: int


@dataclass(frozen=True, slots=True)
class Expect(OfStep):
    """Nothing to do: a signal is waited for. It stands here so that it can be said."""

    KIND: ClassVar[str] = "signal"
    signal: str
    since_ns: int


@dataclass(frozen=True, slots=True)
class SendSignal(OfStep):
    """Send a signal to a run; the step is over when it is sent."""

    KIND: ClassVar[str] = "send"
    run: str
    signal: str
    payload: bytes


@dataclass(frozen=True, slots=True)
class Respond(OfStep):
    """Answer whoever started the run and waits; recording it is the answer."""

    KIND: ClassVar[str] = "respond"
    status: int
    payload: bytes


@dataclass(frozen=True, slots=True)
class Anew:
    """With what a run starts itself anew. `after` is the place of the last fact that it saw.

    `unheard` are the places of signals that nobody waited for, `heard` is the order of its parent's last wish.
    """

    step: str
    input: bytes = NULL
    blob: str = ""
    latest: bool = False
    after: int = 0
    unheard: tuple[int, ...] = ()
    heard: int = 0


@dataclass(frozen=True, slots=True)
class End:
    """Record that the run is over; with `anew` after another was started that goes on for it."""

    state: Final
    output: bytes = NULL
    blob: str = ""
    error: dict[str, Any] | None = field(default=None, hash=False)
    anew: Anew | None = None

    @property
    def name(self) -> str:
        """Return what no other effect of the run is called."""
        return "end"


Effect = (
    Admit
    | Dispatch
    | Readmit
    | Withdraw
    | SetTimer
    | StartChild
    | CancelChild
    | HoldChild
    | WatchEvent
    | Ask
    | Expect
    | SendSignal
    | Respond
    | End
)


def is_awaited(effect: Effect) -> bool:
    """Return whether somebody works on it, so that a run cannot end before."""
    return isinstance(effect, Dispatch) or (isinstance(effect, StartChild) and not effect.detach)
