"""Which tools are about what a memory was before? To look at its versions, and to bring one back."""

from __future__ import annotations

from typing import Annotated, Any, Self

from pydantic import Field, StringConstraints, model_validator

from knotwork.mcp import wording
from knotwork.mcp.memory_values import CONTENT_CHARS, MEMORY, row
from knotwork.mcp.shapes import many, record
from knotwork.mcp.tool import ADDS, READS, CamelInput, Session, tool, without
from knotwork.ops.memory_words import MemoryId
from knotwork.sdk.errors import NotFound

SHORT_CHARS = 1000
VERSION_MAX = 1_000_000
Version = Annotated[int, Field(ge=1, le=VERSION_MAX)]


class HistoryInput(CamelInput):
    """Which memory, and which of its versions."""

    memory_id: MemoryId
    version: Version | None = Field(default=None, description="this one alone, with its whole content")
    offset: int = Field(default=0, ge=0, le=65536, description="with version: `cut` of what you read before")
    limit: int = Field(default=20, ge=1, le=100)
    cursor: Annotated[str, StringConstraints(pattern=r"^\d{0,7}$")] = Field(
        default="", description="`next` of the page before"
    )

    @model_validator(mode="after")
    def _makes_sense(self) -> Self:
        if self.offset and self.version is None:
            raise ValueError("offset goes with version")
        if self.version is not None and self.cursor:
            raise ValueError("give version or cursor, not both")
        return self


@tool(
    "memory_history", HistoryInput,
    record(
        memoryId="text", version="int", forgotten="flag",
        versions=many(
            record(
                version="int", what="text?", content="text", category="text", by="text?", since="text?", until="text?",
                author="text?", tags="texts?", priority="int?", cut="int?",
            )
        ),
        next="text?",
    ),
    title="What a memory was",
    description="Say what a memory was before, the newest version first, until when, and who changed it to what it is now; "
    "also of one that was forgotten. revert_memory brings a version back.",
    hints=READS, rows="versions",
)  # fmt: skip
async def memory_history(given: HistoryInput, session: Session) -> dict[str, Any]:
    """Return its versions."""
    found = await session.ask("memory.history", id=given.memory_id)
    told = {"memoryId": given.memory_id, "version": found["memory"]["version"], "forgotten": found["forgotten"]}
    before = sorted(found["versions"], key=lambda one: one["number"], reverse=True)
    if given.version is not None:
        return told | {"versions": [_whole(before, given.version, given.offset, told)]}
    upto = int(given.cursor or VERSION_MAX + 1)
    rows = [one for one in before if one["number"] < upto]
    shown = [_version(one, 0, SHORT_CHARS) for one in rows[: given.limit]]
    more = {"next": str(rows[given.limit - 1]["number"])} if len(rows) > given.limit else {}
    return told | {"versions": shown} | more


def _whole(before: list[dict[str, Any]], number: int, offset: int, told: dict[str, Any]) -> dict[str, Any]:
    found = next((one for one in before if one["number"] == number), None)
    if found is None:
        kept = ", ".join(str(one["number"]) for one in before) or "none"
        hint = f"There are: {kept}."
        if number == told["version"] and not told["forgotten"]:
            hint += " That one is what it is now: read_memory reads it."
        raise NotFound(f"No version {number} of it is kept.", code="memory.no_version", hint=hint)
    return _version(found, offset, CONTENT_CHARS)


def _version(one: dict[str, Any], offset: int, most: int) -> dict[str, Any]:
    content = wording.part(one["content"], offset, most)
    end = offset + len(content)
    shown = {"version": one["number"], "content": content, "category": one["category"]}
    shown |= without({name: one[name] for name in ("author", "what", "by", "since", "until", "tags")})
    if one["priority"] != 2:  # noqa: PLR2004  what is usual is not told
        shown["priority"] = one["priority"]
    return shown | ({"cut": end} if end < len(one["content"]) else {})


class RevertInput(CamelInput):
    """Which memory, and which of its versions."""

    memory_id: MemoryId
    version: Version | None = Field(
        default=None, description="see memory_history; left out: what was forgotten, or the version before"
    )


@tool(
    "revert_memory", RevertInput, MEMORY, title="Bring back a memory",
    description="Bring back a memory that was forgotten, or what it was in an earlier version. That is a new version in "
    "turn, so nothing is lost.",
    hints=ADDS,
)  # fmt: skip
async def revert_memory(given: RevertInput, session: Session) -> dict[str, Any]:
    """Bring it back."""
    return row(await session.ask("memory.revert", id=given.memory_id, **without({"version": given.version})))
