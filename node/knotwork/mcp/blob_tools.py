"""Which tools are about texts too large for a message? To keep one and tell its digest, to read one piece by piece."""

from __future__ import annotations

import base64
import codecs
import hashlib
from typing import Annotated, Any

from pydantic import Field, StringConstraints

from knotwork.mcp import wording
from knotwork.mcp.shapes import record
from knotwork.mcp.tool import READS, SETS, Input, Session, tool
from knotwork.ops.task_words import Digest
from knotwork.talk import framing

TEXT_MAX_CHARS = 4 * 1024 * 1024
PIECE_BYTES = 4 * 1024 * 1024
READ_BYTES = 12_000
_ROOM = wording.RESULT_MAX_CHARS - 2000


class PutInput(Input):
    """What to keep."""

    text: Annotated[str, StringConstraints(min_length=1, max_length=TEXT_MAX_CHARS)] = Field(
        description="kept as it is, 4 million characters at most"
    )


@tool(
    "put_blob", PutInput, record(digest="text", sizeBytes="int"), title="Keep a large text",
    description="Keep a text that is too large for a message, for 90 days. Then send its digest as `blob` with send_message "
    "or send_direct_message.",
    hints=SETS,
)  # fmt: skip
async def put_blob(given: PutInput, session: Session) -> dict[str, Any]:
    """Keep a text."""
    digest, size = await kept(session, given.text)
    return {"digest": digest, "sizeBytes": size}


async def kept(session: Session, text: str) -> tuple[str, int]:
    """Keep a text, and return its digest and how many bytes it has."""
    data = text.encode()
    digest, upload = f"sha256-{hashlib.sha256(data).hexdigest()}", ""
    for start in range(0, len(data), PIECE_BYTES):
        piece = data[start : start + PIECE_BYTES]
        last = {"digest": digest} if start + PIECE_BYTES >= len(data) else {}
        fields = last | ({"upload": upload} if upload else {})
        upload = (await session.ask("blob.put", data=base64.b64encode(piece).decode(), **fields))["upload"]
    return digest, len(data)


class GetInput(Input):
    """Which one, and from where on."""

    digest: Digest = Field(description="`blob` of a message: sha256- and 64 hex digits")
    offset: int = Field(default=0, ge=0, le=64 * 1024 * 1024, description="`next` of the answer before")


def _read(found: dict[str, Any]) -> str:
    head = framing.heading(
        [("", found["digest"]), ("bytes", str(found["sizeBytes"])), ("go on with offset", str(found.get("next", "")))]
    )
    return framing.framed(head, found["text"])


@tool(
    "get_blob", GetInput, record(digest="text", sizeBytes="int", text="text", next="int?"), title="Read a large text",
    description="Read what put_blob kept, or another large value of the project, piece by piece.", hints=READS, text=_read,
)  # fmt: skip
async def get_blob(given: GetInput, session: Session) -> dict[str, Any]:
    """Return a piece of it."""
    data, begin, after, size = b"", 0, 0, 0
    while True:
        pieces, reply = await session.pieces("blob.get", digest=given.digest, after=after)
        size, after = reply["size_bytes"], reply["next"]
        data += b"".join(base64.b64decode(piece) for piece in pieces)
        if not pieces or not after or begin + len(data) >= given.offset + READ_BYTES:
            break
        gone = max(0, min(len(data), given.offset - begin))  # what lies before it need not be kept
        data, begin = data[gone:], begin + gone
    text, taken = _window(data[max(0, given.offset - begin) :])
    behind = given.offset + taken
    return {"digest": given.digest, "sizeBytes": size, "text": text} | (
        {"next": behind} if taken and behind < size else {}
    )


def _window(data: bytes) -> tuple[str, int]:
    """Return the beginning of some bytes as text that fits into an answer, and how many bytes it stands for."""
    most = READ_BYTES
    while True:
        part = data[:most]
        decoder = codecs.getincrementaldecoder("utf-8")("replace")
        text = decoder.decode(part, final=len(data) <= most)  # half a character waits for the next piece
        taken = len(part) - len(decoder.getstate()[0])
        shown = len(framing.framed("", text))
        if wording.size({"text": text}) + shown <= _ROOM or most <= 64:  # noqa: PLR2004  it cannot be less
            return text, taken
        most //= 2
