"""Which tools are there? The one table that both ways in read; a new tool is a row in one of these modules."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from knotwork.mcp import (
    blob_tools,
    channel_care_tools,
    channel_tools,
    crew_steering_tools,
    crew_tools,
    dead_letter_tools,
    flow_tools,
    memory_file_tools,
    memory_tools,
    memory_version_tools,
    message_tools,
    queue_tools,
    registry_tools,
    session_tools,
    work_tools,
)
from knotwork.mcp.tool import REGISTERED, Tool
from knotwork.mcp.toolsets import aliases
from knotwork.sdk.errors import NotFound

GROUPS = (
    session_tools,
    registry_tools,
    channel_tools,
    channel_care_tools,
    message_tools,
    blob_tools,
    work_tools,
    queue_tools,
    dead_letter_tools,
    memory_tools,
    memory_version_tools,
    memory_file_tools,
    flow_tools,
    crew_tools,
    crew_steering_tools,
)
TOOLS: Mapping[str, Tool] = MappingProxyType(
    {name: tool for group in GROUPS for name, tool in REGISTERED.items() if tool.handler.__module__ == group.__name__}
)
"""In the order of the groups, whoever imported one of them first."""
ALIASES: Mapping[str, str] = MappingProxyType(aliases(tuple(TOOLS)))


def find(name: str) -> Tool:
    """Return a tool by its name, or by another that it has; raises `NotFound` (`tool.unknown`) with the nearest."""
    found = TOOLS.get(name) or TOOLS.get(ALIASES.get(name, ""))
    if found is not None:
        return found
    from difflib import get_close_matches  # only on the error path

    near = get_close_matches(name[:128], [*TOOLS, *ALIASES], 1)
    hint = f"Did you mean {near[0]}?" if near else "The tool `toolsets` names them all."
    raise NotFound(f"Unknown tool: {name[:128]!r}.", code="tool.unknown", hint=hint)
