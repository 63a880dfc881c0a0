"""How is a TOML file written neatly, with every comment kept and its meaning untouched?

The syntax tree is written out again statement by statement; values are copied as they stand. The result is compared
with the original, in meaning and in comments, before anybody gets it.
"""

from __future__ import annotations

import tomllib
from collections.abc import Iterator
from typing import TYPE_CHECKING, NamedTuple

from knotwork.config.parse import parse
from knotwork.config.positions import key_parts, syntax_tree, value_of
from knotwork.config.problems import Problem, invalid
from knotwork.sdk import Internal

if TYPE_CHECKING:
    from tree_sitter import Node


class _Statement(NamedTuple):
    """A header, a `key = value` or a comment of its own line; rows count from 0."""

    first_row: int
    last_row: int
    text: str


def fmt(text: str, file: str = "knotwork.toml") -> str:
    """Return the text in the usual form: `key = value`, no indents, single blank lines, one before each table.

    Comments, values and the order of everything stay; formatting twice changes nothing more. Raises `ConfigInvalid`
    for broken TOML (problems are told about `file`), `Internal` when the result would mean something else.
    """
    text = text.removeprefix("\ufeff").replace("\r\n", "\n")
    if problems := parse(file, text).problems:
        raise invalid(problems)
    tree = syntax_tree(text)
    if tree.has_error:
        place = Problem(file, 1, 1, "", "this file cannot be formatted, though it is valid", "", "config.format_failed")
        raise invalid([place])
    after = _written(list(_statements(tree)))
    if not _means_the_same(text, after) or _comments(tree) != _comments(syntax_tree(after)):
        message = f"{file} cannot be formatted without changing it, so it was left as it is."
        raise Internal(message, code="config.format_failed", hint="Report it with the file.")
    return after


def _statements(root: Node) -> Iterator[_Statement]:
    """Yield all statements in order; a comment behind one on the same line belongs to it."""
    latest: _Statement | None = None
    for node in _flat(root):
        first = node.start_point[0]
        if latest and node.type == "comment" and first == latest.last_row:
            latest = latest._replace(text=f"{latest.text}  {_text(node).rstrip()}")
            continue
        if latest:
            yield latest
        if node.type == "pair":
            value = value_of(node)
            key = next(child for child in node.children if child.is_named)
            latest = _Statement(first, value.end_point[0], f"{_key(key)} = {_text(value)}")
        elif node.type == "comment":
            latest = _Statement(first, first, _text(node).rstrip())
        else:
            left, right = ("[", "]") if node.type == "table" else ("[[", "]]")
            latest = _Statement(first, first, f"{left}{_key(next(c for c in node.children if c.is_named))}{right}")
    if latest:
        yield latest


def _flat(root: Node) -> Iterator[Node]:
    """Yield headers (as their table), pairs and comments in the order of the text."""
    for node in root.children:
        if node.type in ("table", "table_array_element"):
            yield node
            yield from _flat(node)
        elif node.type == "pair":
            yield node
            yield from (child for child in node.children if child.type == "comment")
        elif node.type == "comment":
            yield node


def _written(statements: list[_Statement]) -> str:
    lines: list[str] = []
    before: _Statement | None = None
    for statement in statements:
        if before and statement.first_row > before.last_row + 1:
            lines.append("")
        if statement.text.startswith("["):
            _part_from_above(lines)
        lines.append(statement.text)
        before = statement
    return "".join(f"{line}\n" for line in lines)


def _part_from_above(lines: list[str]) -> None:
    """Put a blank line before a table header, above the comments that belong to it."""
    at = len(lines)
    while at and lines[at - 1].startswith("#"):
        at -= 1
    if at and lines[at - 1]:
        lines.insert(at, "")


def _key(node: Node) -> str:
    return ".".join(_text(part) for _, part in key_parts(node))


def _text(node: Node) -> str:
    return (node.text or b"").decode("utf-8")


def _means_the_same(one: str, other: str) -> bool:
    try:
        return repr(tomllib.loads(one)) == repr(tomllib.loads(other))  # repr: not-a-number equals itself, 1 is not 1.0
    except ValueError:
        return False


def _comments(root: Node) -> list[str]:
    found: list[str] = []
    todo = [root]
    while todo:
        node = todo.pop()
        if node.type == "comment":
            found.append(_text(node).rstrip())
        todo.extend(reversed(node.children))
    return found
