"""`python -m knotwork` is the same program as `knotwork`."""

import sys

from knotwork.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
