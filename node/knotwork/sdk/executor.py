"""What an executor is: something that carries out one attempt of a piece of work and says how it ended."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

if TYPE_CHECKING:
    from collections.abc import Mapping


@dataclass(frozen=True, slots=True)
class Done:
    """The work is done; `output` is any JSON value."""

    output: Any = None


@dataclass(frozen=True, slots=True)
class Failed:
    """The work failed.

    `retriable` says whether another attempt could succeed; `retry_after_s` (seconds) asks for a pause before it.
    """

    message: str
    code: str = "agent.failed"
    retriable: bool = False
    retry_after_s: float | None = None
    detail: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Continue:
    """Not finished: call again with `output` as the next input (loops); to a caller it is an answer like any other."""

    output: Any = None


Outcome = Done | Failed | Continue


class Reporter(Protocol):
    """Where an attempt tells what is going on while it runs; never blocks, may drop progress under load."""

    def progress(self, percent: float | None, text: str) -> None:
        """Say how far it is: `percent` from 0 to 100 or None when unknown."""

    async def stream(self, chunk: Any) -> None:
        """Send one piece of live output (any JSON value) to whoever watches."""


class Silent:
    """A reporter that nobody listens to."""

    def progress(self, percent: float | None, text: str) -> None:
        """Do nothing."""

    async def stream(self, chunk: Any) -> None:
        """Do nothing."""


@dataclass(frozen=True, slots=True)
class Attempt:
    """One try of one piece of work, as an executor sees it.

    `input` is any JSON value. `deadline_s` is the time left, in seconds, when the attempt began; the node cancels
    the attempt (asyncio cancellation) when it is over or when the caller gives up. `idempotency_key` is the same for
    every attempt of the same work. `caller` is written by the node, never by the sender.
    """

    id: str
    agent: str
    input: Any
    capability: str = ""
    number: int = 1
    idempotency_key: str = ""
    deadline_s: float | None = None
    boundary: str = ""
    project: str = "default"
    caller: str = ""
    traceparent: str = ""
    labels: Mapping[str, str] = field(default_factory=dict)
    report: Reporter = field(default_factory=Silent)


class Executor(Protocol):
    """The contract of an executor.

    `execute` runs as often at once as the agent's `concurrency` allows. It returns an outcome; an exception means
    that the executor broke, and is reported as a retriable failure. It must let `CancelledError` through and leave
    nothing running behind it.
    """

    async def execute(self, attempt: Attempt) -> Outcome:
        """Carry out one attempt and say how it ended."""
        ...


@runtime_checkable
class Probes(Protocol):
    """Optional ability of any plugin: say whether it is well."""

    async def probe(self) -> None:
        """Return when well, raise with the reason when not; a reload does not commit before this returns."""
        ...
