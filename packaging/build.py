"""How is the executable built? `python packaging/build.py`, in an environment with the development pins installed.

PyInstaller makes a folder with the program, Python, its whole standard library and nats-server. Where there is a
POSIX shell the folder becomes one file, `dist/knotwork`: launcher.sh with an archive behind it. On Windows it becomes
`dist/knotwork.zip`. Then selftest.py tries the result.
"""

from __future__ import annotations

import argparse
import gzip
import hashlib
import importlib.metadata
import os
import platform
import shutil
import subprocess
import sys
import tarfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
HERE = ROOT / "packaging"
NAME = "knotwork"
_TIMEOUT_S = 900.0
_BLOCK_BYTES = 65536  # as launcher.sh reads


def main() -> int:
    """Build, wrap, try; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=ROOT / "dist", help="folder for the result [default: dist]")
    parser.add_argument("--work", type=Path, default=ROOT / "build", help="folder for what is in between")
    parser.add_argument("--no-selftest", action="store_true", help="build only")
    options = parser.parse_args()
    began_s = time.monotonic()
    folder = freeze(options.work.resolve())
    strip(folder)
    out = options.out.resolve()
    out.mkdir(parents=True, exist_ok=True)
    result = zipped(folder, out) if sys.platform == "win32" else wrap(folder, out / NAME)
    print(f"{result}: {result.stat().st_size / 1e6:.1f} MB in {time.monotonic() - began_s:.0f} s", flush=True)
    if options.no_selftest or sys.platform == "win32":
        return 0
    return subprocess.run([sys.executable, HERE / "selftest.py", result], check=False, timeout=_TIMEOUT_S).returncode


def freeze(work: Path) -> Path:
    """Run PyInstaller and return the folder it made."""
    places = ["--distpath", str(work / "frozen"), "--workpath", str(work / "pyinstaller")]
    command = [sys.executable, "-m", "PyInstaller", "--noconfirm", "--log-level", "ERROR", *places]
    # strings are hashed the same way each time, so that the same source gives the same archive; `distutils` is Python's
    same = {"PYTHONHASHSEED": "1", "SOURCE_DATE_EPOCH": "315532800", "SETUPTOOLS_USE_DISTUTILS": "stdlib"}
    env = {**os.environ, **same}
    subprocess.run([*command, str(HERE / "knotwork.spec")], check=True, timeout=_TIMEOUT_S, env=env)
    return work / "frozen" / NAME


def strip(folder: Path) -> None:
    """Remove symbols nobody reads from the libraries, a third of the size; nats-server stays as it was published."""
    tool = shutil.which("strip")
    if sys.platform != "linux" or tool is None:
        return
    for library in sorted(folder.rglob("*.so*")):
        if library.is_file() and not library.is_symlink():
            subprocess.run([tool, "--strip-unneeded", str(library)], check=True, timeout=60)


def wrap(folder: Path, file: Path) -> Path:
    """Write `folder` as one executable file; the same folder gives the same bytes."""
    fresh = file.with_name(f".{file.name}.new")
    archive = fresh.with_suffix(".tgz")
    with (
        archive.open("wb") as raw,
        gzip.GzipFile(filename="", fileobj=raw, mode="wb", compresslevel=6, mtime=0) as packed,
        tarfile.open(fileobj=packed, mode="w|", format=tarfile.GNU_FORMAT) as tar,
    ):
        for path in [folder, *sorted(folder.rglob("*"))]:
            tar.add(path, Path(NAME) / path.relative_to(folder), recursive=False, filter=_plain)
    with archive.open("rb") as made:
        digest = hashlib.file_digest(made, "sha256").hexdigest()
    launcher = (HERE / "launcher.sh").read_text(encoding="utf-8")
    blocks = str(-(-archive.stat().st_size // _BLOCK_BYTES))
    about = {"VERSION": importlib.metadata.version(NAME), "PLATFORM": f"{sys.platform} {platform.machine()}"}
    for word, value in {**about, "DIGEST": digest, "BLOCKS": blocks}.items():
        launcher = launcher.replace(f"@{word}@", value)
    offset = 0  # the length of the text, in which it stands itself
    while len(head := launcher.replace("@OFFSET@", str(offset)).encode()) != offset:
        offset = len(head)
    with fresh.open("wb") as whole, archive.open("rb") as made:
        whole.write(head)
        shutil.copyfileobj(made, whole)
    archive.unlink()
    fresh.chmod(0o755)
    return fresh.replace(file)


def zipped(folder: Path, out: Path) -> Path:
    """Write `folder` as a zip file, where there is no shell to unpack anything."""
    return Path(shutil.make_archive(str(out / NAME), "zip", folder.parent, folder.name))


def _plain(entry: tarfile.TarInfo) -> tarfile.TarInfo:
    """Leave out who built it and when."""
    entry.uid = entry.gid = 0
    entry.uname = entry.gname = ""
    entry.mtime = 315532800  # 1980, the first that every archive format knows
    return entry


if __name__ == "__main__":
    sys.exit(main())
