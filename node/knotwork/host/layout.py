"""Where does a node keep its files? Every path below the data folder, named once."""

from __future__ import annotations

import contextlib
import os
import secrets
import stat
import sys
from dataclasses import dataclass
from pathlib import Path

from knotwork.bus import space
from knotwork.sdk.errors import Denied, KnotworkError, Unavailable

PROBE_BYTES = 16 * 1024
"""What a start writes at least: without room for that there is no use in beginning."""


@dataclass(frozen=True, slots=True)
class Layout:
    """The data folder and what is in it."""

    data_dir: Path

    @property
    def keys(self) -> Path:
        """Return the folder of nkey seeds."""
        return self.data_dir / "keys"

    @property
    def nats(self) -> Path:
        """Return the folder of the embedded server: its store, config, log and lock."""
        return self.data_dir / "nats"

    @property
    def run(self) -> Path:
        """Return the folder of what is true only while the node runs."""
        return self.data_dir / "run"

    @property
    def node_file(self) -> Path:
        """Return the file by which local doors find the node."""
        return self.run / "node.json"

    @property
    def last_start(self) -> Path:
        """Return the file that says with which configuration the node was started last."""
        return self.data_dir / "last-start.json"

    @property
    def http_token_file(self) -> Path:
        """Return the file with the bearer token of the HTTP door."""
        return self.keys / "http.token"

    @property
    def http_port_file(self) -> Path:
        """Return the file with the port that the HTTP door had last, when it chose one itself."""
        return self.data_dir / "http-port"

    @property
    def view(self) -> Path:
        """Return the folder of the databases in which the past can be searched, one for each project."""
        return self.data_dir / "view"

    @property
    def revisions(self) -> Path:
        """Return the folder of accepted configurations."""
        return self.data_dir / "revisions"

    @property
    def log(self) -> Path:
        """Return where a detached node writes its log."""
        return self.data_dir / "knotwork.log"

    def plugin(self, kind: str, instance: str) -> Path:
        """Return the folder of one plugin instance, made."""
        folder = self.data_dir / "plugins" / f"{kind}.{instance}"
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    def make(self) -> None:
        """Make the data folder, for its owner alone.

        Raises `Denied` (`node.data_dir`) and `Unavailable` (`node.disk_full`) saying why it cannot be used.

        One that is there and that others may write to is closed to them when it is ours, and refused when it is not.
        """
        try:
            for folder in (self.data_dir, self.keys, self.run):
                folder.mkdir(mode=0o700, parents=True, exist_ok=True)
                _close(folder)
            probe = self.run / f".probe-{os.getpid()}"
            try:
                probe.write_bytes(bytes(PROBE_BYTES))
            finally:
                probe.unlink(missing_ok=True)
        except OSError as error:
            raise unusable(self.data_dir, error) from error

    def http_token(self) -> str:
        """Return the bearer token of the HTTP door, made at the first call and kept; an empty one is made anew."""
        path = self.http_token_file
        if not path.exists() or not path.read_text(encoding="utf-8").strip():
            write_private(path, secrets.token_urlsafe(32))
        return path.read_text(encoding="utf-8").strip()


def unusable(folder: Path, error: OSError) -> KnotworkError:
    """Return the error for a data folder in which something could not be written."""
    if error.errno in space.ERRORS:
        return Unavailable(
            f"The disk of the data folder {folder} is full: {error.strerror}.",
            code="node.disk_full",
            hint="Make room there, or choose another with --data-dir or KNOTWORK_DATA_DIR.",
        )
    return Denied(
        f"The data folder {folder} cannot be used: {error.strerror or error}.",
        code="node.data_dir",
        hint="Choose another with --data-dir or KNOTWORK_DATA_DIR.",
    )


def _close(folder: Path) -> None:
    """Let nobody but its owner into a folder that others may write to; raises `Denied` when it is not ours to close."""
    found = folder.stat()
    if sys.platform == "win32" or not found.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        return
    if found.st_mode & stat.S_ISVTX or (found.st_uid != os.geteuid() and found.st_mode & stat.S_IWOTH):
        raise Denied(
            f"Everybody may write to {folder}, and it is not this user's own.",
            code="node.data_dir",
            hint="Choose a folder inside of it, with --data-dir or KNOTWORK_DATA_DIR: it is made for this user alone.",
        )
    if found.st_uid == os.geteuid():  # one of a group that we belong to was given to us so
        folder.chmod(0o700)


def write_private(path: Path, text: str) -> None:
    """Write a file that only its owner can read, whole or not at all."""
    fresh = path.with_name(f".{path.name}.{os.getpid()}")
    handle = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        fresh.replace(path)
    except OSError:  # a full disk: not even half of it stays
        with contextlib.suppress(OSError):
            fresh.unlink(missing_ok=True)
        raise
