"""How do files bring workflows? A folder is looked at every second; what a file brought goes with it.

Files are read whole, checked, and kept under their name with the file as owner; what others made is never touched. A file
that is wrong changes nothing: what it brought before stays, and what is wrong is logged and told as an event. A file whose
name belongs to another waits until it is free; one that was renamed takes along what it brought.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from knotwork.bus import clock
from knotwork.config import regular
from knotwork.flow.definitions import SIZE_MAX_BYTES, digest_of, text_of
from knotwork.sdk.errors import KnotworkError

if TYPE_CHECKING:
    from knotwork.flow.room import Flow
    from knotwork.telemetry.emitter import Emitter

log = logging.getLogger(__name__)
LOOK_S = 1.0
RETRY_S = 5.0
"""How often files are looked at whose name belonged to another."""
FILES_MAX = 1000
SUFFIXES = (".toml", ".yaml", ".yml", ".json")
Stamps = dict[Path, tuple[int, int, int]]


@dataclass(slots=True)
class _Brought:
    """What was done so far, on this node. `names` are the workflows by the files that brought them."""

    node: str
    stamps: Stamps = field(default_factory=dict)
    names: dict[Path, str] = field(default_factory=dict)
    waiting: dict[Path, str] = field(default_factory=dict)
    """Names that files would bring and that belong to others."""
    late: dict[Path, float] = field(default_factory=dict)
    """Files that another node holds, too, which may look at them later than we; and when we look at them again."""
    retry_at_s: float = 0.0
    tidied: bool = False

    def owner(self, path: Path) -> str:
        """Return what a workflow belongs to that a file brought."""
        return f"{path.name} on {self.node}"

    def is_ours(self, owner: str) -> bool:
        """Return whether a workflow belongs to a file of this node."""
        return owner.endswith(f" on {self.node}")


async def follow(
    node: str, folder: Callable[[], Path | None], flow: Callable[[], Flow | None], emitter: Emitter
) -> None:
    """Keep the workflows of a folder of this node as its files are, for ever."""
    done = _Brought(node)
    while True:
        where, room = folder(), flow()
        if where is not None and room is not None:
            try:
                await _look(where, room, emitter, done)
            except KnotworkError as error:
                log.debug("workflow files are looked at again in a moment: %s", error)
        await asyncio.sleep(LOOK_S)


async def _look(folder: Path, flow: Flow, emitter: Emitter, done: _Brought) -> None:
    stamps = await asyncio.to_thread(_stamps, folder)
    if stamps is None:
        return
    changed = stamps != done.stamps or not done.tidied
    if not changed and not (done.waiting and time.monotonic() >= done.retry_at_s):
        return
    if changed:
        done.tidied = False
    for path in [path for path in done.stamps if path not in stamps]:
        del done.stamps[path]
        done.names.pop(path, None)
        done.waiting.pop(path, None)
        done.late.pop(path, None)
    late = {path for path, at_s in done.late.items() if time.monotonic() >= at_s}
    free = {path for path, name in done.waiting.items() if await flow.definitions.named(name) is None}
    there = {done.owner(path) for path in stamps}
    for path in sorted(stamps):
        if done.stamps.get(path) != stamps[path] or path in free or path in late:
            final = path in late and done.stamps.get(path) == stamps[path]
            name = await _bring(path, flow, emitter, done, there, final=final)
            if final:
                del done.late[path]
            done.stamps[path] = stamps[path]
            done.waiting.pop(path, None)
            if name:
                done.waiting[path] = name
    if changed:
        await _tidy(folder, flow, done)
    done.retry_at_s = 0.0 if changed else time.monotonic() + RETRY_S  # what was tidied away may be free now


async def _bring(path: Path, flow: Flow, emitter: Emitter, done: _Brought, present: set[str], *, final: bool) -> str:
    """Keep what a file says, under its name; return that name when it belongs to another. `present` are all files.

    Of a file that another node holds, too, it is told that it is not taken when that is `final`: that one may say the same.
    """
    from knotwork.flow import source  # with YAML, which a node without workflow files need not load

    try:
        text = await asyncio.to_thread(_text, path)
    except (OSError, UnicodeDecodeError) as error:
        _refuse(path, f"it cannot be read: {error}", emitter)
        return ""
    checked = await asyncio.to_thread(source.check, text)
    if checked.workflow is None:
        told = "; ".join(f"{one.line}:{one.column} {one.path}: {one.message}" for one in checked.flaws[:10])
        _refuse(path, told, emitter)
        return ""
    name, owner = checked.workflow.name, done.owner(path)
    there = await flow.definitions.named(name)
    if there is not None and done.is_ours(there.owner) and there.owner not in present:  # the file was renamed
        await flow.definitions.give(name, before=there.owner, owner=owner)
        there = await flow.definitions.named(name)
    same = there is not None and there.digests[-1] == digest_of(text_of(checked.workflow))
    if not same:  # the same on another node, or kept by hand, is as good
        try:
            await flow.definitions.put(checked.workflow, now_ns=clock.now_ns(), owner=owner)
        except KnotworkError as error:
            if error.retriable:
                raise
            owned = error.code == "flow.owned"
            if owned and not final and there is not None and there.owner.startswith(f"{path.name} on "):
                done.late[path] = time.monotonic() + RETRY_S
            else:
                _refuse(path, error.message, emitter)
            return name if owned else ""
        log.info("%s: workflow %s is kept", path, name)
        emitter.event("workflow.kept", {"file": str(path), "workflow": name})
    done.names[path] = name
    return name if same and there is not None and there.owner != owner else ""


async def _tidy(folder: Path, flow: Flow, done: _Brought) -> None:
    """Take the names away that files of this folder brought which are gone, or bring another now."""
    brought = {(done.owner(path), name) for path, name in done.names.items()}
    wrong = {done.owner(path) for path in done.stamps if path not in done.names}  # what it brought before stays
    for name, named in (await flow.definitions.all()).items():
        if done.is_ours(named.owner) and named.owner not in wrong and (named.owner, name) not in brought:
            heir = next((path for path, other in done.names.items() if other == name), None)
            if heir is not None:  # another file says the same
                await flow.definitions.give(name, before=named.owner, owner=done.owner(heir))
                done.waiting.pop(heir, None)
                continue
            with contextlib.suppress(KnotworkError):
                await flow.definitions.remove(name, owner=named.owner)
                log.info("%s: workflow %s went with its file", folder, name)
    done.tidied = True


def _refuse(path: Path, why: str, emitter: Emitter) -> None:
    log.error("%s is not taken, nothing changes: %s", path, why)
    emitter.event("workflow.refused", {"file": str(path), "why": why[:2000]})


def _stamps(folder: Path) -> Stamps | None:
    """Return what is another thing when a file is, for every workflow file; None when the folder cannot be looked at now."""
    found: Stamps = {}
    try:
        inside = sorted(folder.iterdir())[:FILES_MAX]
    except (FileNotFoundError, NotADirectoryError):
        return found
    except OSError as error:  # no more files can be opened, or it may not be read: that says nothing of what is in it
        log.debug("%s is looked at in a moment: %s", folder, error)
        return None
    for path in inside:
        if path.suffix in SUFFIXES and not path.name.startswith("."):
            with contextlib.suppress(OSError):
                status = path.stat()
                found[path] = (status.st_ino, status.st_mtime_ns, status.st_size)
    return found


def _text(path: Path) -> str:
    with regular.opened(path) as file:
        return file.read(SIZE_MAX_BYTES + 1).decode()
