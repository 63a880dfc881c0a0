"""How do bytes from the server become messages? Straight out of what was read, one `find` and one `split` for each.

nats-py's parser tries one pattern after the other on each line, moves the rest of its buffer to the front each time and
awaits a coroutine for each message. Under load that is a fifth of what an arriving message costs. Only messages for our
own listeners are taken here; everything else (PING, INFO, errors, what is malformed) is left to it, as it stands.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from knotwork.bus.library import AWAITING_CONTROL_LINE, Parser

HELD_MAX = 64 * 1024
"""Half messages up to so many bytes are kept and looked at again whole; larger ones are gathered by nats-py's parser."""
_MSG, _HMSG = b"MSG", b"HMSG"

Handlers = dict[int, Any]
Deliver = Callable[[Any, bytes, bytes, bytes, bytes], None]
"""Takes a handler, and subject, reply subject, data and header block of a message for it."""


class DirectParser(Parser):
    """nats-py's parser with a short way for messages that go straight to a function."""

    def __init__(self, client: Any, handlers: Handlers, deliver: Deliver) -> None:
        """Parse for `client`; what is for one of `handlers`, by their number, goes to `deliver`."""
        super().__init__(client)
        self._handlers, self._deliver = handlers, deliver

    async def parse(self, data: bytes = b"") -> None:
        """Take what was read; overrides the method of the pinned version."""
        if self.state == AWAITING_CONTROL_LINE:
            if self.buf:
                data = bytes(self.buf) + data
                self.buf.clear()
            data = data[self._take(data) :]
            if len(data) <= HELD_MAX and data.startswith((b"MSG ", b"HMSG ")) and not self._is_whole(data):
                self.buf.extend(data)
                return
        if data:
            await super().parse(data)

    def _take(self, data: bytes) -> int:
        """Deliver the messages that `data` begins with, and return where the first stands that is not taken."""
        at = 0
        while (end := data.find(b"\r\n", at)) >= 0:
            # MSG subject number [reply] size, or HMSG subject number [reply] header-size size
            parts = data[at:end].split()
            count = len(parts)
            try:
                if 4 <= count <= 5 and parts[0] == _MSG:  # noqa: PLR2004
                    head, reply = 0, parts[3] if count == 5 else b""  # noqa: PLR2004
                elif 5 <= count <= 6 and parts[0] == _HMSG:  # noqa: PLR2004
                    head, reply = int(parts[-2]), parts[3] if count == 6 else b""  # noqa: PLR2004
                else:
                    return at
                size, handler = int(parts[-1]), self._handlers.get(int(parts[2]))
            except ValueError:
                return at
            begin = end + 2
            if handler is None or not 0 <= head <= size or len(data) < begin + size + 2:
                return at
            at = begin + size + 2
            self._deliver(handler, parts[1], reply, data[begin + head : begin + size], data[begin : begin + head])
        return at

    def _is_whole(self, data: bytes) -> bool:
        """Return whether the first message is there: then it was not for us to take, and more of it would not help."""
        line, end, rest = data.partition(b"\r\n")
        size = line.split()[-1]
        return bool(end) and (not size.isdigit() or len(rest) >= int(size) + 2)
