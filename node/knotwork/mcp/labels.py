"""Which agent of a folder is this one? The first that is free: two sessions in one folder are two agents.

A label is held by locks on files for as long as the process lives, so that each restarts as itself and the place of one
that was killed is free at once. One lock lies in the data folder, one with the user: who comes in through another data
folder may reach the same project, where both would be one agent. That file says through which folder its label was held
last: it is kept for whoever comes from there again.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from knotwork.sdk.errors import Denied, Invalid

LABELS_MAX = 1000
_token = re.compile(r"[a-z0-9][a-z0-9_-]{0,47}").fullmatch


def token_of(text: str) -> str:
    """Return a text as a token: `Claude Code` is `claude-code`; "" when nothing of it can be kept."""
    return re.sub(r"[^a-z0-9_-]+", "-", text.lower()).strip("-_")[:48].rstrip("-_")


def shared(env: Mapping[str, str] = os.environ) -> Path | None:
    """Return where this user's labels on this machine are locked, whatever the data folder; None without a home."""
    named = env.get("XDG_STATE_HOME") or (env.get("LOCALAPPDATA") if sys.platform == "win32" else "")
    try:
        return (Path(named) if named else Path.home() / ".local" / "state") / "knotwork" / "sessions"
    except RuntimeError:
        return None


@contextlib.contextmanager
def held(folder: Path, path: str, parent: str, wanted: str = "", beside: Path | None = None) -> Iterator[str]:
    """Hold a label inside the block and yield it: `wanted` or one like it, else the first free number.

    `folder` is where locks lie, `beside` where they lie for all data folders if it can be written, `path` the folder the
    agent works in, `parent` the agent that started it. Raises `Invalid` (`mcp.bad_label`) and `Denied`
    (`mcp.labels_unwritable`).
    """
    if wanted and not _token(wanted):
        raise Invalid(
            f"{wanted[:64]!r} is no label of a session.", code="mcp.bad_label",
            hint="Use 1 to 48 lower-case letters, digits, - and _, beginning with a letter or digit.",
        )  # fmt: skip
    place = hashlib.sha256(json.dumps([path, parent]).encode()).hexdigest()[:24]
    beside = beside if beside is not None and _writable(beside) else None
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        for label in _in_order(place, wanted, beside, str(folder)):
            locks = _all_locked([one / f"{place}-{label}.lock" for one in (folder, beside) if one is not None])
            if not locks:
                continue
            try:
                if beside is not None:
                    _mark(locks[-1], str(folder))
                yield label
            finally:
                _let_go(locks)
            return
    except OSError as error:
        raise Denied(
            f"{folder} cannot be written: {error.strerror}.", code="mcp.labels_unwritable",
            hint="Run it as the user who owns the node's data folder, or give another --data-dir.",
        ) from error  # fmt: skip
    raise Denied(f"{LABELS_MAX} sessions are open in {path} already.", code="mcp.labels_unwritable")


def _in_order(place: str, wanted: str, beside: Path | None, folder: str) -> list[str]:
    """Return the labels to be tried: numbers that were ours come before new ones, and those of other folders last."""
    if wanted:
        return [wanted, *(f"{wanted}-{number}" for number in range(2, LABELS_MAX + 1))]
    marks: dict[str, str] = {}
    for file in beside.glob(f"{place}-*.lock") if beside is not None else ():
        with contextlib.suppress(OSError, UnicodeDecodeError):  # where a lock keeps others from reading: it is held
            marks[file.stem.removeprefix(f"{place}-")] = file.read_text("utf-8")
    numbers = [str(number) for number in range(1, LABELS_MAX + 1)]
    return sorted(numbers, key=lambda label: {folder: 0, "": 1}.get(marks.get(label, ""), 2))


def _writable(folder: Path) -> bool:
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError:
        return False
    return os.access(folder, os.W_OK | os.X_OK)


def _mark(lock: int, text: str) -> None:
    """Write down through which folder a label is held; without it two folders might change places, no more."""
    with contextlib.suppress(OSError):
        os.lseek(lock, 0, os.SEEK_SET)
        os.ftruncate(lock, os.write(lock, text.encode()))


def _all_locked(paths: Sequence[Path]) -> list[int]:
    """Return the descriptors of files that are locked by us now, none when somebody else has one of them."""
    locks: list[int] = []
    for path in paths:
        lock = _locked(path)
        if lock is None:
            _let_go(locks)
            return []
        locks.append(lock)
    return locks


def _let_go(locks: Iterable[int]) -> None:
    for lock in locks:
        os.close(lock)


def _locked(path: Path) -> int | None:
    """Return the descriptor of a file that is locked by us now, None when somebody else has it."""
    file = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        if sys.platform == "win32":
            import msvcrt  # there only

            msvcrt.locking(file, msvcrt.LK_NBLCK, 1)
        else:
            import fcntl  # everywhere else

            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(file)
        return None
    return file
