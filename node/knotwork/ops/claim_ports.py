"""What must a host offer so that the ops about claims can be answered? One protocol, implemented by `host.claims`."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from knotwork.ops import claim_replies, replies
    from knotwork.ops.op import Caller


@dataclass(frozen=True, slots=True)
class Worker:
    """An agent that came in, as it describes itself. `kind` is what it is, as an executor type."""

    name: str
    capabilities: tuple[str, ...] = ()
    boundaries: tuple[str, ...] = ()
    kind: str = ""
    description: str = ""
    max_tasks: int = 1


@dataclass(frozen=True, slots=True)
class Shown:
    """What an agent shows for a task that it holds: its claim, and the task's id when it says which one it means."""

    claim: str
    id: str = ""


class Claims(Protocol):
    """One project's claims.

    What an agent shows a claim for raises `Invalid` (`claim.invalid`), `Conflict` (`claim.expired`, `claim.superseded`,
    `claim.ended`) and `Cancelled` (`claim.cancelled`); what stores something `Unavailable` and `Unreachable`, too.
    """

    def connect(self, worker: Worker, caller: Caller) -> AsyncGenerator[replies.Chunk, None]:
        """Let an agent in until the generator is closed; yields what it is told.

        Raises `Denied` (`claim.not_you`) for the name of another who is there, as `claim` does.
        """
        ...

    async def claim(
        self, worker: Worker, caller: Caller, *, count: int, wait_s: float, lease_s: float
    ) -> claim_replies.ClaimedTasks:
        """Return up to `count` tasks as soon as there are some, none after `wait_s`.

        They are handed back when the answer does not reach the caller.
        """
        ...

    async def claimed(
        self, worker: str, caller: Caller, *, run: str, limit: int, cursor: str
    ) -> claim_replies.ClaimedPage:
        """Return up to `limit` tasks that somebody holds, those of one `run` alone unless it is "".

        Raises `Denied` (`claim.not_you`) for the name of another who is there, `Invalid` (`ops.bad_cursor`).
        """
        ...

    async def extend(self, shown: Shown, lease_s: float | None) -> claim_replies.Held:
        """Let the lease begin anew, for `lease_s` seconds or, with None, as long as it was."""
        ...

    async def progress(self, shown: Shown, percent: float | None, text: str) -> claim_replies.Held:
        """Tell whoever watches how far it is."""
        ...

    async def stream(self, shown: Shown, data: Any) -> claim_replies.Held:
        """Send live output to whoever watches."""
        ...

    async def save(self, shown: Shown, data: Any) -> claim_replies.Checkpoint:
        """Keep a checkpoint."""
        ...

    async def saved(self, shown: Shown) -> claim_replies.Checkpoint:
        """Return the checkpoint kept last."""
        ...

    async def complete(self, shown: Shown, output: Any) -> claim_replies.Settled:
        """End the attempt as done."""
        ...

    async def go_on(self, shown: Shown, output: Any) -> claim_replies.Settled:
        """End this iteration; `output` is the input of the next."""
        ...

    async def fail(
        self, shown: Shown, message: str, *, code: str, retriable: bool, retry_after_s: float | None
    ) -> claim_replies.Settled:
        """End the attempt as failed."""
        ...

    async def release(self, shown: Shown, why: str) -> claim_replies.Released:
        """Give the task back unfinished."""
        ...

    async def signal(self, run: str, name: str, data: Any, caller: Caller) -> claim_replies.Signalled:
        """Send a signal to a run."""
        ...

    async def wait_signal(self, run: str, name: str, wait_s: float) -> claim_replies.SignalRow:
        """Return a signal when it is there, or that there is none after `wait_s`."""
        ...
