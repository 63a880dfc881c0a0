"""Which tools does an agent see? A few of them, and more when it asks: every listed tool costs it room to think.

Any tool may be called by its name, listed or not; what is listed is what a model will think of (pure).
"""

from __future__ import annotations

from typing import Any

from knotwork.sdk.errors import Invalid

TOOLSETS: dict[str, tuple[str, ...]] = {
    "core": (
        "toolsets", "discover_agents", "send_message", "read_messages", "send_direct_message", "wait_for_message",
        "assign_work", "check_work", "claim_work", "complete_work", "remember", "recall_context",
    ),
    "classic": (
        "set_handle", "get_my_handle", "list_channels", "send_message", "read_messages", "register_agent",
        "discover_agents", "get_agent_info", "update_presence", "deregister_agent", "send_direct_message",
        "read_direct_messages", "broadcast_work_offer", "claim_work", "list_dead_letter_items",
        "retry_dead_letter_item", "discard_dead_letter_item",
        "assess_task", "spawn_subagents", "checkpoint_progress", "list_orchestrations", "get_results",
        "synthesize_results", "get_orchestration_state",
        "remember", "remember_task", "remember_learning", "commit_insight", "core_memory", "forget", "recall_context",
        "share_learning", "cleanup", "pattern_health",
    ),
    "talk": (
        "toolsets", "set_handle", "get_my_handle", "register_agent", "discover_agents", "get_agent_info",
        "update_presence", "deregister_agent", "list_channels", "channels_status", "create_channel",
        "configure_channel", "archive_channel", "send_message", "read_messages",
        "send_direct_message", "read_direct_messages", "wait_for_message", "ack_messages", "read_message",
        "search_messages", "put_blob", "get_blob",
    ),
    "work": (
        "toolsets", "list_agents", "discover_agents", "assign_work", "await_work", "check_work", "broadcast_work_offer",
        "claim_work", "complete_work", "fail_work", "extend_work", "report_progress", "cancel_work", "list_work", "list_claimed_work",
        "work_queue_status", "read_work", "get_blob", "list_dead_letter_items", "retry_dead_letter_item",
        "discard_dead_letter_item",
    ),
    "memory": (
        "toolsets", "remember", "remember_task", "remember_learning", "commit_insight", "core_memory", "forget",
        "recall_context", "read_memory", "memory_history", "revert_memory", "share_learning", "cleanup", "pattern_health", "export_memories", "import_memories",
        "remember_bulk", "forget_bulk",
    ),
    "flow": (
        "toolsets", "list_workflows", "start_workflow", "list_runs", "get_run", "signal_run", "approve", "await_work",
        "cancel_work",
    ),
    "crew": (
        "toolsets", "assess_task", "spawn_subagents", "checkpoint_progress", "list_orchestrations", "get_results",
        "synthesize_results", "get_orchestration_state", "pause_orchestration", "resume_orchestration",
        "cancel_orchestration", "retry_part",
    ),
}  # fmt: skip
"""Which tools each set holds, in the order in which they are listed; `all` is every tool there is."""

ABOUT = {
    "core": "talk, give and take work, remember: what most sessions need",
    "classic": "the 34 tools of earlier products of this kind, by their names",
    "talk": "agents, channels, inboxes",
    "work": "durable tasks, claims, dead letters",
    "memory": "memories by scope and category",
    "flow": "runs of workflows",
    "crew": "one big job split among sub-agents",
    "all": "every tool",
}
"""What each set is for, in the order in which they are offered."""
DEFAULT = "core"


def names(sets: tuple[str, ...], every: tuple[str, ...]) -> tuple[str, ...]:
    """Return the tools of some sets, or single tools, each once, only those of `every`, in this order."""
    wanted = [name for one in sets for name in (every if one == "all" else TOOLSETS.get(one, (one,)))]
    there = frozenset(every)
    return tuple(name for name in dict.fromkeys(wanted) if name in there)


_FOLLOWS = {
    "broadcast_work_offer": ("check_work",), "spawn_subagents": ("retry_part", "cancel_orchestration"),
    "forget": ("revert_memory",),
}  # fmt: skip
_GOES_ON = {"claim_work": "read_work", "check_work": "read_work", "recall_context": "read_memory"}


def needed(name: str, found: dict[str, Any], listed: tuple[str, ...]) -> tuple[str, ...]:
    """Return the tools that end what an answer began, follow it or read on, for an agent that cannot list them itself.

    A client lets its model call what is listed and nothing else, and `classic` has the documented tools alone.
    """
    if "toolsets" in listed:
        return ()
    rows = [found, *(row for many in found.values() if isinstance(many, list) for row in many if isinstance(row, dict))]
    wanted = list(_FOLLOWS.get(name, ()))
    if name == "claim_work" and found.get("claimed"):
        wanted += ["complete_work", "fail_work"]
    if any(row.get("ackRequired") for row in rows):
        wanted.append("ack_messages")
    if any("cut" in row for row in rows):
        wanted.append("read_message" if "messages" in found else _GOES_ON.get(name, ""))
    if any("blob" in row or "input_blob" in row for row in rows):
        wanted.append("get_blob")
    return tuple(filter(None, wanted))


def aliases(every: tuple[str, ...]) -> dict[str, str]:
    """Return other names by which tools may be called: those of earlier products, and with hyphens."""
    found = {name.replace("_", "-"): name for name in every if "_" in name}
    there = frozenset(every)
    return {other: name for other, name in (found | _RENAMED).items() if name in there and other not in there}


_RENAMED = {
    "warp_handle_set": "set_handle", "warp_handle_get": "get_my_handle", "warp_channels_list": "list_channels",
    "warp_channels_send": "send_message", "warp_channels_read": "read_messages",
    "warp_registry_register": "register_agent", "warp_registry_discover": "discover_agents",
    "warp_registry_get_info": "get_agent_info", "warp_registry_update_presence": "update_presence",
    "warp_registry_deregister": "deregister_agent", "warp_messages_send_direct": "send_direct_message",
    "warp_messages_read_direct": "read_direct_messages", "warp_work_broadcast": "broadcast_work_offer",
    "warp_work_claim": "claim_work", "warp_dlq_list": "list_dead_letter_items",
    "warp_dlq_retry": "retry_dead_letter_item", "warp_dlq_discard": "discard_dead_letter_item",
    "warp_channels_status": "channels_status", "warp_work_list": "list_work",
    "warp_work_queue_status": "work_queue_status", "assess_task_complexity": "assess_task",
}  # fmt: skip


WRONG_MAX = 20


def asked(arguments: dict[str, Any]) -> tuple[str, ...]:
    """Return the sets that are to be listed; raises `Invalid` (`tool.bad_arguments`)."""
    found = arguments.get("add")
    wanted = [found] if isinstance(found, str) else [] if found is None else found
    wrong = [f"There is no argument {str(name)[:64]!r}." for name in arguments if name != "add"]
    if not isinstance(wanted, list) or not all(isinstance(name, str) for name in wanted):
        wrong.append("`add` is a list of toolsets, by their names.")
    else:
        wrong += [f"There is no toolset {name[:64]!r}." for name in wanted if name not in ABOUT]
    if wrong:
        raise Invalid(
            " ".join(wrong[:WRONG_MAX]), code="tool.bad_arguments",
            hint=f"toolsets takes: add. There are: {', '.join(ABOUT)}.",
        )  # fmt: skip
    return tuple(dict.fromkeys(wanted))


def chosen(names: list[str]) -> tuple[str, ...]:
    """Return the sets that an address names; raises `Invalid` (`tool.bad_toolset`) for one that there is not."""
    for name in names:
        if name not in ABOUT:
            raise Invalid(
                f"There is no toolset {name[:64]!r}.",
                code="tool.bad_toolset",
                hint=f"There are: {', '.join(ABOUT)}. Of several each is a `toolset` of its own in the address.",
            )
    return tuple(dict.fromkeys(names))


def told(sets: tuple[str, ...], every: tuple[str, ...]) -> dict[str, Any]:
    """Return what the tool `toolsets` answers: what is listed now, and what each set holds."""
    return {
        "listed": list(sets),
        "toolsets": [
            {"name": name, "about": about, "tools": list(names((name,), every)) if name != "all" else []}
            for name, about in ABOUT.items()
        ],
    }
