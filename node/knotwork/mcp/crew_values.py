"""How do the results of an orchestration look to an agent? In pages of parts, each cut where it is long (pure)."""

from __future__ import annotations

from typing import Any

from knotwork.mcp import wording
from knotwork.mcp.tool import without
from knotwork.mcp.work_values import PART_CHARS, words_of
from knotwork.sdk.errors import Invalid, NotFound

ROW_CHARS = 6000
"""What is shown of one part, or of the result, beside others."""
_BEGINNING = "This is the beginning: a result is kept when all parts are done. get_results has each part whole."
_ROOM = wording.RESULT_MAX_CHARS - 4000


def results(found: dict[str, Any], part: str, offset: int, cursor: str, *, whole: bool) -> dict[str, Any]:
    """Return what is shown of an answer of `crew.results`: one value from `offset` on, or a page behind `cursor`.

    Raises `NotFound` for a cursor behind which nothing can be, and `Invalid` for an offset beyond the end.
    """
    if whole:
        return {"parts": [], "total": len(found["parts"]), **_result(found, offset, PART_CHARS)}
    if part:
        return {"parts": [_row(one, offset, PART_CHARS) for one in found["parts"]], "total": len(found["parts"])}
    shown: dict[str, Any] = {} if cursor or found["result"] is None else _result(found, 0, ROW_CHARS)
    page = behind("parts", [_row(one, 0, ROW_CHARS) for one in found["parts"]], cursor, wording.size(shown))
    return shown | page | {"total": len(found["parts"])}


def behind(name: str, rows: list[dict[str, Any]], cursor: str, taken: int) -> dict[str, Any]:
    """Return rows behind the one whose `id` is the cursor, as many as fit beside `taken` characters; `next` goes on.

    Raises `NotFound` (`crew.no_part`).
    """
    ids = [row["id"] for row in rows]
    if cursor and cursor not in ids:
        raise NotFound(
            f"There is no part {cursor!r} to go on behind.", code="crew.no_part", hint="Begin without cursor."
        )
    begin = ids.index(cursor) + 1 if cursor else 0
    shown: list[dict[str, Any]] = []
    room = _ROOM - taken
    for row in rows[begin:]:
        room -= wording.size(row) + 1
        if room < 0 and shown:
            break
        shown.append(row)
    follows = {"next": shown[-1]["id"]} if begin + len(shown) < len(ids) else {}
    return {name: shown} | follows


def synthesized(found: dict[str, Any]) -> dict[str, Any]:
    """Return what became of all: of a long one the beginning, which get_results goes on with when it is kept."""
    beside = without({key: found[key] for key in ("why", "blob", "conflicts", "missing")})
    value = _value("output", found["output"], 0, PART_CHARS) if found["output"] is not None else {}
    if "cut" in value and found["phase"] != "complete":
        del value["cut"]
        beside["why"] = f"{beside.get('why', '')} {_BEGINNING}".strip()
    return dict(wording.fit(beside, ROW_CHARS)) | value


def _result(found: dict[str, Any], offset: int, most: int) -> dict[str, Any]:
    told = found["result"]
    beside = without({"blob": told["blob"], "conflicts": told["conflicts"], "missing": told["missing"]})
    return dict(wording.fit(beside, ROW_CHARS)) | _value("result", told["output"], offset, most)


def _row(one: dict[str, Any], offset: int, most: int) -> dict[str, Any]:
    shown = without({key: one[key] for key in ("id", "state", "title", "agent", "blob", "error")})
    return shown | (_value("output", one["output"], offset, most) if one["output"] is not None else {})


def _value(name: str, value: Any, offset: int, most: int) -> dict[str, Any]:
    """Return a value whole when it is short, else a piece of its text: `cut` tells where that goes on."""
    if not offset and wording.size(value) <= most:
        return {name: value}
    text = words_of(value)
    if offset >= len(text) > 0:
        raise Invalid(
            f"offset {offset} is beyond its end: it has {len(text)} characters.", code="tool.bad_arguments",
            hint="Go on from `cut`; where there is none you have read all.",
        )  # fmt: skip
    piece = text[offset : offset + most]
    while wording.size(piece) > most + 1000:  # what JSON writes with more characters than it has
        piece = piece[: len(piece) // 2]
    end = offset + len(piece)
    return {name: piece, "length": len(text)} | ({"cut": end} if end < len(text) else {})


def of_plan(error: Invalid) -> Invalid:
    """Return an error of `crew.spawn` in the words of the tool, whose parameter for the parts is `plan`."""
    problems = error.detail.get("problems")
    if error.code != "ops.bad_request" or not isinstance(problems, list):
        return error
    told = []
    for one in problems:
        first, dot, rest = str(one["field"]).partition(".")
        told.append(f"{'plan' if first == 'parts' else first}{dot}{rest}: {one['message']}")
    return Invalid(f"Something is wrong with the plan: {'; '.join(told)}.", code="tool.bad_arguments", hint=error.hint)
