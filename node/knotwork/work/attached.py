"""Which agents came in from outside and are here now? Those that hold a line open, and those that asked for work lately.

They are shown in the directory beside our own, with our node's record, so they vanish with the node; nobody can call
them: they come and ask for work.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Collection
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

import msgspec

from knotwork.mesh.records import AgentRecord
from knotwork.sdk.errors import Conflict

if TYPE_CHECKING:
    from collections.abc import Iterator

    from knotwork.work.keeping import Keeper
    from knotwork.work.leases import Claim, Over

KIND = "attached"
"""What stands for the executor type of an agent that does not say what it is."""
LINGER_S = 30.0
"""How long an agent without an open line counts as here after it asked for work."""
NOTICES_MAX = 1000
HELD_MAX = 10_000
"""Tasks that one agent may hold that did not say how many it can do at once."""


class Notice(NamedTuple):
    """What an agent is told on its line: it lost this claim, and why."""

    claim: Claim
    why: Over


@dataclass(eq=False, slots=True)
class Present:
    """One agent: `lines` it holds open, polls that wait, and until when it counts as here without any (monotonic)."""

    record: AgentRecord
    lines: int = 0
    until_s: float = 0.0


@dataclass(eq=False, slots=True)
class Line:
    """An open line to an agent; what it is told ends with None."""

    names: frozenset[str]
    agent: str
    notices: asyncio.Queue[Notice | None] = field(default_factory=lambda: asyncio.Queue(NOTICES_MAX))


class Attached:
    """Agents from outside of one project, as far as this node has to do with them."""

    def __init__(self, keeper: Keeper, ours: Callable[[], frozenset[str]]) -> None:
        """Count what they hold with `keeper`; `ours()` are the names of our own agents, which nobody else may use."""
        self._keeper, self._ours = keeper, ours
        self._present: dict[str, Present] = {}
        self._lines: set[Line] = set()
        self.changed: Callable[[], None] = lambda: None
        """Called when there are others, or they are otherwise, than before."""
        keeper.on_lost(self._lost)

    def records(self) -> tuple[AgentRecord, ...]:
        """Return those who are here now, as others see them, with what they hold."""
        ours = self._ours()
        return tuple(
            msgspec.structs.replace(one.record, running=self._keeper.held(one.record.name))
            for one in self._present.values()
            if one.record.name not in ours
        )

    def admit(self, record: AgentRecord) -> None:
        """Let an agent in; raises `Conflict` (`claim.name_taken`) when its name is that of one of our own."""
        if record.name in self._ours():
            raise Conflict(
                f"An agent of this node is called {record.name} already.", code="claim.name_taken",
                hint="Take another name for yourself.",
            )  # fmt: skip
        before = self._present.get(record.name)
        if before is not None and before.record == record:
            return
        if before is None:
            self._present[record.name] = Present(record)
        else:
            before.record = record
        self.changed()

    def asked(self, record: AgentRecord, wait_s: float) -> tuple[AgentRecord, int]:
        """Take note that an agent asks for work and waits `wait_s`; returns it as it is, and how much it may hold.

        One that is connected need not say again what it can do. Raises as `admit` does.
        """
        present = self._present.get(record.name)
        held_max = HELD_MAX
        if present is not None and present.lines:
            known, held_max = present.record, present.record.concurrency
            record = msgspec.structs.replace(
                record, capabilities=record.capabilities or known.capabilities,
                boundaries=record.boundaries or known.boundaries,
                executor=known.executor if record.executor == KIND else record.executor,
            )  # fmt: skip
        else:
            self.admit(record)
            present = self._present[record.name]
        present.until_s = asyncio.get_running_loop().time() + wait_s + LINGER_S
        return record, held_max

    @contextmanager
    def line(
        self, record: AgentRecord, formerly: Collection[str] = (), agent: str = ""
    ) -> Iterator[AsyncGenerator[Notice, None]]:
        """Let an agent in for as long as the block lasts; yields what it is told, until we close.

        It is told, too, of what it claimed when it was called otherwise: by `agent`, its id when it has a session.
        """
        self.admit(record)
        present = self._present[record.name]
        present.lines += 1
        line = Line(frozenset((record.name, *formerly)), agent)
        self._lines.add(line)
        try:
            yield _notices(line)
        finally:
            self._lines.discard(line)
            present.lines -= 1
            self.sweep()

    def close(self) -> None:
        """End what those are told who hold a line."""
        for line in self._lines:
            if line.notices.full():
                line.notices.get_nowait()
            line.notices.put_nowait(None)

    def sweep(self) -> None:
        """Forget those who hold no line and have not asked for long; call it every second or so."""
        now_s = asyncio.get_running_loop().time()
        gone = [name for name, one in self._present.items() if not one.lines and one.until_s <= now_s]
        for name in gone:
            del self._present[name]
        if gone:
            self.changed()

    def _lost(self, claim: Claim, why: Over) -> None:
        for line in self._lines:
            if claim.is_of(line.agent, line.names) and not line.notices.full():
                line.notices.put_nowait(Notice(claim, why))


async def _notices(line: Line) -> AsyncGenerator[Notice, None]:
    while (notice := await line.notices.get()) is not None:
        yield notice
