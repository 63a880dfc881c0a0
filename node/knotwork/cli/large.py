"""How do values travel that are too large for one request or answer? In pieces, by `blob.put` and `blob.get`."""

from __future__ import annotations

import base64
import hashlib
import json
import sys
from collections.abc import Iterator
from typing import Any

from knotwork.cli import given, remote
from knotwork.cli.options import Shared
from knotwork.ops.form import Row
from knotwork.sdk.errors import Internal

REQUEST_MAX_BYTES = 6 * 1024 * 1024
"""A larger input goes ahead of its request."""
PIECE_BYTES = 4 * 1024 * 1024
PIECE_TIMEOUT_S = 60.0


def send_ahead(op: Row, request: dict[str, Any], shared: Shared) -> dict[str, Any]:
    """Return the request with a large input replaced by its digest, once that is kept."""
    if op.name == "blob.put" and isinstance(request.get("data"), str) and "upload" not in request:
        data = given.read_bytes(request["data"])
        return _last_piece(data, shared)
    if op.field("blob") is None or request.get("input") is None:
        return request
    data = json.dumps(request["input"], ensure_ascii=False, separators=(",", ":")).encode()
    if len(data) <= REQUEST_MAX_BYTES:
        return request
    last = _ask(shared, "blob.put", _last_piece(data, shared))
    return {name: value for name, value in request.items() if name != "input"} | {"blob": last["digest"]}


def _last_piece(data: bytes, shared: Shared) -> dict[str, Any]:
    """Put all pieces but the last, and return the request for that."""
    pieces = [data[start : start + PIECE_BYTES] for start in range(0, len(data), PIECE_BYTES)] or [b""]
    request: dict[str, Any] = {}
    for piece in pieces[:-1]:
        reply = _ask(shared, "blob.put", {"data": base64.b64encode(piece).decode(), **request})
        request = {"upload": reply["upload"]}
    digest = f"sha256-{hashlib.sha256(data).hexdigest()}"
    return {"data": base64.b64encode(pieces[-1]).decode(), "digest": digest, **request}


def fetch(reply: dict[str, Any], shared: Shared) -> None:
    """Put an output that is kept elsewhere into the reply of its task, or of its run."""
    digest = reply.get("output_blob")
    if not digest or reply.get("output") is not None:
        return
    reply["output"] = json.loads(b"".join(pieces(digest, shared)))


def write(digest: str, shared: Shared) -> dict[str, Any]:
    """Write a blob to standard output, piece by piece, and return what is known of it."""
    size = 0
    for piece in pieces(digest, shared):
        sys.stdout.buffer.write(piece)
        size += len(piece)
    sys.stdout.buffer.flush()
    return {"digest": digest, "size_bytes": size}


def pieces(digest: str, shared: Shared) -> Iterator[bytes]:
    """Yield the pieces of a blob, asking for each when the one before was taken: NATS cuts off who is sent too much.

    Raises `Internal` (`blob.damaged`) behind the last one when they are not what the digest stands for.
    """
    arrived: list[bytes] = []
    hashed, done, after, size = hashlib.sha256(), 0, 0, 1
    while done < size:
        arrived.clear()
        asked = json.dumps({"digest": digest, "after": after}).encode()
        said = json.loads(
            remote.ask(
                shared, "blob.get", asked, lambda frame: arrived.append(_bytes(frame)), timeout_s=PIECE_TIMEOUT_S
            )
        )
        after, size = int(said["next"]), int(said["size_bytes"])
        for piece in arrived:
            hashed.update(piece)
            done += len(piece)
            yield piece
        if not after:
            break
    if f"sha256-{hashed.hexdigest()}" != digest:
        raise Internal(
            f"{digest} is damaged: {done} of {size} bytes came, and they are something else.",
            code="blob.damaged",
            hint="It may have been put anew meanwhile: read it again.",
        )


def print_piece(frame: Any) -> None:
    """Write one piece of a blob to standard output, as it is."""
    sys.stdout.buffer.write(_bytes(frame))
    sys.stdout.buffer.flush()


def _bytes(frame: Any) -> bytes:
    return base64.b64decode(json.loads(frame.data)["data"])


def _ask(shared: Shared, op: str, request: dict[str, Any]) -> dict[str, Any]:
    raw = remote.ask(shared, op, json.dumps(request).encode(), lambda _: None, timeout_s=PIECE_TIMEOUT_S)
    answer: dict[str, Any] = json.loads(raw)
    return answer
