"""Who answers `/livez` and `/readyz` while the loop is held up? A thread, at the same door.

A plugin that waits or computes without `await` stops whatever the loop does, and a supervisor that asks meanwhile would
take the node for dead. As long as the loop does not turn, the connections that come are taken in here: what they ask is
looked at without being taken from them (`MSG_PEEK`), these two questions are answered, and all else is kept for the
loop, which finds it as it came. What holds Python's own lock (a library that computes without letting go of it) holds
up this thread, too.
"""

from __future__ import annotations

import contextlib
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
CONNECTIONS_MAX = 4096
"""Connections at a time. While we stand in, one is let go for each that comes beyond these."""
_COME_AGAIN = b"HTTP/1.1 503 Service Unavailable\r\nretry-after: 1\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"


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
    ours = [(b"knotwork-held-up", f"{held_s:.0f}".encode()), (b"connection", b"close")]  # seconds
    sent = [
        h11.Response(status_code=made.status_code, headers=[*made.raw_headers, *safe, *ours]),
        *([h11.Data(data=bytes(made.body))] if request.method == b"GET" else []),
        h11.EndOfMessage(),
    ]
    return b"".join(there.send(event) or b"" for event in sent)


class _Held:
    """The connections that are held: those that are silent yet, looked at by `asked`, and those `kept` for the loop."""

    def __init__(self, asked: selectors.BaseSelector) -> None:
        """Hold nobody yet."""
        self._asked = asked
        self._silent: dict[socket.socket, None] = {}
        self.kept: list[socket.socket] = []

    def silent(self, connection: socket.socket) -> None:
        """Hold one that has said nothing yet."""
        self._asked.register(connection, selectors.EVENT_READ)
        self._silent[connection] = None

    def heard(self, connection: socket.socket) -> bool:
        """Hold no more one that says something; returns False when it was let go meanwhile."""
        if connection not in self._silent:
            return False
        del self._silent[connection]
        self._asked.unregister(connection)
        return True

    def let_one_go(self) -> bool:
        """Make room for another; returns False when nobody is held.

        Of whichever are more one goes: who has been silent for longest, or who came last to be kept, who may come again.
        """
        if len(self._silent) > len(self.kept):
            gone = next(iter(self._silent))
            self.heard(gone)
        elif self.kept:
            gone = self.kept.pop()
            with contextlib.suppress(OSError):
                gone.recv(HEAD_MAX)
                gone.sendall(_COME_AGAIN)
        else:
            return False
        gone.close()
        return True

    def all(self) -> list[socket.socket]:
        """Return every connection, those kept first."""
        return [*self.kept, *self._silent]

    def __len__(self) -> int:
        """Return how many are held."""
        return len(self.kept) + len(self._silent)


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
            held = _Held(asked)
            asked.register(self._listener, selectors.EVENT_READ)
            while not (turned.is_set() or self._over):
                for key, _ in asked.select(LOOK_EVERY_S):
                    connection = key.fileobj
                    assert isinstance(connection, socket.socket)
                    if connection is self._listener:
                        if not self._let_in(held):
                            turned.wait(LOOK_EVERY_S)
                    elif held.heard(connection) and not self._answered(connection, held_s()):
                        held.kept.append(connection)
            for connection in held.all():
                self._adopt(connection)

    def close(self) -> None:
        """Stand in no more; returns when nobody is looked at any longer."""
        self._over = True
        with self._in:
            return

    def _let_in(self, held: _Held) -> bool:
        """Take in who comes; returns False when there is no room for anybody, and nobody to let go for it."""
        if len(held) >= CONNECTIONS_MAX:
            held.let_one_go()
        try:
            connection, _ = self._listener.accept()
        except (BlockingIOError, ConnectionError):  # gone again
            return True
        except OSError:  # no file is left for it
            return held.let_one_go()
        connection.settimeout(0)
        held.silent(connection)
        return True

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
