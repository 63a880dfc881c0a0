"""Where do answers arrive? One subscription per connection; each request has a reply subject below it."""

from __future__ import annotations

import itertools
import secrets
from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from knotwork.bus.wire import Message, Wire

Deliver = Callable[["Message"], None]


class Inbox:
    """Hands each answer to whoever waits for it; an answer that nobody waits for is dropped.

    `prefix` keeps users of one account apart: a node's answers are not under `_INBOX`, where local doors may listen.
    """

    def __init__(self, prefix: str) -> None:
        self.root = f"{prefix}.{secrets.token_hex(8)}"
        self._skip = len(self.root) + 1
        self._waiting: dict[str, Deliver] = {}
        self._numbers = itertools.count()

    def attach(self, wire: Wire) -> None:
        """Subscribe on a (new) connection; who waits already keeps waiting."""
        wire.listen(f"{self.root}.*", self._arrived)

    def open(self, deliver: Deliver) -> str:
        """Return a fresh reply subject whose messages go to `deliver` until `close`."""
        key = str(next(self._numbers))
        self._waiting[key] = deliver
        return f"{self.root}.{key}"

    def close(self, reply: str) -> None:
        """Stop waiting."""
        self._waiting.pop(reply[self._skip :], None)

    def __len__(self) -> int:
        return len(self._waiting)

    def _arrived(self, message: Message) -> None:
        deliver = self._waiting.get(message.subject[self._skip :])
        if deliver is not None:
            deliver(message)
