"""Which configurations were accepted before, and how does one go back? The last 20, one file each.

A revision holds the texts of the files as they were read, so that going back means writing those files again.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import count
from pathlib import Path
from typing import Any

from knotwork.config.files import SIZE_MAX, Text
from knotwork.config.loaded import Loaded
from knotwork.sdk import Conflict, Internal, NotFound

KEPT = 20
_NAME = re.compile(r"(\d{6,12})\.json")
_FILE_MAX = 64 * SIZE_MAX
ASIDE = ".not-in-revision"


@dataclass(frozen=True, slots=True)
class Revision:
    """One accepted configuration: number (from 1), time in seconds since 1970, digest, files and folder of files."""

    number: int
    at_s: float
    digest: str
    texts: tuple[Text, ...]
    config_dir: Path | None = None

    @property
    def at(self) -> str:
        """Return its time as it is told: RFC 3339 in UTC, to the second."""
        return datetime.fromtimestamp(self.at_s, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def save(folder: Path, loaded: Loaded, at_s: float) -> Revision:
    """Keep what was loaded as the newest revision and return it; nothing is written when it equals the newest one.

    `at_s` is now. Only the last 20 are kept. Raises `Internal` when the folder cannot be written.
    """
    numbers = _numbers(folder)
    newest = _load(folder, numbers[-1]) if numbers else None
    if newest and newest.digest == loaded.digest:
        return newest
    config_dir = loaded.sources.config_dir
    texts = tuple(Text(text.path.absolute(), text.text, text.shared) for text in loaded.texts)
    revision = Revision(
        (numbers[-1] if numbers else 0) + 1, at_s, loaded.digest, texts, config_dir and config_dir.absolute()
    )
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        write_whole(folder / f"{revision.number:06}.json", json.dumps(_to_plain(revision), ensure_ascii=False))
        for number in [*numbers, revision.number][:-KEPT]:
            (folder / f"{number:06}.json").unlink(missing_ok=True)
    except OSError as error:
        raise Internal(
            f"revision {revision.number} cannot be kept in {folder}: {error.strerror}.", code="config.revision_lost"
        ) from error
    return revision


def listed(folder: Path) -> list[Revision]:
    """Return the kept revisions, newest first; damaged ones are passed over."""
    return [revision for number in reversed(_numbers(folder)) if (revision := _load(folder, number))]


def load(folder: Path, number: int) -> Revision:
    """Return one revision; raises `NotFound` naming those there are."""
    revision = _load(folder, number)
    if revision is None:
        there = ", ".join(str(known) for known in _numbers(folder)) or "none"
        raise NotFound(f"there is no revision {number}.", code="config.no_revision", hint=f"Kept: {there}.")
    return revision


def restore(revision: Revision, kept: Iterable[Revision]) -> list[str]:
    """Write the files of a revision again and return one line per file changed.

    What a file says now is written beside it first when none of the revisions in `kept` has it: a refused edit, say. A
    `*.toml` of the folder that is not in the revision is renamed, not removed. Each file changes at once or not at all.
    Raises `Conflict` when a file cannot be written; files written before stay written.
    """
    if not revision.texts:
        raise Conflict(
            f"revision {revision.number} was made without any file.",
            code="config.nothing_to_restore",
            hint="Choose one that names files in `knotwork config revisions`.",
        )
    return list(_restore(revision, {(text.path, text.text) for one in kept for text in one.texts}))


def aside_of(path: Path) -> Path:
    """Return where a file goes that is in the way of a rollback: beside it, in place of nothing else that is there."""
    said = path.read_bytes()
    for number in count(1):
        aside = path.with_name(f"{path.name}{ASIDE}{'' if number == 1 else f'-{number}'}")
        if not os.path.lexists(aside) or (aside.is_file() and aside.read_bytes() == said):
            return aside
    raise AssertionError  # numbers do not end


def write_whole(path: Path, text: str) -> None:
    """Write a file so that readers see the old or the new text, never a part; keeps the mode, 0600 when new.

    A symbolic link stays one: the file it points to is replaced.
    """
    path = Path(os.path.realpath(path))
    handle, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with os.fdopen(handle, "w", encoding="utf-8", newline="") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        if path.exists():
            Path(name).chmod(path.stat().st_mode & 0o7777)
        Path(name).replace(path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


def _restore(revision: Revision, known: set[tuple[Path, str]]) -> Iterator[str]:
    wanted = {text.path: text.text for text in revision.texts}
    for path, text in wanted.items():
        try:
            now = path.read_bytes().removeprefix(b"\xef\xbb\xbf") if path.is_file() else None
            if now != text.encode():
                path.parent.mkdir(parents=True, exist_ok=True)
                if now is not None and now.strip() and (path, now.decode("utf-8", "replace")) not in known:
                    aside = aside_of(path)
                    shutil.copy2(path, aside)
                    yield f"kept what {path} said, which is in no revision, as {aside.name}"
                write_whole(path, text)
                yield f"wrote {path}"
        except OSError as error:
            raise _not_written(path, error) from error
    if revision.config_dir and revision.config_dir.is_dir():
        for path in sorted(revision.config_dir.glob("*.toml")):
            if path not in wanted and not path.name.startswith("."):
                try:
                    aside = aside_of(path)
                    path.replace(aside)
                except OSError as error:
                    raise _not_written(path, error) from error
                yield f"renamed {path} to {aside.name}"


def _not_written(path: Path, error: OSError) -> Conflict:
    return Conflict(
        f"{path} cannot be written: {error.strerror}.",
        code="config.not_writable",
        hint="Change it where it comes from.",
    )


def _numbers(folder: Path) -> list[int]:
    try:
        return sorted(int(found[1]) for name in os.listdir(folder) if (found := _NAME.fullmatch(name)))  # noqa: PTH208 - names only
    except OSError:
        return []


def _load(folder: Path, number: int) -> Revision | None:
    path = folder / f"{number:06}.json"
    try:
        if path.stat().st_size > _FILE_MAX:
            return None
        return _from_plain(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return None


def _to_plain(revision: Revision) -> dict[str, Any]:
    return {
        "number": revision.number,
        "at_s": revision.at_s,
        "digest": revision.digest,
        "config_dir": str(revision.config_dir) if revision.config_dir else None,
        "files": [{"path": str(text.path), "text": text.text, "shared": text.shared} for text in revision.texts],
    }


def _from_plain(plain: Any) -> Revision:
    texts = tuple(Text(Path(file["path"]), str(file["text"]), bool(file["shared"])) for file in plain["files"])
    config_dir = Path(plain["config_dir"]) if plain["config_dir"] else None
    return Revision(int(plain["number"]), float(plain["at_s"]), str(plain["digest"]), texts, config_dir)
