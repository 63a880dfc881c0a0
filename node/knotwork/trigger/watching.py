"""Which changes of files start runs? A change is known by the file, what it is like and when it was written.

Nodes that see the same folder (over a network) start one run for a change.
"""

from __future__ import annotations

import asyncio
import fnmatch
import hashlib
import logging
import os
from collections.abc import AsyncGenerator, Callable, Collection
from contextlib import aclosing
from pathlib import Path
from stat import S_ISREG
from typing import TYPE_CHECKING

import msgspec
import watchfiles
from watchfiles._rust_notify import WatchfilesRustInternalError

from knotwork.sdk.errors import KnotworkError
from knotwork.trigger.envelope import Firing
from knotwork.trigger.model import Files
from knotwork.trigger.starting import Starter, now_ns
from knotwork.trigger.tended import Tended

if TYPE_CHECKING:
    from knotwork.trigger.store import Known, Store

log = logging.getLogger(__name__)
AGAIN_S = 1.0
LOOK_MS, STEP_MS = 500, 100
FILES_MAX = 100_000
Stamp = tuple[int, int]
Seen = dict[str, Stamp]
"""When each file was written, in nanoseconds, and its size."""


class Watching:
    """The folders that this node watches."""

    def __init__(
        self,
        group: asyncio.TaskGroup,
        store: Store,
        starter: Starter,
        node: str,
        there: Callable[[], Collection[str]],
    ) -> None:
        """Watch for those of `store` that are for this node, in tasks of `group`; `there()` are the nodes that are."""
        self._there = there
        self._store, self._starter, self._node = store, starter, node
        self._tended = Tended(group, self._surely)
        self.seen: dict[str, Seen] = {}
        """What each folder held when it was looked at last, by trigger."""
        self._looks: dict[str, tuple[str, str, bool]] = {}
        """Where each trigger looks, and for what: `seen` holds for that."""

    def changed(self, name: str) -> None:
        """Begin or end watching, as it should be now."""
        known = self._store.known.get(name)
        if known is not None and not (
            isinstance(known.trigger, Files) and known.trigger.enabled and known.trigger.node in (None, self._node)
        ):
            known = None
        self._tended.settle(name, known)
        looks = _looks(known.trigger) if known is not None and isinstance(known.trigger, Files) else None
        if looks != self._looks.get(name):
            self.seen.pop(name, None)
            self._looks.pop(name, None)
            if looks is not None:
                self._looks[name] = looks

    async def why(self, trigger: Files) -> str:
        """Return why nothing is seen of a folder, as far as we can tell; an empty text when all is well."""
        if trigger.node is not None and trigger.node not in self._there():
            return f"the node {trigger.node} is not there"
        if trigger.node not in (None, self._node):
            return ""
        if not await asyncio.to_thread(_is_there, trigger):
            return f"there is no folder {trigger.folder} on {self._node}"
        full = len(self.seen.get(trigger.id, ())) >= FILES_MAX
        return f"{trigger.folder} holds over {FILES_MAX} such files: others are not seen" if full else ""

    async def _surely(self, known: Known) -> None:
        trigger = known.trigger
        assert isinstance(trigger, Files)
        if trigger.id not in self.seen:  # else it goes on, changed: what came a moment ago may not be settled yet
            held = await asyncio.to_thread(look, trigger)
            self.seen[trigger.id] = held if held is not None else {}
        moving: dict[str, tuple[Stamp, float]] = {}
        while True:
            try:
                async with aclosing(_hints(trigger)) as hints:
                    async for _ in hints:
                        found = await asyncio.to_thread(look, trigger)
                        if found is None:  # gone, or not mounted now: that says nothing of the files
                            break
                        await self._changed(trigger, found, moving)
            except (OSError, KnotworkError) as error:
                log.debug("%s is looked at in a moment: %s", trigger.folder, error)
            except Exception:  # one that cannot be dealt with does not stop the others
                log.exception("the trigger %s cannot be seen to", trigger.id)
            await asyncio.sleep(AGAIN_S)

    async def _changed(self, trigger: Files, found: Seen, moving: dict[str, tuple[Stamp, float]]) -> None:
        """Fire for what is different; a file that is still being written is waited for."""
        seen, now_s = self.seen[trigger.id], asyncio.get_running_loop().time()
        for path in [path for path in moving if path not in found]:
            del moving[path]
        full = len(found) >= FILES_MAX  # what was not found may be there
        for path, change, stamp in changes(seen, found):
            if change == "deleted" and full:
                continue
            if change != "deleted":
                before = moving.get(path)
                if before is None or before[0] != stamp:
                    before = moving[path] = (stamp, now_s)
                if now_s - before[1] < trigger.settle:
                    continue
                del moving[path]
            if change in trigger.changes:
                await self._fire(trigger, path, change, stamp)
            if change == "deleted":
                del seen[path]
            else:
                seen[path] = stamp

    async def _fire(self, trigger: Files, path: str, change: str, stamp: Stamp) -> None:
        key = hashlib.sha256(f"{path}\0{change}\0{stamp}".encode("utf-8", "surrogateescape")).hexdigest()[:32]
        told = {"path": path, "change": change, "size": stamp[1]}
        body = msgspec.json.encode({**told, "path": path.encode("utf-8", "surrogateescape").decode("utf-8", "replace")})
        firing = Firing(f"{trigger.id}/{key}", body, 0, now_ns(), {"node": self._node})
        while True:
            state, revision = await self._store.state(trigger.id)
            if trigger.overlap == "queue" and (before := await self._starter.in_the_way(state)):
                await self._starter.flow.runs.ended(before)
                continue
            await self._starter.fire(trigger, firing, state)
            if trigger.overlap != "allow":
                await self._store.save(trigger.id, state, revision)
            return


def _looks(trigger: Files) -> tuple[str, str, bool]:
    return trigger.folder, trigger.pattern, trigger.recursive


def look(trigger: Files) -> Seen | None:
    """Return the files that a trigger is for as they are now, `FILES_MAX` at most, None when its folder is not there."""
    if not _is_there(trigger):
        return None
    found: Seen = {}
    for folder, folders, names in os.walk(trigger.folder):
        if not trigger.recursive:
            folders.clear()
        for name in names:
            if len(found) >= FILES_MAX:
                return found
            if fnmatch.fnmatch(name, trigger.pattern):
                path = Path(folder) / name
                try:
                    stat = path.stat()
                except OSError:
                    continue
                if S_ISREG(stat.st_mode):  # whoever reads a pipe would wait for ever
                    found[str(path)] = (stat.st_mtime_ns, stat.st_size)
    return found


def changes(before: Seen, after: Seen) -> list[tuple[str, str, Stamp]]:
    """Return what is different, by path (pure)."""
    found = [(path, "added" if path not in before else "modified", stamp) for path, stamp in after.items()
             if before.get(path) != stamp]  # fmt: skip
    return sorted(found + [(path, "deleted", stamp) for path, stamp in before.items() if path not in after])


async def _hints(trigger: Files) -> AsyncGenerator[None, None]:
    """Yield whenever something may be different: when the system says so, and every second."""
    if not await asyncio.to_thread(_is_there, trigger):
        return
    told = watchfiles.awatch(
        trigger.folder, recursive=trigger.recursive, rust_timeout=LOOK_MS, yield_on_timeout=True, debounce=STEP_MS,
        step=50, stop_event=asyncio.Event(), watch_filter=None,
    )  # fmt: skip
    try:
        async with aclosing(told):
            async for _ in told:
                yield
    except* WatchfilesRustInternalError as group:
        log.debug("%s is watched anew: %s", trigger.folder, group.exceptions[0])  # by a name that is no UTF-8
    yield  # the library ends at such a name, however often one is told of


def _is_there(trigger: Files) -> bool:
    return os.path.isdir(trigger.folder)  # noqa: PTH112  Path.is_dir raises where one may not look, and for odd names
