"""Is the one executable whole? It is built and tried as packaging/build.py does it: about two minutes.

In CI it always runs. Elsewhere it is left out with `-m "not binary and not slow and not bench"`.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

PACKAGING = Path(__file__).resolve().parents[2] / "packaging"
TIMEOUT_S = 1800  # of a build that takes two minutes where nothing else runs


@pytest.mark.binary
@pytest.mark.timeout(TIMEOUT_S + 30)
@pytest.mark.skipif(sys.platform == "win32", reason="not tried there: see docs/packaging.md")
def test_the_executable_builds_and_passes_its_selftest(tmp_path: Path):
    done = subprocess.run(
        [sys.executable, PACKAGING / "build.py", "--out", tmp_path / "dist", "--work", tmp_path / "build"],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
        check=False,
    )
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr[-4000:]}"
    assert done.stdout.rstrip().endswith(" 0 failed")
