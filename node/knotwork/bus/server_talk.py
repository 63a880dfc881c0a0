"""What does our own nats-server say about itself? A few questions over its system account.

A bare connection of some 60 lines instead of a full client: it is there before anything else is, lives for one question
or two, never reconnects and can be dropped at any moment.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import secrets
from collections.abc import AsyncIterator
from typing import Any

import nkeys

from knotwork.sdk.errors import Unavailable

_LINE_BYTES_MAX = 1024 * 1024
_REPLY_BYTES_MAX = 16 * 1024 * 1024
_INBOX = "_INBOX.knotwork.watcher"  # one below it for each line: two may be open at once


class Line:
    """An open connection; `info` is the server's greeting."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer
        self.info: dict[str, Any] = {}
        self._inbox = f"{_INBOX}.{secrets.token_hex(8)}"

    async def greet(self, seed: str) -> None:
        """Read the greeting and log in with the nkey `seed`."""
        verb, _, rest = (await self._line()).partition(" ")
        if verb != "INFO":
            raise _astray(verb)
        self.info = json.loads(rest)
        key = nkeys.from_seed(seed.encode())
        signature = base64.b64encode(key.sign(str(self.info.get("nonce", "")).encode())).decode()
        hello = {
            "nkey": key.public_key.decode(), "sig": signature, "verbose": False, "pedantic": False, "lang": "python",
            "version": "1", "name": "knotwork watcher", "protocol": 1, "echo": True,
        }  # fmt: skip
        self._writer.write(f"CONNECT {json.dumps(hello)}\r\nPING\r\nSUB {self._inbox} 1\r\n".encode())
        while (line := await self._line()) != "PONG":
            self._refused(line)

    async def ask(self, verb: str, question: dict[str, Any] | None = None) -> dict[str, Any]:
        """Send `$SYS.REQ.SERVER.<id>.<verb>` and return the answer."""
        payload = json.dumps(question).encode() if question else b""
        subject = f"$SYS.REQ.SERVER.{self.info.get('server_id')}.{verb}"
        self._writer.write(f"PUB {subject} {self._inbox} {len(payload)}\r\n".encode() + payload + b"\r\n")
        while not (line := await self._line()).startswith("MSG "):
            if line == "PING":
                self._writer.write(b"PONG\r\n")
            self._refused(line)
        size = int(line.rpartition(" ")[2])
        if size > _REPLY_BYTES_MAX:
            raise _astray(line)
        answer = json.loads((await self._reader.readexactly(size + 2))[:-2])
        if not isinstance(answer, dict):
            raise _astray(line)
        return answer

    async def _line(self) -> str:
        raw = await self._reader.readuntil(b"\r\n")
        return raw[:-2].decode(errors="replace")

    def _refused(self, line: str) -> None:
        if line.startswith("-ERR") and "timeout" in line.lower():  # we stood still: no word about our key
            raise ConnectionAbortedError(line)
        if line.startswith("-ERR"):
            raise Unavailable(f"nats-server refuses its own watcher: {line[5:]}", code="bus.server_failed")


@contextlib.asynccontextmanager
async def open_line(host: str, port: int, seed: str, *, timeout_s: float) -> AsyncIterator[Line]:
    """Connect and log in; the whole block has `timeout_s` seconds.

    Raises `OSError`, `EOFError`, `ValueError` or `TimeoutError` when the server is away, silent or talks nonsense,
    `Unavailable` when it refuses us.
    """
    async with asyncio.timeout(timeout_s):
        reader, writer = await asyncio.open_connection(_reachable(host), port, limit=_LINE_BYTES_MAX)
        try:
            line = Line(reader, writer)
            await line.greet(seed)
            yield line
        finally:
            writer.transport.abort()  # nothing of ours is under way, and waiting for the other side could take long


def _reachable(host: str) -> str:
    return {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104 - compared, not bound


def _astray(line: str) -> ValueError:
    return ValueError(f"this is not a nats-server: it says {line[:80]!r}")
