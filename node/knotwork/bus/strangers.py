"""Does a nats-server that is none of ours use our store? Ours hold its lock; one that somebody started by hand does not.

Two servers on one store destroy it, and neither of them notices.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from knotwork.sdk.errors import Conflict

_PROGRAM = "nats-server"
_STORE_FLAGS = ("-sd", "--sd", "-store_dir", "--store_dir")
_CONF_FLAGS = ("-c", "--c", "-config", "--config")
_CONF_MAX_BYTES = 1024 * 1024
_STORE_LINE = re.compile(r"""^\s*store_?dir["']?\s*[:=\s]\s*["']?([^"'\r\n}]+)""", re.IGNORECASE | re.MULTILINE)


def check(store: Path) -> None:
    """Raise `Conflict` (`bus.store_locked`) naming the process when a nats-server uses `store`, whose lock is ours.

    Looks closer at processes of that name alone: a few milliseconds. What the system does not let us see is passed over.
    """
    pid = next(_users(store.resolve()), 0)
    if pid:
        raise Conflict(
            f"The store {store} is in use by a nats-server that no node started (process {pid}).",
            code="bus.store_locked",
            hint=f"End it with: kill {pid}, or give it, or this node, another folder. Two on one store destroy it.",
            detail={"store": str(store), "pid": pid, "node": ""},
        )


def _users(store: Path) -> Iterator[int]:
    import psutil  # the thin command line imports this room, and need not wait for it

    for process in psutil.process_iter(["name"]):
        if not (process.info["name"] or "").startswith(_PROGRAM):
            continue
        try:
            named = stores_named(process.cmdline(), Path(process.cwd()))
            opened = [Path(file.path) for file in process.open_files()]
        except (psutil.Error, OSError):  # another user's, or gone
            continue
        if any(path == store or path.is_relative_to(store) for path in (*named, *opened)):
            yield process.pid


def stores_named(words: list[str], folder: Path) -> list[Path]:
    """Return the store folders that the command line of a server started in `folder` names, also by its configuration."""
    return [
        (folder / text.strip()).resolve()
        for text in [*_values(words, _STORE_FLAGS), *_configured(words, folder)]
        if text.strip()
    ]


def _configured(words: list[str], folder: Path) -> Iterator[str]:
    for name in _values(words, _CONF_FLAGS):
        try:
            with (folder / name).open("rb") as file:
                text = file.read(_CONF_MAX_BYTES).decode("utf-8", "replace")
        except OSError:
            continue
        yield from _STORE_LINE.findall(text)


def _values(words: list[str], flags: tuple[str, ...]) -> Iterator[str]:
    for place, word in enumerate(words):
        flag, mark, value = word.partition("=")
        if flag in flags:
            yield value if mark else " ".join(words[place + 1 : place + 2])
