"""What stands where `{launch}`, `{target}` or `{env.NAME}` was written in a table of the target? Pure."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from knotwork_plugins.spinups import words

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from knotwork.sdk import LaunchRequest

TOLD = ("launch", "target", "project", "capability", "boundary", "task")
_PLACE = re.compile(r"\{([a-z]+(?:\.[A-Za-z0-9_-]+)*)\}")
_WHOLE = "{env}"


def values_of(request: LaunchRequest) -> dict[str, str]:
    """Return what may stand in places: the words of the launch, `claim`, and `env.NAME` for all of its environment."""
    known = words.told(request)
    known["claim"] = request.env.get("KNOTWORK_CLAIM", "")
    return known | {f"env.{name}": value for name, value in request.env.items()}


def check(template: Any, allowed: tuple[str, ...]) -> None:
    """Raise ValueError for a place that will have no value: a name not in `allowed`, where `env.` allows any below it."""
    for text in _texts(template):
        for place in _PLACE.finditer(text):
            name = place[1]
            if name not in allowed and not any(one.endswith(".") and name.startswith(one) for one in allowed):
                known = ", ".join(f"{{{one}{'NAME' if one.endswith('.') else ''}}}" for one in allowed)
                raise ValueError(f"nothing is known as {place[0]}; there are {known}")


def fill(template: str, values: Mapping[str, str], written: Callable[[str], str] = str) -> str:
    """Return the template with each place filled by `written(value)`; one that has no value is left empty."""
    return _PLACE.sub(lambda place: written(values.get(place[1], "")), template)


def fill_url(template: str, values: Mapping[str, str]) -> str:
    """Return the URL with each place percent-encoded, so that no value leaves its segment; raises ValueError for dots."""

    def written(value: str) -> str:
        if value in {"", ".", ".."}:
            raise ValueError(f"{value!r} cannot stand in a URL")
        return quote(value, safe="")

    return fill(template, values, written)


def fill_json_text(template: str, values: Mapping[str, str], env: Mapping[str, str]) -> str:
    """Return a template of JSON text with each place escaped as within a JSON string; `{env}` is the object of all."""
    parts = template.split(_WHOLE)
    return json.dumps(dict(env)).join(fill(part, values, lambda value: json.dumps(value)[1:-1]) for part in parts)


def fill_json(template: Any, values: Mapping[str, str], env: Mapping[str, str]) -> Any:
    """Return a JSON value with the places in its texts filled; a text that is `{env}` becomes the object of all."""
    if isinstance(template, str):
        return dict(env) if template == _WHOLE else fill(template, values)
    if isinstance(template, dict):
        return {key: fill_json(value, values, env) for key, value in template.items()}
    if isinstance(template, list):
        return [fill_json(value, values, env) for value in template]
    return template


def _texts(template: Any) -> list[str]:
    if isinstance(template, str):
        return [template]
    if isinstance(template, dict):
        return [text for value in template.values() for text in _texts(value)]
    if isinstance(template, list | tuple):
        return [text for value in template for text in _texts(value)]
    return []
