"""Which port may a test use for a server that it starts later, or again?"""

from __future__ import annotations

import contextlib
import random
import socket


def free_port() -> int:
    """Return a port that nobody has, outside the range that systems hand out: no other test takes it meanwhile."""
    while True:
        with contextlib.suppress(OSError), socket.socket() as probe:
            probe.bind(("127.0.0.1", random.randrange(15_000, 32_000)))
            return int(probe.getsockname()[1])
