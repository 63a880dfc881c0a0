"""What is the command that a target runs? A program with its arguments, or one line for a shell."""

from __future__ import annotations

Command = tuple[str, ...] | str


def argv(command: Command) -> list[str]:
    """Return the command as the words that are executed; one line is for `/bin/sh`."""
    return ["/bin/sh", "-c", command] if isinstance(command, str) else list(command)


def check(command: Command, *, shell: bool) -> None:
    """Raise `ValueError` when the command is not what `shell` says, or cannot be run."""
    if shell != isinstance(command, str):
        msg = (
            "command must be one string with shell = true"
            if shell
            else 'command must be a list, e.g. ["knotwork", "up"]'
        )
        raise ValueError(msg)
    words = argv(command)
    if not words or not words[0] or any("\0" in word for word in words):
        msg = "command names no program, or contains a zero byte"
        raise ValueError(msg)
