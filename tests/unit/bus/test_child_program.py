"""How this program starts itself again: nothing of the folder it is started in may take the place of what is ours."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import knotwork
from knotwork.bus import child

NODE = Path(knotwork.__file__).parent
ITSELF = re.compile(r'sys\.executable(?: or "python3")?, ("-[A-Za-z]+"),')


def test_files_of_the_current_folder_are_not_imported(tmp_path):
    for name in ("click", "queue", "msgspec", "knotwork"):
        (tmp_path / f"{name}.py").write_text(f"from pathlib import Path\nPath('{name}-ran').touch()\n")
    done = subprocess.run(
        [*child.program(), "--version"],
        cwd=tmp_path,
        env=child.self_env(),
        capture_output=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, sorted(path.name for path in tmp_path.glob("*-ran"))) == (0, []), done.stderr


def test_every_place_that_starts_ourselves_leaves_the_current_folder_out():
    first = [(path.name, option) for path in NODE.rglob("*.py") for option in ITSELF.findall(path.read_text())]
    assert len(first) >= 6
    assert {option for _, option in first} <= {'"-P"', '"-I"'}, first
