"""What is the prompt for this input?

A string is the prompt itself, an object with `prompt` carries it, anything else is handed over as JSON. A template
may surround it: `{prompt}`, `{input}` (all of it as JSON) and `{input.key.key}` are filled in; other braces stay.
"""

from __future__ import annotations

import json
import re
from typing import Any

_PLACE = re.compile(r"\{(prompt|input(?:\.[A-Za-z0-9_-]+){0,8})\}")


def prompt_of(given: Any, template: str = "") -> str:
    """Return the prompt for one input; an empty template means the prompt alone."""
    prompt = given["prompt"] if isinstance(given, dict) and "prompt" in given else given
    text = _text(prompt)
    if not template:
        return text
    # One pass: what was filled in is never searched for places again.
    return _PLACE.sub(lambda place: text if place[1] == "prompt" else _text(_at(given, place[1])), template)


def _at(given: Any, path: str) -> Any:
    for key in path.split(".")[1:]:
        given = given.get(key, "") if isinstance(given, dict) else ""
    return given


def _text(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return clean(text)


def clean(text: str) -> str:
    """Return `text` without lone surrogates, which no UTF-8 door lets through."""
    return text.encode("utf-8", "replace").decode("utf-8")
