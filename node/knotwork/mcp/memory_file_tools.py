"""Which tools are about many memories at once? To keep and forget them in bulk, to carry them by file."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated, Any

from pydantic import Field

from knotwork.mcp import spoken
from knotwork.mcp.memory_tools import AnyScope, Metadata
from knotwork.mcp.shapes import record
from knotwork.mcp.tool import ADDS, TAKES_AWAY, CamelInput, Session, Since, tool, without
from knotwork.ops.memory_replies import Category
from knotwork.ops.memory_words import Content, MemoryId

BULK_MAX = 200
FilePath = Annotated[str, Field(max_length=1024)]


class ExportInput(CamelInput):
    """What to write, and where."""

    output_path: FilePath = Field(default="", description="a name in your folder of the node")
    scope: AnyScope | None = Field(default=None, description="only this one")
    category: Category | None = Field(default=None, description="only this one")
    since: Since = Field(default="", description="written since then: 24h, or RFC 3339")
    include_expired: bool = Field(default=False, description="accepted; what is over is gone")
    overwrite: bool = Field(default=False, description="in place of a file that is there")


@tool(
    "export_memories", ExportInput, record(exported="int", filepath="text", bytes="int", node="text?"),
    title="Export memories", description="Write memories that you may see to a file on the node.", hints=ADDS,
)  # fmt: skip
async def export_memories(given: ExportInput, session: Session) -> dict[str, Any]:
    """Write a file."""
    path = given.output_path.strip() or f"memories-{datetime.now(UTC):%Y%m%dT%H%M%S%f}.jsonl"
    done = await session.ask(
        "memory.export", path=path, overwrite=given.overwrite, created_after=given.since,
        scopes=[given.scope] if given.scope else [], categories=[given.category] if given.category else [],
    )  # fmt: skip
    return {"exported": done["exported"], "filepath": done["path"], "bytes": done["bytes"], "node": done["node"]}


class ImportInput(CamelInput):
    """What to read."""

    input_path: Annotated[str, Field(min_length=1, max_length=1024)] = Field(
        description="a name in your folder of the node, or the filepath of an export"
    )
    overwrite_existing: bool = Field(default=False, description="bring what is remembered already up to date")
    skip_invalid: bool = Field(default=True, description="pass over bad lines")


@tool(
    "import_memories", ImportInput, record(imported="int", skipped="int", duplicates="int", errors="rows"),
    title="Import memories", description="Remember what stands in a file on the node, as your own.", hints=ADDS,
)  # fmt: skip
async def import_memories(given: ImportInput, session: Session) -> dict[str, Any]:
    """Read a file."""
    done = await session.ask(
        "memory.import", path=given.input_path, skip_invalid=given.skip_invalid,
        **({"duplicates": "merge"} if given.overwrite_existing else {}),
    )  # fmt: skip
    return {key: done[key] for key in ("imported", "skipped", "duplicates", "errors")}


class Item(CamelInput):
    """One thing to remember."""

    content: Content = Field(min_length=1)
    scope: AnyScope = "private"
    category: Category | None = None
    metadata: Metadata | None = None

    def fields(self) -> dict[str, Any]:
        """Return what the op is asked with."""
        more = self.metadata.fields() if self.metadata is not None else {}
        return {"content": self.content, "scope": self.scope, **without({"category": self.category}), **more}


class RememberBulkInput(CamelInput):
    """Many things to remember."""

    memories: Annotated[list[Item], Field(min_length=1, max_length=BULK_MAX)] = Field(
        description="each with content, and scope, category, metadata as for remember"
    )
    stop_on_error: bool = False
    validate_: bool = Field(default=True, alias="validate", description="accepted; all are always checked first")


@tool(
    "remember_bulk", RememberBulkInput, record(stored="int", failed="int", memoryIds="texts", errors="rows"),
    title="Remember many things", description="Remember many things at once; each stands for itself.", hints=ADDS,
)  # fmt: skip
async def remember_bulk(given: RememberBulkInput, session: Session) -> dict[str, Any]:
    """Remember many things."""
    done = await session.ask(
        "memory.remember_bulk", memories=[one.fields() for one in given.memories], stop_on_error=given.stop_on_error
    )
    errors = [{"index": one["index"], "error": spoken.for_agents(one["message"])} for one in done["errors"]]
    ids = [one for one in done["ids"] if one]
    return {"stored": done["stored"], "failed": done["failed"], "memoryIds": ids, "errors": errors}


class ForgetBulkInput(CamelInput):
    """Many things to forget."""

    memory_ids: Annotated[list[MemoryId], Field(min_length=1, max_length=BULK_MAX)]
    stop_on_error: bool = False
    force: bool = Field(default=False, description="core memories, too")


@tool(
    "forget_bulk", ForgetBulkInput, record(deleted="int", failed="int", errors="rows"), title="Forget many things",
    description="Forget many memories of yours at once; each stands for itself.", hints=TAKES_AWAY,
)  # fmt: skip
async def forget_bulk(given: ForgetBulkInput, session: Session) -> dict[str, Any]:
    """Forget many things."""
    done = await session.ask(
        "memory.forget_bulk", ids=given.memory_ids, force=given.force, stop_on_error=given.stop_on_error
    )
    errors = [{"memoryId": one["id"], "error": spoken.for_agents(one["message"])} for one in done["errors"]]
    return {"deleted": done["deleted"], "failed": done["failed"], "errors": errors}
