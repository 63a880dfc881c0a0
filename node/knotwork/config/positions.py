"""In which line and column of a TOML text does each key stand?

tomllib does not tell, so the text is read a second time by tree-sitter; only when an error or an origin has to be
shown. Paths are those of the data tomllib makes: keys as text, places in arrays as numbers from 0.
"""

from __future__ import annotations

import tomllib
from collections.abc import Iterator
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from tree_sitter import Node

    from knotwork.config.keys import Path

DEPTH_MAX = 100


class Place(NamedTuple):
    """Line and column of a key and of its value, in characters, from 1; the value of a table is its header."""

    line: int
    column: int
    value_line: int
    value_column: int


def positions(text: str) -> dict[Path, Place]:
    """Return the place of every table, key and array item of `text`; of a broken text those that can be made out."""
    return _Walk(text).document(syntax_tree(text))


def syntax_tree(text: str) -> Node:
    """Return the root of the syntax tree of a TOML text; it may hold errors."""
    import tree_sitter  # loaded on the error path, for origins and for `config fmt` only
    import tree_sitter_toml

    # tree-sitter-toml wants the last line ended
    ended = text if text.endswith("\n") else text + "\n"
    parser = tree_sitter.Parser(tree_sitter.Language(tree_sitter_toml.language()))
    return parser.parse(ended.encode("utf-8", "replace")).root_node


def locate(places: dict[Path, Place], path: Path, *, value: bool = False) -> tuple[int, int]:
    """Return line and column of `path`, or of the nearest table around it; (1, 1) when there is none.

    `value` asks for the place of the value rather than of the key.
    """
    for length in range(len(path), 0, -1):
        if place := places.get(path[:length]):
            if value and length == len(path):
                return place.value_line, place.value_column
            return place.line, place.column
    return 1, 1


class _Walk:
    """One walk through the syntax tree; collects places."""

    def __init__(self, text: str) -> None:
        self.lines = text.encode("utf-8", "replace").split(b"\n")
        self.last = (0, 0, 0)  # row, byte and character of the place asked for last
        self.places: dict[Path, Place] = {}
        self.counts: dict[Path, int] = {}  # tables seen so far of each array of tables

    def document(self, root: Node) -> dict[Path, Place]:
        for node in root.children:
            if node.type == "pair":
                self.pair((), node, 0)
            elif node.type in ("table", "table_array_element"):
                self.table(node)
        return self.places

    def table(self, node: Node) -> None:
        names = [part for child in node.children if child.type in _KEYS for part in key_parts(child)]
        if not names:
            return
        base: Path = ()
        for index, (name, key) in enumerate(names):
            base = (*base, name)
            last = index == len(names) - 1
            if last and node.type == "table_array_element":
                self.add(base, node, node)
                self.counts[base] = self.counts.get(base, -1) + 1
                base = (*base, self.counts[base])
                self.add(base, node, node)
            elif last:
                self.places[base] = self.place(key, node)  # the header itself beats a mention in another header
            else:
                self.add(base, key, key)
                if base in self.counts:  # a table inside the latest table of an array
                    base = (*base, self.counts[base])
        for child in node.children:
            if child.type == "pair":
                self.pair(base, child, 0)

    def pair(self, base: Path, node: Node, depth: int) -> None:
        keys = next((key_parts(child) for child in node.children if child.type in _KEYS), [])
        value = value_of(node)
        if not keys or depth > DEPTH_MAX:
            return
        for name, key in keys:
            base = (*base, name)
            self.add(base, key, value)
        self.value(base, value, depth)

    def value(self, base: Path, node: Node, depth: int) -> None:
        if depth > DEPTH_MAX:
            return
        if node.type == "inline_table":
            for child in node.children:
                if child.type == "pair":
                    self.pair(base, child, depth + 1)
        elif node.type == "array":
            items = [child for child in node.children if child.is_named and child.type != "comment"]
            for index, item in enumerate(items):
                self.add((*base, index), item, item)
                self.value((*base, index), item, depth + 1)

    def add(self, path: Path, key: Node, value: Node) -> None:
        self.places.setdefault(path, self.place(key, value))

    def place(self, key: Node, value: Node) -> Place:
        return Place(*self.point(key), *self.point(value))

    def point(self, node: Node) -> tuple[int, int]:
        row, byte = node.start_point
        last_row, last_byte, characters = self.last
        if row != last_row or byte < last_byte:
            last_byte = characters = 0
        # counted on from the last place: a line may be a megabyte long and hold all the keys
        characters += len(self.lines[row][last_byte:byte].decode("utf-8", "replace"))
        self.last = row, byte, characters
        return row + 1, characters + 1


_KEYS = ("bare_key", "quoted_key", "dotted_key")


def value_of(pair: Node) -> Node:
    """Return the value of a pair; a comment behind it is part of the pair too."""
    return next((child for child in reversed(pair.children) if child.type != "comment"), pair)


def key_parts(node: Node) -> list[tuple[str, Node]]:
    """Return the names a key is made of with their nodes; a dotted key nests to the left, as deep as it is long."""
    return [(_unquoted(part), part) for part in _simple(node)]


def _simple(node: Node) -> Iterator[Node]:
    right: list[Node] = []
    while node.type == "dotted_key":
        named = [child for child in node.children if child.type in _KEYS]
        if not named:
            break
        right.extend(reversed(named[1:]))
        node = named[0]
    if node.type != "dotted_key":
        yield node
    yield from reversed(right)


def _unquoted(node: Node) -> str:
    text = (node.text or b"").decode("utf-8", "replace")
    if node.type == "bare_key":
        return text
    try:
        return next(iter(tomllib.loads(f"{text} = 0")))
    except (tomllib.TOMLDecodeError, StopIteration):
        return text
