"""Is the same remembered already? By what is left of a text when case, spacing and form are not looked at (pure)."""

from __future__ import annotations

import hashlib
import unicodedata

from knotwork.memory.model import SHARED_SCOPES, Record
from knotwork.sdk.memory import Place


def twin_key(record: Record) -> bytes:
    """Return what two records have in common that say the same: for the same people, in the same category.

    What a team or everybody sees counts by author, too: nobody's words are merged into another's.
    """
    author = record.author.id if record.scope in SHARED_SCOPES else ""
    said = " ".join(unicodedata.normalize("NFKC", record.content).casefold().split())
    parts = (record.scope, record.owner, record.category, author, said)
    return hashlib.blake2b("\0".join(parts).encode(), digest_size=16).digest()


class Twins:
    """Which memories say what, of all that this node knows of."""

    def __init__(self) -> None:
        """Know none."""
        self._ids: dict[bytes, list[str]] = {}
        self._said: dict[int, tuple[bytes, str]] = {}

    def find(self, key: bytes) -> tuple[str, ...]:
        """Return the ids of the memories that say it, the one known first at the head."""
        return tuple(self._ids.get(key, ()))

    def put(self, place: Place, record: Record | None) -> None:
        """Know what lies in a place now, and no more what lay there before."""
        at = hash(place)
        before = self._said.pop(at, None)
        now = (twin_key(record), record.id) if record is not None and not record.forgotten else None
        if now is not None:
            self._said[at] = now
        if before == now:  # it stays at its place among those that say the same
            return
        if before is not None:
            same = self._ids[before[0]]
            same.remove(before[1])
            if not same:
                del self._ids[before[0]]
        if now is not None:
            self._ids.setdefault(now[0], []).append(now[1])

    def clear(self) -> None:
        """Forget all."""
        self._ids.clear()
        self._said.clear()
