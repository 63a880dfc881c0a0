"""What are memories called, and where do they lie? Ids, the places of core memories, and the realm of each scope (pure).

An agent's core memories lie in a hundred numbered places, and a place can be taken once: so no agent can have more,
whoever writes at the same time, on whatever node. Such an id tells its place: `c07-<agent>-<chance>`.
"""

from __future__ import annotations

import hashlib
import re

from knotwork.memory.model import EVERYBODY, QUARANTINE
from knotwork.sdk.memory import MemoryScope, Place
from knotwork.trust.who import Who

CORE_MAX = 100
ID_PATTERN = "m[0-9a-f]{24}|c[0-9]{2}-[0-9a-f]{12}-[0-9a-f]{12}"
_ID = re.compile(ID_PATTERN)
_CORE_PLACE = 16
"""Characters of the id of a core memory that say where it lies."""


def memory_id(now_ns: int, chance: bytes) -> str:
    """Return the id of a new memory: sorted by time, with 6 bytes of chance and more for those of one moment."""
    return f"m{now_ns // 1_000_000:012x}{chance[:6].hex()}"


def core_id(place: str, chance: bytes) -> str:
    """Return the id of a core memory in a place."""
    return f"{place}-{chance[:6].hex()}"


def core_place(who: Who, number: int) -> str:
    """Return an agent's place `number` (0 to 99) for core memories."""
    return f"c{number:02d}-{digest(f'{who.project} {who.id}')}"


def is_id(text: str) -> bool:
    """Return whether this can be the id of a memory."""
    return _ID.fullmatch(text) is not None


def is_core(memory: str) -> bool:
    """Return whether an id is one of a core memory."""
    return memory.startswith("c")


def place_id(memory: str) -> str:
    """Return where a memory lies among those of its owner."""
    return memory[:_CORE_PLACE] if is_core(memory) else memory


def quarantine_id(author: str) -> str:
    """Return where it is kept that an author is in quarantine."""
    return f"{QUARANTINE}{digest(author)}"


def digest(text: str) -> str:
    """Return twelve letters that stand for a text."""
    return hashlib.blake2b(text.encode(), digest_size=6).hexdigest()


def owner_in(scope: MemoryScope, who: Who) -> str:
    """Return whose a memory in a scope is when this one writes it; "" for somebody without an owner."""
    match scope:
        case "private":
            return who.id
        case "personal":
            return who.owner
        case "team":
            return who.project
        case _:
            return EVERYBODY


def realm(scope: MemoryScope, project: str, *, common: bool) -> str:
    """Return the project that a scope is kept in, "" for what projects have in common where that can be reached."""
    return "" if common and scope in ("personal", "public") else project


def place(memory: str, scope: MemoryScope, owner: str, project: str, *, common: bool) -> Place:
    """Return the place of a memory."""
    return Place(realm(scope, project, common=common), scope, owner, place_id(memory))
