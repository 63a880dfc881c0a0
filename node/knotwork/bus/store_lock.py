"""Who may use this folder? One node at a time: two servers on one store destroy it.

The lock is a `flock` on `<folder>/lock`, so it ends with its holders however they end. nats-server inherits the open
file: should its node be killed, the store stays locked until the server itself is gone. The file names the owner for
people; what it says is never believed when it comes to locking.

It also holds the mark that the owner's children carry (`child.ward_token`), until the owner has ended them and goes.
When node and warden were killed together the next owner finds it, and ends whoever still carries it: a random
number in a file that only we can read is carried by nobody else.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import re
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from knotwork.bus import child, pids, warden
from knotwork.sdk.errors import Conflict, Denied

if sys.platform == "win32":
    import msvcrt
else:
    import fcntl

log = logging.getLogger(__name__)
_OWNER_BYTES_MAX = 4096
_LOOK_EVERY_S = 0.02
_LOCKED_BYTE = 1 << 30  # Windows locks bytes, and a locked byte cannot be read: take one beyond the text


_MARK = re.compile(r"[0-9a-f]{32}")


@dataclass(frozen=True, slots=True)
class Owner:
    """Who says to hold a folder; `pid` 0 and `node` "" when unknown. `ward` marks the children it has not ended yet."""

    pid: int = 0
    node: str = ""
    born: str = ""
    ward: str = ""

    @property
    def alive(self) -> bool:
        """Return whether it still runs, and is not just another process of that number."""
        return pids.alive(self.pid, self.born)


class StoreLock:
    """A held lock; `fileno` is what a server child inherits, `release` gives it up."""

    def __init__(self, handle: int, node: str) -> None:
        self._handle, self._node = handle, node

    @property
    def fileno(self) -> int:
        """The open lock file."""
        return self._handle

    def release(self) -> None:
        """Give the lock up, our children being ended; harmless when done twice.

        A child that inherited the file keeps it locked.
        """
        if self._handle >= 0:
            with contextlib.suppress(OSError):  # whoever comes next looks for children in vain, no more
                _name(self._handle, self._node, ward="")
            os.close(self._handle)
            self._handle = -1


async def acquire(store: Path, node: str, *, wait_s: float = 3.0) -> StoreLock:
    """Lock the folder `store` (made when missing, 0700) for the node called `node`.

    When the owner named in the file is dead, what it left running is ended, its server included; whoever holds the
    folder otherwise gets `wait_s` seconds. Raises `Conflict` (`bus.store_locked`, naming the owner) and `Denied`
    (`bus.store_unreadable`).
    """
    handle = _open(store)
    try:
        before = read_owner(store)
        deadline, swept = time.monotonic() + wait_s, ""
        while not _try_lock(handle):
            before = read_owner(store)
            _give_up_if(store, before, late=time.monotonic() > deadline)
            if before.ward != swept:
                swept = before.ward
                await _end_children_of(before)
            await asyncio.sleep(_LOOK_EVERY_S)
        if before.ward != swept:
            await _end_children_of(before)
        _name(handle, node, ward=child.ward_token())
    except OSError as error:
        os.close(handle)
        raise unreadable(store, error) from error
    except BaseException:
        os.close(handle)
        raise
    return StoreLock(handle, node)


@contextlib.contextmanager
def one_at_a_time(path: Path, wait_s: float) -> Iterator[None]:
    """Be the only process inside such a block; blocks for `wait_s` seconds while another one is in its own.

    The file at `path` is made when missing, and stays. Raises `TimeoutError`, and `OSError` where it cannot be made.
    """
    handle, deadline = os.open(path, os.O_RDWR | os.O_CREAT, 0o600), time.monotonic() + wait_s
    try:
        while not _try_lock(handle):
            if time.monotonic() > deadline:
                raise TimeoutError
            time.sleep(_LOOK_EVERY_S)
        yield
    finally:
        os.close(handle)


def read_owner(store: Path) -> Owner:
    """Return whom the lock file names; an unreadable or foreign file names nobody."""
    with contextlib.suppress(OSError, ValueError):
        with (store / "lock").open("rb") as file:
            said: Any = json.loads(file.read(_OWNER_BYTES_MAX))
        if isinstance(said, dict) and isinstance(said.get("pid"), int):
            ward = str(said.get("ward", ""))
            return Owner(
                pid=said["pid"],
                node=str(said.get("node", ""))[:128],
                born=str(said.get("born", ""))[:128],
                ward=ward if _MARK.fullmatch(ward) else "",
            )
    return Owner()


def _name(handle: int, node: str, *, ward: str) -> None:
    """Write into the file who holds it: us."""
    said = {"pid": os.getpid(), "node": node, "born": pids.born(os.getpid())} | ({"ward": ward} if ward else {})
    text = json.dumps(said).encode()
    os.pwrite(handle, text, 0)
    os.ftruncate(handle, len(text))


async def _end_children_of(dead: Owner) -> None:
    """End every process that carries the mark of an owner that was killed before it could do that itself."""
    if dead.alive or dead.ward in ("", child.ward_token()):
        return
    ended = await asyncio.to_thread(warden.kill_all, dead.ward, [])
    if ended:
        told = ", ".join(map(str, sorted(ended)))
        log.warning("node %s (process %d) was killed and left processes running; ended: %s", dead.node, dead.pid, told)


def unreadable(store: Path, error: OSError) -> Denied:
    """Return the error for a store that the system does not let us use."""
    return Denied(
        f"The store {store} cannot be used: {error.strerror or error}.",
        code="bus.store_unreadable",
        hint="It must be a folder that belongs to the user the node runs as; or choose another data folder.",
        detail={"store": str(store)},
    )


def _open(store: Path) -> int:
    try:
        store.mkdir(mode=0o700, parents=True, exist_ok=True)
        return os.open(store / "lock", os.O_RDWR | os.O_CREAT, 0o600)
    except OSError as error:
        raise unreadable(store, error) from error


def _give_up_if(store: Path, owner: Owner, *, late: bool) -> None:
    """Raise `Conflict` unless waiting makes sense: the owner is dead and it is not too late."""
    if not owner.alive and not late:
        return
    if owner.alive:
        who = f"by node {owner.node or '?'} (process {owner.pid})"
        hint = f"Stop that node first (knotwork stop, or kill {owner.pid}), or give this one a data folder of its own."
        holders = [owner.pid]
    else:
        holders = _holders(store / "lock")
        told = " ".join(map(str, holders))
        who = "by a nats-server whose node is gone" + (f" (process {told})" if told else "")
        hint = f"End it with: kill {told}" if told else f"Find it with: fuser {store / 'lock'}, end it"
        hint += ", and start again."
    raise Conflict(
        f"The store {store} is in use {who}.",
        code="bus.store_locked",
        hint=hint,
        detail={"store": str(store), "pid": next(iter(holders), owner.pid), "node": owner.node},
    )


def _holders(path: Path) -> list[int]:
    """Return the processes that have the file open, as far as the system tells us."""
    import psutil  # only where something failed

    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error, OSError):
            if process.pid != os.getpid() and any(file.path == str(path.resolve()) for file in process.open_files()):
                found.append(process.pid)
    return found


def _try_lock(handle: int) -> bool:
    """Return whether the lock is ours now; raises `OSError` where the file system cannot lock."""
    try:
        if sys.platform == "win32":
            os.lseek(handle, _LOCKED_BYTE, os.SEEK_SET)
            msvcrt.locking(handle, msvcrt.LK_NBLCK, 1)
        else:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError):
        return False
    return True
