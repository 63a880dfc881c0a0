"""Which item of a task needs which? By the words and numbers of its text; a circle is cut where it closes (pure)."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from itertools import pairwise
from typing import TYPE_CHECKING

from knotwork.crew.plan import ALL_NEEDS_MAX, NEEDS_MAX, cycle

if TYPE_CHECKING:
    from collections.abc import Sequence

    from knotwork.crew.beside import Said
    from knotwork.crew.outline import Item

LINES_MAX = 1_000
"""Lines that are looked at for what they say of an order."""
NOTE_MAX = 500
PREFIX_MIN = 5
"""Words that begin with so many letters alike mean the same: translate, translation."""
_END = r"(?=[.;\n]|$|,\s*(?:then|and then|we|you|it|do|build|write|create|add|run|implement|deploy|test)\b)"
_NEEDS = re.compile(
    r"\b(?:depends? (?:up)?on|dependent on|depending on|needs|need|requires?|blocked by|waits? for|waiting for|relies on|"
    r"builds? (?:up)?on|based on|using the (?:output|results?) of|with the (?:output|results?) of|from the (?:output|results?) of|"
    r"follows|following|after|once|as soon as|when|depends|requires|prerequisites?|dependencies)\b[:\s]+(?P<what>[^.;\n]{1,300})",
    re.IGNORECASE,
)
_BEFORE = re.compile(
    r"\b(?:before|ahead of|unblocks|is needed (?:by|for)|prior to)\b[:\s]+(?P<what>[^.;\n]{1,300})", re.IGNORECASE
)
_THEN = re.compile(r"^\W*(?:and )?(?:then|next|after that|afterwards|subsequently|after this)\b", re.IGNORECASE)
_LAST = re.compile(
    r"^\W*(?:finally|lastly)\b|\b(?:at|in) the (?:very )?end\b|\b(?:all three|all four|(?:all|each) of (?:it|them|these|those)|them all)\b|"
    r"\b(?:when|once|after|requires?|needs?|depends? on) (?:everything|all(?: of)?(?: the)?(?: (?:above|others?|parts?|that))?)\b",
    re.IGNORECASE,
)
_BOTH = re.compile(r"\bboth(?: of (?:them|these|those)| parts| of the above)?\s*(?:[.;,!?)]|$)", re.IGNORECASE)
"""Said of no others by name: of the two parts before."""
_FIRST_LETTER = re.compile(r"([a-z])\b(?!['\u2019])", re.IGNORECASE)
_LETTERS = re.compile(r"\s*[a-z](?:\s*(?:,|and|&|\+)\s*[a-z])*\s*", re.IGNORECASE)
_ALONE = re.compile(r"\b(?:in parallel|independent(?:ly)?|at the same time|any order|no dependencies)\b", re.IGNORECASE)
_DONE = re.compile(
    r"\b(?:is|are|was|were|has been|have been)?\s*(?:done|ready|finished|complete[d]?|available|there|works?|merged|built|written|in place)\b"
)
_NUMBERS = re.compile(
    r"(?:\b(?:steps?|tasks?|items?|parts?|phases?|points?|numbers?|stages?)\s*|#|^\s*|\band\s+|,\s*)#?(\d{1,3})\b",
    re.IGNORECASE,
)
_WORD = re.compile(r"[a-z0-9]+")
_STOP = frozenset(
    {"a", "add", "after", "all", "an", "and", "any", "are", "as", "at", "available", "be", "been", "before",
     "build", "by", "can", "complete", "create", "depends", "design", "develop", "do", "done", "each", "finished",
     "for", "from", "has", "have", "if", "implement", "in", "into", "is", "it", "item", "its", "make", "must",
     "need", "needs", "new", "of", "off", "on", "once", "or", "our", "out", "output", "over", "part", "phase",
     "prepare", "ready", "requires", "result", "results", "set", "should", "so", "some", "step", "task", "than",
     "that", "the", "their", "them", "then", "there", "these", "they", "this", "those", "to", "up", "use", "using",
     "was", "we", "were", "what", "when", "which", "will", "with", "work", "write", "you", "your"}
)  # fmt: skip
_SAME = {
    "db": "database", "schema": "database", "tables": "database", "backend": "api", "endpoints": "api", "endpoint": "api",
    "rest": "api", "frontend": "ui", "front": "ui", "interface": "ui", "page": "ui", "pages": "ui", "gui": "ui", "testing": "test",
    "documentation": "doc", "docs": "doc", "readme": "doc", "deployment": "deploy", "deploying": "deploy", "authentication": "auth",
    "login": "auth",
}  # fmt: skip
_LAYERS: tuple[tuple[int, frozenset[str]], ...] = (
    (0, frozenset({"research", "investigate", "design", "specification", "spec", "requirement", "architecture", "plan",
                   "analyze", "analyse"})),
    (3, frozenset({"deploy", "release", "publish", "announce", "rollout", "ship", "launch"})),
    (2, frozenset({"ui", "test", "doc", "web", "app", "review", "benchmark", "verify", "validate", "client"})),
    (1, frozenset({"database", "api", "server", "infrastructure", "auth", "model", "migration", "storage", "queue",
                   "library", "data", "engine"})),
)  # fmt: skip
"""What usually comes first, 0, to what comes last, 3; of a title that fits several the first that stands here counts."""


@dataclass(slots=True)
class Links:
    """What each item needs, by their places in the list, and what is to be said about it."""

    needs: list[list[int]]
    notes: list[str] = field(default_factory=list)


def links(items: list[Item], beside: Sequence[Said] = ()) -> Links:
    """Return which items need which; `beside` is what the text says of that elsewhere than in them."""
    count = len(items)
    found: list[set[int]] = [set() for _ in items]
    words = [_key(item.title) for item in items]
    spoken = _by_stages(items, found)
    for one in beside[:LINES_MAX]:
        for later in _named(one.later, -1, items, words):
            named = _named(one.earlier, later, items, words)
            found[later] |= named
            spoken = spoken or bool(named)
    left = LINES_MAX
    for place, item in enumerate(items):
        for line in [item.title, *item.body][:200]:
            told = left > 0 and _of_line(line, place, items, words, found)
            left -= 1
            spoken = told or spoken
    notes: list[str] = []
    if not spoken:
        stepped = count > 1 and all(item.stepped for item in items)
        if stepped:
            for place in range(1, count):
                found[place].add(place - 1)
        elif not any(_ALONE.search(item.text) for item in items):
            _by_layers(words, found, notes)
    for place in range(count):
        found[place].discard(place)
    needs = [_few(sorted(one), found) for one in found]
    _cut_circles(items, needs, notes)
    return Links(_bounded(needs, notes), notes)


def _by_stages(items: list[Item], found: list[set[int]]) -> bool:
    """Put what comes in stages behind all of the stage before; say whether there are any."""
    stages = sorted({item.stage for item in items})
    for before, stage in pairwise(stages):
        earlier = {place for place, item in enumerate(items) if item.stage == before}
        for place, item in enumerate(items):
            if item.stage == stage:
                found[place] |= earlier
    return len(stages) > 1


def _of_line(line: str, place: int, items: list[Item], words: list[set[str]], found: list[set[int]]) -> bool:
    """Take note of what one line says an item needs; say whether it said anything about order."""
    spoken = False
    if _LAST.search(line):
        found[place] |= set(range(place))
        spoken = True
    elif _BOTH.search(line) and place:
        found[place] |= set(range(max(0, place - 2), place))
        spoken = True
    elif _THEN.match(line) and place:
        found[place].add(place - 1)
        spoken = True
    for match in _NEEDS.finditer(line):
        named = _named(match["what"], place, items, words)
        found[place] |= named
        spoken = spoken or bool(named)
    for match in _BEFORE.finditer(line):
        for other in _named(match["what"], place, items, words):
            found[other].add(place)
            spoken = True
    return spoken


def _named(phrase: str, place: int, items: list[Item], words: list[set[str]]) -> set[int]:
    """Return the items that a phrase speaks of, by number or by name."""
    said = re.split(_END, phrase, maxsplit=1)[0]
    numbers = set(_NUMBERS.findall(said))
    if _LETTERS.fullmatch(said):  # else "a" is no name
        numbers |= {one for one in said.lower() if one.isalpha()}
    by_number = {other for other, item in enumerate(items) if item.number and item.number in numbers and other != place}
    if not by_number and _LETTERS.fullmatch(said):  # items that call themselves by a letter: "A needs B"
        first = [_FIRST_LETTER.match(item.title) for item in items]
        by_number = {other for other, of in enumerate(first) if of and of[1].lower() in numbers and other != place}
    if by_number:
        return by_number
    found: set[int] = set()
    for piece in re.split(r",|\band\b|\bor\b|&|\+", _DONE.sub(" ", said)):
        meant = _key(piece)
        if not meant:
            continue
        scores = {
            other: score
            for other, of in enumerate(words) if other != place and of and (score := _alike(meant, of))
        }  # fmt: skip
        if scores:
            best = max(scores.values())
            found |= {other for other, score in scores.items() if score == best}
    return found


def _alike(meant: set[str], of: set[str]) -> float:
    """Return which share of the words of an item a phrase names."""
    shared = len(meant & of)
    if not shared:
        shared = sum(
            any(one[:PREFIX_MIN] == two[:PREFIX_MIN] and len(one) >= PREFIX_MIN for two in of) for one in meant
        )
    return shared / len(of)


def _key(text: str) -> set[str]:
    """Return the words of a text that tell it from others, in one form each."""
    found = set()
    for word in _WORD.findall(text.lower()[:1000]):
        if word not in _STOP:
            plain = _SAME.get(word, word)
            found.add(_SAME.get(_stem(plain), _stem(plain)))
    return found


def _stem(word: str) -> str:
    for ending in ("ies", "s"):
        if word.endswith(ending) and len(word) > len(ending) + 2 and not word.endswith("ss"):
            return word[: -len(ending)] + ("y" if ending == "ies" else "")
    return word


def _by_layers(words: list[set[str]], found: list[set[int]], notes: list[str]) -> None:
    """Put what usually comes later behind what usually comes before, where the text says nothing of it."""
    layers = [next((layer for layer, of in _LAYERS if of & one), None) for one in words]
    known = sorted({layer for layer in layers if layer is not None})
    for place, layer in enumerate(layers):
        before = [one for one in known if layer is not None and one < layer]
        if before:
            found[place] |= {other for other, one in enumerate(layers) if one == before[-1]}
    if any(found):
        notes.append("The text says nothing of an order: what usually comes later waits for what usually comes before.")


def _cut_circles(items: list[Item], needs: list[list[int]], notes: list[str]) -> None:
    """Leave out what closes a circle: of each, that an earlier item needs a later one."""
    while circle := cycle({str(place): [str(one) for one in of] for place, of in enumerate(needs)}):
        pairs = [(int(a), int(b)) for a, b in pairwise(circle)]
        place, need = max(pairs, key=lambda pair: pair[1] - pair[0])
        needs[place].remove(need)
        notes.append(f"A circle: that {items[place].title!r} needs {items[need].title!r} was left out."[:NOTE_MAX])


def _few(of: list[int], found: list[set[int]]) -> list[int]:
    """Return what an item needs, as many as may be: first of all what no other of them needs."""
    if len(of) <= NEEDS_MAX:
        return of
    last = [one for one in of if not any(one in found[other] for other in of)]
    return sorted((last + [one for one in of if one not in last])[:NEEDS_MAX])


def _bounded(needs: list[list[int]], notes: list[str]) -> list[list[int]]:
    """Return as many needs as a plan may have: the last of each when they are too many."""
    if sum(map(len, needs)) <= ALL_NEEDS_MAX:
        return needs
    each = ALL_NEEDS_MAX // len(needs)
    notes.append(f"The parts need too many others: of each the last {each} were kept.")
    return [sorted(of, reverse=True)[:each][::-1] for of in needs]
