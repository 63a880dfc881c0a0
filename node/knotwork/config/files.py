"""Which files hold the configuration, and what is the text in them?"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from knotwork.config.problems import Problem

SIZE_MAX = 1024 * 1024
FILE_NAME = "knotwork.toml"
_BOMS = (
    (b"\xff\xfe\x00\x00", "UTF-32"),
    (b"\x00\x00\xfe\xff", "UTF-32"),
    (b"\xff\xfe", "UTF-16"),
    (b"\xfe\xff", "UTF-16"),
)


@dataclass(frozen=True, slots=True)
class Text:
    """One file as it was read; `shared` is true for files of a folder, among which no key may stand twice."""

    path: Path
    text: str
    shared: bool = False


def search(env: Mapping[str, str]) -> Path | None:
    """Return the file to use when none is given: $KNOTWORK_CONFIG, then here, the user's folder, /etc; None: no file."""
    if named := env.get("KNOTWORK_CONFIG"):
        return Path(named).expanduser()
    for folder in _folders(env):
        path = folder / FILE_NAME
        # lexists: a broken or unreadable file that is there must be told, not skipped
        if os.path.lexists(path):
            return path
    return None


def _folders(env: Mapping[str, str]) -> tuple[Path, ...]:
    if home := env.get("XDG_CONFIG_HOME"):
        user = Path(home)
    else:
        import platformdirs  # only needed when no file was named

        user = Path(platformdirs.user_config_dir(appname=None, appauthor=False))
    return Path(), user / "knotwork", Path("/etc/knotwork")


def in_folder(folder: Path) -> tuple[tuple[Path, ...], list[Problem]]:
    """Return the `*.toml` files of a folder, sorted by name, and what is wrong with the folder."""
    try:
        names = sorted(name for name in os.listdir(folder) if name.endswith(".toml") and not name.startswith("."))  # noqa: PTH208 - names are sorted, not paths
    except OSError as error:
        return (), [_unreadable(folder, error, "config folder")]
    return tuple(folder / name for name in names), []


def read_text(path: Path) -> str | Problem:
    """Return the text of a file without its byte order mark, or the problem that stands in the way."""
    try:
        # O_NONBLOCK: opening a pipe nobody writes to must not hang
        handle = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_CLOEXEC", 0))
    except OSError as error:
        return _unreadable(path, error, "config file")
    try:
        if not stat.S_ISREG(os.fstat(handle).st_mode):
            hint = "Give a TOML file; for a folder of files use --config-dir."
            return Problem(str(path), 0, 0, "", "this is not a file", hint, "config.unreadable")
        data = b""
        while len(data) <= SIZE_MAX and (part := os.read(handle, SIZE_MAX + 1 - len(data))):
            data += part
    except OSError as error:
        return _unreadable(path, error, "config file")
    finally:
        os.close(handle)
    return decode(path, data)


def decode(path: Path, data: bytes) -> str | Problem:
    """Return the bytes as text, or what is wrong with them: too many, another encoding, no text at all."""

    def problem(message: str, hint: str, code: str, line: int = 1, column: int = 1) -> Problem:
        return Problem(str(path), line, column, "", message, hint, code)

    if len(data) > SIZE_MAX:
        return problem(
            f"the file is larger than {SIZE_MAX // 1024} KiB", "Split it with --config-dir.", "config.too_large"
        )
    encoding = next((name for mark, name in _BOMS if data.startswith(mark)), "")
    if not encoding and max(data[::2].count(0), data[1::2].count(0)) > len(data) // 4:
        encoding = "UTF-16"
    if encoding:
        hint = "Save it as UTF-8 (PowerShell: Set-Content -Encoding utf8)."
        return problem(f"the file is {encoding}, not UTF-8", hint, "config.encoding")
    try:
        text = data.removeprefix(b"\xef\xbb\xbf").decode("utf-8")
    except UnicodeDecodeError as error:
        before = data[: error.start].decode("utf-8", "replace")
        line, column = place_of(before, len(before))
        return problem("this byte is not UTF-8", "Save the file as UTF-8.", "config.encoding", line, column)
    if "\0" in text:
        line, column = place_of(text, text.index("\0"))
        return problem(
            "the file holds a NUL byte, so it is no text", "Give a TOML file.", "config.encoding", line, column
        )
    return text


def place_of(text: str, index: int) -> tuple[int, int]:
    """Return line and column, both from 1, of the character at `index`."""
    start = text.rfind("\n", 0, index) + 1
    return text.count("\n", 0, index) + 1, index - start + 1


def _unreadable(path: Path, error: OSError, what: str) -> Problem:
    if isinstance(error, FileNotFoundError):
        hint = "Check the path, or write a first file with `knotwork init`."
        return Problem(str(path), 0, 0, "", f"{what} not found", hint, "config.not_found")
    hints: dict[type[OSError], str] = {PermissionError: f"Let user {_user()} read it."}
    why = (error.strerror or type(error).__name__).lower()
    return Problem(
        str(path), 0, 0, "", f"{what} cannot be read: {why}", hints.get(type(error), ""), "config.unreadable"
    )


def _user() -> str:
    uid: Callable[[], int] | None = getattr(os, "getuid", None)
    return str(uid()) if uid else "running knotwork"
