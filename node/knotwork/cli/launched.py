"""Where does a node keep its things that a target started, and that was told no folder? In one of its own, gone with it.

So it may run beside the node that started it, and beside others of its kind. What it has there can be had again: its
project's streams are at the NATS it joined.
"""

from __future__ import annotations

import os
import re
import shutil
import time
from collections.abc import Callable, Mapping
from pathlib import Path

LAUNCH = "KNOTWORK_LAUNCH"
LAUNCHES = "launches"
KEPT_S = 7 * 86400.0
"""How long the folder of one that was killed, or failed, is kept for whoever looks for the reason."""
_launch = re.compile(r"[a-z0-9-]{8,64}").fullmatch


def folder(usual: Path, env: Mapping[str, str] = os.environ) -> Path:
    """Return the data folder of a node for which nobody named one: `usual`, unless a target started it."""
    launch = env.get(LAUNCH, "")
    return usual / LAUNCHES / launch if _launch(launch) else usual


def is_own(folder: Path, env: Mapping[str, str] = os.environ) -> bool:
    """Return whether a data folder is that of this launch alone."""
    return folder.parent.name == LAUNCHES and folder.name == env.get(LAUNCH, "")


def sweep(folder: Path, is_used: Callable[[Path], bool], now_s: float | None = None) -> None:
    """Remove the folders of launches beside this one that are long over; `is_used` says whether a node runs in one."""
    before_s = (time.time() if now_s is None else now_s) - KEPT_S
    for other in folder.parent.iterdir() if folder.parent.is_dir() else ():
        if other != folder and _launch(other.name) and _touched_s(other) < before_s and not is_used(other):
            shutil.rmtree(other, ignore_errors=True)


def remove(folder: Path) -> None:
    """Remove the folder of a launch that ended well."""
    shutil.rmtree(folder, ignore_errors=True)


def _touched_s(folder: Path) -> float:
    """Return when a node last wrote into its folder; one that cannot be looked at is left alone."""
    try:
        return max(one.stat().st_mtime for one in (folder, *folder.rglob("*")))
    except OSError:
        return time.time()
