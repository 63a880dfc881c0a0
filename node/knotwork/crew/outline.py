"""Of what does a task's text consist? Headings, lists, sentences, each an item; what is context or acceptance (pure)."""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass, field

from knotwork.crew import beside, enumerated

TASK_MAX_BYTES = 128 * 1024
LINES_MAX = 5_000
TITLE_MAX = 120

_HEADING = re.compile(r"(#{1,6})\s+(.{1,400}?)\s*#*$")
_NUMBERED = re.compile(r"(\s*)(?:\(?(\d{1,3})[.)]|([a-zA-Z])[.)])\s+(\S.*)$")
_BULLET = re.compile(r"(\s*)[-*+•‣]\s+(?:\[[ xX]\]\s+)?(\S.*)$")
_BARE_STEP = re.compile(r"(?:step|phase|stage|milestone)\s+(\d{1,3}|[A-Za-z])$", re.IGNORECASE)
_STEP = re.compile(r"(\s*)(?:step|phase|stage|milestone)\s+(\d{1,3}|[A-Za-z])\s*[:.)-]\s*(\S.*)$", re.IGNORECASE)
_INLINE = re.compile(r"(?:^|\s)\(?(\d{1,2})[.)]\s+")
_STEPS = re.compile(r"(?:^|\s)\(?(?:step|phase|stage|milestone)\s+(\d{1,2})\s*[:.)-]\s*(?=\S)", re.IGNORECASE)
_AND = re.compile(r"[\s,;.]*(?:\b(?:and then|and|then))?[\s,;.]*$", re.IGNORECASE)
_LABEL = re.compile(r"(\s*)\**([A-Za-z][A-Za-z ]{2,40})\**:\**\s*(.*)$")
_FENCE = re.compile(r"\s*(```|~~~)")
_ACCEPTANCE = re.compile(
    r"(acceptance( criteria| tests?)?|definition of done|done when|success criteria|it is done when|must hold)$",
    re.IGNORECASE,
)
_CONTEXT = re.compile(
    r"(context|background|notes?|constraints?|out of scope|non[- ]goals?|assumptions?|links?|references?|glossary|"
    r"overview|introduction|summary|goals?|motivation|description|environment)$",
    re.IGNORECASE,
)
_LISTING = re.compile(
    r"(tasks?|steps?|plan|to ?dos?|work items?|deliverables?|parts?|subtasks?|scope|requirements|features?)$",
    re.IGNORECASE,
)
_CHORES = (
    "add|build|check|clean|configure|connect|convert|create|define|deploy|design|develop|document|draft|evaluate|extract|"
    "fix|generate|implement|improve|install|integrate|investigate|make|measure|merge|migrate|optimise|optimize|plan|prepare|"
    "publish|refactor|release|remove|rename|replace|research|review|rewrite|run|send|set up|ship|summarise|summarize|test|"
    "train|translate|update|upgrade|validate|verify|write"
)
_FOLLOWS = "then|next|after that|afterwards|finally|lastly"
_LEAD = (
    rf"(?:(?:and |also )?(?:{_FOLLOWS}|first|firstly|second|secondly|third|thirdly|please)[, ]+)?"
    r"(?:(?:once|after|when) [^,.]{1,120}, )?(?:you (?:should|must) |we (?:need to|should|must) )?"
)
_IMPERATIVE = re.compile(rf"{_LEAD}(?:{_CHORES})\b", re.IGNORECASE)
_NEGATED = re.compile(
    rf"(?:{_LEAD})(?:do not|don't|don\u2019t|does not|doesn't|must not|should not|shouldn't|mustn't|never|avoid|without|no)\b",
    re.IGNORECASE,
)
"""What begins so says what is not to be done."""
_SENTENCE = re.compile(r"(?<=[.!?;])\s+(?=[A-Za-z(\"'])")
_CHAIN = re.compile(rf",?\s+(?=(?:and )?(?:{_FOLLOWS})\b)", re.IGNORECASE)
_CHAINED = re.compile(rf"(?:and )?(?:{_FOLLOWS})\b", re.IGNORECASE)


@dataclass(slots=True)
class Item:
    """One thing to do, as it was written: `number` is what the text calls it, `place` its order."""

    title: str
    body: list[str] = field(default_factory=list)
    acceptance: list[str] = field(default_factory=list)
    number: str = ""
    stepped: bool = False
    """Its number says an order: Step 1, Phase 2."""
    stage: int = 0
    """It comes after all of the stage before: "these and those, then this and that"."""

    @property
    def text(self) -> str:
        """Return all that is written of it, each once: a title may be the beginning of its body."""
        begun = self.body and self.title == shortened(self.body[0])
        return "\n".join(self.body if begun else [self.title, *self.body]).strip()


@dataclass(slots=True)
class Outline:
    """A task's text, taken apart: `by` says by what, `dropped` how many characters were no text."""

    items: list[Item]
    by: str
    acceptance: list[str]
    dropped: int = 0
    beside: list[beside.Said] = field(default_factory=list)
    """What stands beside the items of their order."""


def clean(text: str) -> tuple[str, int]:
    """Return a text without control, bidi and invisible characters, and how many there were."""
    unified = text.replace("\r\n", "\n").replace("\r", "\n")
    kept = "".join(
        one for one in unified
        if one in "\n\t" or unicodedata.category(one) not in ("Cc", "Cf", "Cs", "Co", "Cn")
    )  # fmt: skip
    return kept, len(unified) - len(kept)


def outline(text: str) -> Outline:
    """Return what a task's text consists of: at least one item, whatever it says."""
    plain, dropped = clean(text)
    lines = plain.split("\n")[:LINES_MAX]
    found = _Lines(lines)
    found.items = _wanted(_unfolded(found.items))
    if len(found.headings) > 1 and not found.listed:
        return Outline(found.headings, "headings", found.acceptance, dropped, found.beside)
    prose = " ".join(" ".join(found.prose).split())
    if len(found.items) > 1:
        found.beside += [one for sentence in _SENTENCE.split(prose) for one in beside.said(sentence)]
        return Outline(found.items, "list", found.acceptance, dropped, found.beside)
    if len(found.headings) > 1:
        return Outline(found.headings, "headings", found.acceptance, dropped, found.beside)
    sentences = _SENTENCE.split(prose)
    spoken = [beside.said(sentence) for sentence in sentences[1:]]
    if spoken and all(spoken) and len(items := _wanted(_enumeration(sentences[0]))) > 1:
        found.beside += [one for some in spoken for one in some]
        return Outline(items, "enumeration", found.acceptance, dropped, found.beside)
    for by, take in (
        ("enumeration", _steps),
        ("enumeration", _numbers),
        ("enumeration", _enumeration),
        ("sentences", _sentences),
    ):
        items = _wanted(take(prose))
        if len(items) > 1:
            return Outline(items, by, found.acceptance, dropped, found.beside)
    said = [one for one in _SENTENCE.split(prose) if not _NEGATED.match(one)]
    whole = found.items[0] if found.items else Item(shortened(" ".join(said)) or shortened(prose) or "The task")
    whole.body = [plain.strip()[:TASK_MAX_BYTES]] if not whole.body else whole.body
    return Outline([whole], "whole", found.acceptance, dropped)


class _Lines:
    """What stands in the lines, read once from the top."""

    def __init__(self, lines: list[str]) -> None:
        self.headings: list[Item] = []
        self.items: list[Item] = []
        self.prose: list[str] = []
        self.acceptance: list[str] = []
        self.beside: list[beside.Said] = []
        self.listed = False
        """The list stands under a heading such as Tasks, or under none: its items are the parts, not the headings."""
        self._into = "prose"
        self._heading: Item | None = None
        self._item: Item | None = None
        self._indent = self._stage = 0
        self._order, self._unsaid = "", list[tuple[str, str]]()
        """What stands over lines that say an order, and those under it that say none."""
        self._level = _level(lines)
        fenced = False
        for line in lines:
            if _FENCE.match(line):
                fenced = not fenced
            if fenced or _FENCE.match(line):
                self._code(line)
            else:
                self._line(line)
        if not (self.items or self.headings):  # else those tell once more what the parts are, or what they stand on
            unsaid, self._into = self._unsaid, "prose"
            for order, line in unsaid:
                self._stage += not self.beside and beside.in_turn(order)
                self._line(line)

    def _code(self, line: str) -> None:
        """Keep a line of code with the item that it stands in: nothing in it is an item."""
        into = self._item or self._heading
        if into is not None and self._into not in ("context", "acceptance"):
            into.body.append(line.rstrip())

    def _line(self, line: str) -> None:
        if not line.strip():
            return
        if (heading := _HEADING.match(line)) is not None:
            self._head(len(heading[1]), heading[2].strip(" *_:"))
            return
        label = _LABEL.match(line.strip().lstrip("-*+• ").lstrip())
        if label is not None and _ACCEPTANCE.match(label[2].strip()):
            self._accept(label[3], inside=bool(re.match(r"\s+", line)) or self._item is not None)
            return
        if self._speaks_of_order(line, label):
            return
        if (
            label is not None
            and not label[3]
            and (_LISTING.match(label[2].strip()) or _CONTEXT.match(label[2].strip()))
        ):
            self._head(0, label[2].strip())
            return
        if label is not None and label[3] and _LISTING.match(label[2].strip()):
            self._into, line = "prose", label[3]
        numbered, bullet, step = _NUMBERED.match(line), _BULLET.match(line), _STEP.match(line)
        if step is not None:
            self._entry(len(step[1]), step[3], step[2].lower(), stepped=True)
        elif numbered is not None:
            self._entry(len(numbered[1].expandtabs(4)), numbered[4], (numbered[2] or numbered[3]).lower())
        elif bullet is not None:
            self._entry(len(bullet[1].expandtabs(4)), bullet[2], "")
        else:
            self._more(line)

    def _head(self, level: int, title: str) -> None:
        self._item = None
        if _ACCEPTANCE.match(title):
            inner = self._heading is not None and level > self._level > 0
            self._into = "inner acceptance" if inner else "acceptance"
        elif _CONTEXT.match(title):
            self._into, self._heading = "context", None
        elif beside.LABEL.match(title) and (self._heading is None or level <= self._level):
            self._into, self._order, self._heading = "order", title, None
        elif _LISTING.match(title):
            self._into, self._heading, self.listed = "list", None, True
        elif level == self._level:
            step, bare = _STEP.match(title) or _NUMBERED.match(title), _BARE_STEP.match(title)
            number = bare[1] if bare is not None else step[2] or "" if step is not None else ""
            stepped = bool(_STEP.match(title) or bare)
            self._heading = Item(shortened(_bare(title)), number=number.lower(), stepped=stepped)
            self.headings.append(self._heading)
            self._into = "heading"
        elif self._heading is not None and level > self._level:
            self._heading.body.append(title)
            self._into = "heading"
        else:
            self._into = "prose"

    def _speaks_of_order(self, line: str, label: re.Match[str] | None) -> bool:
        """Take a line that says what comes after what; say whether it is one: not inside an item."""
        is_inside = self._heading is not None or (self._item is not None and line[:1] in (" ", "\t"))
        if label is not None and not is_inside and beside.LABEL.match(label[2].strip()):
            order, told = label[2].strip(), label[3]
            self.beside += [one for part in re.split(r"[.;]\s+", told) for one in beside.said(part, order)]
            self._item, self._into, self._order = None, self._into if told else "order", order
            return True
        if self._into != "order" or (label is not None and _LISTING.match(label[2].strip())):
            return False
        told = beside.said(line, self._order)
        self.beside += told
        self._unsaid += [] if told else [(self._order, line)]
        return True

    def _accept(self, told: str, *, inside: bool) -> None:
        into = self._item.acceptance if inside and self._item is not None else None
        if into is None and self._heading is not None and self._into.startswith(("heading", "inner")):
            into = self._heading.acceptance
        if told.strip():
            (self.acceptance if into is None else into).append(told.strip())
        elif into is None:
            self._into = "acceptance"

    def _entry(self, indent: int, text: str, number: str, *, stepped: bool = False) -> None:
        text = text.strip()
        if self._into == "acceptance":
            self.acceptance.append(text)
        elif self._into == "inner acceptance" and self._heading is not None:
            self._heading.acceptance.append(text)
        elif self._into == "context":
            return
        elif self._item is not None and indent > self._indent + 1:
            self._item.body.append(text)
        else:
            if self._heading is not None:
                self._heading.body.append(text)
            body = [text] if len(text) > TITLE_MAX else []
            self._item = Item(shortened(text), body, number=number, stepped=stepped, stage=self._stage)
            self._indent = indent
            self.items.append(self._item)

    def _more(self, line: str) -> None:
        if self._into in ("context", "acceptance"):
            return
        if self._item is not None and line[:1] in (" ", "\t"):
            self._item.body.append(line.strip())
        elif self._heading is not None:
            self._heading.body.append(line.strip())
        else:
            if self.items and _CHAINED.fullmatch(line.strip().rstrip(":,. …")):
                self._stage += 1
            elif self.items and _CHAINED.match(line):
                self._entry(0, line, "")
            else:
                self.prose.append(line.strip())
            self._item = None


def _wanted(items: list[Item]) -> list[Item]:
    """Return the items that are to be done: what is not to be done belongs to the one before, or to the first."""
    kept: list[Item] = []
    before: list[str] = []
    for item in items:
        if not _NEGATED.match(item.text):
            kept.append(item)
            item.body += before
            before = []
        elif kept:
            kept[-1].body.append(item.text)
        else:
            before.append(item.text)
    return kept


def _bare(title: str) -> str:
    """Return a heading without its number."""
    found = _STEP.match(title) or _NUMBERED.match(title)
    return (found[3] if found.re is _STEP else found[4]) if found is not None else title


def _level(lines: list[str]) -> int:
    """Return the level of headings that stand for parts: the highest with at least two that are no context."""
    counts: dict[int, int] = {}
    for line in lines:
        heading = _HEADING.match(line)
        if heading is not None:
            title = heading[2].strip(" *_:")
            if not any(one.match(title) for one in (beside.LABEL, _ACCEPTANCE, _CONTEXT, _LISTING)):
                counts[len(heading[1])] = counts.get(len(heading[1]), 0) + 1
    return next((level for level in sorted(counts) if counts[level] > 1), 0)


def _unfolded(items: list[Item]) -> list[Item]:
    """Return the items of a numbered list of which several stand in one line: "1. this 2. that"; else what was given.

    A number inside an item is one of the list only when all of them together count from 1 on without a gap.
    """
    if not items or not all(item.number.isdecimal() for item in items) or _counts(items):
        return items
    found: list[Item] = []
    for item in items:
        long = bool(item.body) and item.title == shortened(item.body[0])
        text = item.body[0] if long else item.title
        lead, marks = (f"step {item.number}: ", _STEPS) if item.stepped else (f"{item.number}. ", _INLINE)
        pieces = _marked(lead + text, marks, int(item.number), stepped=item.stepped)
        if pieces:
            pieces[-1].body += item.body[1:] if long else item.body
            pieces[-1].acceptance += item.acceptance
        found += pieces or [item]
    return found if _counts(found) else items


def _counts(items: list[Item]) -> bool:
    """Return whether the numbers of at least two items are 1, 2, 3 and so on."""
    return len(items) > 1 and [int(item.number) for item in items] == list(range(1, len(items) + 1))


def _steps(prose: str) -> list[Item]:
    """Return what steps in a line name: Step 1: this Step 2: that."""
    return _marked(prose, _STEPS, 1, stepped=True)


def _numbers(prose: str) -> list[Item]:
    """Return what an enumeration with numbers in a line names: (1) this (2) that."""
    return _marked(prose, _INLINE, 1, stepped=False)


def _marked(text: str, pattern: re.Pattern[str], first: int, *, stepped: bool) -> list[Item]:
    """Return what stands behind the marks in a text, when they count from `first` on and are two at least."""
    marks = list(pattern.finditer(text))
    if len(marks) < 2 or [int(mark[1]) for mark in marks] != list(range(first, first + len(marks))):  # noqa: PLR2004
        return []
    ends = [*(mark.start() for mark in marks[1:]), len(text)]
    said = [_AND.sub("", text[mark.end() : end]).strip() for mark, end in zip(marks, ends, strict=True)]
    return [
        Item(shortened(one), [one], number=mark[1], stepped=stepped)
        for mark, one in zip(marks, said, strict=True)
        if one
    ]


def _enumeration(prose: str) -> list[Item]:
    """Return what a sentence names after a colon: "Build a shop: database schema, REST API and web page"."""
    lead, names = enumerated.names(prose)
    return [Item(shortened(name), [f"{lead}: {name}"], stage=stage) for stage, name in names]


def _sentences(prose: str) -> list[Item]:
    """Return one item for each sentence that tells to do something; what follows belongs to it."""
    items: list[Item] = []
    for sentence in _SENTENCE.split(prose):
        for piece in _CHAIN.split(sentence) if _IMPERATIVE.match(sentence) else [sentence]:
            text = piece.strip(" ,;")
            if _IMPERATIVE.match(text) or (items and text and _CHAINED.match(text)):
                items.append(Item(shortened(text), [text]))
            elif items and text:
                items[-1].body.append(text)
    return items


def shortened(text: str) -> str:
    """Return a title: the first sentence or clause of a text, in one line."""
    line = " ".join(re.sub(r"[*_`]+", "", text).split())
    if len(line) <= TITLE_MAX:
        return line.rstrip(" .;,")
    cut = line[:TITLE_MAX]
    return (cut[: cut.rfind(" ")] if " " in cut[40:] else cut).rstrip(" .;,") + "…"
