"""How do local doors find the node? By one file, readable by its owner alone, that is there from its first moment on.

It says in which state the node is: `starting`, `connecting` (with the reason), `ready`, `stopping`; addresses and keys
are in it once the node is ready. Beside it lies a lock that makes the node the only one of its data folder.
"""

from __future__ import annotations

import json
import os
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import knotwork
from knotwork.bus import pids, store_lock
from knotwork.bus.endpoint import shown_url
from knotwork.config import secrets
from knotwork.config.model import ProjectTable
from knotwork.desk.moments import rfc3339
from knotwork.host import boot
from knotwork.host.layout import write_private
from knotwork.sdk.errors import Conflict

if TYPE_CHECKING:
    from knotwork.config.loaded import Loaded
    from knotwork.host.boot import Nats
    from knotwork.host.layout import Layout

State = Literal["starting", "connecting", "ready", "stopping"]
_ORDER = ("", "starting", "connecting", "ready", "stopping")


class NodeFile:
    """The description of this node. Written whole, from any thread; its state only ever moves on."""

    def __init__(self, layout: Layout) -> None:
        """Say nothing yet."""
        self._layout = layout
        self._lock = threading.Lock()
        self._about: dict[str, Any] = {}
        self._written = ""

    def begin(self, node: str, found: Loaded) -> None:
        """Say who starts here."""
        config = found.config
        self._write(
            {
                "pid": os.getpid(),
                "born": pids.born(os.getpid()),
                "node": node,
                "version": knotwork.__version__,
                "state": "starting",
                "why": "",
                "started_at": rfc3339(None),
                "config_files": [os.path.abspath(text.path) for text in found.texts],  # noqa: PTH100  links stay
                "mode": config.nats.mode,
                "url": ", ".join(map(shown_url, config.nats.urls)) if config.nats.mode == "join" else "",
                "http": "",
                "project": config.project_names()[0],
                "seed_file": "",
                "http_token_file": "",
                "projects": {
                    name: {"seed_file": "", "paths": _paths(found, table)} for name, table in _projects(found)
                },
            }
        )

    def say(self, state: State, why: str = "") -> None:
        """Say how it is, and why it is not ready yet."""
        self._write({"state": state, "why": secrets.redact(why)})

    def ready(self, nats: Nats, found: Loaded, http_url: str) -> None:
        """Say that it is ready: addresses, and for each project the key for local doors and its folders."""
        projects = {
            name: {"seed_file": nats.local_seed_file(name), "paths": _paths(found, table)}
            for name, table in _projects(found)
        }
        first = next(iter(projects))
        self._write(
            {
                "state": "ready",
                "why": "",
                "url": nats.url(found.config),
                "http": http_url,
                "project": first,
                "seed_file": projects[first]["seed_file"],
                "http_token_file": str(self._layout.http_token_file) if http_url else "",
                "projects": projects,
            }
        )

    def remove(self) -> None:
        """Take it away: nobody is here any more."""
        with self._lock:
            if self._written:
                self._layout.node_file.unlink(missing_ok=True)

    def _write(self, news: dict[str, Any]) -> None:
        with self._lock:
            if _ORDER.index(news["state"]) < _ORDER.index(self._about.get("state", "")):
                return  # written late: it is further by now
            self._about |= news
            text = json.dumps(self._about, indent=1)
            if text != self._written or not self._layout.node_file.exists():
                write_private(self._layout.node_file, text)
                self._written = text


@asynccontextmanager
async def claim(layout: Layout) -> AsyncIterator[NodeFile]:
    """Be the only node of this data folder inside the block; whatever one that was killed left running is ended first.

    Raises `Conflict` (`node.already_running`), naming the other.
    """
    try:
        lock = await store_lock.acquire(layout.run, "")
    except Conflict as error:
        raise _already_running(layout, int(error.detail["pid"])) from error
    file = NodeFile(layout)
    try:
        yield file
    finally:
        file.remove()
        lock.release()


def _already_running(layout: Layout, pid: int) -> Conflict:
    about: dict[str, Any] = {}
    try:
        about = json.loads(layout.node_file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        about = {}
    node, state, why = (str(about.get(key) or "") for key in ("node", "state", "why"))
    who = f"{node or 'a node'}, process {pid}" + (f", {state}" if state else "") + (f": {why}" if why else "")
    return Conflict(
        f"A node runs in {layout.data_dir} already ({who}).",
        code="node.already_running",
        hint="Use it, stop it with `knotwork stop`, or choose another --data-dir.",
        detail={"pid": pid, "node": node, "state": state},
    )


def _projects(found: Loaded) -> list[tuple[str, ProjectTable]]:
    return list(boot.projects_of(found.config).items())


def _paths(found: Loaded, table: ProjectTable) -> list[str]:
    """Return a project's folders as whoever asks finds himself in them: absolute, from the first file on, links followed."""
    homes = (os.path.expanduser(path) for path in table.path)  # noqa: PTH111  never raises
    return [str(Path(found.folder, path).resolve()) for path in homes]
