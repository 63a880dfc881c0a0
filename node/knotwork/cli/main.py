"""Where does the program begin? Here: what must be quick is answered at once, everything else goes to `app`.

The executable also starts itself again with a hidden first word: as the warden of its children, as the host of a
plugin, as the place where one is tried, as the keeper of the view of the past, or as the other side of a measurement.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command line and return its exit code; `arguments` default to the process's own."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    if words[:1] in (["--version"], ["-V"]):
        from knotwork import __version__  # nothing else: asked by every script that checks an installation

        print(f"knotwork {__version__}")
        return 0
    code = _other_self(words)
    if code is not None:
        return code
    if words[:1] == ["mcp"]:
        from knotwork.cli import serving  # clients wait for it: without click

        served = serving.main(words[1:])
        if served is not None:
            return served
    if _is_up(words):
        _hold_hangup()
    from knotwork.cli import app  # click and the ops table

    return app.run(words)


def _is_up(words: list[str]) -> bool:
    """Return whether the verb is `up`; a word behind an option may be its value."""
    before = ""
    for word in words:
        if word == "up":
            return True
        if not (word.startswith("-") or before.startswith("-")):
            return False
        before = word
    return False


_SELVES: dict[str, tuple[str, bool]] = {
    "--warden": ("knotwork.bus.warden", True),  # it must stay tiny
    "--plugin-host": ("knotwork.sockets.hosted_child", True),  # the plugin's own process: no command line in it
    "--plugin-try": ("knotwork.sockets.tried_child", False),  # a process that a plugin may end
    "--view-child": ("knotwork.view.child", False),  # the process that keeps the view of the past
    "--bench-peer": ("knotwork.bench.peer", True),  # the other side of a measurement
}
"""What a hidden first word makes of us: the module whose `main` is called, and whether it gets the other words."""


def _other_self(words: list[str]) -> int | None:
    """Be what a hidden first word says; returns the exit code, None for every other command line."""
    module, told = _SELVES.get(words[0] if words else "", ("", False))
    if not module:
        return None
    import importlib  # only for these

    begin = importlib.import_module(module).main
    return int(begin(words[1:]) if told else begin())


def _hold_hangup() -> None:
    """Ignore SIGHUP until the node has its own handler: it asks to read a configuration that is about to be read."""
    import signal  # only for the one command that needs it at once

    if hasattr(signal, "SIGHUP"):
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
