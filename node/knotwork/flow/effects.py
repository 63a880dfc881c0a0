"""What may the facts of a run call for? Each effect has a name, and carrying one out twice does no harm (pure)."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from knotwork.flow.admission import Limit
    from knotwork.flow.model import AnyStep
    from knotwork.work.records import Final

NULL = b"null"


@dataclass(frozen=True, slots=True)
class Dispatch:
    """Have an agent carry out a step, or one item of it; `token` is its name on the wire. `input` is JSON."""

    token: str
    step: str
    spec: AnyStep
    input: bytes = NULL
    blob: str = ""
    limit: Limit | None = None
    """What must admit it before it begins."""

    @property
    def name(self) -> str:
        """Return what no other effect of the run is called."""
        return f"do.{self.token}"


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
class Withdraw:
    """End a step that an agent may be working on: its result is not wanted any more."""

    token: str
    spec: AnyStep

    @property
    def name(self) -> str:
        """Return what no other effect of the run is called."""
        return f"withdraw.{self.token}"


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
class StartChild:
    """Start a run of another workflow, by name or, when a planner made it, by its text; a detached one is not waited for."""

    token: str
    workflow: str
    input: bytes = NULL
    blob: str = ""
    detach: bool = False
    made: dict[str, Any] | None = field(default=None, hash=False)

    @property
    def name(self) -> str:
        """Return what no other effect of the run is called."""
        return f"child.{self.token}"


@dataclass(frozen=True, slots=True)
class CancelChild:
    """Cancel the run that a step started, and wait for its end."""

    token: str

    @property
    def name(self) -> str:
        """Return what no other effect of the run is called."""
        return f"cancel-child.{self.token}"


@dataclass(frozen=True, slots=True)
class WatchEvent:
    """Record the first event of a kind, published after `since_ns`, that matches; the context is what `match` sees."""

    token: str
    event: str
    match: str | None
    context: dict[str, Any] = field(hash=False)
    since_ns: int = 0

    @property
    def name(self) -> str:
        """Return what no other effect of the run is called."""
        return f"event.{self.token}"


@dataclass(frozen=True, slots=True)
class Ask:
    """Ask people to approve or reject."""

    token: str
    spec: AnyStep
    input: bytes
    since_ns: int

    @property
    def name(self) -> str:
        """Return what no other effect of the run is called."""
        return f"ask.{self.token}"


@dataclass(frozen=True, slots=True)
class Expect:
    """Nothing to do: a signal is waited for. It stands here so that it can be said."""

    token: str
    signal: str
    since_ns: int

    @property
    def name(self) -> str:
        """Return what no other effect of the run is called."""
        return f"signal.{self.token}"


@dataclass(frozen=True, slots=True)
class SendSignal:
    """Send a signal to a run; the step is over when it is sent."""

    token: str
    run: str
    signal: str
    payload: bytes

    @property
    def name(self) -> str:
        """Return what no other effect of the run is called."""
        return f"send.{self.token}"


@dataclass(frozen=True, slots=True)
class Respond:
    """Answer whoever started the run and waits; recording it is the answer."""

    token: str
    status: int
    payload: bytes

    @property
    def name(self) -> str:
        """Return what no other effect of the run is called."""
        return f"respond.{self.token}"


@dataclass(frozen=True, slots=True)
class End:
    """Record that the run is over."""

    state: Final
    output: bytes = NULL
    blob: str = ""
    error: dict[str, Any] | None = field(default=None, hash=False)

    @property
    def name(self) -> str:
        """Return what no other effect of the run is called."""
        return "end"


Effect = (
    Admit
    | Dispatch
    | Withdraw
    | SetTimer
    | StartChild
    | CancelChild
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
