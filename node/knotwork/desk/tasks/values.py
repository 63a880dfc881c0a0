"""How do the large inputs and outputs of tasks travel between whoever asks and BLOBS? In pieces, or whole when they fit."""

from __future__ import annotations

import base64
from collections.abc import AsyncGenerator
from typing import TYPE_CHECKING, Any

from knotwork.bus import codec
from knotwork.desk.tasks import rows as task_rows
from knotwork.ops import replies, task_replies
from knotwork.sdk.errors import Invalid, KnotworkError, NotFound

if TYPE_CHECKING:
    from knotwork.bus.blobs import Blobs
    from knotwork.work.lookup import Sight
    from knotwork.work.values import Values

SHOWN_MAX_BYTES = 4 * 1024 * 1024
"""Larger values stand in an answer as a digest: the answer has to fit into one message."""
PIECE_BYTES = 4 * 1024 * 1024


async def info(
    values: Values, sight: Sight, *, with_input: bool = False, new: bool = False, note: str = ""
) -> task_replies.TaskInfo:
    """Return a task with its values, as far as they fit into an answer."""
    told = task_rows.info(sight, with_input=with_input, new=new, note=note)
    changed: dict[str, Any] = {}
    if told.output_blob:
        changed |= await _fitting(values.blobs, told.output_blob, "output")
    if told.input_blob and with_input:
        changed |= await _fitting(values.blobs, told.input_blob, "input")
    changed.pop("input_bytes", None)
    return told.model_copy(update=changed) if changed else told


async def _fitting(blobs: Blobs, digest: str, name: str) -> dict[str, Any]:
    """Return the fields that tell a kept value: itself when it fits, its digest and size when it does not."""
    try:
        size = (await blobs.info(digest)).size
        if size > SHOWN_MAX_BYTES:
            return {f"{name}_bytes": size}
        return {name: codec.decode(await blobs.get(digest)), f"{name}_blob": "", f"{name}_bytes": size}
    except NotFound:
        return {"note": f"Its {name} is no longer kept."}


async def keep(blobs: Blobs, data: bytes, upload: str, digest: str) -> task_replies.BlobKept:
    """Keep a piece of a large value; the one that comes with the digest is the last."""
    upload = upload or blobs.begin()
    await blobs.piece(upload, data)
    if not digest:
        return task_replies.BlobKept(upload=upload)
    size = await blobs.finish(upload, digest)
    return task_replies.BlobKept(upload=upload, digest=digest, size_bytes=size)


async def kept_input(blobs: Blobs, digest: str) -> bytes:
    """Return an input that was kept; raises `NotFound` (`blob.not_found`), `Invalid` (`wire.not_json`)."""
    data = await blobs.get(digest)
    try:
        codec.decode(data)
    except KnotworkError as error:
        raise Invalid(f"{digest} holds no JSON: {error.message}", code="wire.not_json", hint=error.hint) from error
    return data


async def read(
    blobs: Blobs, digest: str, after: int | None
) -> AsyncGenerator[replies.Chunk | task_replies.BlobKept, None]:
    """Yield the pieces of a large value as base64, or the one behind a place; then what they are together."""
    if after is not None:
        part, behind, size = await blobs.part(digest, after)
        if part:
            yield replies.Chunk(data=base64.b64encode(part).decode())
        yield task_replies.BlobKept(digest=digest, size_bytes=size, next=behind)
        return
    data = await blobs.get(digest)
    for start in range(0, len(data), PIECE_BYTES):
        yield replies.Chunk(data=base64.b64encode(data[start : start + PIECE_BYTES]).decode())
    yield task_replies.BlobKept(digest=digest, size_bytes=len(data))
