"""How is NATS' own library loaded? Without what we do not use of it: web sockets and its JetStream, until somebody does.

nats-py imports aiohttp whenever it is installed (a tenth of a second and 10 MB in every process, the command line's
too), and always its own JetStream, whose place `streams`, `kv` and `pulls` take here (40 ms).
"""

from __future__ import annotations

import importlib
import importlib.machinery
import importlib.util
import sys
from collections.abc import Sequence
from types import ModuleType

_JETSTREAM = "nats.js"


class _Late:
    """Finds nats-py's JetStream as a module that is loaded at its first use."""

    @staticmethod
    def find_spec(
        name: str, path: Sequence[str] | None = None, _target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        """Return where it is and that it can wait, None for every other module."""
        if name != _JETSTREAM:
            return None
        others = (finder for finder in sys.meta_path if finder is not _Late)  # in one executable it is another one
        spec = next(filter(None, (finder.find_spec(name, path) for finder in others)), None)
        if spec is None or spec.loader is None:
            return None
        spec.loader = importlib.util.LazyLoader(spec.loader)
        return spec


_ABSENT = "aiohttp" not in sys.modules
if _ABSENT:
    sys.modules["aiohttp"] = None  # type: ignore[assignment]  # nats-py takes it for not installed
sys.meta_path.insert(0, _Late)
try:
    from nats import errors
    from nats.aio import transport
    from nats.aio.client import Client
    from nats.protocol.parser import AWAITING_CONTROL_LINE, AWAITING_MSG_PAYLOAD, Parser
finally:
    sys.meta_path.remove(_Late)
    if _ABSENT:
        del sys.modules["aiohttp"]

__all__ = ["AWAITING_CONTROL_LINE", "AWAITING_MSG_PAYLOAD", "Client", "Parser", "errors", "load_web_sockets"]


def load_web_sockets() -> None:
    """Give nats-py what `ws://` and `wss://` need; raises `ImportError` when it is not installed."""
    for name in ("aiohttp", "multidict"):
        if getattr(transport, name) is None:
            setattr(transport, name, importlib.import_module(name))
