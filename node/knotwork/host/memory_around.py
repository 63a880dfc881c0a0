"""With which plugins and settings does a project remember? With those in force at the time."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from knotwork.memory.settings import Settings
from knotwork.sdk.errors import Unavailable

if TYPE_CHECKING:
    from knotwork.config.memory_table import MemoryTable
    from knotwork.host.world import World
    from knotwork.memory.settings import Slot


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
