"""What the executable runs first. The same as `python -m knotwork`, and a way for plugins to use multiprocessing."""

import sys

if sys.argv[1:2] == ["--multiprocessing-fork"] or (
    sys.argv[1:2] == ["-c"] and sys.argv[2:3] and sys.argv[2].startswith("from multiprocessing.")
):
    from multiprocessing import freeze_support  # we were started again by that module: this does what it asks, and ends

    freeze_support()

from knotwork.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
