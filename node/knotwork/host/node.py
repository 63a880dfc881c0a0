"""The process, START HERE: it opens the rooms in order, waits, and closes them in reverse.

`main` is what `knotwork up` calls; `run` reads as the program.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from knotwork.bus import child, space
from knotwork.bus.background import background
from knotwork.config import load, loaded
from knotwork.host import boot, logs, nodefile, signals
from knotwork.host.layout import Layout, unusable, write_private
from knotwork.host.parts import Parts
from knotwork.mesh import identity
from knotwork.sdk.errors import KnotworkError
from knotwork.sockets import loading, offered
from knotwork.telemetry.emitter import Emitter

if TYPE_CHECKING:
    from knotwork.config.loaded import Loaded
    from knotwork.host.ground import Ground
    from knotwork.host.rooms import Rooms
    from knotwork.sockets.catalog import Catalog

log = logging.getLogger(__name__)
THREADS_END_TIMEOUT_S = 2.0
TURN_S = 0.001
"""How long the loop may keep a thread waiting: for each row of an index it asks for its turn again, and 5 ms is Python's own."""


@dataclass(frozen=True, slots=True)
class UpOptions:
    """What the shell said. Files empty: the usual places."""

    data_dir: Path
    config_files: tuple[Path, ...] = ()
    config_dir: Path | None = None
    sets: tuple[str, ...] = ()
    safe_mode: bool = False
    quiet: bool = False
    as_json: bool = False
    """Whether the error that ends it is one JSON object on standard error, behind the log."""


def main(options: UpOptions) -> int:
    """Be the node until it is stopped; returns the exit code. Errors on purpose are told in a line, not as a traceback."""
    caught = signals.Signals().early()
    sys.setswitchinterval(TURN_S)
    logs.start("info", quiet=options.quiet)
    try:
        sources = loaded.Sources(options.config_files, options.config_dir, None, options.sets)
        found = load.read(sources, find_types=partial(offered.types_for, safe_mode=options.safe_mode))
    except KnotworkError as error:
        return _last_word(error, options)
    logs.set_level(found.config.node.log_level, quiet=options.quiet)
    code = _live(options, found, caught)
    caught.over()
    logs.flush()
    return code


async def run(options: UpOptions, found: Loaded, caught: signals.Signals) -> None:
    """Be a node: open the rooms in order, wait for the end, close them in reverse."""
    stopping = signals.Stopping(caught)
    layout = Layout(options.data_dir)
    layout.make()
    async with AsyncExitStack() as house:
        file = await house.enter_async_context(nodefile.claim(layout))
        who = identity.load(layout.data_dir, found.config.node.name)
        file.begin(who.name, found)
        _remember(layout, options, found)
        await house.enter_async_context(child.guard())
        group = await house.enter_async_context(background())
        emitter = Emitter(who.name)
        parts = Parts(group, partial(_plugins, options, found))  # while NATS starts
        nats = await house.enter_async_context(boot.bring_up(found.config, layout, who.name, _server_state(emitter)))
        ground = (await parts.ground)()
        ground.begin(group, nats, found, who.name)
        rooms = (await parts.rooms)(group, layout, who, stopping, file, emitter=emitter)
        await house.enter_async_context(rooms.open_commons(nats, found))
        house.push_async_callback(rooms.leave)
        await stopping.before(_open(rooms, nats, ground, parts, found, safe_mode=options.safe_mode))
        if not stopping.asked.is_set():
            async with rooms.web.open():
                await rooms.take_work()
                await stopping.asked.wait()
                await rooms.close()
    log.info("%s stopped", who.name)


def _plugins(options: UpOptions, found: Loaded) -> Catalog:
    return loading.load(offered.settings_of(found, safe_mode=options.safe_mode))


async def _open(rooms: Rooms, nats: boot.Nats, ground: Ground, parts: Parts, found: Loaded, *, safe_mode: bool) -> None:
    rooms.wire(found, await parts.catalog, nats, ground, safe_mode=safe_mode)
    rooms.web.load()
    await rooms.open_plugins()
    await rooms.open_projects()


def _remember(layout: Layout, options: UpOptions, found: Loaded) -> None:
    """Keep what it was started with, so that whoever starts it again for us, from anywhere, starts the same node."""
    files = options.config_files or (() if options.config_dir else tuple(text.path for text in found.texts))
    started = {
        "config": [os.path.abspath(path) for path in files],  # noqa: PTH100  links stay links
        "config_dir": os.path.abspath(options.config_dir) if options.config_dir else "",  # noqa: PTH100
        "sets": list(options.sets),
        "safe_mode": options.safe_mode,
    }
    with contextlib.suppress(OSError):  # a full disk is no reason not to start
        write_private(layout.last_start, json.dumps(started))


def _live(options: UpOptions, found: Loaded, caught: signals.Signals) -> int:
    """Run the loop; returns the exit code, or leaves with it when threads of plugins would hold the process."""
    factory = None
    if sys.platform != "win32":
        import uvloop  # not there on Windows

        factory = uvloop.new_event_loop
    with asyncio.Runner(loop_factory=factory) as runner:
        threads = ThreadPoolExecutor(thread_name_prefix="blocking")
        runner.get_loop().set_default_executor(threads)
        code = 0
        try:
            runner.run(run(options, found, caught))
        except KnotworkError as error:
            code = _last_word(error, options)
        except OSError as error:
            if not _is_full_disk(error):
                raise
            code = _last_word(unusable(options.data_dir, error), options)
        except BaseExceptionGroup as group:
            ours = _only_ours(group, options.data_dir)
            if ours is None:
                raise
            code = _last_word(ours, options)
        threads.shutdown(wait=False, cancel_futures=True)
        if held := _threads_left(THREADS_END_TIMEOUT_S):
            log.warning("leaving without threads that do not end: %s", ", ".join(held))
            logging.shutdown()
            os._exit(code)
    return code


def _threads_left(timeout_s: float) -> list[str]:
    """Return the threads that would keep the process from ending, after waiting `timeout_s` seconds for them."""
    end_s = time.monotonic() + timeout_s
    mine = threading.current_thread()
    threads = [thread for thread in threading.enumerate() if thread is not mine and not thread.daemon]
    for thread in threads:
        thread.join(max(0.0, end_s - time.monotonic()))
    return [thread.name for thread in threads if thread.is_alive()]


def _server_state(emitter: Emitter) -> boot.OnState:
    def told(state: str, why: str) -> None:
        level = logging.WARNING if state == "restarting" else logging.DEBUG
        log.log(level, "nats-server is %s%s", state, f": {why}" if why else "")
        emitter.event("bus.server", {"state": state, "why": why})

    return told


def _last_word(error: KnotworkError, options: UpOptions) -> int:
    told = f"error: {error}\n  ({error.code})"
    if options.as_json:
        told = json.dumps({**error.to_wire(), "exit_code": error.exit_code}, ensure_ascii=False, separators=(",", ":"))
    logs.flush()
    print(told, file=sys.stderr)  # noqa: T201  a node that cannot start says why
    return error.exit_code


def _only_ours(group: BaseExceptionGroup[BaseException], folder: Path) -> KnotworkError | None:
    """Return the first error on purpose when a group holds nothing else but those of a full disk, which is one, too."""
    _, rest = group.split(lambda error: isinstance(error, KnotworkError) or _is_full_disk(error))
    error: BaseException = group
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    if rest is not None:
        return None
    if isinstance(error, OSError):
        return unusable(folder, error)
    return error if isinstance(error, KnotworkError) else None


def _is_full_disk(error: BaseException) -> bool:
    return isinstance(error, OSError) and error.errno in space.ERRORS
