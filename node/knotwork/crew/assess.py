"""How could a task be split among sub-agents? A plan by rules, without any language model, with its reasons (pure)."""

from __future__ import annotations

import re
import unicodedata
from typing import TYPE_CHECKING

import msgspec

from knotwork.crew import hints, plan
from knotwork.crew.links import links
from knotwork.crew.outline import TASK_MAX_BYTES, Item, Outline, outline
from knotwork.crew.plan import Complexity, Level, Part
from knotwork.sdk.errors import Invalid, TooLarge

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

PARTS = 20
"""How many parts are proposed at most when nothing else is said."""
INSTRUCTIONS_MAX = 8_192
NOTE_MAX, NOTES_MAX = 2_000, 50
NAME_MAX = 24
"""A name that is longer is made of fewer words."""
_HARD = re.compile(
    r"\b(migrat\w+|distributed|concurren\w+|security|encrypt\w+|real[- ]?time|performance|scalab\w+|rewrite|legacy|"
    r"compliance|zero[- ]downtime|backward\w*|refactor\w*|protocol|consisten\w+|fault[- ]toleran\w+)\b",
    re.IGNORECASE,
)
_SKIP = frozenset(
    {"a", "an", "and", "the", "of", "for", "to", "with", "in", "on", "our", "your", "new", "all", "its", "please", "then",
     "finally", "first", "next", "lastly", "also", "build", "create", "write", "implement", "add", "make", "develop",
     "set", "up", "it"}
)  # fmt: skip
_ORDER = re.compile(r"\b(?:after|once|depends?|depending|needs?|requires?|when|before|blocked)\b|[(,:;]", re.IGNORECASE)
"""Where a title begins to speak of others."""
_FIRST = re.compile(r"^(?:(?:and|then|first|next|also|finally|lastly|please)\b[, ]*)+", re.IGNORECASE)
_LEVELS: tuple[tuple[int, Level], ...] = ((2, "trivial"), (5, "simple"), (9, "moderate"), (14, "complex"))


class Assessment(msgspec.Struct, frozen=True, omit_defaults=True):
    """A proposed plan, how big the task seems, and what is to be said about both."""

    parts: plan.Parts
    complexity: Complexity
    notes: tuple[str, ...] = ()


def assess(task: str, known: Collection[str] = (), *, default: str = "", parts_max: int = PARTS) -> Assessment:
    """Return a plan for a task: it can be carried out, whatever the text says.

    `known` are the capabilities that somebody has, `default` that of parts that nothing hints at. Raises `TooLarge`
    (`crew.task_too_large`), `Invalid` (`crew.no_task`) for a text that says nothing.
    """
    check_task(task)
    read = outline(task)
    notes = [f"{read.dropped} characters that are no text were left out."] if read.dropped else []
    items = _bounded(read.items, min(parts_max, plan.PARTS_MAX), notes)
    found = links(items, read.beside)
    ids = _ids(items)
    parts = tuple(
        _part(item, ids[place], [ids[one] for one in found.needs[place]], known, default)
        for place, item in enumerate(items)
    )
    if len(parts) == 1 and read.acceptance:
        one = parts[0]
        parts = (msgspec.structs.replace(one, acceptance=_acceptance([*one.acceptance, *read.acceptance])),)
    elif read.acceptance:
        notes.append(f"The whole is done when: {'; '.join(read.acceptance)}"[:NOTE_MAX])
    notes += unserved(parts, known)
    return Assessment(plan.checked(parts), complexity(task, read, parts), (*notes, *found.notes)[:NOTES_MAX])


def unserved(parts: Iterable[Part], known: Collection[str]) -> tuple[str, ...]:
    """Return what is to be said of parts whose capability nobody has."""
    unknown = sorted({part.capability for part in parts if part.capability and part.capability not in known})
    if not unknown:
        return ()
    told = f"Nobody has {', '.join(unknown)} now: such parts wait until somebody does, or change the plan."
    return (told[:NOTE_MAX],)


def check_task(task: str) -> None:
    """Raise what `assess` raises for a text that is no task."""
    size = len(msgspec.json.encode(task.encode("utf-8", "replace").decode()))  # so it stands in a run's input
    if size > TASK_MAX_BYTES:
        raise TooLarge(
            f"The task has {size} bytes, {TASK_MAX_BYTES} at most.", code="crew.task_too_large",
            hint="Say what is to be done, and where the material is (`knotwork blob put`).",
        )  # fmt: skip
    if not any(unicodedata.category(one)[0] in "LN" for one in task):
        raise Invalid("The task says nothing.", code="crew.no_task", hint="Write what is to be done.")


def complexity(task: str, read: Outline, parts: plan.Parts) -> Complexity:
    """Return how big a task seems, with the reasons."""
    words, groups = len(task.split()), plan.groups(parts)
    kinds = sorted({one for part in parts if (one := hints.kind(part.title, part.instructions))})
    hard = sorted({one.lower() for one in _HARD.findall(task)})
    demands = len(read.acceptance) + sum(len(part.acceptance) for part in parts)
    score, reasons = 0, []
    for points, reason in (
        (min(4, words // 60), f"{words} words"),
        (min(8, len(parts) - 1), f"{len(parts)} parts, by {read.by}" if len(parts) > 1 else "one part"),
        (min(3, len(groups) - 1), f"{len(groups)} groups, one after the other" if len(groups) > 1 else ""),
        (min(3, len(kinds) - 1), f"several kinds of work: {', '.join(kinds)}" if len(kinds) > 1 else ""),
        (min(4, 2 * len(hard)), f"it speaks of {', '.join(hard[:5])}" if hard else ""),
        (min(2, demands // 2), f"{demands} acceptance criteria" if demands else ""),
    ):
        score += max(0, points)
        if reason:
            reasons.append(reason)
    level: Level = next((name for limit, name in _LEVELS if score < limit), "very-complex")
    return Complexity(level, score, tuple(reasons), split=len(parts) > 1)


def _bounded(items: list[Item], most: int, notes: list[str]) -> list[Item]:
    """Return at most so many items: what is too much becomes part of the last."""
    if len(items) <= most:
        return items
    kept = items[:most]
    last = kept[-1]
    rest = [item.text for item in items[most:]]
    kept[-1] = Item(last.title, [*last.body, "Then also:", *rest], list(last.acceptance), last.number, last.stepped)
    notes.append(f"{len(items)} parts were found; the last {len(rest) + 1} are one, because {most} may be made.")
    return kept


def _part(item: Item, name: str, needs: list[str], known: Collection[str], default: str) -> Part:
    text = item.text
    given = hints.hint(_head(item.title), text, known, default)
    return Part(
        name, item.title[:256], text[:INSTRUCTIONS_MAX], given.capability, needs=tuple(needs),
        acceptance=_acceptance(item.acceptance), why=given.why[:256],
    )  # fmt: skip


def _acceptance(found: list[str]) -> tuple[str, ...]:
    return tuple(one[:1024] for one in found[: plan.ACCEPTANCE_MAX])


def _ids(items: list[Item]) -> list[str]:
    """Return a short name for each item, made of its words; each is there once."""
    made: list[str] = []
    for place, item in enumerate(items, start=1):
        said = _head(item.title)
        folded = unicodedata.normalize("NFKD", said).encode("ascii", "ignore").decode().lower()
        words = [word for word in re.findall(r"[a-z0-9]+", folded) if word not in _SKIP]
        name = "-".join(words[:3])
        while len(name) > NAME_MAX and "-" in name:
            name = name.rpartition("-")[0]
        if not plan.is_id(name):
            name = f"part-{place}"
        number = 2
        unique = name
        while unique in made:
            unique = f"{name}-{number}"
            number += 1
        made.append(unique)
    return made


def _head(title: str) -> str:
    """Return what a title says before it speaks of others."""
    return _ORDER.split(_FIRST.sub("", title), maxsplit=1)[0]
