"""What does a text say of the order of its items beside them? "The API needs the schema.", "Order: db -> api" (pure)."""

from __future__ import annotations

import re
from dataclasses import dataclass
from itertools import pairwise

LINE_MAX = 1_000
"""Characters of a line that is taken for one of order."""
LABEL = re.compile(r"(?:(dependenc(?:y|ies))|(?:order|sequence))$", re.IGNORECASE)
"""What stands over such lines; its first group: they say what needs what, and not what comes after what."""
_MUST = r"(?:(?:must|should|can|may|will|has to|have to)\s+(?:only\s+)?)?"
_NEEDS = (
    rf"{_MUST}(?:depends?\s+(?:up)?on|needs?|requires?|waits?\s+(?:for|until)|(?:comes?|starts?|begins?|runs?|follows?)\s+after|"
    r"follows?|(?:is|are)\s+blocked\s+by|builds?\s+(?:up)?on|rel(?:y|ies)\s+on)"
)
_BEFORE = rf"{_MUST}(?:comes?\s+before|be\s+(?:done|ready|finished|there)\s+before|(?:un)?blocks?)"
_SAYS = re.compile(
    rf"(?:and\s+|but\s+)?(?P<who>[^.,;:]{{1,80}}?)\s+(?:(?P<needs>{_NEEDS})|{_BEFORE})\s+(?P<what>[^.;:]{{1,300}})",
    re.IGNORECASE,
)
_CLAUSE = re.compile(rf"[;,]\s*(?=[^.,;:]{{1,80}}\s(?:{_NEEDS}|{_BEFORE})\s)", re.IGNORECASE)
_ARROW = re.compile(r"\s*(?:->|=>|\u2192|\u21d2)\s*")
_FOLLOWING = re.compile(r"\s*(?:->|=>|\u2192|\u21d2|,?\s*\bthen\b|,|;)\s*", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Said:
    """That something needs something else, both in the words of the text."""

    later: str
    earlier: str


def in_turn(label: str) -> bool:
    """Return whether a label says that what stands under it comes one after the other."""
    found = LABEL.match(label)
    return found is not None and not found[1]


def said(line: str, label: str = "") -> list[Said]:
    """Return what a sentence or a line says, under a `label` that `LABEL` fits; nothing when it speaks of no order."""
    text = line.strip().strip("-*+•").strip().rstrip(".")
    if len(text) > LINE_MAX:
        return []
    found = LABEL.match(label)
    if in_turn(label):
        return [Said(later, earlier) for earlier, later in _pairs(_FOLLOWING, text)]
    if found is not None and ":" in text:
        later, _, earlier = text.partition(":")
        return [Said(later, earlier)]
    if _ARROW.search(text):
        pairs = _pairs(_ARROW, text)
        return [Said(one, two) if found is not None else Said(two, one) for one, two in pairs]
    clauses = [_SAYS.fullmatch(clause.strip()) for clause in _CLAUSE.split(text)]
    if not all(clauses):
        return []
    return [
        Said(one["who"], one["what"]) if one["needs"] else Said(one["what"], one["who"])
        for one in clauses if one is not None
    ]  # fmt: skip


def _pairs(between: re.Pattern[str], text: str) -> list[tuple[str, str]]:
    return list(pairwise([one for one in between.split(text) if one.strip()]))
