"""Which items are in an answer? Those of a JSON list, of a feed (RSS 2.0, RSS 1.0, Atom), or the page as a whole (pure)."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from typing import Any, Literal
from xml.etree import ElementTree as ET

import jmespath
from jmespath.exceptions import JMESPathError

Format = Literal["auto", "json", "feed", "page"]
ITEMS_MAX = 1000
_IDS = ("id", "guid", "uuid", "key", "url", "link", "number")
_LISTS = ("items", "entries", "results", "data", "records", "events")
_ATOM = {"id": "id", "title": "title", "updated": "updated", "published": "published", "summary": "summary",
         "content": "content"}  # fmt: skip
_RSS = {"guid": "id", "title": "title", "link": "link", "pubDate": "published", "date": "published",
        "description": "summary", "encoded": "content"}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Item:
    """One item: what tells it from all others, and what it is."""

    id: str
    value: Any


class Unreadable(Exception):
    """The answer is not what it should be; its text says how."""


def read(body: bytes, content_type: str, form: Format, items: str = "", name: str = "") -> list[Item]:
    """Return the items of an answer, the oldest of a feed first; raises `Unreadable`.

    `items` is a JMESPath expression that gives the list, `name` one that gives what tells an item from the others.
    """
    kind = _told(body, content_type) if form == "auto" else form
    if kind == "page":
        text = body.decode("utf-8", "replace")
        return [Item(f"sha256-{hashlib.sha256(body).hexdigest()[:32]}", text)]
    found = _of_json(body, items) if kind == "json" else _of_feed(body)
    return _each_once([Item(_name(value, name), value) for value in found[:ITEMS_MAX]])


def _told(body: bytes, content_type: str) -> Format:
    word = content_type.partition(";")[0].strip().lower()
    if word.endswith(("json", "ndjson")):
        return "json"
    head = body[:512].lstrip(b"\xef\xbb\xbf \r\n\t").lower()
    if any(mark in head for mark in (b"<rss", b"<feed", b"<rdf:rdf")) or word.endswith(("rss+xml", "atom+xml")):
        return "feed"
    return "json" if head[:1] in (b"[", b"{") else "page"


def _of_json(body: bytes, items: str) -> list[Any]:
    try:
        found = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise Unreadable(f"it is no JSON: {error}") from error
    if items:
        try:
            found = jmespath.search(items, found)
        except JMESPathError as error:
            raise Unreadable(f"{items!r} cannot be looked for in it: {error}") from error
    elif isinstance(found, dict):
        found = next((found[word] for word in _LISTS if isinstance(found.get(word), list)), [found])
    if found is None:
        return []
    return found if isinstance(found, list) else [found]


def _of_feed(body: bytes) -> list[Any]:
    if b"<!ENTITY" in body:
        raise Unreadable("it declares entities of its own, which no feed needs")
    try:
        root = ET.fromstring(body)  # noqa: S314  no entities: see above
    except (ET.ParseError, ValueError) as error:
        raise Unreadable(f"it is no XML: {error}") from error
    found = [_entry(one) for one in root.iter() if _word(one) in ("item", "entry")]
    return found[::-1]  # feeds have the newest first


def _entry(element: ET.Element) -> dict[str, Any]:
    names = _ATOM if _word(element) == "entry" else _RSS
    value: dict[str, Any] = {}
    for child in element:
        word = _word(child)
        if word == "link" and "href" in child.attrib:
            if child.get("rel", "alternate") == "alternate":
                value.setdefault("link", child.get("href"))
        elif word in names:
            value.setdefault(names[word], "".join(child.itertext()).strip())
    return value


def _word(element: ET.Element) -> str:
    return str(element.tag).rpartition("}")[2]


def _name(value: Any, name: str) -> str:
    """Return what tells an item from the others: what it says, else what it is."""
    found: Any = None
    if name:
        try:
            found = jmespath.search(name, value)
        except JMESPathError as error:
            raise Unreadable(f"{name!r} cannot be looked for in an item: {error}") from error
    elif isinstance(value, dict):
        found = next(
            (value[word] for word in _IDS if isinstance(value.get(word), str | int) and value[word] != ""), None
        )
    if isinstance(found, str | int) and not isinstance(found, bool) and 1 <= len(str(found)) <= 256:  # noqa: PLR2004  ids of firings
        return str(found)
    text = json.dumps(value if found is None else found, sort_keys=True, separators=(",", ":"))
    return f"sha256-{hashlib.sha256(text.encode('utf-8', 'surrogatepass')).hexdigest()[:32]}"


def _each_once(found: list[Item]) -> list[Item]:
    return list({item.id: item for item in reversed(found)}.values())[::-1]
