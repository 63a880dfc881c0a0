"""What does an agent show to say that it holds a task? A claim token: opaque text, sealed with the project's secret.

Every node of the project can read it, also one that started after it was given, because the secret lies in the bucket
SETTINGS. It says which claim it is and what it is a claim on; whether that claim still stands is asked of LEASES.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Annotated

import msgspec

from knotwork.bus import subjects
from knotwork.sdk.errors import Internal, Invalid
from knotwork.trust import seals
from knotwork.work.records import OnAttempt, Token, Whole

if TYPE_CHECKING:
    from knotwork.bus.connection import Connection

TOKEN_MAX = 2048
"""Characters of a token; one of ours has about 600 at most."""
KEY = "claim_secret"
_MARK = "kc1"


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
        return seals.close(self._key, _MARK, _encoder.encode(ticket))

    def open(self, token: str) -> Ticket:
        """Return the ticket in a token; raises `Invalid` (`claim.invalid`) unless we sealed every character of it."""
        found = seals.open_(self._key, _MARK, token, size_max=TOKEN_MAX)
        if found is None:
            raise _not_ours()
        try:
            return _decoder.decode(found)
        except (msgspec.DecodeError, ValueError) as error:  # sealed by a node of another version
            raise _not_ours() from error


async def open_seal(connection: Connection, project: str) -> Seal:
    """Return the seal of a project."""
    secret = await seals.shared_secret(connection, KEY)
    if secret is None:
        raise Internal(
            f"The secret of project {project} is damaged.", code="claim.bad_secret",
            hint=f"Delete the key {KEY} of the bucket {subjects.SETTINGS}: claims that are held now are lost then.",
        )  # fmt: skip
    return Seal(project, secret)


def _not_ours() -> Invalid:
    return Invalid(
        "This is not a claim of this project.", code="claim.invalid",
        hint="Send the `claim` that came with the task, whole and unchanged, to a node of the same project.",
    )  # fmt: skip
