"""The texts of a new memory plugin: a store in a file of its own."""

MODULE = '''\
"""$name: a Knotwork $kind."""

import asyncio
import json
import os
from base64 import b64decode, b64encode
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

from knotwork.sdk import (
    Clock,
    Conflict,
    Context,
    Factory,
    Kept,
    MemoryChange,
    MemoryScope,
    MemoryStore,
    Place,
    PluginConfig,
    hookimpl,
)
from pydantic import Field

knotwork_api = $api
LOOK_S = 0.1


class ${Name}Config(PluginConfig):
    """What an operator may write in the plugin's table."""

    file: str = Field(default="memories.json", max_length=100, pattern="^[a-z.-]+$$", description="name of the file")


class $Name:
    """Keeps everything in one file, written whole at every change: right for a few memories, slow for many."""

    def __init__(self, path: Path, clock: Clock) -> None:
        self.path, self.clock = path, clock
        rows = json.loads(path.read_text()) if path.exists() else []
        self.rows: dict[Place, tuple[bytes | None, int, int]] = {
            Place(*place): (None if value is None else b64decode(value), revision, expires_ns)
            for place, value, revision, expires_ns in rows
        }

    async def store(self, place: Place, value: bytes, *, revision: int | None = None, ttl_s: int | None = None) -> int:
        """Keep it; on disk when this returns."""
        return self._put(place, value, revision, self.clock.time_ns() + ttl_s * 10**9 if ttl_s is not None else 0)

    async def get(self, place: Place) -> Kept | None:
        """Return what is there now."""
        self._expire()
        value, revision, _ = self.rows.get(place, (None, 0, 0))
        return None if value is None else Kept(place, value, revision)

    async def list(self, project: str, scope: MemoryScope | None = None, owner: str | None = None) -> Sequence[Kept]:
        """Return every record that fits."""
        self._expire()
        return [
            Kept(place, value, revision)
            for place, (value, revision, _) in self.rows.items()
            if value is not None
            and place.project == project
            and scope in (None, place.scope)
            and owner in (None, place.owner)
        ]

    async def delete(self, place: Place, *, revision: int | None = None) -> int:
        """Remove it."""
        return self._put(place, None, revision, 0)

    async def latest(self, project: str) -> int:
        """Return the revision of the newest change."""
        self._expire()
        return max((revision for place, (_, revision, _) in self.rows.items() if place.project == project), default=0)

    async def watch(
        self, project: str, on_change: Callable[[MemoryChange], None], on_current: Callable[[], None]
    ) -> None:
        """Tell what is there, then what changes."""
        since, first = 0, True
        while True:
            self._expire()
            rows = [(revision, place, value) for place, (value, revision, _) in self.rows.items()]
            for revision, place, value in sorted(rows, key=lambda row: row[0]):
                if place.project == project and revision > since:
                    since = revision
                    on_change(MemoryChange(place, value, revision))
            if first:
                first = False
                on_current()
            await asyncio.sleep(LOOK_S)

    def _put(self, place: Place, value: bytes | None, wanted: int | None, expires_ns: int) -> int:
        self._expire()
        before, revision, _ = self.rows.get(place, (None, 0, 0))
        if wanted is not None and wanted != (0 if before is None else revision):
            raise Conflict(f"Somebody else changed {place.id} first.", code="memory.changed")
        made = max((one[1] for one in self.rows.values()), default=0) + 1
        self.rows[place] = (value, made, expires_ns)
        self._save()
        return made

    def _expire(self) -> None:
        now_ns = self.clock.time_ns()
        for place, (value, _, expires_ns) in list(self.rows.items()):
            if value is not None and 0 < expires_ns <= now_ns:
                self.rows[place] = (None, max(one[1] for one in self.rows.values()) + 1, 0)

    def _save(self) -> None:
        rows = [
            [(place.project, place.scope, place.owner, place.id), value and b64encode(value).decode(), *rest]
            for place, (value, *rest) in self.rows.items()
        ]
        fresh = self.path.with_suffix(".new")
        with fresh.open("w") as file:
            json.dump(rows, file)
            file.flush()
            os.fsync(file.fileno())
        fresh.replace(self.path)


@asynccontextmanager
async def open_plugin(config: ${Name}Config, context: Context) -> AsyncIterator[$Name]:
    """Entering is start, leaving is stop; open what it needs before the yield and close it after."""
    yield $Name(context.folder / config.file, context.clock)


FACTORY = Factory(name="$name", config=${Name}Config, open=open_plugin, summary="Remembers in a file.")


@hookimpl
def memories() -> Iterator[Factory[MemoryStore]]:
    """Offer it to the node."""
    yield FACTORY
'''

TEST = """\
import asyncio

from knotwork.sdk import Place
from knotwork.sdk.testing import MemoryContract, SystemClock, host

import $module


class TestContract(MemoryContract):
    factory = $module.FACTORY
    bad_configs = [{"file": "../elsewhere"}]


def test_it_is_there_after_a_restart(tmp_path):
    async def steps():
        place = Place("p", "private", "ann", "m1")
        async with host($module.FACTORY, folder=tmp_path, clock=SystemClock()) as store:
            await store.store(place, b'{"content": "it is so"}')
        async with host($module.FACTORY, folder=tmp_path, clock=SystemClock()) as store:
            assert (await store.get(place)).value == b'{"content": "it is so"}'

    asyncio.run(steps())
"""
