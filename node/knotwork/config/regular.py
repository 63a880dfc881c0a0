"""How is a file opened that somebody put into a folder of ours? Only when it is one: opening a pipe waits for ever."""

from __future__ import annotations

import errno
import io
import os
import stat
from pathlib import Path

_FLAGS = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_BINARY", 0)


def opened(path: str | Path) -> io.BufferedReader:
    """Open a regular file to read its bytes; raises `OSError` for whatever cannot be read, or is no such file.

    Links are followed. What it is, is looked at before (a device may act when it is opened) and after: meanwhile it may
    have become another.
    """
    _must_be_file(os.stat(path), path)  # noqa: PTH116  a path as it was given
    handle = os.open(path, _FLAGS)
    try:
        _must_be_file(os.fstat(handle), path)
    except OSError:
        os.close(handle)
        raise
    return os.fdopen(handle, "rb")


def _must_be_file(status: os.stat_result, path: str | Path) -> None:
    if stat.S_ISDIR(status.st_mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    if not stat.S_ISREG(status.st_mode):
        raise OSError(errno.EINVAL, "it is no regular file", str(path))
