"""Where does an answer go when standard output is closed, full, or its reader has left? Nowhere, and that is no bug of ours.

A stream that was closed before we began is replaced by one that leads nowhere: whoever closes it wants no answer, and a
socket must not get its number. A stream that takes nothing while we write (a full disk) is an error, one whose reader
left early, as `head` does, is a quiet end.
"""

from __future__ import annotations

import errno
import io
import os
import sys

from knotwork.sdk.errors import Failed, KnotworkError

_OF_WRITING = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EBADF, errno.EPIPE)


def open_closed() -> None:
    """Give every standard stream that was closed at the start one that leads nowhere."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:  # in this order: each gets the lowest number, which is its own
            setattr(sys, name, open(os.devnull, mode, encoding="utf-8"))  # noqa: SIM115, PTH123 - for as long as we live


def take_all(*, as_json: bool) -> None:
    """Let every character through where the encoding of a terminal or a pipe has not got them all.

    JSON is UTF-8 wherever it goes; what people read tells the others by their number.
    """
    for stream in (sys.stdout, sys.stderr):
        if not isinstance(stream, io.TextIOWrapper):
            continue
        if as_json:
            stream.reconfigure(encoding="utf-8")
        if stream.errors == "strict":
            stream.reconfigure(errors="backslashreplace")


def lost(after: OSError | None = None) -> OSError | None:
    """Write what is still to be written; returns why that cannot be done, None when it could.

    `after` is an error that may have come of writing: what was to be written then is gone, so one more line is tried.
    """
    try:
        if after is not None and after.filename is None and after.errno in _OF_WRITING:
            print()
        sys.stdout.flush()
    except OSError as error:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # or the interpreter complains at its end
        return error
    return None


def told(error: OSError) -> KnotworkError:
    """Return what is said of an answer that could not be written."""
    return Failed(
        f"The answer cannot be written to standard output: {error.strerror or type(error).__name__}.",
        code="cli.output_lost",
        hint="What was asked may be done: look before you ask again.",
    )
