"""How is NATS' own library loaded? Without what it needs for web sockets, until somebody connects by one.

nats-py imports aiohttp whenever it is installed: a tenth of a second and 10 MB in every process, the command line's too.
"""

from __future__ import annotations

import importlib
import sys

_ABSENT = "aiohttp" not in sys.modules
if _ABSENT:
    sys.modules["aiohttp"] = None  # type: ignore[assignment]  # nats-py takes it for not installed
try:
    from nats import errors
    from nats.aio import transport
    from nats.aio.client import Client
    from nats.protocol.parser import AWAITING_CONTROL_LINE, AWAITING_MSG_PAYLOAD, Parser
finally:
    if _ABSENT:
        del sys.modules["aiohttp"]

__all__ = ["AWAITING_CONTROL_LINE", "AWAITING_MSG_PAYLOAD", "Client", "Parser", "errors", "load_web_sockets"]


def load_web_sockets() -> None:
    """Give nats-py what `ws://` and `wss://` need; raises `ImportError` when it is not installed."""
    for name in ("aiohttp", "multidict"):
        if getattr(transport, name) is None:
            setattr(transport, name, importlib.import_module(name))
