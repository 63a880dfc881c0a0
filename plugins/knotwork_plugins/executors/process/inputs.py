"""How does the input of an attempt reach a command: on stdin, as an argument, or in a file?"""

from __future__ import annotations

import contextlib
import os
import shutil
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import msgspec

from knotwork.sdk import Failed

if TYPE_CHECKING:
    from collections.abc import Sequence

Way = Literal["stdin", "argument", "file"]
Format = Literal["auto", "json"]
INPUT, INPUT_FILE = "{input}", "{input_file}"
_PREFIX = "input-"
ARGUMENT_MAX_BYTES = 131_071  # the kernel's limit for one argument on Linux, its closing zero taken off


class Refused(Exception):
    """The attempt cannot be started; `failed` is its outcome."""

    def __init__(self, failed: Failed) -> None:
        """Keep the outcome."""
        super().__init__(failed.message)
        self.failed = failed


@dataclass(slots=True)
class Prepared:
    """Everything one start needs; `close` gives back what it holds."""

    argv: list[str]
    env: dict[str, str]
    stdin: int | None = None
    folder: Path | None = None
    held: int | None = None

    def close(self) -> None:
        """Close the input and remove its file. Blocks for a moment; never raises."""
        if self.stdin is not None:
            os.close(self.stdin)
            self.stdin = None
        if self.folder is not None:
            shutil.rmtree(self.folder, ignore_errors=True)
            self.folder = None
        if self.held is not None:
            os.close(self.held)
            self.held = None


def as_bytes(value: Any, form: Format) -> bytes:
    """Return the input as a command reads it: strings as they are and null as nothing (`auto`), all else as JSON."""
    if form == "auto":
        if isinstance(value, str):
            return value.encode(errors="replace")
        if value is None:
            return b""
    return msgspec.json.encode(value)


def with_argument(command: Sequence[str], data: bytes, *, shell: bool) -> list[str]:
    """Return the command with the input in place of `{input}`, or behind it when there is no such place.

    A shell gets it as `$1`, so that it can never become shell code. Raises `Refused` for what cannot be an argument,
    and for an input that begins with a dash where the command would take it for an option.
    """
    if len(data) > ARGUMENT_MAX_BYTES:
        raise Refused(
            Failed(
                f"the input has {len(data)} bytes, an argument at most {ARGUMENT_MAX_BYTES}: "
                'set input_as = "stdin" or "file"',
                code="agent.input_too_large",
            )
        )
    if b"\0" in data:
        raise Refused(Failed("the input contains a zero byte, which no argument can carry", code="agent.input_refused"))
    text = data.decode(errors="replace")
    if shell:
        return [*command, text]
    if not any(INPUT in part for part in command):
        command = [*command, INPUT]
    bare = command.index(INPUT) if INPUT in command else None
    if text.startswith("-") and bare is not None and "--" not in command[:bare]:
        raise Refused(
            Failed(
                "the input begins with a dash, so the command would take it for an option: "
                'write "--" before "{input}" in the command if it understands that',
                code="agent.input_refused",
            )
        )
    return [part.replace(INPUT, text) for part in command]


def with_file(command: Sequence[str], path: str, *, shell: bool) -> list[str]:
    """Return the command with the path in place of `{input_file}`, or behind it when there is no such place."""
    if shell or not any(INPUT_FILE in part for part in command):
        return [*command, path]
    return [part.replace(INPUT_FILE, path) for part in command]


def in_file(data: bytes, folder: Path, *, suffix: str) -> tuple[Path, int | None, Path]:
    """Write the input to a file in a new private folder below `folder`. Blocks.

    Returns that folder, what holds it (a descriptor to close, see `sweep`), and the file.
    """
    folder.mkdir(parents=True, exist_ok=True)
    own = Path(tempfile.mkdtemp(prefix=_PREFIX, dir=folder))
    held = None
    file = own / f"input{suffix}"
    try:
        held = _hold(own)
        file.write_bytes(data)
    except OSError:
        shutil.rmtree(own, ignore_errors=True)
        if held is not None:
            os.close(held)
        raise
    return own, held, file


def sweep(folder: Path) -> None:
    """Remove the inputs below `folder` that nobody holds: their node was killed. Blocks; never raises."""
    with contextlib.suppress(OSError):
        for own in list(folder.glob(f"{_PREFIX}*")):
            with contextlib.suppress(OSError):
                held = _hold(own)
                if held is None:
                    continue
                try:
                    shutil.rmtree(own, ignore_errors=True)
                finally:
                    os.close(held)


def _hold(own: Path) -> int | None:
    """Lock a folder for as long as the descriptor is open, however we end; None where folders cannot be locked.

    Raises `OSError` when somebody else holds it.
    """
    if sys.platform == "win32":
        return None
    import fcntl  # not there on Windows

    held = os.open(own, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(held)
        raise
    return held


def on_stdin(data: bytes) -> int:
    """Return a file descriptor to read the input from, at its beginning. Blocks.

    An unnamed file and no pipe: a command that never reads cannot stall anybody, however large the input is.
    """
    if hasattr(os, "memfd_create"):
        descriptor = os.memfd_create("knotwork-input")
    else:
        with tempfile.TemporaryFile() as file:
            descriptor = os.dup(file.fileno())
    try:
        view = memoryview(data)
        while view:
            view = view[os.write(descriptor, view) :]
        os.lseek(descriptor, 0, os.SEEK_SET)
    except OSError:
        os.close(descriptor)
        raise
    return descriptor
