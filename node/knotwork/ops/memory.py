"""What may be asked of memory? To remember, to recall, to search, to look at one, and to forget."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, field_validator

from knotwork.bus import codec
from knotwork.memory.query import LIMIT_MAX, Query
from knotwork.ops import memory_replies as replies
from knotwork.ops import task_words
from knotwork.ops.memory_replies import Category, Scope
from knotwork.ops.memory_words import DraftFields, MemoryId, Short, Shorts
from knotwork.ops.op import Caller, CliForm, Example, Request, op
from knotwork.ops.ports import NodeControl
from knotwork.ops.task_words import Moment

BULK_MAX = 1000
COLUMNS = ("id", "scope", "category", "author", "updated_at", "content")
SAMPLE = "m019a8f3c2d1e4b7a9c0d1e2f"
DuplicatesWish = Literal["merge", "refuse", "allow"]
Twins = Annotated[
    DuplicatesWish | None,
    Field(description="what becomes of something remembered already; the node's memory.duplicates when left out"),
]
Cursor = Annotated[str, Field(max_length=512)]
Limit = Annotated[int, Field(ge=1, le=LIMIT_MAX)]
Priority = Annotated[int, Field(ge=1, le=3)]


class RememberRequest(DraftFields):
    """What to remember, and what becomes of something that says the same."""

    replaces: MemoryId | None = Field(
        default=None,
        description="id of a memory of yours that is to say this from now on; what you do not say here stays as it is, "
        "and it keeps its history",
    )
    duplicates: Twins = None


@op(
    "memory.remember", RememberRequest, replies.Remembered, effect="write",
    cli=CliForm(
        ("memory", "remember"), positional=("content",), also=("remember",), answer="id",
        short={"scope": "s", "category": "c", "tags": "t", "priority": "p"},
    ),
    summary="Remember something, for yourself or for others.",
    help="It is on disk before this returns its id. Recent things and tasks are kept for a day, everything else until it "
    "is forgotten. Keys and passwords are refused. The same thing remembered twice is one memory.",
    examples=(
        Example("For the next hours", {"content": "The build needs Node 20."}),
        Example("For all of the team", {"content": "We use PostgreSQL.", "scope": "team", "category": "decisions"}),
        Example(
            "Who I am, for all of my owner's agents, on every machine",
            {"content": "My owner writes British English.", "scope": "personal", "category": "core", "tags": ["style"]},
        ),
        Example("Say it better", {"content": "We use PostgreSQL 17.", "replaces": SAMPLE}),
    ),
)  # fmt: skip
async def remember(request: RememberRequest, node: NodeControl, caller: Caller) -> replies.Remembered:
    """Remember something."""
    return await node.memories(caller.project).remember(
        request.draft(), caller.who, replaces=request.replaces or "", duplicates=request.duplicates
    )


def _parsed(value: Any) -> Any:
    """Return a list with those of its texts read that are JSON: a shell has nothing but texts."""
    if not isinstance(value, list):
        return value
    return [codec.decode(one.encode()) if isinstance(one, str) and one[:1] == "{" else one for one in value]


class RememberBulkRequest(Request):
    """Many things to remember."""

    memories: Annotated[list[DraftFields], Field(min_length=1, max_length=BULK_MAX), BeforeValidator(_parsed)] = Field(
        description="each as for `memory.remember`; at a shell each is a JSON object"
    )
    stop_on_error: bool = Field(default=False, description="stop at the first that fails; else each is tried")
    duplicates: Twins = None


@op(
    "memory.remember_bulk", RememberBulkRequest, replies.RememberedAll, effect="write",
    cli=CliForm(("memory", "remember-bulk"), positional=("memories",)),
    summary="Remember many things at once.",
    help="Each stands for itself: the answer says which failed and why.",
    examples=(Example("Two", {"memories": [{"content": "One."}, {"content": "Two.", "category": "longterm"}]}),),
)  # fmt: skip
async def remember_bulk(request: RememberBulkRequest, node: NodeControl, caller: Caller) -> replies.RememberedAll:
    """Remember many things."""
    return await node.memories(caller.project).remember_all(
        [one.draft() for one in request.memories], caller.who, duplicates=request.duplicates,
        stop_on_error=request.stop_on_error,
    )  # fmt: skip


class WantedFields(Request):
    """Which memories."""

    scopes: list[Scope] = Field(default=[], max_length=4, description="only these; all when empty")
    categories: list[Category] = Field(default=[], max_length=7, description="only these; all when empty")
    tags: Shorts = Field(default=[], description="only with all of these tags")
    priority_min: Priority = Field(default=1, description="only of this priority or higher")
    priority_max: Priority = Field(default=3, description="only of this priority or lower")
    created_after: Moment = Field(default="", description="an RFC 3339 time, or so long ago (`24h`)")
    created_before: Moment = Field(default="", description="the same")
    updated_after: Moment = Field(default="", description="the same")
    updated_before: Moment = Field(default="", description="the same")
    author: Short = Field(default="", description="only what this agent wrote: its id")
    limit: Limit = Field(default=50, description="at most so many")
    cursor: Cursor = Field(default="", description="`next` of the page before")

    @field_validator("created_after", "created_before", "updated_after", "updated_before")
    @classmethod
    def _makes_sense(cls, value: str) -> str:
        return task_words.bound(value)

    def query(self, *, text: str = "", newest: bool = False, forgotten: bool = False) -> Query:
        """Return it for the room; raises `Invalid` for a time that is none."""
        after, before, since, until = (
            task_words.moment_ns(moment, past=True)
            for moment in (self.created_after, self.created_before, self.updated_after, self.updated_before)
        )
        return Query(
            scopes=tuple(dict.fromkeys(self.scopes)), categories=tuple(dict.fromkeys(self.categories)),
            tags=tuple(self.tags), priority_min=self.priority_min, priority_max=self.priority_max,
            created_after_ns=after, created_before_ns=before, updated_after_ns=since, updated_before_ns=until,
            author=self.author, limit=self.limit, cursor=self.cursor, text=text, newest=newest, forgotten=forgotten,
        )  # fmt: skip


class RecallRequest(WantedFields):
    """What to call to mind."""

    search: Short = Field(default="", description="the best for these words first; else by category, the newest first")


@op(
    "memory.recall", RecallRequest, replies.Recalled, effect="read",
    cli=CliForm(("memory", "recall"), positional=("search",), also=("recall",), answer="summary", short={"scopes": "s", "tags": "t"}),
    summary="Call to mind what is remembered, with a summary.",
    help="Your own, your owner's, your team's and what is public, each in a list of its own: core first, then longterm, "
    "what is shared, recent things and tasks. The summary has at most 4,096 bytes. Ask this first when you begin.",
    examples=(
        Example("All of it"),
        Example("What the team decided about databases", {"search": "database", "scopes": ["team"], "categories": ["decisions"]}),
        Example("What is important since yesterday", {"updated_after": "24h", "priority_min": 3}),
    ),
)  # fmt: skip
async def recall(request: RecallRequest, node: NodeControl, caller: Caller) -> replies.Recalled:
    """Recall what fits."""
    return await node.memories(caller.project).recall(request.query(text=request.search.strip()), caller.who)


class SearchRequest(WantedFields):
    """What to look for."""

    text: Annotated[str, Field(min_length=1, max_length=1024)] = Field(
        description="words to look for, or what is meant"
    )


@op(
    "memory.search", SearchRequest, replies.MemoryPage, effect="read",
    cli=CliForm(("memory", "search"), positional=("text",), rows="memories", columns=COLUMNS, below=("notes",), short={"scopes": "s", "tags": "t"}),
    summary="Find memories by words, and by meaning where that is configured; the best first.",
    help="Words are found in all their forms; a part of a word is found when no word is. With `memory.embeddings` what "
    "means the same is found, too, and both orders are made one.",
    examples=(Example("By words", {"text": "deploy on friday"}), Example("Of the team", {"text": "schema", "scopes": ["team"]})),
)  # fmt: skip
async def search(request: SearchRequest, node: NodeControl, caller: Caller) -> replies.MemoryPage:
    """Search."""
    return await node.memories(caller.project).page(
        request.query(text=request.text.strip() or request.text), caller.who
    )


class ListRequest(WantedFields):
    """Which memories to list."""

    forgotten: bool = Field(default=False, description="what was forgotten and can be brought back, instead")


@op(
    "memory.list", ListRequest, replies.MemoryPage, effect="read",
    cli=CliForm(("memory", "list"), rows="memories", columns=COLUMNS, below=("notes",), also=("memories",), short={"scopes": "s", "categories": "c", "tags": "t"}),
    summary="List memories that you may see, the newest first.",
    help="Pages do not drift: a cursor is a place in time, whatever is written meanwhile.",
    examples=(Example("The newest"), Example("Tasks of mine", {"scopes": ["private"], "categories": ["tasks"]})),
)  # fmt: skip
async def list_memories(request: ListRequest, node: NodeControl, caller: Caller) -> replies.MemoryPage:
    """List memories."""
    query = request.query(newest=True, forgotten=request.forgotten)
    return await node.memories(caller.project).page(query, caller.who)


class MemoryRequest(Request):
    """Which memory."""

    id: MemoryId = Field(description="its id")


@op(
    "memory.get", MemoryRequest, replies.MemoryRow, effect="read",
    cli=CliForm(("memory", "get"), positional=("id",), answer="content"),
    summary="Return one memory, with who wrote it, where and when.",
    help="What you may not see is not found.",
    examples=(Example("By its id", {"id": SAMPLE}),),
)  # fmt: skip
async def get(request: MemoryRequest, node: NodeControl, caller: Caller) -> replies.MemoryRow:
    """Return one memory."""
    return await node.memories(caller.project).get(request.id, caller.who)


class ForgetRequest(MemoryRequest):
    """Which memory to forget, and how thoroughly."""

    force: bool = Field(default=False, description="also a core memory")
    purge: bool = Field(default=False, description="for good, with all its versions: nothing brings it back")


@op(
    "memory.forget", ForgetRequest, replies.Forgotten, effect="write",
    cli=CliForm(("memory", "forget"), positional=("id",), also=("forget",)),
    summary="Forget something of yours.",
    help="`memory.revert` brings it back for a week (memory.undo_s), unless it was purged. What a team or everybody sees "
    "is forgotten by its author alone.",
    examples=(Example("One", {"id": SAMPLE}), Example("For good", {"id": SAMPLE, "purge": True})),
)  # fmt: skip
async def forget(request: ForgetRequest, node: NodeControl, caller: Caller) -> replies.Forgotten:
    """Forget something."""
    return await node.memories(caller.project).forget(request.id, caller.who, force=request.force, purge=request.purge)


class ForgetBulkRequest(Request):
    """Which memories to forget."""

    ids: Annotated[list[MemoryId], Field(min_length=1, max_length=BULK_MAX)] = Field(description="their ids")
    force: bool = Field(default=False, description="also core memories")
    purge: bool = Field(default=False, description="for good: nothing brings them back")
    stop_on_error: bool = Field(default=False, description="stop at the first that fails; else each is tried")


@op(
    "memory.forget_bulk", ForgetBulkRequest, replies.ForgottenAll, effect="write",
    cli=CliForm(("memory", "forget-bulk"), positional=("ids",)),
    summary="Forget many things at once.",
    help="Each stands for itself: the answer says which failed and why.",
    examples=(Example("Two", {"ids": [SAMPLE, "m019a8f3c2d1e4b7a9c0d1e30"]}),),
)  # fmt: skip
async def forget_bulk(request: ForgetBulkRequest, node: NodeControl, caller: Caller) -> replies.ForgottenAll:
    """Forget many things."""
    return await node.memories(caller.project).forget_all(
        request.ids, caller.who, force=request.force, purge=request.purge, stop_on_error=request.stop_on_error
    )
