"""Which files may memory be written to and read from? Those of whoever asks, in folders the operator named; no link out.

A person has a folder for each project, an agent one of its own in there: files hold what others may not see.
Every folder on the way is opened by itself and must be no symbolic link, so what is checked is what is used, whatever
is renamed meanwhile.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from knotwork.sdk.errors import Conflict, Denied, Invalid, NotFound, TooLarge, Unavailable
from knotwork.trust.who import Who

READ_MAX_BYTES = 256 * 1024 * 1024
_FOLDER = os.O_RDONLY | getattr(os, "O_DIRECTORY", 0) | getattr(os, "O_NOFOLLOW", 0)
_NOFOLLOW = getattr(os, "O_NOFOLLOW", 0)


@dataclass(frozen=True, slots=True)
class Allowed:
    """A file inside a folder that may be used: the folder, and the names from there to the file."""

    folder: Path
    parts: tuple[str, ...]

    @property
    def path(self) -> Path:
        """Return where it is."""
        return self.folder.joinpath(*self.parts)


def place_of(who: Who) -> tuple[str, ...]:
    """Return where in a folder somebody's files are; an agent's id stays its own, its handle may become another's."""
    return (who.project, who.id) if who.kind == "agent" else (who.project,)


def allowed(name: str, folders: Sequence[Path], place: tuple[str, ...] = ()) -> Allowed:
    """Return the file that a name means: relative to `place` in the first folder, or absolute and inside one of them.

    Raises `Invalid` (`memory.bad_path`), and `Denied` (`memory.outside`) for a file elsewhere.
    """
    if not name.strip() or "\0" in name or any(ord(letter) < 32 for letter in name):  # noqa: PLR2004  control characters
        raise Invalid("This is no name of a file.", code="memory.bad_path", hint="For example insights.jsonl.")
    path = Path(name)
    for folder in folders:
        try:
            inside = path.relative_to(folder.joinpath(*place)) if path.is_absolute() else path
        except ValueError:
            continue
        if inside.parts and ".." not in inside.parts:
            return Allowed(folder, (*place, *inside.parts))
    places = ", ".join(str(folder.joinpath(*place)) for folder in folders)
    raise Denied(
        f"{name[:200]!r} is outside of your folders for memory: {places}.", code="memory.outside",
        hint="Give a name without folders, put a file that you were given in there, or let memory.folders name another.",
    )  # fmt: skip


@contextmanager
def writing(file: Allowed, *, overwrite: bool) -> Iterator[IO[bytes]]:
    """Write a file, whole or not at all; raises `Conflict` (`memory.file_exists`), `Denied`, `Unavailable`."""
    with _folder_of(file, make=True) as folder:
        name, fresh = file.parts[-1], f".{file.parts[-1][:200]}.{os.getpid()}.{os.urandom(4).hex()}"
        if not overwrite and _exists(name, folder):
            raise Conflict(
                f"{file.path} exists already.", code="memory.file_exists", hint="Say overwrite, or name another."
            )
        with _told(file):
            handle = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL | _NOFOLLOW, 0o600, dir_fd=folder)
        try:
            with _told(file), os.fdopen(handle, "wb") as opened:
                yield opened
                opened.flush()
                os.fsync(opened.fileno())
            with _told(file):
                if overwrite:
                    os.replace(
                        fresh, name, src_dir_fd=folder, dst_dir_fd=folder
                    )  # a link there is replaced, not followed
                else:
                    os.link(fresh, name, src_dir_fd=folder, dst_dir_fd=folder, follow_symlinks=False)
        finally:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(fresh, dir_fd=folder)


@contextmanager
def reading(file: Allowed) -> Iterator[IO[bytes]]:
    """Read a file; raises `NotFound` (`memory.no_file`), `Denied` (`memory.outside`) for a link, `TooLarge`."""
    with _folder_of(file, make=False) as folder:
        with _told(file):
            handle = os.open(file.parts[-1], os.O_RDONLY | _NOFOLLOW | getattr(os, "O_NONBLOCK", 0), dir_fd=folder)
        found = os.fstat(handle)
        if not stat.S_ISREG(found.st_mode):
            os.close(handle)
            raise Invalid(f"{file.path} is no file.", code="memory.bad_path")
        with os.fdopen(handle, "rb") as opened:
            if found.st_size > READ_MAX_BYTES:
                raise TooLarge(
                    f"{file.path} has {found.st_size} bytes.", code="memory.too_large", hint="Cut it in two."
                )
            yield opened


@contextmanager
def _folder_of(file: Allowed, *, make: bool) -> Iterator[int]:
    """Give the folder of a file, opened step by step from the one that is allowed; no step may be a link."""
    with _told(file):
        if make:
            file.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        at = os.open(file.folder, os.O_RDONLY | getattr(os, "O_DIRECTORY", 0))  # the operator's own may be a link
    try:
        for part in file.parts[:-1]:
            with _told(file):
                if make:
                    with contextlib.suppress(FileExistsError):
                        os.mkdir(part, 0o700, dir_fd=at)
                inner = os.open(part, _FOLDER, dir_fd=at)
            os.close(at)
            at = inner
        yield at
    finally:
        os.close(at)


@contextmanager
def _told(file: Allowed) -> Iterator[None]:
    """Turn what the system says into our words."""
    try:
        yield
    except FileNotFoundError as error:
        raise NotFound(f"There is no file {file.path}.", code="memory.no_file", hint="See its folder.") from error
    except FileExistsError as error:
        raise Conflict(f"{file.path} exists already.", code="memory.file_exists", hint="Say overwrite.") from error
    except OSError as error:
        if error.errno in (errno.ELOOP, errno.ENOTDIR, errno.EMLINK):
            raise Denied(
                f"{file.path} goes through a symbolic link, which could lead outside.", code="memory.outside",
                hint="Name the file itself.",
            ) from error  # fmt: skip
        raise Unavailable(f"{file.path}: {error.strerror or error}.", code="memory.file_failed") from error


def _exists(name: str, folder: int) -> bool:
    try:
        os.stat(name, dir_fd=folder, follow_symlinks=False)
    except OSError:
        return False
    return True
