"""What is one memory? Its record as it is stored, who wrote it, and what it was before."""

from __future__ import annotations

from typing import Literal, get_args

import msgspec

from knotwork.sdk.memory import MemoryScope, Place
from knotwork.trust.who import Who

Category = Literal["core", "longterm", "decisions", "architecture", "learnings", "recent", "tasks"]
CATEGORIES: tuple[Category, ...] = get_args(Category)
"""In the order in which they are recalled."""
OWN_SCOPES: tuple[MemoryScope, ...] = ("private", "personal")
SHARED_SCOPES: tuple[MemoryScope, ...] = ("team", "public")
SCOPES: tuple[MemoryScope, ...] = (*OWN_SCOPES, *SHARED_SCOPES)
EVERYBODY = "all"
"""The owner of what is public."""


class Author(msgspec.Struct, frozen=True, omit_defaults=True):
    """Who wrote something, as the node saw it that took it in."""

    id: str
    name: str
    project: str
    owner: str = ""
    kind: Literal["agent", "person"] = "agent"
    parent: str = ""
    node: str = ""

    def who(self) -> Who:
        """Return the same for `may_see`."""
        return Who(self.id, self.name, self.project, self.owner, self.kind, self.parent, self.node)


def author(who: Who) -> Author:
    """Return who writes."""
    return Author(who.id, who.name, who.project, who.owner, who.kind, who.parent, who.node)


class Version(msgspec.Struct, frozen=True, omit_defaults=True):
    """What a memory was until `until_ns`, when `by` did `what` to it; `author` wrote it, when that was noted."""

    number: int
    content: str
    category: Category
    what: str
    by: Author
    since_ns: int
    until_ns: int
    tags: tuple[str, ...] = ()
    priority: int = 2
    related: tuple[str, ...] = ()
    source: str = ""
    author: Author | None = None


class Record(msgspec.Struct, frozen=True, omit_defaults=True):
    """One memory. Times are nanoseconds since 1970; `expires_ns` 0 means never.

    A forgotten one can be brought back, and ends at `resumes_ns` then.
    `origin` is what it was made from: the id of another memory, or `import <id>`. `warnings` are kinds of secrets that
    were seen in it.
    """

    id: str
    scope: MemoryScope
    owner: str
    category: Category
    author: Author
    created_ns: int
    updated_ns: int
    content: str = ""
    tags: tuple[str, ...] = ()
    priority: int = 2
    related: tuple[str, ...] = ()
    source: str = ""
    expires_ns: int = 0
    version: int = 1
    origin: str = ""
    forgotten: bool = False
    resumes_ns: int = 0
    warnings: tuple[str, ...] = ()
    past: tuple[Version, ...] = ()

    def is_over(self, now_ns: int) -> bool:
        """Return whether its time is over."""
        return 0 < self.expires_ns <= now_ns


class Quarantine(msgspec.Struct, frozen=True):
    """Everything an author wrote is hidden in a project: who it is, who hid it, why and when."""

    author: str
    name: str
    by: Author
    at_ns: int
    why: str = ""


QUARANTINE = "q-"
"""What ids of quarantines begin with; those of memories begin otherwise."""
_encoder = msgspec.json.Encoder()
_decoder = msgspec.json.Decoder(Record)
_quarantine_decoder = msgspec.json.Decoder(Quarantine)


def encode(value: Record | Quarantine) -> bytes:
    """Return it as it is stored."""
    return _encoder.encode(value)


def decode(value: bytes) -> Record | None:
    """Return the record, None for what is none: another program may have written it."""
    try:
        return _decoder.decode(value)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None


def decode_quarantine(value: bytes) -> Quarantine | None:
    """Return the quarantine, None for what is none."""
    try:
        return _quarantine_decoder.decode(value)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None


def belongs(record: Record, place: Place) -> bool:
    """Return whether a record lies where one like it has to: what was put elsewhere by hand is not believed."""
    return record.scope == place.scope and record.owner == place.owner
