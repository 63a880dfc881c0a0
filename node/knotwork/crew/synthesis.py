"""How do several results become one? One after the other as text, or as one structure whose conflicts are listed (pure)."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import msgspec

from knotwork.crew import answers

if TYPE_CHECKING:
    from collections.abc import Sequence

    from knotwork.crew.plan import Part

DEPTH_MAX = 50
CONFLICTS_MAX = 1_000
_TEXTS = ("text", "result", "summary", "answer", "content", "output", "markdown")
_FENCED = re.compile(r"\s*```(?:json)?\s*\n(.*?)\n?```\s*$", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Piece:
    """What a part gave."""

    part: Part
    output: Any


@dataclass(slots=True)
class Conflict:
    """Two parts say different things of the same: where (a path with dots), what each says, and whose word stands.

    `why` says why: it was given the other's result, or it only came first.
    """

    path: str
    values: list[dict[str, Any]]
    chosen: str
    why: str


@dataclass(slots=True)
class Merged:
    """One structure, and where its sources contradict each other."""

    output: Any
    conflicts: list[Conflict] = field(default_factory=list)


def concatenated(pieces: Sequence[Piece]) -> str:
    """Return all results as one text, each under its title, in the order of the plan."""
    return "\n\n".join(f"## {piece.part.title or piece.part.id}\n\n{text_of(piece.output)}" for piece in pieces) + "\n"


def text_of(output: Any) -> str:
    """Return a result as text: as it is, its text when it is an object with one, else as JSON."""
    if isinstance(output, str):
        return output.strip()
    if isinstance(output, dict):
        told = next((output[key] for key in _TEXTS if isinstance(output.get(key), str)), None)
        if told is not None:
            return str(told).strip()
    if output is None:
        return "(nothing)"
    return f"```json\n{msgspec.json.format(msgspec.json.encode(output), indent=2).decode()}\n```"


def merged(pieces: Sequence[Piece]) -> Merged:
    """Return all results as one structure.

    Objects are joined key by key, lists one after the other without repetitions; what is said twice differently is a
    conflict: who was given the other's result has the last word, else who stands first in the plan. What is no object
    stands under the name of its part; of the answer of an AI tool counts what it says.
    """
    merging = _Merging({piece.part.id: piece.part for piece in pieces})
    for piece in pieces:
        value = structure(answers.data(piece.output))
        merging.join(merging.found.output, value if isinstance(value, dict) else {piece.part.id: value}, (), piece.part)
    return merging.found


def structure(output: Any) -> Any:
    """Return a result as data, also when an agent wrote it as JSON in a text."""
    if not isinstance(output, str):
        return output
    fenced = _FENCED.match(output)
    text = fenced[1] if fenced is not None else output
    if text.lstrip()[:1] not in ("{", "["):
        return output
    try:
        return msgspec.json.decode(text.encode())
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        return output


class _Merging:
    """What was joined so far, and who said what stands at each place of it."""

    def __init__(self, parts: dict[str, Part]) -> None:
        self.found = Merged({})
        self._parts = parts
        self._said: dict[tuple[str, ...], Part] = {}
        self._known: dict[tuple[str, ...], Conflict] = {}
        self._listed: dict[tuple[str, ...], tuple[list[Any], set[bytes]]] = {}
        """What stands in the list at a place, as long as it is that list: looked through one by one it would take for ever."""

    def join(self, into: dict[str, Any], value: dict[str, Any], path: tuple[str, ...], part: Part) -> None:
        """Join what a part says with what stands there."""
        for key, one in value.items():
            place = (*path, key)
            if key not in into:
                into[key] = one
                self._say(one, place, part)
                continue
            before = into[key]
            if isinstance(before, dict) and isinstance(one, dict) and len(place) < DEPTH_MAX:
                self.join(before, one, place, part)
            elif isinstance(before, list) and isinstance(one, list):
                into[key] = self._longer(before, one, place)
            elif before != one or isinstance(before, bool) is not isinstance(one, bool):
                self._differ(into, place, one, part)

    def _longer(self, before: list[Any], more: list[Any], path: tuple[str, ...]) -> list[Any]:
        """Return a list with what another has beside it."""
        known, there = self._listed.get(path, (None, set[bytes]()))
        if known is not before:
            there = {_told(item) for item in before}
        texts = [_told(item) for item in more]
        made = before + [item for item, text in zip(more, texts, strict=True) if text not in there]
        there.update(texts)
        self._listed[path] = (made, there)
        return made

    def _say(self, value: Any, path: tuple[str, ...], part: Part) -> None:
        """Note who said what stands at a place, and at all places below."""
        self._said[path] = part
        if isinstance(value, dict) and len(path) < DEPTH_MAX:
            for key, one in value.items():
                self._say(one, (*path, key), part)

    def _differ(self, into: dict[str, Any], path: tuple[str, ...], value: Any, part: Part) -> None:
        key, first = path[-1], self._said.get(path, part)
        later = needs(self._parts, part.id, first.id)
        chosen = part.id if later else first.id
        why = f"{part.id} was given the result of {first.id}" if later else f"{first.id} stands first"
        known = self._known.get(path)
        if known is not None:
            known.values.append({"part": part.id, "value": _as_is(value)})
            known.chosen, known.why = chosen, why
        elif len(self.found.conflicts) < CONFLICTS_MAX:
            values = [{"part": first.id, "value": _as_is(into[key])}, {"part": part.id, "value": _as_is(value)}]
            self._known[path] = Conflict(".".join(path), values, chosen, why)
            self.found.conflicts.append(self._known[path])
        if later:
            into[key] = value
            self._say(value, path, part)


def _as_is(value: Any) -> Any:
    """Return a value as it is now: an object grows when others are joined with it, and nobody has said that."""
    return msgspec.json.decode(msgspec.json.encode(value)) if isinstance(value, dict) else value


def _told(item: Any) -> bytes:
    """Return what an item of a list says, the same for those that say the same."""
    return msgspec.json.encode(item, order="deterministic")


def needs(parts: dict[str, Part], one: str, other: str) -> bool:
    """Return whether a part was given another's result, directly or not."""
    left, seen = [one], {one}
    while left:
        part = parts.get(left.pop())
        for need in part.needs if part is not None else ():
            if need == other:
                return True
            if need not in seen:
                seen.add(need)
                left.append(need)
    return False
