"""What does a project seal what it gives out with? A secret that all its nodes share: what bears another seal is none of ours.

The secret lies in the bucket SETTINGS, so that also a node that started later can read what was given out.
"""

from __future__ import annotations

import base64
import hmac
import re
import secrets
from typing import TYPE_CHECKING

from knotwork.bus import kv, subjects
from knotwork.sdk.errors import Conflict

if TYPE_CHECKING:
    from knotwork.bus.connection import Connection

SECRET_BYTES = 32
_SECRET = re.compile(rb"[0-9a-f]{64}")
_SEALED = re.compile(r"([a-z0-9]+)\.([A-Za-z0-9_-]+)\.([A-Za-z0-9_-]{43})")


async def shared_secret(connection: Connection, name: str) -> bytes | None:
    """Return a secret of the project, None when it is damaged; it is made by whoever needs it first, and then stays."""
    bucket = await kv.open_bucket(connection, subjects.SETTINGS)
    entry = await bucket.get(name)
    if entry is None:
        fresh = secrets.token_hex(SECRET_BYTES).encode()
        try:
            await bucket.create(name, fresh)
        except Conflict:
            entry = await bucket.get(name)
        else:
            return fresh
    found = entry.value if entry is not None else None
    return found if found is not None and _SECRET.fullmatch(found) else None


def close(key: bytes, mark: str, body: bytes) -> str:
    """Return `body` as a text that begins with `mark` and is sealed with `key` (pure)."""
    text = _text(body)
    return f"{mark}.{text}.{_mac(key, text)}"


def open_(key: bytes, mark: str, text: str, *, size_max: int) -> bytes | None:
    """Return what is in a text, None unless every character of it was sealed so (pure)."""
    found = _SEALED.fullmatch(text) if len(text) <= size_max else None
    # compared as text: two texts that stand for the same bytes are two, and only one of them is ours
    if found is None or found[1] != mark or not hmac.compare_digest(_mac(key, found[2]), found[3]):
        return None
    return base64.urlsafe_b64decode(found[2] + "=" * (-len(found[2]) % 4))


def _mac(key: bytes, text: str) -> str:
    return _text(hmac.digest(key, text.encode(), "sha256"))


def _text(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).decode().rstrip("=")
