"""Which strings may stand in requests about channels and messages: ids, kinds, cursors."""

from __future__ import annotations

from typing import Annotated

from pydantic import BeforeValidator, Field, StringConstraints

from knotwork.ops.words import NAMED, TOKEN

_ID = r"[mdf][1-9][0-9]{0,14}"
_THREAD = r"(?:[mdf][1-9][0-9]{0,14}|b[0-9a-f]{16})"
_WHOM = rf"{TOKEN}(?:@{TOKEN})?"
_KIND = r"[A-Za-z0-9][A-Za-z0-9_.:-]{0,63}"
TEXT_MAX = 8 * 1024 * 1024
"""What a request may hold; what a message may, 1 MiB, is checked where it is known what to do instead."""
NAMED |= {
    f"^{_WHOM}$": (
        "not the name of an agent",
        "Give an id or a handle; of an agent of another project its id or handle@project.",
    ),
    f"^{_ID}$": (
        "not the id of a message",
        "Ids look like m12 (of a channel), d7 (of an inbox) or f3 (sent to another project).",
    ),
    f"^{_THREAD}$": ("not the id of a thread", "Give `thread` of a message, or the id of its first message."),
    f"^{_KIND}$": ("not a kind", "Use up to 64 letters, digits, '-', '_', '.' and ':'."),
}


def _bare(value: object) -> object:
    """Return a handle without the @ it is mentioned with: both may be written."""
    return value.removeprefix("@") if isinstance(value, str) else value


Whom = Annotated[str, StringConstraints(pattern=f"^{_WHOM}$", max_length=129), BeforeValidator(_bare)]
Id = Annotated[str, StringConstraints(pattern=f"^{_ID}$", max_length=16)]
Thread = Annotated[str, StringConstraints(pattern=f"^{_THREAD}$", max_length=20)]
Kind = Annotated[str, StringConstraints(pattern=f"^{_KIND}$", max_length=64)]
Words = Annotated[str, StringConstraints(max_length=TEXT_MAX)]
Query = Annotated[str, StringConstraints(min_length=1, max_length=1024)]
Found = Annotated[str, StringConstraints(max_length=40)]
Place = Annotated[str, StringConstraints(max_length=32)]
Rule = Annotated[str, StringConstraints(max_length=160)]
Limit = Annotated[int, Field(ge=1, le=1000)]
