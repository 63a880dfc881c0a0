"""What may be told of a launch, and how are things named after it? Pure.

What a launched agent prints, or what a server answers, goes into conditions and errors that people and other nodes
read; so it is cut short, and what looks like a secret is taken out.
"""

from __future__ import annotations

import hashlib
import re
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from knotwork.sdk import LaunchRequest

LINES_MAX = 20
CHARS_MAX = 2000
HIDDEN = "[hidden]"
TAIL_BYTES = 8192
SECRET_MIN = 6
# What a launch says about itself, and how its node is called; everything else in its environment counts as secret.
OPEN = frozenset(
    {
        "KNOTWORK_URL", "KNOTWORK_USER", "KNOTWORK_PROJECT", "KNOTWORK_TARGET", "KNOTWORK_TASK", "KNOTWORK_LAUNCH",
    }
)  # fmt: skip
OPEN_TABLE = "KNOTWORK__NODE__"

_SECRET = re.compile(
    r"-----BEGIN [^\n]{0,60}-----.*?(?:-----END [^\n]{0,60}-----|------END [^\n]{0,60}------|\Z)"  # keys, creds files
    r"|\bS[UAOCNX][A-Z2-7]{56}\b"  # nkey seeds
    r"|\beyJ[\w-]{8,}\.[\w-]{8,}(?:\.[\w-]*)?"  # JSON web tokens
    r"|\b(?:gh[pousr]_|github_pat_)\w{20,}",  # tokens of GitHub
    re.DOTALL,
)
_CONTROL = re.compile(r"\x1b\[[0-?]*[ -/]*[@-~]|[\x00-\x08\x0b-\x1f\x7f]")
_ODD = re.compile(r"[^a-z0-9]+")


def secrets_in(env: Mapping[str, str]) -> list[str]:
    """Return the values in the environment of a launch that must not be told, each line of them too, longest first.

    What it says about itself is none, under whatever name it stands there once more.
    """
    told = {value for name, value in env.items() if name in OPEN or name.startswith(OPEN_TABLE)}
    found: set[str] = set()
    for value in env.values():
        if value not in told:
            found |= {value, *(line.strip() for line in value.splitlines())}
    return sorted((secret for secret in found if len(secret) >= SECRET_MIN), key=len, reverse=True)


def hide(text: str, secrets: Iterable[str] = ()) -> str:
    """Return the text without these secrets, and without anything that has the shape of a key or a token."""
    for secret in secrets:
        text = text.replace(secret, HIDDEN)
    return _SECRET.sub(HIDDEN, text)


def last_words(output: bytes, secrets: Iterable[str] = ()) -> str:
    """Return the end of an output as text for people: 20 lines and 2000 characters at most, colours taken out."""
    text = _CONTROL.sub("", hide(output.decode(errors="replace").replace("\r", "\n"), secrets))
    lines = [line.rstrip() for line in text.splitlines() if line.strip()]
    return "\n".join(lines[-LINES_MAX:])[-CHARS_MAX:]


def ended(how: str, output: bytes, secrets: Iterable[str] = ()) -> str:
    """Return how something ended together with the last lines of its output."""
    said = last_words(output, secrets)
    return f"{how}; its last lines:\n{said}" if said else f"{how}, without a word"


def name_of(prefix: str, launch: str, limit: int = 63) -> str:
    """Return a name of a-z, 0-9 and dashes for a launch: always the same, and no other launch has it.

    An id that is no such name already, or is too long, gets its digest at the end.
    """
    slug = _ODD.sub("-", launch.lower()).strip("-")
    if slug == launch and len(prefix) + 1 + len(slug) <= limit:
        return f"{prefix}-{slug}"
    digest = hashlib.sha256(launch.encode()).hexdigest()[:10]
    return f"{prefix}-{slug}"[: limit - 11].rstrip("-") + f"-{digest}"


def told(request: LaunchRequest) -> dict[str, str]:
    """Return what anybody may know of a launch."""
    return {
        "launch": request.id,
        "target": request.target,
        "project": request.project,
        "capability": request.capability,
        "boundary": request.boundary,
        "task": request.task,
    }


def text_in(ref: Mapping[str, Any], key: str) -> str:
    """Return a text of a ref, an empty one when there is none; what is odd in it is nobody's business further in."""
    value = ref.get(key)
    return value if isinstance(value, str) else ""
