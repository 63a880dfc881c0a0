"""Where does the process of the view begin? Here: it steps back behind everybody else, and loads the rest only then.

Started as `python -P -m knotwork.view.child` or, frozen, `knotwork --view-child`; it ends when the node is gone. What is
shown may be a little late, what is done may not.
"""

from __future__ import annotations

import os
import sys

NICE = 5


def main() -> int:
    """Be the process of the view."""
    if hasattr(os, "nice"):
        os.nice(NICE)
    from knotwork.view import serving  # half a second of loading, which must not slow down a node that begins

    serving.run()
    return 0


if __name__ == "__main__":
    sys.exit(main())
