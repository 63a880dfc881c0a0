"""Which tools are about memory? To remember, to recall, to keep for good, to share, to forget."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, ConfigDict, Field

from knotwork.mcp.memory_values import CONTENT_CHARS, MEMORY, recalled_text, row, rows_that_fit
from knotwork.mcp.shapes import HIDDEN, PLAIN, many, record
from knotwork.mcp.tool import ADDS, READS, TAKES_AWAY, CamelInput, Cursor, Nothing, Session, Since, tool, without
from knotwork.ops.memory_replies import Category, Scope
from knotwork.ops.memory_words import Content, MemoryId, Short, Shorts


def _as_scope(value: Any) -> Any:
    return "team" if value == "shared" else value


AnyScope = Annotated[Scope, BeforeValidator(_as_scope)]


class Metadata(CamelInput):
    """What goes with a memory."""

    model_config = ConfigDict(json_schema_extra=PLAIN)

    tags: Shorts = Field(default=[], description="to find it by: at most 10")
    priority: int | None = Field(default=None, description="1 to 3, 3 is the highest")  # told with all that is wrong
    related_to: Shorts = Field(default=[], description="ids of other memories")
    source: Short = Field(default="", description="where you have it from")

    def fields(self) -> dict[str, Any]:
        """Return what the op is asked with."""
        return without(
            {"tags": self.tags, "priority": self.priority, "related": self.related_to, "source": self.source}
        )


class ContentInput(CamelInput):
    """What to remember."""

    content: Content = Field(min_length=1, description="what to remember, 32 KB at most")
    metadata: Metadata | None = Field(default=None, description="tags, priority 1-3, relatedTo, source")

    async def keep(self, session: Session, **fields: Any) -> dict[str, Any]:
        """Keep it; returns what the agent is told."""
        more = self.metadata.fields() if self.metadata is not None else {}
        kept = await session.ask("memory.remember", content=self.content, **more, **fields)
        return without(
            {
                "memoryId": kept["id"], "scope": kept["scope"], "category": kept["category"],
                "expiresAt": kept["expires_at"], "duplicateOf": kept["duplicate_of"], "warnings": kept["warnings"],
                "note": kept["note"],
            }
        )  # fmt: skip


class RememberInput(ContentInput):
    """What to remember, for whom, as what."""

    scope: AnyScope = Field(
        default="private", description="private: you; personal: all your owner's agents; team; public"
    )
    category: Category | None = Field(
        default=None,
        description="recent (default) and tasks go after a day; longterm, core; team and public: decisions, "
        "architecture, learnings (default)",
    )


_KEPT = record(memoryId="text", scope="text", category="text", expiresAt="text?", note="text?")


@tool(
    "remember", RememberInput, _KEPT, title="Remember",
    description="Remember something for later sessions, for other agents of your owner, or for the team.", hints=ADDS,
)  # fmt: skip
async def remember(given: RememberInput, session: Session) -> dict[str, Any]:
    """Remember something."""
    return await given.keep(session, scope=given.scope, **without({"category": given.category}))


@tool(
    "remember_task", ContentInput, _KEPT, title="Remember a task",
    description="Remember what you are at, for a day: for yourself alone.", hints=ADDS,
)  # fmt: skip
async def remember_task(given: ContentInput, session: Session) -> dict[str, Any]:
    """Remember a task."""
    return await given.keep(session, scope="private", category="tasks")


@tool(
    "remember_learning", ContentInput, _KEPT, title="Remember a learning",
    description="Remember what you learned, for a day: for yourself alone. commit_insight keeps it.", hints=ADDS,
)  # fmt: skip
async def remember_learning(given: ContentInput, session: Session) -> dict[str, Any]:
    """Remember a learning."""
    return await given.keep(session, scope="private", category="recent")


@tool(
    "core_memory", ContentInput, _KEPT, title="Core memory",
    description="Remember who you are and how your owner wants things: for all agents of your owner, for good. 100 at most.",
    hints=ADDS,
)  # fmt: skip
async def core_memory(given: ContentInput, session: Session) -> dict[str, Any]:
    """Remember something for good."""
    return await given.keep(session, scope="personal", category="core")


class CommitInput(CamelInput):
    """Which memory to keep."""

    memory_id: MemoryId
    new_content: Content = Field(default="", description="say it like this instead")
    target_scope: Literal["private", "personal"] | None = Field(default=None, description="keep it there instead")


@tool(
    "commit_insight", CommitInput,
    record(memoryId="text", previousCategory="text", previousScope="text", newScope="text", category="text"),
    title="Keep an insight",
    description="Keep for good what was to go after a day: a recent memory or a task becomes longterm.", hints=ADDS,
)  # fmt: skip
async def commit_insight(given: CommitInput, session: Session) -> dict[str, Any]:
    """Keep a memory."""
    kept = await session.ask(
        "memory.commit", id=given.memory_id, content=given.new_content, **without({"scope": given.target_scope})
    )
    return {
        "memoryId": kept["id"], "previousCategory": kept["previous_category"],
        "previousScope": kept["previous_scope"], "newScope": kept["scope"], "category": kept["category"],
    }  # fmt: skip


class ForgetInput(CamelInput):
    """Which memory to forget."""

    memory_id: MemoryId
    force: bool = Field(default=False, description="a core memory, too")


@tool(
    "forget", ForgetInput, record(memoryId="text", deleted="flag", category="text", until="text?"), title="Forget",
    description="Forget a memory of yours. revert_memory brings it back `until` then.", hints=TAKES_AWAY,
)  # fmt: skip
async def forget(given: ForgetInput, session: Session) -> dict[str, Any]:
    """Forget a memory."""
    gone = await session.ask("memory.forget", id=given.memory_id, force=given.force)
    told = {"memoryId": gone["id"], "deleted": gone["deleted"], "category": gone["category"]}
    return told | without({"until": gone["until"]})


_SCOPES: dict[str, list[str]] = {"both": [], "private": ["private", "personal"], "shared": ["team", "public"]}


class RecallInput(CamelInput):
    """What to call to mind."""

    scope: Literal["private", "shared", "both"] = Field(default="both", description="yours, what is shared, or both")
    scopes: list[AnyScope] = Field(
        default=[], max_length=8, description="more exactly: only these", json_schema_extra=HIDDEN
    )
    categories: list[Category] = Field(default=[], max_length=7, description="only these")
    limit: int = Field(default=50, ge=1, le=200)
    since: Since = Field(default="", description="24h, or RFC 3339")
    search: Short = Field(default="", description="best for these words first")
    tags: Shorts = Field(default=[], description="all of these")
    min_priority: int = Field(default=1, ge=1, le=3, json_schema_extra=HIDDEN)
    max_priority: int = Field(default=3, ge=1, le=3, json_schema_extra=HIDDEN)
    created_after: Since = Field(default="", json_schema_extra=HIDDEN)
    created_before: Since = Field(default="", json_schema_extra=HIDDEN)
    updated_after: Since = Field(default="", json_schema_extra=HIDDEN)
    updated_before: Since = Field(default="", json_schema_extra=HIDDEN)
    cursor: Cursor = Field(default="", description="`next` of the page before")


_MEMORIES = many(MEMORY)


@tool(
    "recall_context", RecallInput,
    record(
        summary="text", private=_MEMORIES, personal=_MEMORIES, team=_MEMORIES, public=_MEMORIES, counts="object",
        next="text?",
    ),
    title="Recall",
    description="Call to mind what is remembered: yours, your owner's, the team's. Do it when you begin.",
    hints=READS, text=recalled_text,
)  # fmt: skip
async def recall_context(given: RecallInput, session: Session) -> dict[str, Any]:
    """Recall memories."""
    limit = given.limit
    while True:
        found = await session.ask(
            "memory.recall", limit=limit, scopes=list(dict.fromkeys(given.scopes)) or _SCOPES[given.scope],
            categories=list(dict.fromkeys(given.categories)), search=given.search, tags=given.tags,
            priority_min=given.min_priority, priority_max=given.max_priority,
            created_after=given.created_after or given.since, created_before=given.created_before,
            updated_after=given.updated_after, updated_before=given.updated_before, cursor=given.cursor[:512],
        )  # fmt: skip
        shown = rows_that_fit(found)
        if shown is not None or limit == 1:
            break
        limit = max(1, limit // 2)
    more = without({"next": found["next"], "notes": found["notes"]})
    return {"summary": found["summary"], "counts": found["counts"], **(shown or {}), **more}


class ShareInput(CamelInput):
    """What to share."""

    memory_id: MemoryId
    category: Literal["decisions", "architecture", "learnings"] = "learnings"
    keep_private: bool = Field(default=False, description="keep your own, too; else it is moved")
    keep_original: bool = Field(default=False, description="the same")
    target_scope: Literal["team", "public"] = "team"


@tool(
    "share_learning", ShareInput, record(teamMemoryId="text", originalDeleted="flag", scope="text", note="text?"),
    title="Share a learning", description="Let the team know a longterm or core memory of yours.", hints=ADDS,
)  # fmt: skip
async def share_learning(given: ShareInput, session: Session) -> dict[str, Any]:
    """Share a memory."""
    shared = await session.ask(
        "memory.share", id=given.memory_id, category=given.category, scope=given.target_scope,
        move=not (given.keep_private or given.keep_original),
    )  # fmt: skip
    told = {"teamMemoryId": shared["id"], "scope": shared["scope"], "note": shared["note"]}
    return without(told) | {"originalDeleted": shared["original_deleted"]}


class CleanupInput(CamelInput):
    """How much to clean up."""

    expire_only: bool = Field(default=False, description="only what is over")


@tool(
    "cleanup", CleanupInput, record(expired="int", deleted="int", errors="texts"), title="Clean up memory",
    description="Remove for good what you forgot, and old recent memories and tasks of yours that are too many.",
    hints=TAKES_AWAY,
)  # fmt: skip
async def cleanup(given: CleanupInput, session: Session) -> dict[str, Any]:
    """Clean up."""
    done = await session.ask("memory.cleanup", expire_only=given.expire_only)
    return {"expired": done["expired"], "deleted": done["deleted"], "errors": done["errors"]}


@tool(
    "pattern_health", Nothing,
    record(status="text", total="int", core="int", coreMax="int", stores="object", counts="rows"),
    title="How memory is", description="Say whether memory works, and how much there is.", hints=READS,
)  # fmt: skip
async def pattern_health(_: Nothing, session: Session) -> dict[str, Any]:
    """Return how memory is."""
    stats = await session.ask("memory.stats")
    return {
        "status": "healthy" if stats["current"] else "behind", "total": stats["total"],
        "core": stats["core_personal"] + stats["core_private"], "coreMax": stats["core_max"], "stores": stats["stores"],
        "counts": [{key: one[key] for key in ("scope", "category", "count")} for one in stats["counts"]],
    }  # fmt: skip


class MemoryInput(CamelInput):
    """Which memory, and from where on."""

    memory_id: MemoryId
    offset: int = Field(default=0, ge=0, le=65536, description="go on from there in a long one")


@tool(
    "read_memory", MemoryInput, MEMORY, title="Read one memory",
    description="Read one memory whole; a long one goes on at `cut`.", hints=READS,
)  # fmt: skip
async def read_memory(given: MemoryInput, session: Session) -> dict[str, Any]:
    """Return one memory."""
    found = await session.ask("memory.get", id=given.memory_id)
    return row(found, offset=given.offset, most=CONTENT_CHARS)
