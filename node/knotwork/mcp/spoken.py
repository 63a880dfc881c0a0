"""What does an agent call where a message names a command? The tool that does the same, in the set where it is listed.

What no tool does is for people at a shell; the agent is told so and can ask them (pure).
"""

from __future__ import annotations

import re
from typing import Any

from knotwork.mcp import toolsets
from knotwork.ops import commands

TOOLS = {
    "agents": "list_agents", "agents show": "list_agents", "nodes": "list_agents",
    "session list": "discover_agents", "session show": "get_agent_info",
    "task list": "list_work", "task get": "check_work", "task why": "check_work", "task await": "await_work",
    "task cancel": "cancel_work", "task submit": "assign_work", "task stats": "work_queue_status",
    "dead list": "list_dead_letter_items", "dead redrive": "retry_dead_letter_item",
    "dead drop": "discard_dead_letter_item",
    "run list": "list_runs", "run show": "get_run", "run why": "get_run", "run events": "get_run",
    "run watch": "await_work", "run await": "await_work", "run cancel": "cancel_work", "run signal": "signal_run",
    "workflow list": "list_workflows",
    "crew list": "list_orchestrations", "crew state": "get_orchestration_state", "crew results": "get_results",
    "crew assess": "assess_task", "crew spawn": "spawn_subagents", "crew synthesize": "synthesize_results",
    "crew pause": "pause_orchestration", "crew resume": "resume_orchestration", "crew cancel": "cancel_orchestration",
    "crew retry": "retry_part",
    "channel create": "create_channel", "channel set": "configure_channel", "channel archive": "archive_channel",
    "memory history": "memory_history", "memory revert": "revert_memory",
    "crew watch": "get_orchestration_state", "work claim": "claim_work", "work claimed": "list_claimed_work", "memory stats": "pattern_health",
    "channel list": "list_channels", "inbox": "read_direct_messages", "message get": "read_message",
    "blob put": "put_blob", "blob get": "get_blob",
    "message send": "send_direct_message", "memory list": "recall_context", "memory get": "read_memory",
    "memory commit": "commit_insight",
}  # fmt: skip
"""Which tool does what a command does, by the words of the command."""
_ARGUMENTS = {"--undo": "undo"}
"""Flags that are arguments of the tool by another name; what else a command has is left out."""
_flag = re.compile(r"(?<![\w`-])--timeout\b")
_KEPT = ("why", "hint", "message")


def tool(name: str) -> str:
    """Return how an agent is told of a tool: by its name, and the set to ask for when it begins with another."""
    if name in toolsets.TOOLSETS[toolsets.DEFAULT]:
        return name
    held = next((one for one, names in toolsets.TOOLSETS.items() if one != "classic" and name in names), "all")
    return f"{name} (toolset {held})"


def for_agents(text: str) -> str:
    """Return a message as an agent is told it."""
    return _flag.sub("a longer timeout", commands.said(text, _say))


def _say(command: str) -> str:
    found = commands.known(command, TOOLS)
    if found is None:
        return f"`knotwork {command}` at a shell, by your user"
    name, rest = found
    words = (_ARGUMENTS.get(word, word) for word in rest.split(" "))
    given = " ".join(word for word in words if word and not word.startswith("-"))
    return tool(name) + (f" with {given}" if given else "")


def told(value: Any) -> Any:
    """Return what a node said of work, such as an error, with its hints as an agent is told them."""
    if not isinstance(value, dict):
        return for_agents(value) if isinstance(value, str) else value
    return {key: for_agents(one) if key in _KEPT and isinstance(one, str) else one for key, one in value.items()}
