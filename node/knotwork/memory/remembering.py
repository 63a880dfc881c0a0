"""What can be done with the memory of one project, all of it? The parts of the room, opened together."""

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
from knotwork.memory.writing import Writing

if TYPE_CHECKING:
    from knotwork.memory.settings import Around


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


@asynccontextmanager
async def open_remembering(
    project: str, around: Around, *, node: str, index: Path | None, common: Callable[[], bool]
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
