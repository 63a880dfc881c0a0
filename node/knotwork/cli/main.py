"""Where does the program begin? Here: what must be quick is answered at once, everything else goes to `app`.

The executable also starts itself again with a hidden first word: as the warden of its children, as the host of
a plugin, as the keeper of the view of the past, or as the other side of a measurement.
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
    if words[:1] == ["--warden"]:
        from knotwork.bus import warden  # it must stay tiny

        return warden.main(words[1:])
    if words[:1] == ["--plugin-host"]:
        from knotwork.sockets import hosted_child  # the plugin's own process: no command line in it

        return hosted_child.main(words[1])
    if words[:1] == ["--view-child"]:
        from knotwork.view import child as view_child  # the process that keeps the view of the past

        return view_child.main()
    if words[:1] == ["--bench-peer"]:
        from knotwork.bench import peer  # the other side of a measurement

        return peer.main(words[1:])
    if next((word for word in words if not word.startswith("-")), "") == "up":
        _hold_hangup()
    from knotwork.cli import app  # click and the ops table

    return app.run(words)


def _hold_hangup() -> None:
    """Ignore SIGHUP until the node has its own handler: it asks to read a configuration that is about to be read."""
    import signal  # only for the one command that needs it at once

    if hasattr(signal, "SIGHUP"):
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
