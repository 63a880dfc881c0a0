"""Who keeps the process of the view alive? It is started when the node is ready, and again whenever it ends.

It is told which projects to follow, and tells how each stands. A `sync` is a promise kept by it: everything that was
stored before is in the database then.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
import sys
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import msgspec

from knotwork.bus import child
from knotwork.bus.background import background
from knotwork.bus.pauses import Pauses
from knotwork.sdk.errors import Unavailable
from knotwork.view import database, serving

if TYPE_CHECKING:
    from knotwork.bus.endpoint import Endpoint

log = logging.getLogger(__name__)
ARGUMENT = "--view-child"
PAUSE_MIN_S, PAUSE_MAX_S = 0.1, 10.0
STEADY_S = 10.0
END_S = 2.0
ROOM_S = 1.0
LINE_MAX_BYTES = 256 * 1024


class Told(msgspec.Struct, frozen=True):
    """How the database of a project stands, as its process says. `behind` counts messages not read yet.

    `stuck`: its file cannot be written; `why` says what is the matter.
    """

    project: str = ""
    state: Literal["starting", "reading", "live", "waiting"] = "starting"
    why: str = ""
    stuck: bool = False
    synced: int = 0
    caught_up_ns: int = 0
    behind: int = 0
    folded: int = 0
    garbage: int = 0
    made: int = 0
    places: dict[str, int] = {}


@dataclass(eq=False, slots=True)
class Followed:
    """One project: what its process was ordered, what it told, and who waits for it."""

    order: serving.Order
    told: Told = field(default_factory=Told)
    number: int = 0
    sent: asyncio.Future[None] | None = None
    next: asyncio.Future[None] | None = None


class Keeper:
    """The one process of this node that writes databases. Made by `open_keeper`."""

    def __init__(self) -> None:
        """Start nothing before `begin`."""
        self._followed: dict[str, Followed] = {}
        self._begun = asyncio.Event()
        self._process: asyncio.subprocess.Process | None = None
        self._heard: asyncio.Event = asyncio.Event()
        self.starts = 0
        self.room: Callable[[], tuple[int, int]] = lambda: (0, 0)
        """What all projects of our own server use together, and may; set by whoever runs one."""
        self._numbers = itertools.count(
            1
        )  # never the same, so that what was told of a former following counts for nobody
        self._line = msgspec.json.Decoder(Told)

    def begin(self) -> None:
        """Let the process be started."""
        self._begun.set()

    @property
    def pid(self) -> int:
        """Return the number of the process, 0 while there is none."""
        return self._process.pid if self._process is not None else 0

    def follow(self, project: str, path: Path, endpoint: Endpoint) -> Followed:
        """Keep the database of a project at `path` up to date from now on."""
        order = serving.Order("follow", project, str(path), serving.spell(endpoint))
        followed = self._followed[project] = Followed(order)
        self._send(order)
        return followed

    def go_by(self, followed: Followed, endpoint: Endpoint) -> None:
        """Follow with these credentials from now on, when they are others."""
        order = msgspec.structs.replace(followed.order, endpoint=serving.spell(endpoint))
        if order == followed.order or self._followed.get(order.project) is not followed:
            return
        followed.order = order
        self._send(order)
        if followed.sent is not None:
            self._send(serving.Order("sync", order.project, number=followed.number))

    def leave(self, followed: Followed) -> None:
        """Follow a project no longer; its file stays."""
        project = followed.order.project
        if self._followed.get(project) is followed:
            del self._followed[project]
            self._send(serving.Order("leave", project))
        for waiting in (followed.sent, followed.next):
            if waiting is not None and not waiting.done():
                waiting.set_exception(_not_followed(project))
                waiting.exception()  # heard, whoever waits for it

    def rebuild(self, followed: Followed) -> None:
        """Have the database made anew, by this process or, when that dies or there is none, by the next."""
        try:
            database.mark(Path(followed.order.path))
        except OSError as error:
            log.warning("%s is made anew only if its process lives: %s", followed.order.path, error)
            self._send(serving.Order("rebuild", followed.order.project))
        else:
            self._send(serving.Order("look", followed.order.project))

    async def sync(self, followed: Followed, timeout_s: float) -> None:
        """Return when everything stored before the call is in the database; raises `Unavailable` (`view.behind`)."""
        if self._followed.get(followed.order.project) is not followed:
            raise _not_followed(followed.order.project)
        if followed.next is None:
            followed.next = asyncio.get_running_loop().create_future()
        waiting = followed.next
        self._send_next(followed)
        try:
            async with asyncio.timeout(timeout_s):
                await asyncio.shield(waiting)
        except TimeoutError:
            told = followed.told
            raise Unavailable(
                f"The view of the past is behind: {told.why or told.state}, {told.behind} messages to read.",
                code="view.behind", hint="It catches up by itself; see `knotwork view status`.", retry_after_s=1.0,
            ) from None  # fmt: skip

    async def changed(self) -> None:
        """Return when the process has told something new."""
        await self._heard.wait()

    # -- the process -------------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Keep the process alive, for ever."""
        await self._begun.wait()
        pauses = Pauses(PAUSE_MIN_S, PAUSE_MAX_S)
        while True:
            began_s = time.monotonic()
            try:
                await self._live()
            except OSError as error:
                log.warning("the process of the view cannot be started: %s", error)
            if time.monotonic() - began_s > STEADY_S:
                pauses.shorten()
            await pauses.wait()

    async def _live(self) -> None:
        """Start the process and listen to it until it ends."""
        pipe = asyncio.subprocess.PIPE
        process = await child.spawn(
            *_command(),
            stdin=pipe,
            stdout=pipe,
            stderr=pipe,
            own_executable=True,
            tied=True,
            limit_bytes=LINE_MAX_BYTES,
        )
        self._process = process
        self.starts += 1
        try:
            for followed in self._followed.values():
                self._send(followed.order)
                if followed.sent is not None:
                    self._send(serving.Order("sync", followed.order.project, number=followed.number))
            async with background() as group:
                assert process.stdout is not None
                assert process.stderr is not None
                group.create_task(_log(process.stderr))
                group.create_task(self._tell_room(), name="room in the store")
                with contextlib.suppress(ValueError):  # a line without an end: as good as gone
                    while line := await process.stdout.readline():
                        self._listen(line)
        finally:
            self._process = None
            for followed in self._followed.values():
                followed.told = Told(caught_up_ns=followed.told.caught_up_ns, behind=followed.told.behind)
            if process.stdin is not None:
                process.stdin.close()
            code = await child.stop(process, grace_s=END_S)
        log.warning("the process of the view ended with %s, it is started again", code)

    async def _tell_room(self) -> None:
        """Tell how full our own server's store is, when that has changed: the past makes room."""
        told = (0, 0)
        while True:
            now = self.room()
            if abs(now[0] - told[0]) > now[1] / 1000:
                told = now
                self._send(serving.Order("room", "", room=told))
            await asyncio.sleep(ROOM_S)

    def _listen(self, line: bytes) -> None:
        try:
            told = self._line.decode(line)
        except msgspec.DecodeError:
            log.warning("the process of the view says %.200r", line)
            return
        followed = self._followed.get(told.project)
        if followed is None:
            return
        followed.told = told
        if followed.sent is not None and told.synced >= followed.number:
            if not followed.sent.done():
                followed.sent.set_result(None)
            followed.sent = None
            self._send_next(followed)
        heard, self._heard = self._heard, asyncio.Event()
        heard.set()

    def _send_next(self, followed: Followed) -> None:
        """Order the next promise, once the last is kept: it covers all who asked meanwhile."""
        if followed.sent is None and followed.next is not None:
            followed.number = next(self._numbers)
            followed.sent, followed.next = followed.next, None
            self._send(serving.Order("sync", followed.order.project, number=followed.number))

    def _send(self, order: serving.Order) -> None:
        process = self._process
        if process is not None and process.stdin is not None and not process.stdin.is_closing():
            process.stdin.write(msgspec.json.encode(order) + b"\n")


def _command() -> tuple[Any, ...]:
    if child.frozen():
        return sys.executable, ARGUMENT
    return sys.executable, "-P", "-m", "knotwork.view.child"


async def _log(stream: asyncio.StreamReader) -> None:
    """Hand on what the process logs."""
    while True:
        try:
            line = await stream.readline()
        except ValueError:
            continue
        if not line:
            return
        log.warning("view: %s", line.decode("utf-8", "replace").rstrip()[:2000])


def _not_followed(project: str) -> Unavailable:
    return Unavailable(f"The past of {project} is not followed any more.", code="view.not_ready", retry_after_s=1.0)


@asynccontextmanager
async def open_keeper() -> AsyncIterator[Keeper]:
    """Keep the process inside the block, once `begin` was called."""
    keeper = Keeper()
    async with background() as group:
        group.create_task(keeper.run(), name="view")
        yield keeper
