"""How do values travel that are too large for one request or answer? In pieces, by `blob.put` and `blob.get`."""

from __future__ import annotations

import base64
import hashlib
import json
import sys
from collections.abc import Callable
from typing import Any

from knotwork.cli import given, remote
from knotwork.cli.options import Shared
from knotwork.ops.form import Row

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
    """Put an output that is kept elsewhere into the reply of its task."""
    digest = reply.get("output_blob")
    if not digest or reply.get("output") is not None:
        return
    parts: list[bytes] = []

    def take(frame: Any) -> None:
        parts.append(base64.b64decode(json.loads(frame.data)["data"]))

    remote.ask(shared, "blob.get", json.dumps({"digest": digest}).encode(), take, timeout_s=PIECE_TIMEOUT_S)
    reply["output"] = json.loads(b"".join(parts))


def printer() -> Callable[[Any], None]:
    """Return what writes the pieces of a blob to standard output, as they are."""

    def piece(frame: Any) -> None:
        sys.stdout.buffer.write(base64.b64decode(json.loads(frame.data)["data"]))
        sys.stdout.buffer.flush()

    return piece


def _ask(shared: Shared, op: str, request: dict[str, Any]) -> dict[str, Any]:
    raw = remote.ask(shared, op, json.dumps(request).encode(), lambda _: None, timeout_s=PIECE_TIMEOUT_S)
    answer: dict[str, Any] = json.loads(raw)
    return answer
