"""How does a memory look to an agent? As what its author wrote, in as many rows as fit (pure)."""

from __future__ import annotations

from typing import Any

from knotwork.mcp import spoken, wording
from knotwork.mcp.shapes import record
from knotwork.mcp.wording import without

MEMORY = record(
    memoryId="text", content="text", category="text", scope="text", author="text?", tags="texts?", priority="int?",
    updatedAt="text?", expiresAt="text?", relatedTo="texts?", source="text?", cut="int?",
)  # fmt: skip
CONTENT_CHARS = 10_000
SCOPES = ("private", "personal", "team", "public")
_ROOM = wording.RESULT_MAX_CHARS - 6000


def row(one: dict[str, Any], *, offset: int = 0, most: int = CONTENT_CHARS) -> dict[str, Any]:
    """Return a memory with what an agent needs of it; `cut` tells where its content goes on."""
    content = wording.part(one["content"], offset, most)
    shown = {
        "memoryId": one["id"], "content": content, "category": one["category"], "scope": one["scope"],
        "author": one["author"], "tags": one["tags"], "updatedAt": one["updated_at"], "expiresAt": one["expires_at"],
        "relatedTo": one["related"], "source": one["source"],
    }  # fmt: skip
    end = offset + len(content)
    made = {"content": content} | without(shown)
    if one["priority"] != 2:  # noqa: PLR2004  what is usual is not told
        made["priority"] = one["priority"]
    return made | ({"cut": end} if end < len(one["content"]) else {})


def rows_that_fit(found: dict[str, Any]) -> dict[str, list[dict[str, Any]]] | None:
    """Return the memories of an answer by scope, None when they are too many to be read."""
    count = sum(len(found[scope]) for scope in SCOPES)
    most = CONTENT_CHARS if count <= 1 else 2000
    shown = {scope: [row(one, most=most) for one in found[scope]] for scope in SCOPES}
    return shown if count <= 1 or wording.size(shown) <= _ROOM else None


def recalled_text(found: dict[str, Any]) -> str:
    """Return what was recalled as text: the summary, then each memory behind its id and author."""
    lines = [wording.clean(found["summary"])] if found["summary"] else ["Nothing is remembered."]
    for scope in SCOPES:
        for one in found.get(scope, ()):
            about = f"{scope}/{one['category']} by {one.get('author', '?')}{_more(one)}"
            goes_on = f" … [cut at {one['cut']}: {spoken.tool('read_memory')}]" if "cut" in one else ""
            lines.append(wording.clean(f"- {one['memoryId']} {about}: {one['content']}") + goes_on)
    lines += [f"next: {found['next']}"] if found.get("next") else []
    return "\n".join(lines)


def _more(one: dict[str, Any]) -> str:
    """Return what else there is to know of a memory, "" when there is nothing."""
    told = [f"priority {one['priority']}"] if "priority" in one else []
    told += [f"until {one['expiresAt']}"] if "expiresAt" in one else []
    told += [f"tags {', '.join(one['tags'])}"] if one.get("tags") else []
    return f" ({'; '.join(told)})" if told else ""
