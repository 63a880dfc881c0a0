"""How does a workflow look? As letters, or in the languages of Mermaid and Graphviz, or as SVG (pure)."""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from knotwork.flow.graph import Box, Graph

WIDTH, HEIGHT, GAP_X, GAP_Y = 170, 44, 40, 46
LETTER = 9
"""Pixels of the widest letter of a name or kind, roughly: what is written in a box fits into it."""


def drawn(graph: Graph, form: str) -> str:
    """Return a picture; `form` is ascii, mermaid, dot or svg."""
    return _FORMS[form](graph)


def _mermaid(graph: Graph) -> str:
    lines = ["flowchart TD"]
    lines += [f'  s{box.place}["{box.id}: {_what(graph, box)}"]' for box in graph.boxes.values()]
    lines += [
        f"  s{graph.boxes[parent].place} --> s{box.place}" for box in graph.boxes.values() for parent in box.parents
    ]
    lines += [f"  s{start.place} -. {label} .-> s{end.place}" for start, label, end in _failures(graph)]
    return "\n".join(lines) + "\n"


def _dot(graph: Graph) -> str:
    lines = [f'digraph "{graph.workflow.name}" {{', "  node [shape=box];"]
    lines += [f'  s{box.place} [label="{box.id}: {_what(graph, box)}"];' for box in graph.boxes.values()]
    lines += [
        f"  s{graph.boxes[parent].place} -> s{box.place};" for box in graph.boxes.values() for parent in box.parents
    ]
    lines += [
        f'  s{start.place} -> s{end.place} [style=dashed, label="{label}"];' for start, label, end in _failures(graph)
    ]
    return "\n".join([*lines, "}"]) + "\n"


def _ascii(graph: Graph) -> str:
    lines = []
    for level in _levels(graph):
        for box in level:
            after = f"  after {', '.join(box.parents)}" if box.parents else ""
            lines.append(f"[{box.id}] {box.spec.kind}{after}")
        lines.append("   |")
    lines = lines[:-1]
    if graph.handlers:
        lines += ["", "when something fails:"]
        serves: dict[str, list[str]] = {}
        for start, label, end in _failures(graph):
            serves.setdefault(end.id, []).append(f"{label} {start.id}")
        lines += [
            f"[{name}] {_what(graph, box)}{'  ' if name in serves else ''}{', '.join(serves.get(name, []))}"
            for name, box in graph.boxes.items()
            if name in graph.handlers
        ]
    return "\n".join(lines) + "\n"


def _svg(graph: Graph) -> str:
    levels = [*_levels(graph)]
    if graph.handlers:
        levels.append([graph.boxes[name] for name in graph.boxes if name in graph.handlers])
    written = max(len(text) for box in graph.boxes.values() for text in (box.id, _what(graph, box)))
    wide = max(WIDTH, LETTER * written + 20)
    at = {
        box.id: (GAP_X + column * (wide + GAP_X), GAP_Y + row * (HEIGHT + GAP_Y))
        for row, level in enumerate(levels)
        for column, box in enumerate(level)
    }
    width = max(x for x, _ in at.values()) + wide + GAP_X
    height = max(y for _, y in at.values()) + HEIGHT + GAP_Y
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" font-family="sans-serif" font-size="13">'
    ]
    lines = [(graph.boxes[parent], "", box) for box in graph.boxes.values() for parent in box.parents]
    for start, label, end in [*lines, *_failures(graph)]:  # before the boxes: one that passes a row goes behind it
        (x1, y1), (x2, y2) = at[start.id], at[end.id]
        told = f' stroke-dasharray="4"><title>{label}</title></line>' if label else "/>"
        parts.append(
            f'<line x1="{x1 + wide // 2}" y1="{y1 + HEIGHT}" x2="{x2 + wide // 2}" y2="{y2}" stroke="#888"{told}'
        )
    for box in graph.boxes.values():
        x, y = at[box.id]
        parts.append(f'<rect x="{x}" y="{y}" width="{wide}" height="{HEIGHT}" rx="6" fill="#fff" stroke="#333"/>')
        parts.append(f'<text x="{x + 10}" y="{y + 19}" font-weight="bold">{escape(box.id)}</text>')
        parts.append(f'<text x="{x + 10}" y="{y + 36}" fill="#666">{escape(_what(graph, box))}</text>')
    return "\n".join([*parts, "</svg>"]) + "\n"


_FORMS: dict[str, Callable[[Graph], str]] = {"mermaid": _mermaid, "dot": _dot, "ascii": _ascii, "svg": _svg}


def _what(graph: Graph, box: Box) -> str:
    """Return what a step does; the workflow's own handler belongs to no step that it could be joined to by a line."""
    return f"{box.spec.kind}, when the run fails" if box.id == graph.workflow.on_failure else str(box.spec.kind)


def _failures(graph: Graph) -> list[tuple[Box, str, Box]]:
    """Return who handles whose failure, and who undoes whom."""
    found = []
    for box in graph.boxes.values():
        for key, label in (("on_failure", "on failure"), ("compensate", "undo")):
            if (name := getattr(box.spec, key)) is not None:
                found.append((box, label, graph.boxes[name]))
    return found


def _levels(graph: Graph) -> list[list[Box]]:
    """Return the steps in rows: each below all that it depends on."""
    depth: dict[str, int] = {}
    left = [box for box in graph.boxes.values() if box.id not in graph.handlers]
    while left:
        ready = [box for box in left if all(parent in depth for parent in box.parents)]
        for box in ready:
            depth[box.id] = max((depth[parent] + 1 for parent in box.parents), default=0)
        left = [box for box in left if box.id not in depth]
    rows: list[list[Box]] = [[] for _ in range(max(depth.values(), default=0) + 1)]
    for name, row in depth.items():
        rows[row].append(graph.boxes[name])
    return rows
