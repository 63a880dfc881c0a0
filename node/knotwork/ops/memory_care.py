"""What else may be asked of memory? To keep for good, to share, to bring back, to hide, to tidy, and to carry it by file."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from knotwork.ops import memory_replies as replies
from knotwork.ops.memory import SAMPLE, MemoryRequest, Twins, WantedFields
from knotwork.ops.memory_replies import Scope
from knotwork.ops.memory_words import Content, Short
from knotwork.ops.node import Nothing
from knotwork.ops.op import Caller, CliForm, Example, Request, op
from knotwork.ops.ports import NodeControl

KEPT = (
    "core_private",
    "core_personal",
    "core_max",
    "stores",
    "embeddings",
    "with_vectors",
    "quarantined",
    "folders",
    "index",
)
"""What is shown under the counts at a shell."""

FilePath = Annotated[str, Field(min_length=1, max_length=1024)]


class CommitRequest(MemoryRequest):
    """Which insight to keep."""

    content: Content = Field(default="", description="say it like this instead")
    scope: Literal["private", "personal"] | None = Field(default=None, description="keep it there instead")


@op(
    "memory.commit", CommitRequest, replies.Committed, effect="write",
    cli=CliForm(("memory", "commit"), positional=("id", "content")),
    summary="Keep for good what was to pass: a recent thing or a task becomes longterm.",
    help="It does not expire any more, and keeps its id and its history. Moved to another scope it begins a new one. What is kept\n"
    "so already gets what this one adds (`duplicate_of`), and this one is forgotten.",
    examples=(
        Example("Keep it", {"id": SAMPLE}),
        Example("For all agents of my owner", {"id": SAMPLE, "content": "Tests need a database.", "scope": "personal"}),
    ),
)  # fmt: skip
async def commit(request: CommitRequest, node: NodeControl, caller: Caller) -> replies.Committed:
    """Keep an insight."""
    return await node.memories(caller.project).commit(request.id, caller.who, request.content, request.scope)


class ShareRequest(MemoryRequest):
    """What to share, and with whom."""

    scope: Literal["team", "public"] = Field(default="team", description="who gets to know it")
    category: Literal["decisions", "architecture", "learnings"] = Field(default="learnings", description="as what")
    move: bool = Field(default=False, description="forget your own; else others get a copy")
    duplicates: Twins = None


@op(
    "memory.share", ShareRequest, replies.Shared, effect="write",
    cli=CliForm(("memory", "share"), positional=("id",)),
    summary="Let your team, or everybody, know something of yours.",
    help="Longterm and core memories of your own can be shared. Others get a copy, with you as its author; your own "
    "stays, unless it is moved.",
    examples=(Example("A copy for the team", {"id": SAMPLE}), Example("For everybody", {"id": SAMPLE, "scope": "public"})),
)  # fmt: skip
async def share(request: ShareRequest, node: NodeControl, caller: Caller) -> replies.Shared:
    """Share something."""
    return await node.memories(caller.project).share(
        request.id, caller.who, scope=request.scope, category=request.category, move=request.move,
        duplicates=request.duplicates,
    )  # fmt: skip


class RevertRequest(MemoryRequest):
    """Which version to bring back."""

    version: int | None = Field(
        default=None, ge=1, le=1_000_000, description="its number; left out: what was forgotten, or the one before"
    )


@op(
    "memory.revert", RevertRequest, replies.MemoryRow, effect="write",
    cli=CliForm(("memory", "revert"), positional=("id", "version")),
    summary="Bring back what a memory was, or what was forgotten.",
    help="That is a new version in turn, so it can be taken back, too.",
    examples=(Example("Undo", {"id": SAMPLE}), Example("As it was at first", {"id": SAMPLE, "version": 1})),
)  # fmt: skip
async def revert(request: RevertRequest, node: NodeControl, caller: Caller) -> replies.MemoryRow:
    """Bring back a version."""
    return await node.memories(caller.project).revert(request.id, caller.who, request.version)


@op(
    "memory.history", MemoryRequest, replies.MemoryHistory, effect="read",
    cli=CliForm(("memory", "history"), positional=("id",), rows="versions", columns=("number", "what", "by", "until", "content")),
    summary="Say what a memory was before, and who changed it.",
    help="The last versions are kept (memory.versions_max), for those who may see the memory.",
    examples=(Example("Of one", {"id": SAMPLE}),),
)  # fmt: skip
async def history(request: MemoryRequest, node: NodeControl, caller: Caller) -> replies.MemoryHistory:
    """Return what it was."""
    return await node.memories(caller.project).history(request.id, caller.who)


class QuarantineRequest(Request):
    """Whose memories to hide."""

    author: Annotated[str, Field(min_length=1, max_length=64)] = Field(description="id or handle of an agent")
    release: bool = Field(default=False, description="show them again")
    why: Short = Field(default="", description="for those who look later")


@op(
    "memory.quarantine", QuarantineRequest, replies.Quarantines, effect="admin",
    cli=CliForm(("memory", "quarantine"), positional=("author",), rows="hidden", columns=("author", "author_id", "by", "at", "memories", "why")),
    summary="Hide everything that an agent wrote from the agents of this project.",
    help="For an agent that was misled: nothing is lost, and `release` shows it all again. People see it all the same "
    "when they name the author.",
    examples=(
        Example("Hide it", {"author": "reviewer", "why": "read a poisoned page"}),
        Example("Show it again", {"author": "reviewer", "release": True}),
    ),
)  # fmt: skip
async def quarantine(request: QuarantineRequest, node: NodeControl, caller: Caller) -> replies.Quarantines:
    """Hide what an author wrote, or show it again."""
    return await node.memories(caller.project).quarantine(
        request.author, caller.who, release=request.release, why=request.why
    )


class CleanupRequest(Request):
    """How much to clean up."""

    expire_only: bool = Field(default=False, description="only say what is over; it goes by itself")


@op(
    "memory.cleanup", CleanupRequest, replies.Cleaned, effect="write",
    cli=CliForm(("memory", "cleanup")),
    summary="Remove for good what you forgot, and old recent things and tasks of yours that are too many.",
    help="The newest 1,000 recent things and 500 tasks stay. Nothing has to be cleaned up for things to expire.",
    examples=(Example("Tidy up"),),
)  # fmt: skip
async def cleanup(request: CleanupRequest, node: NodeControl, caller: Caller) -> replies.Cleaned:
    """Clean up."""
    return await node.memories(caller.project).clean(caller.who, expire_only=request.expire_only)


class ExportRequest(WantedFields):
    """What to write, and where."""

    path: FilePath = Field(
        description="a file of yours, in one of memory.folders (default: exports in the data folder)"
    )
    overwrite: bool = Field(default=False, description="in place of a file that is there")


@op(
    "memory.export", ExportRequest, replies.Exported, effect="write",
    cli=CliForm(("memory", "export"), positional=("path",)),
    summary="Write memories that you may see to a file of JSON lines, on the node.",
    help="Only into folders that the operator named, where each project has a folder and each agent its own in there; links "
    "are not followed. All pages are written, whatever the limit.",
    examples=(Example("What the team knows", {"path": "team.jsonl", "scopes": ["team"]}),),
)  # fmt: skip
async def export(request: ExportRequest, node: NodeControl, caller: Caller) -> replies.Exported:
    """Write a file."""
    return await node.memories(caller.project).export(
        request.path, request.query(), caller.who, overwrite=request.overwrite
    )


class ImportRequest(Request):
    """What to read."""

    path: FilePath = Field(
        description="a file of yours, in one of memory.folders (default: exports in the data folder)"
    )
    skip_invalid: bool = Field(
        default=False, description="pass over bad lines; else one of them means that nothing is read"
    )
    scope: Scope | None = Field(default=None, description="put all of it there, whatever the lines say")
    duplicates: Twins = None


@op(
    "memory.import", ImportRequest, replies.Imported, effect="write",
    cli=CliForm(("memory", "import"), positional=("path",)),
    summary="Remember what stands in a file of JSON lines, as your own.",
    help="Whatever a line says, you are the author and the owner of what is read; its origin says that it was imported.",
    examples=(Example("Read it back", {"path": "team.jsonl"}), Example("For myself", {"path": "team.jsonl", "scope": "private"})),
)  # fmt: skip
async def import_file(request: ImportRequest, node: NodeControl, caller: Caller) -> replies.Imported:
    """Read a file."""
    return await node.memories(caller.project).load(
        request.path, caller.who, skip_invalid=request.skip_invalid, duplicates=request.duplicates, scope=request.scope
    )


@op(
    "memory.stats", Nothing, replies.MemoryStats, effect="read",
    cli=CliForm(("memory", "stats"), rows="counts", columns=("scope", "category", "count", "expired", "forgotten"), below=KEPT),
    summary="Say how much is remembered, how full your core is, and where it is all kept.",
    help="Counts are of what you may see.",
    examples=(Example("Now"),),
)  # fmt: skip
async def stats(_request: Nothing, node: NodeControl, caller: Caller) -> replies.MemoryStats:
    """Return how much there is."""
    return await node.memories(caller.project).stats(caller.who)
