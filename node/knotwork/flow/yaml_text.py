"""What does YAML mean here? YAML 1.2 as JSON has it: no word but true and false is a truth, and no number a time (pure).

The library reads YAML 1.1, where `on:` is the key True, `010` eight, `1:30` ninety, and `2030-01-01` no text.
"""

from __future__ import annotations

import re
from typing import Any

import yaml
from yaml.constructor import ConstructorError

_SHOWN_MAX = 80
DIGITS_MAX = 40
"""Digits of a number that is looked at: a larger one is refused before it costs anything."""
_CORE = (
    ("null", r"~|null|Null|NULL|", ("~", "n", "N", "")),
    ("bool", r"true|True|TRUE|false|False|FALSE", ("t", "T", "f", "F")),
    ("int", r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+", tuple("-+0123456789")),
    (
        "float",
        r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)",
        tuple("-+0123456789."),
    ),
)
"""Tag, text and first letters of plain words that are no texts (YAML 1.2.2, 10.3.2); the first that fits counts."""
TAG = "tag:yaml.org,2002:"
_TEXT = f"{TAG}str"


class Twice(yaml.composer.ComposerError):
    """A key that stands in one table twice."""


class Loader(yaml.SafeLoader):
    """YAML 1.2 without aliases: ten lines of them can mean a billion. Keys are texts, whatever they look like."""

    def compose_node(self, parent: Any, index: Any) -> Any:
        """Return the next node; raises `ComposerError` for an alias."""
        if self.check_event(yaml.AliasEvent):
            mark = self.peek_event().start_mark  # type: ignore[no-untyped-call]
            told = "aliases (*name) are not taken: write it out where it is meant"
            raise yaml.composer.ComposerError(None, None, told, mark)
        return super().compose_node(parent, index)

    def compose_mapping_node(self, anchor: Any) -> Any:
        """Return the next table; raises `Twice` for a key that stands in it twice: one would be lost in silence."""
        node = super().compose_mapping_node(anchor)
        first: dict[str, Any] = {}
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode):
                told = "a key is a word, no list or table"
                raise yaml.composer.ComposerError(None, None, told, key.start_mark)
            key.tag = _TEXT  # `1:`, `true:` and `null:` are words, as they would be in TOML
            place: Any = key.start_mark
            before = first.setdefault(key.value, place)
            if before is not place:
                told = f"{key.value[:_SHOWN_MAX]!r} is in line {before.line + 1} already"
                raise Twice(None, None, told, key.start_mark)
        return node


def _null(_loader: Loader, _node: Any) -> None:
    return None


def _bool(_loader: Loader, node: Any) -> bool:
    return _whole(node, "bool").lower() == "true"


def _int(_loader: Loader, node: Any) -> int:
    text = _whole(node, "int")
    return int(text, {"0o": 8, "0x": 16}.get(text[:2], 10))


def _float(_loader: Loader, node: Any) -> float:
    text = _whole(node, "float").lower()
    return float(text.replace(".inf", "inf").replace(".nan", "nan"))


def _whole(node: Any, kind: str) -> str:
    """Return the text of a scalar; raises `ConstructorError` for one that is not what its tag says."""
    text = str(node.value) if isinstance(node, yaml.ScalarNode) else ""
    if not _FITS[kind].fullmatch(text):
        raise ConstructorError(None, None, f"{text[:_SHOWN_MAX]!r} is no {kind}", node.start_mark)
    if kind in ("int", "float") and len(text) > DIGITS_MAX:
        raise ConstructorError(None, None, f"a number has {DIGITS_MAX} digits at most", node.start_mark)
    return text


def _refused(_loader: Loader, node: Any) -> Any:
    told = f"the tag {node.tag.replace(TAG, '!!')[:_SHOWN_MAX]!r} is not taken: write a text, number, list or table"
    raise ConstructorError(None, None, told, node.start_mark)


Loader.yaml_implicit_resolvers, Loader.yaml_constructors = {}, {}  # none of the library's
_FITS = {kind: re.compile(pattern) for kind, pattern, _ in _CORE}
for _kind, _pattern, _first in _CORE:
    Loader.add_implicit_resolver(f"{TAG}{_kind}", re.compile(f"(?:{_pattern})$"), list(_first))
for _tag, _made in (
    ("null", _null),
    ("bool", _bool),
    ("int", _int),
    ("float", _float),
    ("str", yaml.SafeLoader.construct_yaml_str),
    ("seq", yaml.SafeLoader.construct_yaml_seq),
    ("map", yaml.SafeLoader.construct_yaml_map),
):
    Loader.add_constructor(f"{TAG}{_tag}", _made)
Loader.add_constructor(None, _refused)
