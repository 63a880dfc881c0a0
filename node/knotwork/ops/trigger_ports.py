"""What must a host offer so that triggers can be asked about, and requests reach them? Two protocols, kept by `host.triggers`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from knotwork.ops import trigger_replies as replies
    from knotwork.ops.flow_ports import NewRun
    from knotwork.ops.flow_replies import RunInfo
    from knotwork.ops.op import Caller
    from knotwork.sdk.errors import KnotworkError


class Triggers(Protocol):
    """One project's triggers. Every method raises errors of `knotwork.sdk.errors`."""

    async def create(self, definition: Any, fields: dict[str, Any], caller: Caller, *, replace: bool) -> replies.Kept:
        """Keep a trigger, written as text or table, or made of fields.

        Raises `Denied` (`trigger.not_yours`) when an agent would take the place of somebody else's, as `switch` and
        `remove` do.
        """
        ...

    async def all(self) -> list[replies.TriggerRow]:
        """Return every trigger, by id."""
        ...

    async def show(self, name: str) -> replies.TriggerInfo:
        """Return one."""
        ...

    async def switch(self, name: str, caller: Caller, *, enabled: bool) -> replies.TriggerRow:
        """Enable or disable one."""
        ...

    async def trial(self, name: str, definition: Any, fields: dict[str, Any], count: int, body: Any) -> replies.Trial:
        """Return when a trigger would fire next; nothing is started."""
        ...

    async def fire(self, name: str, body: Any, key: str) -> replies.FiredRun:
        """Fire one now."""
        ...

    async def history(self, name: str, limit: int) -> replies.Firings:
        """Return the last firings of one, also when it is gone."""
        ...

    async def backfill(self, name: str, since: str, until: str, cap: int, *, dry_run: bool) -> replies.Backfilled:
        """Start the runs of times that are over."""
        ...

    async def remove(self, name: str, caller: Caller) -> bool:
        """Forget one."""
        ...

    async def later(self, wanted: NewRun, when: str, caller: Caller) -> RunInfo:
        """Keep a trigger that starts one run at a moment, or in so long; returns the run as it will be.

        Of one that its key has started before the id alone is told, and that it is `running`.
        """
        ...


@dataclass(frozen=True, slots=True)
class HookRequest:
    """A request that may fire a trigger. `kind`: webhook or http; `headers` have lower-case names."""

    kind: str
    method: str
    path: str
    headers: Mapping[str, str] = field(default_factory=dict)
    query: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""


@dataclass(frozen=True, slots=True)
class HookAnswer:
    """What it is answered: a status, a JSON body or an error in its place, the run that it was for."""

    status: int
    body: bytes
    run: str = ""
    error: KnotworkError | None = None


class Hook(Protocol):
    """One trigger that is served."""

    @property
    def max_body(self) -> int:
        """Return how many bytes a body may have."""
        ...

    async def answer(self, request: HookRequest) -> HookAnswer:
        """Fire, and answer."""
        ...


class Hooks(Protocol):
    """What is served without a token, because it is signed."""

    def methods(self, kind: str, path: str) -> Mapping[str, Hook]:
        """Return what is served under a path, by method; empty for a path that nobody has."""
        ...
