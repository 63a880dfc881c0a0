"""What stands in `rows.py`? `python -m knotwork.mcp.index > node/knotwork/mcp/rows.py` writes it after a change of a tool."""

from __future__ import annotations

import json
import sys
from typing import Any

from knotwork.mcp import catalog, shapes
from knotwork.mcp.tool import Tool

_HEAD = '''# fmt: off
"""Which tools are there, for those who must not load the models? Made by `index.py`; edit the tools, not this file.

Each line is one tool as the protocol lists it, as JSON text: it is read when somebody asks for it.
"""

ROWS: dict[str, str] = {
'''


def listed(tool: Tool) -> dict[str, Any]:
    """Return a tool as `tools/list` shows it."""
    return {
        "name": tool.name,
        "title": tool.title,
        "description": tool.description,
        "inputSchema": shapes.of_input(tool.input),
        "outputSchema": shapes.of_output(tool.output),
        "annotations": tool.hints.annotations(),
    }


def text() -> str:
    """Return the module as it must be."""
    lines: list[str] = []
    for name, tool in catalog.TOOLS.items():
        row = json.dumps(listed(tool), separators=(",", ":"))
        lines.append(f'    {json.dumps(name)}: r"""{row}""",\n')
    return _HEAD + "".join(lines) + "}\n"


if __name__ == "__main__":
    sys.stdout.write(text())
