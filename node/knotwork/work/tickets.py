"""What does an agent show to say that it holds a task? A claim token: opaque text, sealed with the project's secret.

Every node of the project can read it, also one that started after it was given, because the secret lies in the bucket
SETTINGS. It says which claim it is and what it is a claim on; whether that claim still stands is asked of LEASES.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import re
import secrets
from typing import TYPE_CHECKING, Annotated

import msgspec

from knotwork.bus import kv, subjects
from knotwork.sdk.errors import Conflict, Internal, Invalid
from knotwork.work.records import OnAttempt, Token, Whole

if TYPE_CHECKING:
    from knotwork.bus.connection import Connection

TOKEN_MAX = 2048
"""Characters of a token; one of ours has about 600 at most."""
KEY = "claim_secret"
SECRET_BYTES = 32
_MARK = "kc1"
_SHAPE = re.compile(r"kc1\.([A-Za-z0-9_-]{1,1900})\.([A-Za-z0-9_-]{43})")
_SECRET = re.compile(rb"[0-9a-f]{64}")


class Ticket(OnAttempt, msgspec.Struct, frozen=True, array_like=True):
    """What a token says: claim `id` of `worker` on the attempt at `subject` in TASKS.

    It is its `delivery`-th one, begun at `started_ns`; `until_ns` is when the lease ends that was given with the token
    (nanoseconds since 1970): it may have been extended since.
    """

    id: Annotated[str, msgspec.Meta(min_length=16, max_length=16)]
    subject: Annotated[str, msgspec.Meta(max_length=512)]
    worker: Token
    delivery: Whole
    started_ns: Whole
    until_ns: Whole


_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(Ticket)


class Seal:
    """Makes tokens of one project, and reads them (pure)."""

    def __init__(self, project: str, secret: bytes) -> None:
        """Seal with `secret`, which every node of the project shares."""
        self._key = hashlib.sha256(b"knotwork claim " + project.encode() + b"\0" + secret).digest()

    def close(self, ticket: Ticket) -> str:
        """Return the token of a ticket."""
        body = _text(_encoder.encode(ticket))
        return f"{_MARK}.{body}.{self._mac(body)}"

    def open(self, token: str) -> Ticket:
        """Return the ticket in a token; raises `Invalid` (`claim.invalid`) unless we sealed every character of it."""
        found = _SHAPE.fullmatch(token) if len(token) <= TOKEN_MAX else None
        # compared as text: two texts that stand for the same bytes are two tokens, and only one of them is ours
        if found is None or not hmac.compare_digest(self._mac(found[1]), found[2]):
            raise _not_ours()
        try:
            return _decoder.decode(base64.urlsafe_b64decode(found[1] + "=" * (-len(found[1]) % 4)))
        except (msgspec.DecodeError, ValueError) as error:  # sealed by a node of another version
            raise _not_ours() from error

    def _mac(self, body: str) -> str:
        return _text(hmac.digest(self._key, body.encode(), "sha256"))


async def open_seal(connection: Connection, project: str) -> Seal:
    """Return the seal of a project; its secret is made by whoever needs it first, and then stays."""
    bucket = await kv.open_bucket(connection, subjects.SETTINGS)
    entry = await bucket.get(KEY)
    if entry is None:
        try:
            fresh = secrets.token_hex(SECRET_BYTES).encode()
            await bucket.create(KEY, fresh)
        except Conflict:
            entry = await bucket.get(KEY)
        else:
            return Seal(project, fresh)
    if entry is None or entry.value is None or _SECRET.fullmatch(entry.value) is None:
        raise Internal(
            f"The secret of project {project} is damaged.", code="claim.bad_secret",
            hint=f"Delete the key {KEY} of the bucket {subjects.SETTINGS}: claims that are held now are lost then.",
        )  # fmt: skip
    return Seal(project, entry.value)


def _text(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).decode().rstrip("=")


def _not_ours() -> Invalid:
    return Invalid(
        "This is not a claim of this project.", code="claim.invalid",
        hint="Send the `claim` that came with the task, whole and unchanged, to a node of the same project.",
    )  # fmt: skip
