"""How does an agent's work become the stream a prompt is answered with? An ack, chunks of text, an error or not, the end."""

from __future__ import annotations

import logging
import time
from collections import deque
from typing import TYPE_CHECKING

from knotwork.bus import codec
from knotwork.bus.frames import read_error
from knotwork.bus.way import Way
from knotwork.mesh import prompts
from knotwork.sdk.errors import KnotworkError, TooLarge, Unreachable

if TYPE_CHECKING:
    from collections.abc import Callable

    from knotwork.bus.connection import Connection
    from knotwork.bus.frames import Kind
    from knotwork.mesh.job import Tally

log = logging.getLogger(__name__)
ACK_S = 15.0
"""How often a sign of life is passed on, also to one who is told pieces: only those that come back tell that he has gone.

A client gives up after 60 s of silence.
"""


class PromptStream:
    """The way back to whoever sent a prompt (`hosting.Answering`): an ack, chunks of text, the end."""

    __slots__ = (
        "_connection", "_quiet_until_s", "_said", "_started_ns", "_tally", "_unsent", "_unsent_kind", "_way", "over",
    )  # fmt: skip

    def __init__(
        self, connection: Connection, reply: str, tally: Tally, gone: Callable[[], None] | None = None
    ) -> None:
        """Count into `tally`; nothing is sent yet. `gone` is called when nobody listens at `reply` any more."""
        self._connection, self._tally = connection, tally
        self._way = Way(connection, reply, gone)
        self._started_ns, self._quiet_until_s = time.monotonic_ns(), 0.0
        self._said = prompts.Said()
        self._unsent: deque[tuple[bytes, bytes]] = deque()
        self._unsent_kind: Kind = "chunk"
        self.over = False
        tally.requests += 1

    def frame(self, kind: Kind, data: bytes) -> None:
        """Pass on what the agent says.

        Raises `TooLarge` for what is larger than a message may be, and `Unreachable` when there is no room for all of
        it: the same frame again sends the rest.
        """
        if kind in ("alive", "progress"):
            if time.monotonic() >= self._quiet_until_s:
                self.ack()
            return
        if not self._unsent or kind != self._unsent_kind:
            self._unsent.clear()  # an error takes the place of a piece that was given up
            self._unsent_kind = kind
            self._take(kind, data)
        self._flush()

    def _take(self, kind: Kind, data: bytes) -> None:
        if kind == "error":
            self._fail(read_error(data))
        elif len(data) > self._connection.max_payload > 0:
            raise TooLarge(
                f"The output has {len(data)} bytes; the limit is {self._connection.max_payload}.",
                code="bus.message_too_large",
            )
        elif kind == "chunk":
            text = prompts.piece_of(codec.decode(data))
            self._said.add(text)
            self._respond(text)
        else:
            self._respond(self._said.rest(codec.decode(data)))
            self._end()

    def ack(self) -> None:
        """Say that the prompt was taken, or is still worked on."""
        self._quiet_until_s = time.monotonic() + ACK_S
        self._way.sign(prompts.ACK, b"")

    def close(self) -> None:
        """Give up: nothing more will be sent."""
        self._way.close()

    def _respond(self, text: str) -> None:
        self._unsent.extend((chunk, b"") for chunk in prompts.responses(text))

    def _fail(self, error: KnotworkError) -> None:
        self._tally.errors += 1
        self._tally.last_error = error.message[:500]
        self._unsent.append((prompts.error_body(error), prompts.error_head(error)))
        self._end()

    def _end(self) -> None:
        self.over = True
        self._tally.busy_ns += time.monotonic_ns() - self._started_ns
        self._unsent.append((prompts.END, b""))

    def _flush(self) -> None:
        """Send what is unsent; raises `Unreachable` when not all of it can be sent now."""
        while self._unsent:
            try:
                self._send(*self._unsent[0])
            except Unreachable:
                raise
            except KnotworkError as error:
                log.debug("an answer is lost: %s", error)
            self._unsent.popleft()
        if self.over:
            self._way.close()

    def _send(self, data: bytes, head: bytes) -> None:
        try:
            self._way.send(data, head)
        except TooLarge:
            self._way.send(b"", head)  # an error with a huge detail
