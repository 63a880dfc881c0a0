"""How is a local node asked whose NATS is not its own? Over its HTTP door, with the token only we can read.

A node that joined somebody else's NATS has no key to hand to local doors; its HTTP door serves the same ops.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import aclosing
from pathlib import Path

from knotwork.bus import http_client
from knotwork.cli.local import LocalNode
from knotwork.sdk.errors import Denied, Unreachable


def door(node: LocalNode, project: str) -> http_client.Door:
    """Return a node's HTTP door; raises `Unreachable` (`cli.no_door`), `Denied` (`cli.credentials_unreadable`)."""
    if not node.http:
        raise Unreachable(
            f"Node {node.node} joined a NATS that gives no key to local doors, and its HTTP door is closed.",
            code="cli.no_door",
            hint="Set web.enabled = true, or use --url and --creds.",
        )
    try:
        token = Path(node.http_token_file).read_text(encoding="utf-8").strip()
    except OSError as error:
        raise Denied(
            f"{node.http_token_file} cannot be read: {error.strerror}.",
            code="cli.credentials_unreadable",
            hint="Run the command as the user who started the node.",
        ) from error
    return http_client.Door(node.http, token, project)


def ask(
    node: LocalNode, project: str, op: str, request: bytes, on_frame: Callable[[str, bytes], None], *, timeout_s: float
) -> None:
    """Ask for one op; `on_frame(kind, data)` gets every frame, the last one being `result` or `error`.

    Raises what `http_client.over` and `door` raise; ending early (Ctrl-C) makes the node stop the work.
    """
    through = door(node, project)

    async def run() -> None:
        async with aclosing(http_client.over(through, op, request, timeout_s=timeout_s)) as pieces:
            async for piece in pieces:
                on_frame(piece.kind, piece.data)

    asyncio.run(run())
