"""How does a durable task look to clients that know the Tasks extension? Its handle is our own id.

Extension `io.modelcontextprotocol/tasks`, 2026-07-28: a call may be answered by a handle, which the client asks for
with `tasks/get`. Waiting for work is such a call: the work is stored before anybody waits for it.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

WAITS = frozenset({"await_work"})
"""Tools whose call may be answered by a handle: each takes `work_id`."""
POLL_MS = 1000


def handle(found: dict[str, Any]) -> dict[str, Any]:
    """Return the answer to a call that becomes a task; `found` is what `check_work` says."""
    return {"resultType": "task", **_task(found["work_id"], "working", found)}


def state(work_id: str, found: dict[str, Any], call_result: dict[str, Any]) -> dict[str, Any]:
    """Return the answer to `tasks/get`: `found` is what `check_work` says, `call_result` that as a tool's result.

    Work that failed is a completed call whose result says so; `failed` would be an error of the protocol.
    """
    status = str(found.get("status", ""))
    if not found.get("is_complete"):
        return _task(work_id, "working", found)
    if status == "cancelled":
        return _task(work_id, "cancelled", found)
    return _task(work_id, "completed", found) | {"result": call_result}


def _task(work_id: str, shown: str, found: dict[str, Any]) -> dict[str, Any]:
    """Return a task as it is on record: however often it is asked for, it was made once."""
    now = datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    made = str(found.get("submitted_at") or found.get("started_at") or now)  # a run has begun when it was started
    changed = str(found.get("ended_at") or found.get("started_at") or made)
    return {
        "taskId": work_id, "status": shown, "statusMessage": str(found.get("status", "")), "createdAt": made,
        "lastUpdatedAt": changed,
        "ttlMs": None, "pollIntervalMs": POLL_MS,
    }  # fmt: skip
