"""What can be read without calling a tool? The directory, channels, runs, queues: cheap looks at what there is."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from knotwork.mcp import instructions, meant, rows, toolsets, wording
from knotwork.sdk.errors import NotFound

if TYPE_CHECKING:
    from knotwork.mcp.ways import Ask

SCHEME = "knotwork://"


@dataclass(frozen=True, slots=True)
class Resource:
    """One resource: where it is, what it is, and the op whose reply it shows."""

    path: str
    title: str
    description: str
    op: str = ""
    rows: str = ""
    limit: int = 0

    @property
    def uri(self) -> str:
        """Return its address."""
        return SCHEME + self.path

    def listed(self) -> dict[str, Any]:
        """Return it as `resources/list` shows it."""
        return {
            "uri": self.uri, "name": self.path, "title": self.title, "description": self.description,
            "mimeType": "text/plain",
        }  # fmt: skip


RESOURCES: tuple[Resource, ...] = (
    Resource("guide", "How to work with others", "How the tools go together."),
    Resource("tools", "Tools", "Every tool, what it is for, and which toolsets list it."),
    Resource("agents", "Agents", "Who is there, and what each can do.", "agents.list", "agents", 100),
    Resource("sessions", "Agents from outside", "Sessions such as this one.", "session.list", "agents", 100),
    Resource("channels", "Channels", "Channels, and how much of each is unread.", "channel.list", "channels"),
    Resource("queues", "Queues", "How much work waits.", "task.stats"),
    Resource("runs", "Runs", "Runs of workflows, the newest first.", "run.list", "runs", 50),
    Resource("workflows", "Workflows", "Workflows that can be started.", "workflow.list", "workflows"),
    Resource("dead", "Dead letters", "Work that failed for good.", "task.dead_list", "dead", 50),
)
TEMPLATES: tuple[dict[str, Any], ...] = (
    {
        "uriTemplate": f"{SCHEME}work/{{work_id}}", "name": "work", "title": "One piece of work",
        "description": "How work stands, and what came of it.", "mimeType": "text/plain",
    },
    {
        "uriTemplate": f"{SCHEME}run/{{run_id}}", "name": "run", "title": "One run",
        "description": "How far a run is.", "mimeType": "text/plain",
    },
)  # fmt: skip
_ONE = {"work": "task.get", "run": "run.show"}


async def read(uri: str, ask: Ask) -> dict[str, Any]:
    """Return a resource as `resources/read` answers it; raises `NotFound` (`mcp.no_resource`) and what ops raise."""
    text = await _text(uri, ask)
    return {"contents": [{"uri": uri, "mimeType": "text/plain", "text": wording.fit(text)}]}


def _tools() -> str:
    """Return every tool in a line, by what it is for."""
    told = {name: json.loads(row)["description"] for name, row in rows.ROWS.items()}
    return "\n\n".join(
        f"{name} ({about}):\n"
        + "\n".join(f"- {tool}: {told[tool]}" for tool in toolsets.TOOLSETS[name] if tool in told)
        for name, about in toolsets.ABOUT.items()
        if name in toolsets.TOOLSETS and name != "classic"
    )


async def _text(uri: str, ask: Ask) -> str:
    path = uri.removeprefix(SCHEME)
    known = next((one for one in RESOURCES if one.uri == uri), None)
    if known is not None and not known.op:
        return instructions.TEXT if known.path == "guide" else _tools()
    if known is not None:
        found = await ask(known.op, **({"limit": known.limit} if known.limit else {}))
        return wording.text_of({known.rows: found[known.rows]} if known.rows else found)
    kind, _, name = path.partition("/")
    if kind not in _ONE or not name or not uri.startswith(SCHEME):
        raise NotFound(
            f"There is no resource {uri[:200]!r}.", code="mcp.no_resource",
            hint=f"There are: {', '.join((*(one.uri for one in RESOURCES), *(f'{SCHEME}{kind}/ID' for kind in _ONE)))}.",
        )  # fmt: skip
    work = await meant.work(ask, name)
    return wording.text_of(await ask(_ONE["run" if meant.is_workflow_run(work) else kind], id=work))
