"""What becomes of a call whose node went away before it answered? It is made again when that does no harm, else told.

A tool may be called again when it changes nothing, when the second call changes nothing more, or when what it does is
known by a key that the bridge made for the call: the node does that once, whoever asks how often (pure).
"""

from __future__ import annotations

from typing import Any

from knotwork.sdk.errors import KnotworkError, Unreachable

KEYED = frozenset(
    {
        "send_message", "send_direct_message", "read_direct_messages", "wait_for_message", "assign_work",
        "broadcast_work_offer", "start_workflow", "signal_run", "assess_task",
    }
)  # fmt: skip
"""Tools that hand the key of the call on to the op that they ask (`tool.Session.key`)."""
SAME = frozenset(
    {
        "complete_work", "fail_work", "extend_work", "report_progress", "remember", "remember_task",
        "remember_learning", "core_memory", "remember_bulk", "spawn_subagents", "checkpoint_progress",
    }
)  # fmt: skip
"""Tools whose op takes the same said twice for one: an outcome stands once, equal memories are merged."""
WAITS = {
    "await_work": ("timeout_secs", 50.0), "wait_for_message": ("timeout_secs", 50.0), "start_workflow": ("wait_secs", 0.0),
}  # fmt: skip
"""Tools that wait as long as the caller says: the argument, in seconds, and what it is when it is left out."""
EARLY_S = 0.25
"""What a call may take to be made at all, of which nothing is taken off."""
_LOOK = {
    "claim_work": "If work was claimed, it goes back to its queue when its lease is over: claim again.",
    "retry_dead_letter_item": "See list_dead_letter_items (toolset work) whether it is still there.",
    "synthesize_results": "See get_orchestration_state (toolset crew) how it stands.",
    "approve": "See get_run (toolset flow) what it waits for.",
    "retry_part": "See get_orchestration_state (toolset crew) whether it is being done again.",
    "create_channel": "See list_channels (toolset talk) whether it is there.",
    "revert_memory": "See memory_history (toolset memory) what it is now.",
    "commit_insight": "See recall_context what became of it.",
    "share_learning": "See recall_context what became of it.",
    "import_memories": "Importing the same again merges what is there already.",
    "export_memories": "Export again: the file is written anew.",
}


def may(name: str, hints: dict[str, Any]) -> bool:
    """Return whether a tool with these annotations may be called again."""
    return bool(hints.get("readOnlyHint") or hints.get("idempotentHint")) or name in KEYED or name in SAME


def waits_s(name: str, arguments: dict[str, Any]) -> float:
    """Return how long a call waits at its own wish, in seconds; 0 for one that does not."""
    field, usual_s = WAITS.get(name, ("", 0.0))
    given = arguments.get(field)
    return float(given) if isinstance(given, int | float) and not isinstance(given, bool) else usual_s


def later(name: str, arguments: dict[str, Any], gone_s: float) -> dict[str, Any]:
    """Return the arguments of a call that is made again after `gone_s` seconds: it waits for what is left of its time."""
    if name not in WAITS or gone_s < EARLY_S:
        return arguments
    return arguments | {WAITS[name][0]: round(max(0.0, waits_s(name, arguments) - gone_s), 3)}


def unknown(name: str, error: KnotworkError) -> KnotworkError:
    """Return the error of a call of which nobody knows whether it was done, and how the agent finds out."""
    look = _LOOK.get(name, "Look whether it was done before you call it again.")
    return Unreachable(
        f"The node went away before it answered {name}: it may have been done or not. It was not tried again.",
        code=error.code, hint=look,
    )  # fmt: skip
