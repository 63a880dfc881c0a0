"""How is a result read by a model, and how much of it? As short lines beside the structured answer, cut where it is long.

What agents wrote is data: control characters and those that turn the direction of text are shown, never carried out
(pure).
"""

from __future__ import annotations

import json
from typing import Any

from knotwork.sdk.errors import Invalid

RESULT_MAX_CHARS = 26_000
"""About 8,000 tokens, at three and a quarter characters a token."""
_CUT = "… [{left} of {whole} characters left out]"
_CUT_KEYS = "[{left} of {whole} fields left out]"
LEVELS = 200
"""So deep an answer may be nested as it is."""
KEYS_MAX = 64
"""Fields that are left of somebody's own table when it has to be cut; no row of ours has as many."""


def clean(text: str) -> str:
    """Return a text with everything that is not seen written out, such as what turns the direction of the rest."""
    if text.isprintable():
        return text
    from knotwork.trust import unseen  # most texts need none of it

    return unseen.harmless(text)


def without(fields: dict[str, Any]) -> dict[str, Any]:
    """Return fields without those that say nothing."""
    return {name: value for name, value in fields.items() if value is not None and value not in ("", [], {})}


def size(value: Any) -> int:
    """Return how many characters a value has as JSON, written without blanks, and with what is not seen written out.

    It is asked for every row of an answer.
    """
    return len(clean(_json(value)))


def shallow(answer: dict[str, Any]) -> dict[str, Any]:
    """Return an answer with what is nested deeper than `LEVELS` in it as JSON text: pydantic could not write it."""
    whole = {"answer": answer}
    waiting: list[tuple[Any, Any, int]] = [(whole, "answer", 0)]
    while waiting:
        around, key, level = waiting.pop()
        if level == LEVELS:
            around[key] = _json(around[key])
            continue
        within = around[key] = around[key].copy()
        found = within.items() if isinstance(within, dict) else enumerate(within)
        waiting += [(within, name, level + 1) for name, value in found if isinstance(value, dict | list)]
    return whole["answer"]


def _json(value: Any) -> str:
    import msgspec  # ten times as fast as `json`, and not loaded by a bridge that only lists its tools

    try:
        return msgspec.json.encode(value).decode()
    except (TypeError, ValueError, OverflowError):  # half a character, or a number beyond 64 bits
        return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def room_for(text: str, most: int = RESULT_MAX_CHARS - 4000) -> int:
    """Return how many of the first characters of a text have room in `most` as they are told, one at least."""
    kept = len(text)
    while kept > 1 and size(text[:kept]) > most:
        kept //= 2
    return kept


def part(text: str, offset: int, most: int) -> str:
    """Return up to `most` characters of a text from one on: as many as have room."""
    found = text[offset : offset + most]
    return found[: room_for(found)]


def halved(arguments: dict[str, Any]) -> list[str]:
    """Return the names of arguments that hold half a character (a lone surrogate), which nothing can write."""
    found = []
    for name, value in arguments.items():
        try:
            json.dumps([name, value], ensure_ascii=False).encode()
        except UnicodeEncodeError:
            found.append(name)
        except (TypeError, ValueError, RecursionError):  # something else is wrong with it
            continue
    return found


def half_a_character(names: list[str]) -> Invalid:
    """Return the error of such arguments (`tool.bad_arguments`)."""
    shown = ", ".join(clean(name.encode("utf-8", "replace").decode())[:64] for name in names[:10])
    return Invalid(
        f"{shown}: half a character is in it (a surrogate alone), which nothing can store.", code="tool.bad_arguments",
        hint="Send whole characters: write both halves of an emoji, and cut texts between characters.",
    )  # fmt: skip


def text_of(result: Any) -> str:
    """Return a result as lines: `key: value`, and one line for each row of a list.

    A text of several lines stands behind bars, and one with a semicolon in a row in quotes: none looks like a field or a row.
    """
    if not isinstance(result, dict):
        return _value(result)
    lines: list[str] = []
    for key, value in result.items():
        if isinstance(value, list) and value and all(isinstance(row, dict) for row in value):
            lines.append(f"{key} ({len(value)}):")
            lines += [f"- {_row(row)}" for row in value]
        elif isinstance(value, list) and not value:
            lines.append(f"{key}: none")
        elif isinstance(value, str) and "\n" in value.rstrip("\n"):
            lines += [f"{key}:", *(f"| {line}" for line in clean(value).split("\n"))]
        else:
            lines.append(f"{key}: {_value(value)}")
    return "\n".join(lines) or "done"


def _row(row: dict[str, Any]) -> str:
    return "; ".join(f"{key}: {_field(value)}" for key, value in row.items()).replace("\n", "\\n")


def _field(value: Any) -> str:
    """Return a value of a row; a text that could be taken for more fields stands in quotes."""
    told, texts = _value(value), value if isinstance(value, list) else [value]
    said = all(isinstance(one, str) for one in texts)  # anything else is JSON already
    return json.dumps(told, ensure_ascii=False) if said and ";" in told else told


def _value(value: Any) -> str:
    if isinstance(value, str):
        return clean(value)
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list) and all(isinstance(one, str) for one in value):
        return ", ".join(clean(one) for one in value)
    return clean(json.dumps(value, ensure_ascii=False))


def fit(value: Any, most: int = RESULT_MAX_CHARS) -> Any:
    """Return a result of at most about `most` characters of JSON: its longest texts are cut, and say by how much."""
    room, found = most, value
    while size(found) > most and room > 64:  # noqa: PLR2004  nothing is left to be cut
        room //= 2
        found = _cut(value, room)  # of the whole: what is said to be left out is counted from it
    return found


def _cut(value: Any, room: int) -> Any:
    """Return a value whose texts are no longer than `room`; a deep value that is longer becomes a text."""
    if isinstance(value, str):
        kept = room_for(value[:room], 2 * room)
        left = len(value) - kept
        return value[:kept] + _CUT.format(left=left, whole=len(value)) if left else value
    if isinstance(value, dict):
        shown = list(value.items())[:KEYS_MAX]
        cut = {key: _cut(part, room) if size(part) > room else part for key, part in shown}
        left = len(value) - len(shown)
        return cut | ({"…": _CUT_KEYS.format(left=left, whole=len(value))} if left else {})
    if isinstance(value, list):
        return _cut_list(value, room)
    return value


def _cut_list(value: list[Any], room: int) -> list[Any]:
    kept: list[Any] = []
    for part in value:
        short = _cut(part, room)
        if kept and size(kept) + size(short) > max(room, 256) * 2:
            break
        kept.append(short)
    return kept
