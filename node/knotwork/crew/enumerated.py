"""What does a sentence name after a colon, and in which stages? "Build a shop: db and api, then ui and tests" (pure)."""

from __future__ import annotations

import re

NAME_MAX = 80
_ENUMERATION = re.compile(r"^(?P<lead>[^:\n]{3,200}):\s*(?P<list>[^.\n:]{5,600})\.?$")
_AFTER = r"(?:then|after that|afterwards|finally|lastly)\b"
_STAGE = re.compile(rf",?\s+(?:and\s+)?(?={_AFTER})", re.IGNORECASE)
_STAGED = re.compile(rf"^(?:{_AFTER}|first(?:ly)?\b)[, ]*|,?\s+first$", re.IGNORECASE)
"""What says of a name only when its turn comes."""
_BETWEEN = re.compile(r",\s*(?:and\s+)?|;\s*|\s+and\s+")


def names(sentence: str) -> tuple[str, list[tuple[int, str]]]:
    """Return what stands before the colon, and the names behind it with their stages from 0; none for what is prose."""
    found = _ENUMERATION.match(sentence)
    if found is None:
        return "", []
    made = [
        (stage, name)
        for stage, some in enumerate(_STAGE.split(found["list"]))
        for one in _BETWEEN.split(_STAGED.sub("", some.strip(" .")))
        if (name := _STAGED.sub("", one.strip(" .")).strip(" ."))
    ]
    if len(made) < 2 or any(len(name) > NAME_MAX for _, name in made):  # noqa: PLR2004  then it is prose
        return "", []
    return found["lead"].strip(), made
