"""How do bytes from the server become messages? Straight out of what was read, one `find` and one `split` for each.

nats-py's parser tries one pattern after the other on each line, moves the rest of its buffer to the front each time and
awaits a coroutine for each message. Under load that is a fifth of what an arriving message costs. And its patterns take
all white space for the end of a subject, the server only blanks and tabs: whoever may publish could write a subject that
ends the connection, or that names another subscription. So every line of a message is read here. nats-py gets the other
lines, one at a time, and the rest of a message too large to be held.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from knotwork.bus.library import AWAITING_CONTROL_LINE, AWAITING_MSG_PAYLOAD, Parser, errors

HELD_MAX = 64 * 1024
"""Half messages up to so many bytes are kept and looked at again whole; larger ones are gathered by nats-py's parser."""
_MSG, _HMSG = b"MSG", b"HMSG"
_OF_MESSAGES = (b"MSG ", b"HMSG ", b"MSG\t", b"HMSG\t")

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
        """Take what was read; overrides the method of the pinned version. Raises nats-py's `ProtocolError`."""
        if self.state == AWAITING_CONTROL_LINE and self.buf:
            data = bytes(self.buf) + data
            self.buf.clear()
        while data:
            if self.state == AWAITING_CONTROL_LINE:
                data = data[self._take(data) :]
                if not data:
                    return
                end = data.find(b"\r\n") + 2
                if end < 2:  # noqa: PLR2004  half a line
                    self.buf.extend(data)
                    return
                if not data.startswith(_OF_MESSAGES):
                    await self._let(data[:end])
                    data = data[end:]
                    continue
                number, subject, reply, head, size = _message(data[: end - 2])
                if len(data) <= HELD_MAX and len(data) < end + size + 2:
                    self.buf.extend(data)
                    return
                # for a subscription of nats-py's own, or too large to be held
                self.msg_arg = {"subject": subject, "sid": number, "reply": reply}
                self.header_needed, self.needed, self.state = head, size, AWAITING_MSG_PAYLOAD
                data = data[end:]
            missing = self.needed + 2 - len(self.buf)
            await super().parse(data[:missing])
            data = data[missing:]

    async def _let(self, line: bytes) -> None:
        """Let nats-py take one whole line that is of no message."""
        await super().parse(line)
        if self.buf:  # it would wait for more of a line that it does not know
            raise errors.ProtocolError("nats: unknown protocol")

    def _take(self, data: bytes) -> int:
        """Deliver the messages that `data` begins with, and return where the first stands that is not taken."""
        at = 0
        while (end := data.find(b"\r\n", at)) >= 0:
            # MSG subject number [reply] size, or HMSG subject number [reply] header-size size
            parts = data[at:end].split(b" ")  # the server writes one blank, and subjects may hold all other white space
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
            if handler is None or not parts[1] or not 0 <= head <= size or len(data) < begin + size + 2:
                return at
            at = begin + size + 2
            self._deliver(handler, parts[1], reply, data[begin + head : begin + size], data[begin : begin + head])
        return at


def _message(line: bytes) -> tuple[int, bytes, bytes, int, int]:
    """Return number, subject, reply subject, header size and size in bytes; raises nats-py's `ProtocolError`."""
    kind, *parts = [part for part in line.replace(b"\t", b" ").split(b" ") if part]
    sizes = parts[-2:] if kind == _HMSG else [b"0", *parts[-1:]]
    names = parts[: len(parts) - (2 if kind == _HMSG else 1)]
    if not (2 <= len(names) <= 3 and names[1].isdigit() and all(one.isdigit() for one in sizes)):  # noqa: PLR2004
        raise errors.ProtocolError("nats: malformed MSG")
    head, size = map(int, sizes)
    if head > size:
        raise errors.ProtocolError("nats: malformed MSG")
    return int(names[1]), names[0], names[2] if len(names) == 3 else b"", head, size  # noqa: PLR2004
