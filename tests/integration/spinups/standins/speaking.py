"""A stand-in for a service with an HTTP API, which cannot run here: it keeps what it was asked, and fails as it is told."""

from __future__ import annotations

import json
import re
import socketserver
import ssl
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlsplit

HANG_S = 120.0


@dataclass
class Asked:
    """One request as it came in; header names in lower case."""

    method: str
    path: str
    query: dict[str, str]
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


@dataclass
class Fault:
    """What to do instead of answering; `hang` never answers, `raw` are bytes that are no HTTP."""

    method: str
    path: str
    status: int = 500
    body: Any = None
    headers: Mapping[str, str] = field(default_factory=dict)
    times: int = 1
    hang: bool = False
    raw: bytes = b""


Reply = tuple[int, Any] | tuple[int, Any, Mapping[str, str]]


class Speaking:
    """Serves in threads of its own until it is closed."""

    def __init__(self, socket: Path | None = None) -> None:
        self.asked: list[Asked] = []
        self.faults: list[Fault] = []
        self.lock = threading.RLock()
        self._closing = threading.Event()
        speaking = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def handle_any(self) -> None:
                speaking._serve(self)

            do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = do_OPTIONS = handle_any  # noqa: N815  the library's

            def log_message(self, *_: Any) -> None:
                pass

            def address_string(self) -> str:
                return "test"

        if socket is None:
            self._server: Any = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
            self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        else:

            class Unix(socketserver.ThreadingUnixStreamServer):
                daemon_threads = True

            self._server = Unix(str(socket), Handler)
            self.url = str(socket)
        self._server.daemon_threads = True
        self._server.block_on_close = False
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)
        self._thread.start()

    def speak_tls(self, context: ssl.SSLContext) -> None:
        """Take TLS from now on."""
        self._server.socket = context.wrap_socket(self._server.socket, server_side=True)

    def close(self) -> None:
        self._closing.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(30)

    def before(self, asked: Asked) -> None:
        """Wait, outside of the lock."""

    def answer(self, asked: Asked) -> Reply:
        raise NotImplementedError

    def fault(self, method: str, path: str, **given: Any) -> None:
        """Answer the next request whose path matches the pattern with a fault."""
        self.faults.append(Fault(method, path, **given))

    def asks(self, method: str, path: str) -> list[Asked]:
        """Return the requests so far that match."""
        return [one for one in self.asked if one.method == method and re.search(path, one.path)]

    def _serve(self, request: BaseHTTPRequestHandler) -> None:
        if self._closing.is_set():  # a connection that was kept open
            request.close_connection = True
            return
        length = int(request.headers.get("content-length") or 0)
        parts = urlsplit(request.path)
        headers = {name.lower(): value for name, value in request.headers.items()}
        asked = Asked(request.command, parts.path, dict(parse_qsl(parts.query)), headers, request.rfile.read(length))
        with self.lock:
            self.asked.append(asked)
        self.before(asked)
        with self.lock:
            fault = next(
                (one for one in self.faults if one.method == asked.method and re.search(one.path, asked.path)), None
            )
            if fault is not None:
                fault.times -= 1
                if fault.times <= 0:
                    self.faults.remove(fault)
                reply: Reply = (fault.status, fault.body, fault.headers)
            else:
                reply = self.answer(asked)
        if fault is not None and fault.hang:
            self._closing.wait(HANG_S)
            request.close_connection = True
            return
        if fault is not None and fault.raw:
            request.wfile.write(fault.raw)
            request.close_connection = True
            return
        self._send(request, *reply)

    def _send(
        self, request: BaseHTTPRequestHandler, status: int, body: Any, headers: Mapping[str, str] | None = None
    ) -> None:
        content = body if isinstance(body, bytes) else b"" if body is None else json.dumps(body).encode()
        try:
            request.send_response(status)
            for name, value in {"Content-Type": "application/json", **(headers or {})}.items():
                request.send_header(name, value)
            if status not in (204, 304):
                request.send_header("Content-Length", str(len(content)))
            request.end_headers()
            if status not in (204, 304):
                request.wfile.write(content)
        except OSError:
            request.close_connection = True
