"""How does the local index stay current? It follows every store that is in use, and waits for them before it answers.

A read asks each store how far it is and waits until it has been told as much: so it sees what was acknowledged before,
whoever wrote it, on whatever node. Own writes are put in at once.
"""

from __future__ import annotations

import asyncio
import logging
import sqlite3
from collections import deque
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from knotwork.bus.background import background
from knotwork.memory import asking, names
from knotwork.memory.index import Change, Index
from knotwork.memory.model import QUARANTINE, SCOPES, Quarantine, Record, belongs, decode, decode_quarantine
from knotwork.memory.settings import QUARANTINES, Around
from knotwork.memory.twins import Twins
from knotwork.sdk.errors import KnotworkError, Unavailable
from knotwork.sdk.memory import MemoryChange, MemoryScope, MemoryStore, Place
from knotwork.sockets import raised

log = logging.getLogger(__name__)
T = TypeVar("T")
LOOK_S = 0.2
AGAIN_S = 0.5
FLUSH_S = 0.05
CATCH_UP_S = 1.0
FIRST_S = 5.0
"""How long a read waits for what was written before, and how long for the first picture."""


@dataclass(eq=False, slots=True)
class Followed:
    """One store of one realm, and how far it has told us."""

    store: MemoryStore
    realm: str
    scopes: frozenset[MemoryScope]
    quarantines: bool = False
    """Whether it keeps who is in quarantine: every read waits for that."""
    told: int = 0
    given_up: int = 0
    failed: bool = False
    current: asyncio.Event = field(default_factory=asyncio.Event)
    moved: asyncio.Event = field(default_factory=asyncio.Event)
    task: asyncio.Task[None] | None = None
    seen: set[Place] | None = None
    """What lies there, of what was told or written since we began to follow it; None once the rest was dropped."""

    @property
    def state(self) -> str:
        """Return how it stands, in a word."""
        if self.failed:
            return "away"
        return "current" if self.current.is_set() else "reading"


class Shelf:
    """The index of one project, with what is common to all. Made by `open_shelf`."""

    def __init__(self, project: str, around: Around, path: Path | None, *, common: bool) -> None:
        """Follow nothing yet; `path` is where the index is made, `common` says whether COMMONS can be reached."""
        self.project, self.common, self._around, self._path = project, common, around, path
        self.twins = Twins()
        self.quarantines: dict[str, Quarantine] = {}
        self.listeners: list[Callable[[Place, Record | None], None]] = []
        self._followed: dict[tuple[str, str], Followed] = {}
        self._pending: deque[Change] = deque()
        self._stirred, self._begun = asyncio.Event(), asyncio.Event()
        self._threads = ThreadPoolExecutor(1, thread_name_prefix=f"memory {project}")
        self._index: Index | None = None
        self._broken = False

    # -- reading and writing -----------------------------------------------------------------------------------------

    async def ask(self, work: Callable[[Index], T]) -> T:
        """Return what `work` makes of the index, with everything in it that was told before."""
        return await asyncio.get_running_loop().run_in_executor(self._threads, self._do, work)

    def put(self, place: Place, record: Record | None, revision: int) -> None:
        """Take in one record, or that there is none any more; revision 0 counts as newest."""
        for one in self._followed.values():
            if one.seen is not None and place.scope in one.scopes:
                one.seen.add(place)  # before the store tells of it: what we have just written is no leftover
        self.twins.put(place, record)
        self._pending.append(Change(place, record, revision))
        self._stirred.set()
        for listener in self.listeners:
            listener(place, record)

    async def caught_up(self, scopes: tuple[MemoryScope, ...] = SCOPES) -> bool:
        """Wait for what was written before; False when a store is away, or slow: then what is known is what there is."""
        await self._begun.wait()
        wanted = [one for one in self._followed.values() if one.quarantines or one.scopes & set(scopes)]
        if not set(scopes) <= {scope for one in wanted for scope in one.scopes}:
            return False  # a store of theirs is not running
        if len(wanted) == 1:
            return await self._reached(wanted[0])
        async with asyncio.TaskGroup() as group:
            asked = [group.create_task(self._reached(one)) for one in wanted]
        return all(one.result() for one in asked)

    @property
    def hidden(self) -> tuple[str, ...]:
        """Return the ids of the authors in quarantine."""
        return tuple(one.author for one in self.quarantines.values())

    def states(self) -> dict[str, str]:
        """Return by store and realm how it stands."""
        return {f"{name}/{realm or 'commons'}": one.state for (name, realm), one in self._followed.items()}

    async def _reached(self, one: Followed) -> bool:
        latest = 0
        if one.failed:  # nobody waits for what was tried just now
            return False
        try:
            async with asyncio.timeout(CATCH_UP_S if one.current.is_set() else FIRST_S):
                await one.current.wait()
                answer = await asking.answered(one.realm, lambda: one.store.latest(one.realm))
                latest = asking.revision(one.realm, answer)
                while one.told < latest and one.given_up < latest:
                    moved = one.moved
                    await moved.wait()
        except TimeoutError:
            one.given_up = max(one.given_up, latest)  # nobody waits for it again
            return False
        except KnotworkError as error:
            log.debug("how far a memory plugin is cannot be said: %s", error)
            return False
        return True

    def _do(self, work: Callable[[Index], T]) -> T:
        """Run in the thread."""
        try:
            if self._index is None:
                self._index = Index(self._path)
            changes = []
            while self._pending:
                changes.append(self._pending.popleft())
            if changes:
                self._index.apply(changes)
            return work(self._index)
        except (sqlite3.Error, OSError) as error:
            self._broken = True
            raise Unavailable(
                f"The memory index of this node is damaged: {error}.", code="memory.index", retry_after_s=1.0,
                hint="It is made anew from the stores by itself; nothing is lost.",
            ) from error  # fmt: skip

    # -- following ---------------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Follow whatever is in use, as the configuration and the plugins change, until cancelled."""
        async with background() as group:
            group.create_task(self._flush(), name="memory index")
            while True:
                if self._broken:
                    await self._begin_anew()
                wanted = self._wanted()
                for key, one in list(self._followed.items()):
                    now = wanted.get(key)
                    if now is None or now[0] is not one.store or now[1] != one.scopes:
                        self._leave(key)
                for key, (store, scopes) in wanted.items():
                    if key not in self._followed:
                        is_kept = key == (QUARANTINES, self.project)
                        one = self._followed[key] = Followed(store, key[1], scopes, is_kept)
                        one.task = group.create_task(self._follow(one), name=f"memory {key[0]}")
                self._begun.set()
                await asyncio.sleep(LOOK_S)

    def close(self) -> None:
        """Let the database go."""
        self._threads.submit(lambda: self._index.close() if self._index is not None else None)
        self._threads.shutdown(wait=False)

    def _wanted(self) -> dict[tuple[str, str], tuple[MemoryStore, frozenset[MemoryScope]]]:
        scopes: dict[tuple[str, str], set[MemoryScope]] = {(QUARANTINES, self.project): set()}
        for scope, instance in self._around.settings().kept.items():
            scopes.setdefault((instance, names.realm(scope, self.project, common=self.common)), set()).add(scope)
        found = {}
        for key, some in scopes.items():
            try:
                found[key] = (self._around.slot(key[0]).plugin, frozenset(some))
            except KnotworkError:
                continue
        return found

    def _leave(self, key: tuple[str, str]) -> None:
        task = self._followed.pop(key).task
        if task is not None:
            task.cancel()

    async def _begin_anew(self) -> None:
        for key in list(self._followed):
            self._leave(key)

        def drop() -> None:
            if self._index is not None:
                self._index.close()
            self._index = None

        await asyncio.get_running_loop().run_in_executor(self._threads, drop)
        self._pending.clear()
        self.twins.clear()
        self._broken = False

    async def _follow(self, one: Followed) -> None:
        said = ""
        while True:
            try:
                await self._watch(one)
            except KnotworkError as error:
                log.debug("memory is followed again in a moment: %s", error)
            except raised.ENDS:
                raise
            except BaseException as error:
                told = raised.text(error)
                level = logging.DEBUG if told == said else logging.ERROR
                log.log(level, "a memory plugin raised while it was watched", exc_info=error)
                said = told
            one.failed = True
            await asyncio.sleep(AGAIN_S)

    async def _watch(self, one: Followed) -> None:
        seen = one.seen = set()
        first = True

        def on_change(change: MemoryChange) -> None:
            one.told = max(one.told, change.revision)
            if change.place.id.startswith(QUARANTINE):
                if one.quarantines:
                    self._take_quarantine(change)
            elif change.place.scope in one.scopes:
                if one.seen is not None:
                    seen.add(change.place)
                self._take(change)
            self._move(one)

        def keep_seen(index: Index) -> None:
            index.keep_only(one.realm, sorted(one.scopes), seen)  # it grows on in the loop until then
            if one.seen is seen:
                one.seen = None

        def on_current() -> None:
            nonlocal first
            if first:
                first = False
                self._threads.submit(self._do, keep_seen)
            one.failed = False
            one.current.set()
            self._move(one)

        await one.store.watch(one.realm, on_change, on_current)

    @staticmethod
    def _move(one: Followed) -> None:
        moved, one.moved = one.moved, asyncio.Event()
        moved.set()

    def _take(self, change: MemoryChange) -> None:
        record = decode(change.value) if change.value is not None else None
        if record is not None and (not belongs(record, change.place) or not names.is_id(record.id)):
            record = None
        self.put(change.place, record, change.revision)

    def _take_quarantine(self, change: MemoryChange) -> None:
        if change.place.scope != "team" or change.place.owner != self.project:
            return
        found = decode_quarantine(change.value) if change.value is not None else None
        if found is None:
            self.quarantines.pop(change.place.id, None)
        else:
            self.quarantines[change.place.id] = found

    async def _flush(self) -> None:
        """Take in what nobody reads, so that the next one who does need not wait for it."""
        while True:
            await self._stirred.wait()
            await asyncio.sleep(FLUSH_S)
            self._stirred.clear()
            try:
                await self.ask(lambda _: None)
            except KnotworkError as error:
                log.warning("%s", error)
                await asyncio.sleep(AGAIN_S)


@asynccontextmanager
async def open_shelf(project: str, around: Around, path: Path | None, *, common: bool) -> AsyncIterator[Shelf]:
    """Keep an index of a project current inside the block."""
    shelf = Shelf(project, around, path, common=common)
    try:
        async with background() as group:
            group.create_task(shelf.run(), name=f"memory of {project}")
            yield shelf
    finally:
        shelf.close()
