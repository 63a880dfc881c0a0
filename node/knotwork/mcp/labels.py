"""Which agent of a folder is this one? The first that is free: two sessions in one folder are two agents.

A label is held by a lock on a file for as long as the process lives, so that each restarts as itself and the place of
one that was killed is free at once.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import sys
from collections.abc import Iterator
from pathlib import Path

from knotwork.sdk.errors import Denied, Invalid

LABELS_MAX = 1000
_token = re.compile(r"[a-z0-9][a-z0-9_-]{0,47}").fullmatch


def token_of(text: str) -> str:
    """Return a text as a token: `Claude Code` is `claude-code`; "" when nothing of it can be kept."""
    return re.sub(r"[^a-z0-9_-]+", "-", text.lower()).strip("-_")[:48].rstrip("-_")


@contextlib.contextmanager
def held(folder: Path, path: str, parent: str, wanted: str = "") -> Iterator[str]:
    """Hold a label inside the block and yield it: `wanted` or one like it, else the first free number.

    `folder` is where locks lie, `path` the folder the agent works in, `parent` the agent that started it. Raises
    `Invalid` (`mcp.bad_label`) and `Denied` (`mcp.labels_unwritable`).
    """
    if wanted and not _token(wanted):
        raise Invalid(
            f"{wanted[:64]!r} is no label of a session.", code="mcp.bad_label",
            hint="Use 1 to 48 lower-case letters, digits, - and _, beginning with a letter or digit.",
        )  # fmt: skip
    place = hashlib.sha256(json.dumps([path, parent]).encode()).hexdigest()[:24]
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        for number in range(1, LABELS_MAX + 1):
            label = str(number) if not wanted else wanted if number == 1 else f"{wanted}-{number}"
            lock = _locked(folder / f"{place}-{label}.lock")
            if lock is None:
                continue
            try:
                yield label
            finally:
                os.close(lock)
            return
    except OSError as error:
        raise Denied(
            f"{folder} cannot be written: {error.strerror}.", code="mcp.labels_unwritable",
            hint="Run it as the user who owns the node's data folder, or give another --data-dir.",
        ) from error  # fmt: skip
    raise Denied(f"{LABELS_MAX} sessions are open in {path} already.", code="mcp.labels_unwritable")


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
