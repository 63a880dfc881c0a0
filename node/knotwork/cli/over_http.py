"""How is a local node asked whose NATS is not its own? Over its HTTP door, with the token only we can read.

A node that joined somebody else's NATS has no key to hand to local doors; its HTTP door serves the same ops, frame by
frame, as server-sent events.
"""

from __future__ import annotations

import http.client
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import urlsplit

from knotwork.cli.local import LocalNode
from knotwork.sdk.errors import Denied, Invalid, TimedOut, Unreachable

LINE_MAX_BYTES = 64 * 1024 * 1024


def ask(
    node: LocalNode, project: str, op: str, request: bytes, on_frame: Callable[[str, bytes], None], *, timeout_s: float
) -> None:
    """Ask for one op; `on_frame(kind, data)` gets every frame, the last one being `result` or `error`.

    Raises `Unreachable` (`node.lost` once it was asked), `Denied`, `TimedOut`; closing the connection early (Ctrl-C) makes the node stop the work.
    """
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
            f"{node.http_token_file} cannot be read: {error.strerror}.", code="cli.credentials_unreadable"
        ) from error
    address = urlsplit(node.http)
    connection = http.client.HTTPConnection(address.hostname or "127.0.0.1", address.port, timeout=timeout_s)
    room, _, verb = op.partition(".")
    headers = {
        "authorization": f"Bearer {token}",
        "content-type": "application/json",
        "accept": "text/event-stream",
        "knotwork-project": project,
    }
    asked = False
    try:
        connection.request("POST", f"/api/{room}/{verb}", request or b"{}", headers)
        asked = True
        response = connection.getresponse()
        if response.getheader("content-type", "").startswith("text/event-stream"):
            for kind, data in _events(response):
                on_frame(kind, data)
            return
        body = response.read()
        on_frame(
            "result" if response.status == http.client.OK else "error",
            body if response.status == http.client.OK else _wire(body),
        )
    except TimeoutError:
        raise TimedOut(f"No answer to {op} within {timeout_s:g} s.", code="call.timed_out") from None
    except (OSError, http.client.HTTPException) as error:
        raise Unreachable(
            f"Node {node.node} does not answer at {node.http}: {error}.",
            code="node.lost" if asked else "node.unreachable",
        ) from error
    finally:
        connection.close()


def _events(response: http.client.HTTPResponse) -> Iterator[tuple[str, bytes]]:
    """Yield name and data of each server-sent event; comments are passed over."""
    kind = ""
    while line := response.readline(LINE_MAX_BYTES):
        name, _, value = line.rstrip(b"\r\n").partition(b": ")
        if name == b"event":
            kind = value.decode("ascii", "replace")
        elif name == b"data":
            yield kind, value


def _wire(problem: bytes) -> bytes:
    """Return the error inside a problem document as our own wire form."""
    try:
        found = json.loads(problem)
        wire = {key: found[key] for key in ("kind", "code", "hint", "retry_after_s") if key in found}
        wire["message"] = found["detail"]
        wire["detail"] = {**found.get("data", {}), **({"problems": found["problems"]} if "problems" in found else {})}
    except (ValueError, KeyError, AttributeError, TypeError):
        raise Invalid("The node's answer is unreadable.", code="wire.malformed") from None
    return json.dumps(wire).encode()
