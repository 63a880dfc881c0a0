"""How does a command say that it failed? A sentence and a hint for people, one JSON object for programs."""

from __future__ import annotations

import os
import sys
import traceback

from knotwork.cli import show
from knotwork.sdk.errors import Cancelled, Internal, Invalid, KnotworkError


def single(error: BaseException) -> BaseException:
    """Return the one error inside groups of one, else the error itself."""
    while isinstance(error, BaseExceptionGroup) and len(error.exceptions) == 1:
        error = error.exceptions[0]
    return error


def usage(message: str) -> Invalid:
    """Return the error for a command line that makes no sense."""
    return Invalid(message, code="cli.usage", hint="See --help.")


def tell(error: BaseException, *, as_json: bool) -> int:
    """Print an error to standard error and return its exit code; a traceback is for bugs of ours alone."""
    if isinstance(error, FileNotFoundError) and _nowhere():
        error = Invalid(
            "The folder that this was started in is gone.", code="cli.no_folder", hint="Go to one that is there: cd ~"
        )
    ours = error if isinstance(error, KnotworkError) else Internal(f"{type(error).__name__}: {error}", code="cli.bug")
    exit_code = _exit_code(ours)
    if as_json:
        print(show.compact({**ours.to_wire(), "exit_code": exit_code}), file=sys.stderr)
        return exit_code
    if ours is not error:
        traceback.print_exception(error)
        print("error: this is a bug of knotwork; please report it with the lines above", file=sys.stderr)
        return exit_code
    print(f"error: {show.plain(ours.message)}", file=sys.stderr)
    if ours.hint:
        print(f"  {show.plain(ours.hint)}", file=sys.stderr)
    print(f"  ({show.cell(ours.code)})", file=sys.stderr)
    return exit_code


def _exit_code(error: KnotworkError) -> int:
    """Return the exit code of an error; of a command that a signal ended what shells and supervisors expect."""
    number = error.detail.get("signal") if isinstance(error, Cancelled) else None
    return 128 + number if isinstance(number, int) else error.exit_code


def _nowhere() -> bool:
    """Return whether the working folder was removed; whatever asks for it fails then."""
    try:
        os.getcwd()  # noqa: PTH109 - asked for itself, not for its path
    except FileNotFoundError:
        return True
    return False
