"""Why can a command not be started? What of it is not there, in words; everything here blocks."""

from __future__ import annotations

from typing import TYPE_CHECKING

from knotwork.sdk import Unavailable
from knotwork_plugins import programs

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from knotwork.sdk import Context, KnotworkError, SecretRef


def look(program: str, cwd: Path, env: Mapping[str, str | SecretRef], context: Context) -> None:
    """Raise `Unavailable` when the folder or the program cannot be found, on the PATH that the table gives it."""
    if not cwd.is_dir():
        raise Unavailable(
            f"the folder {cwd} does not exist.", code="process.no_folder", hint="Create it, or mend `cwd`."
        )
    if not programs.is_there(program, cwd, env, context):
        raise Unavailable(
            f"the command {program!r} is not there or may not be executed.",
            code="process.no_command",
            hint="Install it, or write its whole path in `command`.",
        )


def told(program: str, error: Exception, found: KnotworkError | None) -> str:
    """Return why `program` did not start with `error`; `found` is what `look` says then."""
    why = f"{error}"
    if found is not None:
        why = f"{found.message.rstrip('.')}. {found.hint}".strip()
    elif isinstance(error, FileNotFoundError):
        why = "it is there, but not the interpreter that it needs (see its first line)"
    return f"cannot start {program!r}: {why}"
