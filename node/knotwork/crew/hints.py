"""Who could do a part? The capability that its words speak of, among those that somebody has (pure)."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Collection

DEFAULT = "general"
"""The capability of parts that nothing hints at."""
_WORD = re.compile(r"[a-z0-9+#]+")
_HINTS: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("test tests testing unittest pytest coverage qa e2e regression", ("testing", "test", "tests", "qa")),
    ("review audit inspect", ("code-review", "review", "reviewing")),
    ("security vulnerability vulnerabilities threat pentest owasp", ("security", "security-review", "code-review")),
    ("deploy deployment release rollout kubernetes helm terraform ci cd pipeline docker infrastructure", ("devops", "deploy", "infrastructure", "operations")),
    ("doc docs document documentation readme manual guide tutorial changelog", ("documentation", "docs", "writing", "write")),
    ("translate translation localize localise i18n", ("translation", "translate", "writing")),
    ("database schema sql postgres postgresql mysql sqlite migration migrations tables db", ("database", "db", "sql", "backend")),
    ("ui frontend react vue css html page pages screen web accessibility button", ("frontend", "ui", "web")),
    ("api backend endpoint endpoints rest graphql server service grpc", ("backend", "api", "server")),
    ("design wireframe mockup architecture", ("design", "architecture", "planning")),
    ("research investigate compare survey literature evaluate study", ("research", "analysis")),
    ("analyze analyse analysis statistics report metrics dashboard data csv dataset", ("data-analysis", "analysis", "data")),
    ("summarize summarise summary digest", ("summarize", "summarization", "writing", "write")),
    ("write draft article blog essay copy text email letter", ("writing", "write", "content")),
    ("train model embedding neural llm fine-tune prompt", ("machine-learning", "ml", "ai")),
    ("android ios mobile swift kotlin app", ("mobile", "frontend")),
    ("refactor code implement function class bug fix library python rust java typescript go build develop", ("coding", "code", "development", "programming", "backend")),
)  # fmt: skip
_UNSAID = frozenset(
    {"then", "and", "first", "next", "finally", "please", "also", "write", "the", "a", "build", "add", "make", "create",
     "set", "up"}
)  # fmt: skip
"""Words that a title may begin with, and that say nothing of what is to be done."""
_INDEX = tuple((frozenset(words.split()), candidates) for words, candidates in _HINTS)


class Hint(NamedTuple):
    """A capability, why, and whether somebody has it now."""

    capability: str
    why: str
    known: bool


def hint(title: str, text: str, known: Collection[str], default: str = "") -> Hint:
    """Return who could do a part: by its title first, then by all that is written of it.

    Of what nobody has, nothing is made up: such a part goes to `default`.
    """
    verb = next((word for word in _WORD.findall(title.lower()[:200]) if word not in _UNSAID), "")
    for where, words in (("title", _words(title)), ("text", _words(text))):
        direct = [one for one in sorted(known) if one in words or (set(one.split("-")) <= words and one != DEFAULT)]
        if direct:
            best = max(direct, key=len)
            return Hint(best, f"its {where} says {best.replace('-', ' ')}", known=True)
        scored = [
            (len(words & of) + 2 * (verb in of), -place, candidates, words & of)
            for place, (of, candidates) in enumerate(_INDEX) if words & of
        ]  # fmt: skip
        for _, _, candidates, said in sorted(scored, key=lambda one: one[:2], reverse=True):
            fits = next((one for one in candidates if one in known), None)
            if fits is not None:
                return Hint(fits, f"its {where} says {', '.join(sorted(said))}", known=True)
    fallback = default or DEFAULT
    return Hint(fallback, "nothing in it speaks of a capability that somebody has", known=fallback in known)


def kind(title: str, text: str) -> str:
    """Return what kind of work a part is, in one word, whoever is there; empty when nothing tells."""
    for words in (_words(title), _words(text)):
        found = [
            (len(words & of), -place, candidates[0]) for place, (of, candidates) in enumerate(_INDEX) if words & of
        ]
        if found:
            return max(found)[2]
    return ""


def _words(text: str) -> set[str]:
    return set(_WORD.findall(text.lower()[:20_000]))
