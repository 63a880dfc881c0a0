"""How long may a caller take to say what he wants? One who holds a connection open without asking is sent away.

uvicorn bounds the pause between two requests, and we the time of a body; in between a head that comes byte by byte
could hold a connection for ever, and a few thousand of them the whole door.
"""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, Any

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

if TYPE_CHECKING:
    from collections.abc import Callable

HEAD_TIMEOUT_S = 10.0
"""For the whole head of a request, counted from the connection, or from the end of the answer before it."""
_TOO_SLOW = b"The head of the request did not arrive in time.\n"


class PatientProtocol(H11Protocol):
    """uvicorn's HTTP/1.1, with a limit for the head."""

    _overdue: asyncio.TimerHandle | None = None
    _heard = False

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as in uvicorn
        """Begin to count."""
        super().connection_made(transport)
        self._look()

    def data_received(self, data: bytes) -> None:
        """Take what came, and stop counting when the head is whole."""
        self._heard = True
        super().data_received(data)
        self._look()

    def on_response_complete(self) -> None:
        """Begin to count for the next request."""
        self._heard = False
        super().on_response_complete()
        self._look()

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop counting."""
        self._forget()
        super().connection_lost(exc)

    def _look(self) -> None:
        waiting = self.conn.their_state is h11.IDLE and not self.transport.is_closing()
        if not waiting:
            self._forget()
        elif self._overdue is None:
            self._overdue = self.loop.call_later(HEAD_TIMEOUT_S, self._send_away)

    def _forget(self) -> None:
        if self._overdue is not None:
            self._overdue.cancel()
            self._overdue = None

    def _send_away(self) -> None:
        self._overdue = None
        if self.transport.is_closing():
            return
        if self._heard and self.conn.our_state is h11.IDLE:  # to one who said nothing there is nothing to say
            headers = [("content-type", "text/plain"), ("content-length", str(len(_TOO_SLOW))), ("connection", "close")]
            with contextlib.suppress(h11.LocalProtocolError):
                self._say(h11.Response(status_code=408, reason=b"Request Timeout", headers=headers))
                self._say(h11.Data(data=_TOO_SLOW))
                self._say(h11.EndOfMessage())
        self.transport.close()

    def _say(self, event: Any) -> None:
        send: Callable[[Any], bytes | None] = self.conn.send
        self.transport.write(send(event) or b"")
