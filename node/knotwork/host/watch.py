"""Did a file of the configuration change? What the system tells is a hint to look sooner; looking is what counts.

A hint may be missed: before the watch stands, while a folder is exchanged, on a network, when there are too many
watches. So the files are looked at every `LOOK_S` seconds in any case, and a change is late at worst, never lost.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import AsyncGenerator, Callable, Iterable
from contextlib import aclosing
from pathlib import Path
from typing import TYPE_CHECKING

import watchfiles

from knotwork.config import files
from knotwork.config.problems import Problem
from knotwork.host import code_files

if TYPE_CHECKING:
    from knotwork.config.loaded import Loaded

Folders = dict[Path, tuple[int, int]]
"""The folders to watch, each with what tells it from another one of the same name."""
Seen = dict[Path, tuple[tuple[int, int, int] | None, str | Problem]]
"""What each file was: its stamp, and its text, for two saves within a tick of the clock have one stamp."""
log = logging.getLogger(__name__)
LOOK_S = 1.0
"""How long a change may go unnoticed that the system does not tell of."""
HINTS_AGAIN_S = 60.0
"""After how long without the system's help it is asked for again."""
STEP_MS, SETTLE_MS = 50, 200


async def watch(
    loaded: Callable[[], Loaded], changed: Callable[[], None], code: Callable[[], code_files.Code] = dict
) -> None:
    """Call `changed` when the files that `loaded()` was read from say something else, or are others; until cancelled.

    So do files of `code()`. Folders are watched, not files: editors and ConfigMaps replace what they save.
    """

    def wanted() -> tuple[Path, ...]:
        return (*loaded().watched, *code())

    while True:
        now, loaded_code, watched = loaded(), code(), wanted()
        seen = await asyncio.to_thread(_look, watched)
        texts = {path: text for path, (_, text) in seen.items() if path not in loaded_code}
        if (
            texts != {text.path: text.text for text in now.texts}
            or await asyncio.to_thread(code_files.read, loaded_code) != loaded_code
        ):
            changed()  # since it was read, and before it was looked at
        while wanted() == watched:
            seen = await _watch_folders(wanted, watched, seen, changed)


async def _watch_folders(
    wanted: Callable[[], tuple[Path, ...]], watched: tuple[Path, ...], seen: Seen, changed: Callable[[], None]
) -> Seen:
    """Look at every hint, until others are to be watched; returns what was seen last."""
    folders = await asyncio.to_thread(_folders, watched)
    async with aclosing(_hints(folders)) as hints:
        async for _ in hints:
            # in a thread: a folder may be on a network that is slow
            found, there = await asyncio.to_thread(lambda: (_look(watched), _folders(watched)))
            if found != seen:
                seen = found
                changed()
            if there != folders or wanted() != watched:
                break
    return seen


async def _hints(folders: Iterable[Path]) -> AsyncGenerator[None, None]:
    """Yield every `LOOK_S` seconds, and sooner when something happens in a folder; ends when they are to be watched anew."""
    every_ms = round(LOOK_S * 1000)
    try:
        if folders:
            told = watchfiles.awatch(
                *folders, watch_filter=None, step=STEP_MS, debounce=SETTLE_MS, recursive=False,
                rust_timeout=every_ms, yield_on_timeout=True,
            )  # fmt: skip
            async with aclosing(told):
                async for _ in told:
                    yield
    except (OSError, RuntimeError) as error:  # gone meanwhile, or too many watches
        log.debug("%s cannot be watched, so we look every %g s: %s", ", ".join(map(str, folders)), LOOK_S, error)
        yield
    for _ in range(max(1, round(HINTS_AGAIN_S / LOOK_S))):
        await asyncio.sleep(LOOK_S)
        yield


def _folders(watched: tuple[Path, ...]) -> Folders:
    """Return the folders to watch, as far as they exist."""
    found: Folders = {}
    for path in watched:
        folder = path if os.path.isdir(path) else path.parent  # noqa: PTH112  Path.is_dir raises where one may not look
        try:
            status = folder.stat()
        except OSError:
            continue
        found[folder] = (status.st_dev, status.st_ino)
    return found


def _look(watched: tuple[Path, ...]) -> Seen:
    """Return what is another thing when one of the files is, through symbolic links as well; never raises."""
    found: Seen = {}
    for path in watched:
        inside: tuple[Path, ...] = (path,)
        if os.path.isdir(path):  # noqa: PTH112  as above
            inside, wrong = files.in_folder(path)
            found.update({Path(one.file): (None, one) for one in wrong})
        for file in inside:
            try:
                status = file.stat()
                stamp = (status.st_ino, status.st_mtime_ns, status.st_size)
            except OSError:
                stamp = None
            found[file] = (stamp, files.read_text(file))
    return found
