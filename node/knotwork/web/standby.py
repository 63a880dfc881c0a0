"""Who answers `/livez` and `/readyz` while the loop is held up? A thread, at the same door.

A plugin that waits or computes without `await` stops whatever the loop does, and a supervisor that asks meanwhile would
take the node for dead. As long as the loop does not turn, the connections that come are taken in here: what they ask is
looked at without being taken from them (`MSG_PEEK`), these two questions are answered, and all else is kept for the
loop, which finds it as it came. What holds Python's own lock (a library that computes without letting go of it) holds
up this thread, too.
"""

from __future__ import annotations

import selectors
import socket
import threading
from collections.abc import Callable

import h11
from starlette.datastructures import Headers

from knotwork.web.app import health_answer
from knotwork.web.guard import HEALTH_PATHS, SAFE_HEADERS, Doorkeeper

Adopt = Callable[[socket.socket], None]
"""Takes over a connection for the loop; called in our thread."""

DEAD_S = 60.0
"""A loop that has not turned for that long will hardly turn again: the node counts as not alive, and may be restarted."""
LOOK_EVERY_S = 0.05
HEAD_MAX = 16 * 1024
KEPT_MAX = 1024
"""Connections kept for the loop; more wait where the system keeps them."""


def answer(head: bytes, keeper: Doorkeeper, held_s: float) -> bytes | None:
    """Return the bytes to answer a request with, None when it is none of ours, or has not come whole (pure).

    `held_s`: seconds for which the loop has not turned.
    """
    there = h11.Connection(h11.SERVER)
    try:
        there.receive_data(head)
        request, end = there.next_event(), there.next_event()
    except h11.RemoteProtocolError:
        return None
    if not isinstance(request, h11.Request) or not isinstance(end, h11.EndOfMessage) or there.trailing_data[0]:
        return None
    path = request.target.partition(b"?")[0].decode("ascii")
    headers = Headers(raw=list(request.headers))
    if path not in HEALTH_PATHS or request.method not in (b"GET", b"HEAD") or "origin" in headers:
        return None
    if keeper.refusal(headers, path, "http") is not None:
        return None
    made = health_answer("live", good=held_s < DEAD_S) if path == "/livez" else health_answer("ready", good=False)
    safe = [(name.encode(), value.encode()) for name, value in SAFE_HEADERS.items()]
    sent = [
        h11.Response(status_code=made.status_code, headers=[*made.raw_headers, *safe, (b"connection", b"close")]),
        *([h11.Data(data=bytes(made.body))] if request.method == b"GET" else []),
        h11.EndOfMessage(),
    ]
    return b"".join(there.send(event) or b"" for event in sent)


class Standby:
    """Stands in at `listener`, which does not block, and gives what it does not answer to `adopt`."""

    def __init__(self, listener: socket.socket, keeper: Doorkeeper, adopt: Adopt) -> None:
        """Answer nobody yet."""
        self._listener, self._keeper, self._adopt = listener, keeper, adopt
        self._in = threading.Lock()
        self._over = False

    def stand_in(self, turned: threading.Event, held_s: Callable[[], float]) -> None:
        """Answer until the loop has `turned`; called in a thread. `held_s()`: seconds for which it has not."""
        with self._in, selectors.DefaultSelector() as asked:
            if self._over:
                return
            kept: list[socket.socket] = []
            asked.register(self._listener, selectors.EVENT_READ)
            while not (turned.is_set() or self._over):
                for key, _ in asked.select(LOOK_EVERY_S):
                    if key.fileobj is self._listener:
                        self._let_in(asked, kept)
                        continue
                    connection = key.fileobj
                    assert isinstance(connection, socket.socket)
                    asked.unregister(connection)
                    if not self._answered(connection, held_s()):
                        kept.append(connection)
            silent = [key.fileobj for key in asked.get_map().values() if isinstance(key.fileobj, socket.socket)]
            for connection in [*kept, *(one for one in silent if one is not self._listener)]:
                self._adopt(connection)

    def close(self) -> None:
        """Stand in no more; returns when nobody is looked at any longer."""
        self._over = True
        with self._in:
            return

    def _let_in(self, asked: selectors.BaseSelector, kept: list[socket.socket]) -> None:
        if len(kept) + len(asked.get_map()) > KEPT_MAX:
            asked.unregister(self._listener)
            return
        try:
            connection, _ = self._listener.accept()
        except OSError:  # gone again, or no file left for it
            return
        connection.settimeout(0)
        asked.register(connection, selectors.EVENT_READ)

    def _answered(self, connection: socket.socket, held_s: float) -> bool:
        """Answer one that has said something; returns False when it is for the loop."""
        try:
            head = connection.recv(HEAD_MAX, socket.MSG_PEEK)
            said = answer(head, self._keeper, held_s) if head else b""
            if said is None:
                return False
            connection.recv(len(head))
            connection.sendall(said)
            connection.shutdown(socket.SHUT_WR)
        except OSError:
            pass
        connection.close()
        return True
