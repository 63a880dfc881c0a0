"""Which tools are about dead letters? To see work that failed for good, to try it again, to drop it."""

from __future__ import annotations

from typing import Any

from pydantic import Field

from knotwork.mcp.shapes import many, record
from knotwork.mcp.tool import ADDS, READS, TAKES_AWAY, CamelInput, Capability, Cursor, Session, WorkId, tool, without
from knotwork.sdk.errors import NotFound


class ListInput(CamelInput):
    """Which dead letters."""

    limit: int = Field(default=20, ge=1, le=100)
    cursor: Cursor = Field(default="", description="`next` of the page before")
    capability: Capability | None = Field(default=None, description="of this capability alone")


@tool(
    "list_dead_letter_items", ListInput,
    record(
        items=many(
            record(
                itemId="text", step="text?", capability="text?", agent="text?", reason="text?", code="text?", attempts="int",
                failedAt="text", worker="text?",
            )
        ),
        total="int", next="text?",
    ),
    title="List dead letters",
    description="List work that failed for good: its attempts are used up, or it killed its workers. The oldest first.",
    hints=READS, rows="items",
)  # fmt: skip
async def list_dead_letter_items(given: ListInput, session: Session) -> dict[str, Any]:
    """Return a page of dead letters."""
    page = await session.ask(
        "task.dead_list", limit=given.limit, cursor=given.cursor, **without({"capability": given.capability})
    )
    rows = [
        without(
            {
                "itemId": dead["id"], "step": dead["step"], "capability": dead["capability"], "agent": dead["agent"],
                "reason": dead["message"], "code": dead["code"], "attempts": dead["attempts"],
                "failedAt": dead["died_at"], "worker": dead["worker"],
            }
        )
        for dead in page["dead"]
    ]  # fmt: skip
    return without({"next": page["next"]}) | {"items": rows, "total": page["total"]}


class ItemInput(CamelInput):
    """Which dead letter."""

    item_id: WorkId = Field(description="itemId of list_dead_letter_items, or a work_id")


class RetryInput(ItemInput):
    """Which dead letter."""

    reset_attempts: bool = Field(default=False, description="accepted; attempts are always counted anew")


@tool(
    "retry_dead_letter_item", RetryInput, record(itemId="text", status="text", attempt="int", runId="text?"), title="Retry dead work",
    description="Give dead work another chance, as itself: the same id, its history kept, its attempts counted anew.",
    hints=ADDS,
)  # fmt: skip
async def retry_dead_letter_item(given: RetryInput, session: Session) -> dict[str, Any]:
    """Redrive one dead letter."""
    reply = await session.ask("task.redrive", ids=[given.item_id])
    one = next(iter(reply["tasks"]), None)
    if one is None or not one["done"]:
        raise _not_there(given.item_id, one["why"] if one else "")
    told = {"itemId": given.item_id, "status": "pending", "attempt": one["attempt"]}
    return told | ({"runId": one["run"]} if one["run"] else {})  # of a step: the run that is done anew


@tool(
    "discard_dead_letter_item", ItemInput, record(itemId="text", discarded="flag"), title="Discard dead work",
    description="Remove a dead letter; its work stays failed for good.", hints=TAKES_AWAY,
)  # fmt: skip
async def discard_dead_letter_item(given: ItemInput, session: Session) -> dict[str, Any]:
    """Drop one dead letter."""
    reply = await session.ask("task.drop", ids=[given.item_id])
    if not reply["changed"]:
        raise _not_there(given.item_id, "")
    return {"itemId": given.item_id, "discarded": True}


def _not_there(item: str, why: str) -> NotFound:
    told = "" if why.startswith("There is no dead letter") else why.rstrip(".")
    return NotFound(
        f"There is no dead letter {item}" + (f": {told}." if told else "."), code="tool.no_dead_letter",
        hint="See list_dead_letter_items.",
    )  # fmt: skip
