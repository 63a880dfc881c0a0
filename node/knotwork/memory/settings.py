"""What may an operator decide about memory? Where each scope is kept, what becomes of twins and secrets (pure)."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol

from knotwork.memory.model import SCOPES
from knotwork.sdk.memory import MemoryScope

Duplicates = Literal["merge", "refuse", "allow"]
Secrets = Literal["block", "redact", "warn", "off"]
QUARANTINES = "kv"
"""The memory plugin that keeps who is in quarantine, whichever keeps a scope: all nodes of a project are to know it, also
after a scope has moved to another plugin."""


@dataclass(frozen=True, slots=True)
class Settings:
    """`kept` says which memory plugin has a scope; durations in seconds; `folders` are where files may be."""

    kept: Mapping[MemoryScope, str] = field(default_factory=lambda: dict.fromkeys(SCOPES, "kv"))
    duplicates: Duplicates = "merge"
    secrets: Secrets = "block"
    recent_s: int = 24 * 3600
    undo_s: int = 7 * 24 * 3600
    versions_max: int = 10
    embeddings: str = ""
    folders: tuple[Path, ...] = ()


class Slot(Protocol):
    """A plugin as it is kept: what it is now, and the right to use it for a while. Both raise `Unavailable`."""

    @property
    def plugin(self) -> Any:
        """Return it as it is now."""
        ...

    def lease(self) -> AbstractContextManager[Any]:
        """Give it for the time of a block, so that it is not closed meanwhile."""
        ...


class Around(Protocol):
    """What the room is given from above."""

    def settings(self) -> Settings:
        """Return what is in force now."""
        ...

    def slot(self, instance: str) -> Slot:
        """Return the slot of a memory plugin; raises `Unavailable` (`memory.no_store`) when there is none."""
        ...
