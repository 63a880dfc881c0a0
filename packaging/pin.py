"""How are the pins made? `python packaging/pin.py` writes both constraints files anew; it needs `uv` on PATH.

What is asked for stands once, in pyproject.toml; here it becomes exact versions with the hash of every file of them,
for every Python and system we support. No address is recorded: pip takes the files from wherever it is set up to.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
RUN = ROOT / "packaging" / "constraints.txt"
DEV = ROOT / "packaging" / "constraints-dev.txt"
_TIMEOUT_S = 300.0
_OPTIONS = (
    "--universal", "--python-version", "3.11", "--generate-hashes", "--quiet",
    "--no-emit-index-url", "--no-emit-find-links", "--no-annotate", "--no-header",
)  # fmt: skip
_HEADER = """# {what}.
# Made by `python packaging/pin.py` from pyproject.toml; not for editing.
"""


def main() -> int:
    """Write the two files; versions pinned before stay wherever they still fit, unless `--upgrade` is given."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--upgrade", action="store_true", help="take the newest versions that fit")
    options = ["--upgrade"] if parser.parse_args().upgrade else []
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    wanted = [*project["project"]["dependencies"], *project["build-system"]["requires"]]
    _write(RUN, "What runs Knotwork, and what builds its wheel", wanted, options)
    wanted += project["dependency-groups"]["dev"]
    _write(DEV, "The same, and what tests Knotwork", wanted, [*options, "--constraints", str(RUN)])
    return 0


def _write(file: Path, what: str, wanted: list[str], options: list[str]) -> None:
    """Resolve `wanted` into `file`; ends the program with uv's own words when that fails."""
    print("pinning", file.relative_to(ROOT))
    command = ["uv", "pip", "compile", *_OPTIONS, *options, "--output-file", str(file), "-"]
    done = subprocess.run(command, input="\n".join(wanted), text=True, capture_output=True, timeout=_TIMEOUT_S)  # noqa: PLW1510 - looked at below
    if done.returncode:
        raise SystemExit(done.stderr)
    file.write_text(_HEADER.format(what=what) + file.read_text(encoding="utf-8"), encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
