"""Who may use this store? One node at a time: two servers on one store destroy it.

The lock is a `flock` on `<store>/lock`, so it ends with its holders however they end. nats-server inherits the open
file: should its node be killed, the store stays locked until the server itself is gone. The file names the owner for
people; what it says is never believed when it comes to locking.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from knotwork.sdk.errors import Conflict, Denied

if sys.platform == "win32":
    import msvcrt
else:
    import fcntl

_OWNER_BYTES_MAX = 4096
_LOOK_EVERY_S = 0.02
_LOCKED_BYTE = 1 << 30  # Windows locks bytes, and a locked byte cannot be read: take one beyond the text


@dataclass(frozen=True, slots=True)
class Owner:
    """Who says to hold a store; `pid` 0 and `node` "" when unknown."""

    pid: int = 0
    node: str = ""

    @property
    def alive(self) -> bool:
        """Return whether a process with that number exists."""
        if self.pid <= 0:
            return False
        try:
            os.kill(self.pid, 0)
        except ProcessLookupError:
            return False
        except OSError:
            return True
        return True


class StoreLock:
    """A held lock; `fileno` is what a server child inherits, `release` gives it up."""

    def __init__(self, handle: int) -> None:
        self._handle = handle

    @property
    def fileno(self) -> int:
        """The open lock file."""
        return self._handle

    def release(self) -> None:
        """Give the lock up; harmless when done twice. A child that inherited the file keeps it locked."""
        if self._handle >= 0:
            os.close(self._handle)
            self._handle = -1


async def acquire(store: Path, node: str, *, wait_s: float = 3.0) -> StoreLock:
    """Lock the folder `store` (made when missing, 0700) for the node called `node`.

    When the owner named in the file is dead, its server is about to be ended by the warden: then wait up to `wait_s`
    seconds. Raises `Conflict` (`bus.store_locked`, naming the owner) and `Denied` (`bus.store_unreadable`).
    """
    handle = _open(store)
    try:
        deadline = time.monotonic() + wait_s
        while not _try_lock(handle):
            _give_up_if(store, late=time.monotonic() > deadline)
            await asyncio.sleep(_LOOK_EVERY_S)
        os.ftruncate(handle, 0)
        os.pwrite(handle, json.dumps({"pid": os.getpid(), "node": node}).encode(), 0)
    except OSError as error:
        os.close(handle)
        raise unreadable(store, error) from error
    except BaseException:
        os.close(handle)
        raise
    return StoreLock(handle)


def read_owner(store: Path) -> Owner:
    """Return whom the lock file names; an unreadable or foreign file names nobody."""
    with contextlib.suppress(OSError, ValueError):
        with (store / "lock").open("rb") as file:
            said: Any = json.loads(file.read(_OWNER_BYTES_MAX))
        if isinstance(said, dict) and isinstance(said.get("pid"), int):
            return Owner(pid=said["pid"], node=str(said.get("node", ""))[:128])
    return Owner()


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


def _give_up_if(store: Path, *, late: bool) -> None:
    """Raise `Conflict` unless waiting makes sense: the owner is dead and it is not too late."""
    owner = read_owner(store)
    if not owner.alive and not late:
        return
    if owner.alive:
        who = f"by node {owner.node or '?'} (process {owner.pid})"
        hint = f"Stop that node first (knotwork stop, or kill {owner.pid}), or give this one a data folder of its own."
    else:
        who = "by a nats-server whose node is gone"
        hint = f"Find it with: fuser {store / 'lock'}, end it and start again."
    raise Conflict(
        f"The store {store} is in use {who}.",
        code="bus.store_locked",
        hint=hint,
        detail={"store": str(store), "pid": owner.pid, "node": owner.node},
    )


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
