"""Runs the tests that a plugin's author has, as the author runs them: pytest alone, in the plugin's folder."""

import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

ALONE = ("-p", "no:cacheprovider", "-p", "no:asyncio", "-p", "no:xdist", "-p", "no:timeout")


def run(folder: Path, *arguments: str, env: Mapping[str, str] | None = None) -> str:
    """Return what pytest said of the tests in `folder`; all of them passed.

    A temporary folder of its own: in the common one pytest first takes away what earlier runs left, and after
    a run of this project's own tests that is minutes of work.
    """
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", *ALONE, "--basetemp", str(folder / ".tmp"), *arguments],
        cwd=folder, env=env, capture_output=True, text=True, timeout=150, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert " passed" in done.stdout
    assert "failed" not in done.stdout
    return done.stdout
