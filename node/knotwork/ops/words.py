"""Which strings may stand in a request: names, tags and patterns, all of them bounded."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, StringConstraints

TOKEN = r"[a-z0-9][a-z0-9_-]{0,63}"  # noqa: S105 - a name's pattern, no secret

# `$` ends the text in pydantic's patterns as in JSON Schema's: no trailing newline slips through
Token = Annotated[str, StringConstraints(pattern=rf"^{TOKEN}$", max_length=64)]
Target = Annotated[str, StringConstraints(pattern=rf"^{TOKEN}(/{TOKEN})?$", max_length=129)]
_TAG, _EVENT_NAME = r"[A-Za-z0-9][A-Za-z0-9_.:=/-]{0,127}", r"[a-z0-9_]+(\.[a-z0-9_]+)*(\.\*)?"
Tag = Annotated[str, StringConstraints(pattern=rf"^{_TAG}$", max_length=128)]
EventName = Annotated[str, StringConstraints(pattern=rf"^{_EVENT_NAME}$", max_length=128)]
Text = Annotated[str, StringConstraints(max_length=1024)]
Tags = Annotated[list[Tag], Field(max_length=64)]
Names = Annotated[list[Target], Field(max_length=64)]

_NAMES = "Names are lower-case letters, digits, - and _, 64 at most, beginning with a letter or digit."
NAMED = {
    rf"^{TOKEN}$": ("not a valid name", _NAMES),
    rf"^{TOKEN}(/{TOKEN})?$": ("not a valid name", f"{_NAMES} An agent of one node is written node/agent."),
    rf"^{_TAG}$": (
        "not a tag",
        "Tags are letters, digits and . _ : = / -, 128 at most, beginning with a letter or digit.",
    ),
    rf"^{_EVENT_NAME}$": (
        "not the name of an event",
        "Write a whole name such as config.reloaded, or config.* for a room.",
    ),
}
"""What is said of a text that does not fit this whole pattern: what is wrong, and what to write instead."""


def misfit(pattern: str) -> tuple[str, str]:
    """Return what is wrong with a text that does not fit a pattern, and a hint."""
    return NAMED.get(pattern, ("not written as it must be", f"It has to match {pattern}"))
