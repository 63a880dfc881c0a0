"""What may be asked about values too large for one request: put them in pieces, read them in pieces."""

from __future__ import annotations

import base64
import binascii
from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Annotated

from pydantic import Field, StringConstraints, field_validator

from knotwork.ops import replies, task_replies
from knotwork.ops.op import Caller, CliForm, Example, Request, op
from knotwork.ops.ports import NodeControl
from knotwork.ops.task_words import Digest
from knotwork.ops.words import NAMED

PIECE_MAX = 6 * 1024 * 1024
"""Characters of base64 in one piece: 4.5 MiB."""
_UPLOAD = r"^[0-9a-f]{32}$"
Upload = Annotated[str, StringConstraints(pattern=_UPLOAD)]
NAMED[_UPLOAD] = ("not an upload", "Give what `blob.put` answered to the first piece, or leave it out.")


class PutRequest(Request):
    """One piece of a value: the JSON text of an input, in order."""

    data: Annotated[str, StringConstraints(max_length=PIECE_MAX)] = Field(
        default="", description="base64 of the piece, 4 MiB at most"
    )
    upload: Upload | None = Field(default=None, description="what the answer to the first piece said")
    digest: Digest | None = Field(default=None, description="sha256- and the digest of everything, with the last piece")

    @field_validator("data")
    @classmethod
    def _base64(cls, value: str) -> str:
        try:
            base64.b64decode(value, validate=True)
        except binascii.Error as error:
            raise ValueError(f"not base64: {error}") from error
        return value


@op(
    "blob.put", PutRequest, task_replies.BlobKept, effect="write",
    cli=CliForm(("blob", "put"), positional=("data",), answer="digest"),
    summary="Keep a large value, piece by piece.",
    help="For inputs that do not fit into one request of 8 MB; up to 64 MiB. What is kept is JSON text: it becomes the "
    "input of a task with the field `blob`. On the command line DATA is `@file`, `-` or the text itself, whole, and "
    "its digest is printed; `task submit` does all this by itself. Blobs are kept for 90 days.",
    examples=(Example("Keep a value", {"data": "MTIz"}),),
)  # fmt: skip
async def put(request: PutRequest, node: NodeControl, caller: Caller) -> task_replies.BlobKept:
    """Keep one piece; the one with the digest is the last."""
    data = base64.b64decode(request.data)
    return await node.tasks(caller.project).keep(data, request.upload or "", request.digest or "")


class BlobRequest(Request):
    """Which value."""

    digest: Digest = Field(description="sha256- and 64 hex digits")
    after: int | None = Field(
        default=None, ge=0, description="only the piece behind this place: 0, then `next` of the answer before"
    )


@op(
    "blob.get", BlobRequest, task_replies.BlobKept, effect="read", streams=True,
    cli=CliForm(("blob", "get"), positional=("digest",), silent=True),
    summary="Read a large value, piece by piece.",
    help="Each piece is a `chunk` with base64 in `data`; together they are the value's JSON text. Over NATS ask for one "
    "at a time, with `after`, until `size_bytes` are there: a server cuts off who is sent more than he takes. The command "
    "line does that, `task get` and `task await` too.",
    examples=(Example("Read one", {"digest": "sha256-" + 64 * "0"}),),
)  # fmt: skip
async def get(
    request: BlobRequest, node: NodeControl, caller: Caller
) -> AsyncIterator[replies.Chunk | task_replies.BlobKept]:
    """Yield the pieces, then what they are together."""
    async with aclosing(node.tasks(caller.project).read(request.digest, request.after)) as pieces:
        async for piece in pieces:
            yield piece
