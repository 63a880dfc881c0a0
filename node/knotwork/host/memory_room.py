"""How is a project's memory opened? Its rooms, with the plugins and the configuration as they are at the time."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from knotwork.memory.carrying import Carrying
from knotwork.memory.changing import Changing
from knotwork.memory.keeping import Keeping
from knotwork.memory.meaning import Meaning, open_meaning
from knotwork.memory.reading import Reading
from knotwork.memory.room import Memory, open_memory
from knotwork.memory.settings import Settings
from knotwork.memory.writing import Writing
from knotwork.sdk.errors import Unavailable

if TYPE_CHECKING:
    from knotwork.config.memory_table import MemoryTable
    from knotwork.host.world import World
    from knotwork.memory.settings import Slot


@dataclass(frozen=True, slots=True)
class Remembering:
    """All that can be done with the memory of one project."""

    memory: Memory
    meaning: Meaning
    reading: Reading
    writing: Writing
    changing: Changing
    keeping: Keeping
    carrying: Carrying


class MemoryAround:
    """What the room is given by the node (`memory.settings.Around`)."""

    def __init__(self, world: World, exports: Path) -> None:
        """Go by what is in force in `world`; files go to `exports` unless the configuration names folders."""
        self._world, self._exports = world, exports
        self._table: MemoryTable | None = None
        self._settings = Settings()

    def settings(self) -> Settings:
        """Return what is in force now."""
        table = self._world.loaded.config.memory
        if table is not self._table:
            base = self._world.loaded.folder
            folders = tuple(base / Path(name).expanduser() for name in table.folders) or (self._exports,)
            self._settings = Settings(
                kept={
                    "private": table.private, "personal": table.personal, "team": table.team, "public": table.public,
                },
                duplicates=table.duplicates, secrets=table.secrets, recent_s=int(table.recent_s),
                undo_s=int(table.undo_s), versions_max=table.versions_max, embeddings=table.embeddings, folders=folders,
            )  # fmt: skip
            self._table = table
        return self._settings

    def slot(self, instance: str) -> Slot:
        """Return the slot of a memory plugin."""
        slot = self._world.slots.get("memories", instance)
        if slot is None:
            raise Unavailable(
                f"There is no memory plugin {instance}.", code="memory.no_store", hint="See `knotwork plugin list`."
            )
        return slot


@asynccontextmanager
async def open_remembering(
    project: str, around: MemoryAround, *, node: str, index: Path | None, common: Callable[[], bool]
) -> AsyncIterator[Remembering]:
    """Remember for a project inside the block; `common` says whether what projects have in common can be reached."""
    async with (
        open_memory(project, around, node=node, index=index, common=common()) as memory,
        open_meaning(memory) as meaning,
    ):
        reading, writing = Reading(memory, meaning), Writing(memory)
        changing = Changing(memory, writing)
        carrying = Carrying(memory, reading, writing)
        yield Remembering(memory, meaning, reading, writing, changing, Keeping(memory, changing), carrying)
