"""How is an agent's client served on standard input and output? Without the library of the command line: it must be quick.

Clients start one for each session and wait for it, so what a client types is read by hand here; whatever else is typed
(`--help`, a mistake) is left to `cli.mcp`.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from knotwork.cli import local
from knotwork.mcp import labels, toolsets, ways
from knotwork.mcp.bridge import Bridge
from knotwork.mcp.keeping import Keeping
from knotwork.mcp.lines import Lines
from knotwork.mcp.link import STOPPED, Link, Newcomer
from knotwork.sdk.errors import KnotworkError, Unreachable

SESSION, PARENT, AGENT_TYPE = "KNOTWORK_SESSION", "KNOTWORK_PARENT", "KNOTWORK_AGENT_TYPE"
START_S = 60.0


@dataclass(slots=True)
class Wanted:
    """What was typed; empty means: not given. `start` starts a node when none runs, `push` tells what arrives."""

    toolset: list[str] = field(default_factory=list)
    session: str = ""
    project_path: str = ""
    data_dir: str = ""
    url: str = ""
    creds: str = ""
    project: str = ""
    on: str = ""
    start: bool = True
    push: bool = False


_VALUES = {"--session", "--project-path", "--data-dir", "--url", "--creds", "--project", "--on"}
_FLAGS = {"--start": ("start", True), "--no-start": ("start", False), "--push": ("push", True)}


def read(words: Sequence[str]) -> Wanted | None:
    """Return what was typed, None for anything that is not plain to see."""
    wanted = Wanted(url=os.environ.get("KNOTWORK_URL", ""), creds=os.environ.get("KNOTWORK_CREDS", ""))
    rest = list(words)
    while rest:
        name, mark, value = rest.pop(0).partition("=")
        if name in _FLAGS and not mark:
            setattr(wanted, *_FLAGS[name])
            continue
        if name not in _VALUES and name != "--toolset":
            return None
        if not mark:
            if not rest:
                return None
            value = rest.pop(0)
        if name != "--toolset":
            setattr(wanted, name[2:].replace("-", "_"), value)
        elif value in toolsets.ABOUT:
            wanted.toolset.append(value)
        else:
            return None
    return wanted


def main(words: Sequence[str]) -> int | None:
    """Serve a client to its end and never return; None when the words are for the command line to judge."""
    wanted = read(words)
    if wanted is None:
        return None
    try:
        serve(wanted)
    except KnotworkError as error:
        from knotwork.cli import trouble  # only for what does not begin

        return trouble.tell(error, as_json=False)
    return 0


def serve(wanted: Wanted) -> None:
    """Serve one client to its end, then end the process."""
    logging.basicConfig(stream=sys.stderr, level=logging.WARNING, format="knotwork mcp: %(message)s")
    if wanted.project_path:
        os.environ[local.PROJECT_PATH] = wanted.project_path
    folder, path = local.data_dir(wanted.data_dir), str(local.folder_meant())[:1024]
    label, parent, kind = (os.environ.pop(name, "") for name in (SESSION, PARENT, AGENT_TYPE))
    lines = Lines()
    place, named = folder / "run" / "sessions", wanted.session or label
    with labels.held(place, path, parent, named, labels.shared()) as held:
        asyncio.run(_serve(wanted, lines, _Self(path, held, parent, kind)))
    lines.close()
    os._exit(0)  # a thread may still be starting a node for us: it goes on without us


class _Self:
    """Who this session is, as far as its environment says."""

    def __init__(self, path: str, label: str, parent: str, agent_type: str) -> None:
        self._path, self._label, self._parent, self._type = path, label, parent, agent_type

    def newcomer(self, client: str) -> Newcomer:
        kind = labels.token_of(self._type or client) or "agent"
        return Newcomer(socket.gethostname()[:255] or "localhost", self._path, self._label, kind, self._parent)


async def _serve(wanted: Wanted, lines: Lines, who: _Self) -> None:
    bridge: Bridge | None = None

    async def extend(work_id: str, claim: str, lease_s: float) -> None:
        told = {"claim": claim, "id": work_id, "lease_s": lease_s}
        await link.ask("work.extend", told, timeout_s=lease_s, patience_s=lease_s / 3, wakes=False)

    link = Link(
        lambda asked: _find(wanted, asked=asked),
        lambda: who.newcomer(bridge.client_name if bridge is not None else ""),
        lambda notice: bridge.noticed(notice) if bridge is not None else None,
    )
    bridge = Bridge(lines, link, Keeping(extend), tuple(wanted.toolset) or (toolsets.DEFAULT,), push=wanted.push)
    for name in ("SIGTERM", "SIGINT", "SIGHUP"):
        number = getattr(signal, name, None)
        if number is not None and sys.platform != "win32":
            asyncio.get_running_loop().add_signal_handler(number, bridge.end)
    await bridge.run()


def _find(wanted: Wanted, *, asked: bool) -> ways.Way:
    """Return the way to the node, after starting one when none runs and that is wanted.

    One that ended in peace was stopped by somebody: unless an agent `asked` for something, it is left alone.
    """
    from knotwork.cli import options, remote  # click: the client has its first answers by now

    shared = options.Shared(
        data_dir=wanted.data_dir, url=wanted.url, creds=wanted.creds, project=wanted.project, on=wanted.on
    )
    if wanted.url:
        return ways.by_nats(remote.endpoint(shared), wanted.on)
    folder = local.data_dir(wanted.data_dir)
    try:
        node = local.ready(folder)
    except Unreachable:
        if not wanted.start:
            raise
        if not asked and not local.node_file(folder).exists():
            raise Unreachable(
                "The node was stopped.", code=STOPPED, hint="The next call of a tool starts it again."
            ) from None
        _start(folder)
        node = local.ready(folder)
    project = shared.project or node.project_of(local.folder_meant())
    if not node.seed_of(project):
        from knotwork.cli import over_http  # only for nodes that have no key to give

        return ways.by_http(over_http.door(node, project))
    return ways.by_nats(remote.endpoint(shared), wanted.on or node.node)


def _start(folder: Path) -> None:
    """Start the folder's node in the background, as it was started last; when somebody was quicker, theirs will do."""
    from knotwork.bus import child  # most clients find a node that runs
    from knotwork.cli import last_start

    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    words = ["up", "--detach", "--quiet", "--data-dir", str(folder), "--timeout", f"{START_S:g}s"]
    done = subprocess.run(
        [*child.program(), *words, *last_start.options(folder).words()],
        cwd=folder,
        env=last_start.environment(),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        check=False,
    )
    if done.returncode and local.read(folder) is None:
        said = done.stderr.decode("utf-8", "replace").strip()[-2000:]
        raise Unreachable(
            f"No node runs here, and none could be started: {said}", code="mcp.start_failed",
            hint="Start one with `knotwork up` and see what it says.",
        )  # fmt: skip
