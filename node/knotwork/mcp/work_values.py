"""How does work look to the agents that give and do it? Their words made from those of tasks and runs (pure)."""

from __future__ import annotations

import json
from datetime import datetime
from typing import Any

from knotwork.mcp import spoken, wording
from knotwork.mcp.wording import without

PART_CHARS = 18_000
"""What is shown of one value at a time."""
SHORT_CHARS = 300
"""What is shown of the description of work in a list."""
ENDED = frozenset({"completed", "failed", "cancelled", "timed-out", "dead"})


def result_of(found: dict[str, Any]) -> dict[str, Any]:
    """Return how a task or a run stands, with what came of it."""
    state = found["state"]
    shown: dict[str, Any] = {
        "work_id": found["id"], "status": state, "is_complete": state in ENDED, "success": state == "completed",
    }  # fmt: skip
    if state == "completed":
        shown["result"] = found.get("output")
        blob = found.get("output_blob")
        if blob:
            shown["result"] = {
                "blob": blob,
                "hint": spoken.for_agents(f"It is large: `knotwork blob get {blob}` reads it."),
            }
        elif wording.size(shown["result"]) > PART_CHARS:
            shown |= _begun("result", shown["result"])
    if found.get("error"):
        error = spoken.told(found["error"])
        shown["error"] = {key: value for key, value in error.items() if value not in ("", {}, None)}
    if found.get("worker"):
        shown["station_id"] = found["worker"]
    shown |= without({name: found.get(name) for name in ("submitted_at", "started_at", "ended_at")})
    took = _between_ms(found.get("started_at", ""), found.get("ended_at", ""))
    if took is not None:
        shown["duration_ms"] = took
    return shown


def _begun(name: str, value: Any) -> dict[str, Any]:
    """Return the beginning of a long value as text, and where it is cut."""
    text = wording.part(words_of(value), 0, PART_CHARS)
    return {name: text, "cut": len(text)}


def words_of(value: Any) -> str:
    """Return a value as the text that is read in parts: a text as it is, anything else as JSON."""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, indent=1)


def told_short(body: Any) -> dict[str, Any]:
    """Return what waiting work is about, in short: what was asked for, and the name its submitter has for it."""
    text, name = (body["prompt"], body.get("task_id")) if _offered(body) else (words_of(body), None)
    if body is None:
        return {}
    words = " ".join(text[: 4 * SHORT_CHARS].split())
    short = words if len(words) <= SHORT_CHARS else words[:SHORT_CHARS] + "…"
    return without({"taskId": name[:200] if isinstance(name, str) else "", "description": short})


def _offered(body: Any) -> bool:
    """Return whether an input is work as agents offer it."""
    return (
        isinstance(body, dict) and isinstance(body.get("prompt"), str) and set(body) <= {"prompt", "task_id", "context"}
    )


def _between_ms(began: str, ended: str) -> int | None:
    if not began or not ended:
        return None
    try:
        return max(0, int((datetime.fromisoformat(ended) - datetime.fromisoformat(began)).total_seconds() * 1000))
    except ValueError:
        return None


def work_row(task: dict[str, Any]) -> dict[str, Any]:
    """Return claimed work; what was offered with a description shows it by itself."""
    shown: dict[str, Any] = {"claimed": True, "work_id": task["id"], "claim": task["claim"]}
    if task.get("step"):  # one of several of its run, which all have that id
        shown["step"] = task["step"]
    body = task["input"]
    if wording.size(body) > PART_CHARS:
        shown |= _begun("description", body)
    elif isinstance(body, str):
        shown["description"] = body
    elif _offered(body):
        shown["description"] = body["prompt"]
        if isinstance(body.get("task_id"), str):
            shown["taskId"] = body["task_id"]
        if body.get("context") is not None:
            shown["contextData"] = body["context"]
    else:
        shown["input"] = body
    shown |= {"priority": task["priority"], "attempt": task["attempt"], "lease_secs": task["lease_s"]}
    by = str(task.get("by") or "")  # door/name (client): the name is what send_direct_message takes
    more = {
        "offered_by": (by.partition("/")[2] or by).partition(" (")[0],
        "deadline": task.get("deadline"),
        "checkpoint": task.get("checkpoint"),
    }
    shown |= {name: value for name, value in more.items() if value not in (None, "")}
    if task.get("input_blob"):
        shown["input_blob"] = task["input_blob"]
    return shown


def is_due(task: dict[str, Any], before: datetime | None, after: datetime | None) -> bool:
    """Return whether the deadline of a task is within bounds; one without is within none that is given."""
    if before is None and after is None:
        return True
    try:
        due = datetime.fromisoformat(task["deadline"])
    except ValueError:
        return False
    return (before is None or due < before) and (after is None or due > after)


def queue_rows(queues: list[dict[str, Any]], capability: str | None) -> list[dict[str, Any]]:
    """Return queues added up over boundaries and lanes: of capabilities, then those of one agent each."""
    summed: dict[tuple[bool, str, str], dict[str, Any]] = {}
    for queue in queues:
        if capability is None or queue["capability"] == capability:
            name = (not queue["capability"], queue["capability"] or queue["route"], queue["scope"])
            row = summed.setdefault(name, _whose(queue) | {"waiting": 0, "taken": 0})
            row["waiting"] += queue["waiting"]
            row["taken"] += queue["taken"]
    return [summed[name] for name in sorted(summed)]


def _whose(queue: dict[str, Any]) -> dict[str, Any]:
    """Return whom work is for: a capability, in one scope alone, or `=agent`, `node=agent`, `node=` (any agent there)."""
    if queue["capability"]:
        return without({"capability": queue["capability"], "scope": queue["scope"]})
    node, _, agent = queue["route"].partition("=")
    return without({"agent": agent, "node": node})
