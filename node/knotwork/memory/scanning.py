"""Is there a secret in a text? Known forms of keys and passwords, found by pattern (pure).

Sources of the forms: the documentation of each issuer (GitHub "token formats", AWS "IAM identifiers", GitLab "token
prefixes", Slack "token types", Stripe "API keys", Google "API keys", OpenAI and Anthropic "API keys", npm "granular
tokens", PyPI "API tokens", NATS "nkeys"), RFC 7519 (JWT), RFC 7468 (PEM), RFC 3986 (user information in URLs), and
for `password = …` what such assignments look like in configuration files and environments (`DB_PASSWORD=…`). Hugging Face
"user access tokens"; RFC 9580 (PGP); the parent key is our own, see `trust.parents`.
"""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING

from knotwork.sdk.errors import Invalid

if TYPE_CHECKING:
    from knotwork.memory.settings import Secrets


@dataclass(frozen=True, slots=True)
class Found:
    """One secret: its kind and where it stands."""

    kind: str
    start: int
    end: int


_FORMS: tuple[tuple[str, str], ...] = (
    ("private-key", r"-----BEGIN (?:[A-Z0-9]+ ){0,3}PRIVATE KEY(?: BLOCK)?-----(?:(?!-----BEGIN )[\s\S]){0,20000}?(?:-----END [A-Z0-9 ]{0,40}PRIVATE KEY(?: BLOCK)?-----|(?=-----BEGIN )|\Z)"),
    ("aws-key", r"\b(?:AKIA|ASIA|ABIA|ACCA)[A-Z2-7]{16}\b"),
    ("github-token", r"\b(?:gh[pousr]_[A-Za-z0-9]{36,255}|github_pat_[A-Za-z0-9_]{60,255})\b"),
    ("gitlab-token", r"\bgl(?:pat|dt|rt|ptt|ft|soat)-[A-Za-z0-9_-]{20,64}\b"),
    ("slack-token", r"\bxox[abeprs]-[A-Za-z0-9-]{10,250}\b"),
    ("stripe-key", r"\b[rs]k_(?:live|test)_[A-Za-z0-9]{16,247}\b"),
    ("google-key", r"\bAIza[A-Za-z0-9_-]{35}\b"),
    ("api-key", r"\bsk-(?:ant-|proj-|svcacct-|or-v1-)?[A-Za-z0-9_-]{20,200}\b"),
    ("npm-token", r"\bnpm_[A-Za-z0-9]{36}\b"),
    ("pypi-token", r"\bpypi-[A-Za-z0-9_-]{50,250}\b"),
    ("huggingface-token", r"\bhf_[A-Za-z0-9]{30,60}\b"),
    ("parent-key", r"\bkp1\.[A-Za-z0-9_-]{16,400}\.[A-Za-z0-9_-]{16,400}"),
    ("nkey-seed", r"\bS[AOUNCX][A-Z2-7]{56}\b"),
    ("jwt", r"\beyJ[A-Za-z0-9_-]{8,2000}\.eyJ[A-Za-z0-9_-]{8,8000}\.[A-Za-z0-9_-]{8,2000}"),
    ("url-password", r"\b[a-z][a-z0-9+.-]{1,20}://[^\s/?#@:]{1,100}:(?P<url>[^\s/?#@${<]{3,200})@"),
    ("bearer-token", r"(?i:\bbearer\s{1,4})(?P<bearer>[A-Za-z0-9._~+/=-]{20,2000})"),
    (
        "password",
        (r"(?i:(?<![a-z])(?:password|passwd|passphrase|pwd|secret|secret[_-]?(?:access[_-]?)?key|api[_-]?key|access[_-]?(?:key|token)"
        r"|account[_-]?key|private[_-]?key|auth[_-]?token|client[_-]?secret)"
        r"[\"']?\s{0,4}(?::=|[:=])\s{0,4})(?P<quote>[\"']?)(?P<value>[^\s\"'<>${}\[\](),;]{8,200})(?P=quote)"),
    ),
    (
        "token",
        (r"(?i:(?<![a-z0-9])[a-z0-9]{1,40}_token[\"']?\s{0,4}(?::=|[:=])\s{0,4})[\"']?"
        r"(?P<token>(?=[^\s\"']{0,100}[0-9])[A-Za-z0-9_~+/=-]{16,2000})"),
    ),
)  # fmt: skip
_KINDS = {f"f{number}": kind for number, (kind, _) in enumerate(_FORMS)}
_HINTS = re.compile(
    r"-----BEGIN|AKIA|ASIA|ABIA|ACCA|gh[pousr]_|github_pat_|\bgl[a-z]{2,4}-|xox[abeprs]-|[rs]k_|AIza|sk-|npm_|pypi-"
    r"|\bS[AOUNCX][A-Z2-7]{8}|eyJ|://|bearer|passw|passphrase|pwd|secret|(?:api|access|account|private)[_-]?key|token|hf_|kp1\.",
    re.IGNORECASE,
)
_UNSEEN = re.compile(
    "[\xad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b-\u200f\u2028-\u202e\u2060-\u206f\u3164\ufe00-\ufe0f"
    "\ufeff\uffa0\ufff9-\ufffb\U000e0000-\U000e0fff]"
)
"""What is not seen, and would part a secret so that no form fits it."""
_PLAIN = re.compile(r"[A-Za-z]+|[a-z_]+\.[a-z_.]+|[*x.•…_-]+", re.IGNORECASE)
"""What stands where a password would and is none: a word, a name in code, stars."""


@cache
def _pattern() -> re.Pattern[str]:
    """Return the pattern of all forms; made when something is remembered: it takes as long as loading three rooms."""
    return re.compile("|".join(f"(?P<f{number}>{form})" for number, (_, form) in enumerate(_FORMS)))


def scan(text: str) -> list[Found]:
    """Return the secrets in a text, in order; those of no known form are not found.

    Those parted by what is unseen are, and those in letters of another width or style.
    """
    if _UNSEEN.search(text) is None and unicodedata.is_normalized("NFKC", text):
        return _seen(text)
    letters = [
        (letter, place)
        for place, char in enumerate(text) if not _UNSEEN.match(char)
        for letter in unicodedata.normalize("NFKC", char)
    ]  # fmt: skip
    bare, places = "".join(letter for letter, _ in letters), [place for _, place in letters]
    return [Found(one.kind, places[one.start], places[one.end - 1] + 1) for one in _seen(bare)]


def _seen(text: str) -> list[Found]:
    if _HINTS.search(text) is None:
        return []
    found = []
    for hit in _pattern().finditer(text):
        kind = _KINDS[next(name for name in _KINDS if hit.group(name) is not None)]
        part = {"url-password": "url", "bearer-token": "bearer", "password": "value", "token": "token"}.get(kind, 0)
        if kind in ("password", "bearer-token") and _PLAIN.fullmatch(hit.group(part)):
            continue
        found.append(Found(kind, *hit.span(part)))
    return found


def redact(text: str, found: list[Found]) -> str:
    """Return the text with what was found taken out, and said so."""
    parts, last = [], 0
    for one in found:
        parts += [text[last : one.start], f"[{one.kind} removed]"]
        last = one.end
    return "".join([*parts, text[last:]])


def cleared(text: str, policy: Secrets) -> tuple[str, tuple[str, ...]]:
    """Return a text as it may be kept, and the kinds of secrets in it; raises `Invalid` (`memory.secret`)."""
    found = scan(text) if policy != "off" else []
    if found and policy == "block":
        raise Invalid(
            f"This looks like a secret: {', '.join(kinds(found))}. Nothing was kept.", code="memory.secret",
            hint="Leave it out, and say where it is kept instead. What becomes of secrets is set by memory.secrets.",
            detail={"kinds": list(kinds(found))},
        )  # fmt: skip
    return (redact(text, found) if policy == "redact" else text), kinds(found)


def kinds(found: list[Found]) -> tuple[str, ...]:
    """Return the kinds found, each once."""
    return tuple(dict.fromkeys(one.kind for one in found))
