"""What may be asked about a project as a whole? Its figures, those of all projects of a node, and what happens in it."""

from __future__ import annotations

from collections import Counter
from typing import Annotated

from pydantic import Field, StringConstraints

from knotwork.ops import endless, replies
from knotwork.ops import project_replies as found
from knotwork.ops.node import Nothing, Seconds
from knotwork.ops.op import Caller, CliForm, Example, Request, op
from knotwork.ops.ports import AgentFilter, NodeControl
from knotwork.sdk.errors import KnotworkError

EVERY_STATE = frozenset({"online", "draining", "stale", "offline"})


async def figures(node: NodeControl, project: str) -> found.ProjectStats:
    """Return the figures of a project; raises `NotFound`, `Unavailable`."""
    mesh, desk = node.mesh(project), node.targets(project)
    work = await node.tasks(project).stats()
    return found.ProjectStats(
        project=project, tasks=work.by_state, waiting=work.waiting, taken=work.taken, timers=work.timers,
        dead=work.dead, missing=sum(int(one.get("pending", 0)) for one in desk.missing()),
        agents=_count([row.state for row in await mesh.agents(AgentFilter(states=EVERY_STATE))]),
        nodes=_count([row.state for row in await mesh.nodes()]),
        targets=_count([row.state for row in desk.rows()]),
        launches=_count([row.state for row in desk.launches(ended=False)]),
    )  # fmt: skip


def _count(states: list[str]) -> dict[str, int]:
    return dict(sorted(Counter(states).items()))


def total(rows: list[found.ProjectStats]) -> found.Figures:
    """Return the figures of all of them together."""
    numbers: Counter[str] = Counter()
    states: dict[str, Counter[str]] = {}
    for row in rows:
        for name in found.Figures.model_fields:
            value = getattr(row, name)
            if isinstance(value, dict):
                states.setdefault(name, Counter()).update(value)
            else:
                numbers[name] += value
    return found.Figures.model_validate({**numbers, **{name: dict(counts) for name, counts in states.items()}})


@op(
    "project.stats", Nothing, found.ProjectStats, effect="read", cli=CliForm(("project", "stats")),
    summary="Show how much there is of everything in a project.",
    help="Tasks by state, queues, dead letters, agents, nodes, targets, launches. Tasks by state come from the view of the "
    "past, which follows within a second.",
    examples=(Example("How much is there?"),),
)  # fmt: skip
async def stats(_: Nothing, node: NodeControl, caller: Caller) -> found.ProjectStats:
    """Return the figures of the caller's project."""
    return await figures(node, caller.project)


@op(
    "project.list", Nothing, found.ProjectList, effect="read",
    cli=CliForm(("project", "list"), rows="projects", columns=("project", "tasks", "agents", "nodes", "targets", "why")),
    summary="List the projects of this node with their figures.",
    help="Whoever asks by NATS is in one project, and sees that one alone.",
    examples=(Example("How much is there in each?"),),
)  # fmt: skip
async def list_projects(_: Nothing, node: NodeControl, caller: Caller) -> found.ProjectList:
    """Return the figures of each project that the caller may look into."""
    names = [caller.project] if caller.door == "nats" else (await node.status()).projects
    rows = []
    for name in names:
        try:
            rows.append(await figures(node, name))
        except KnotworkError as error:  # one that cannot be had now hides no other
            rows.append(found.ProjectStats(project=name, why=error.message))
    return found.ProjectList(projects=rows, totals=total(rows))


class WatchRequest(Request):
    """What to be told, and how much of it."""

    topics: Annotated[list[found.Topic], Field(max_length=16)] = Field(
        default=[], description="work, agents, targets, spinups, stats; all when empty"
    )
    after: Annotated[str, StringConstraints(max_length=128)] = Field(
        default="", description="id of the last one you got before; nothing is repeated, it is only told back"
    )
    limit: int = Field(default=0, ge=0, le=1_000_000, description="end after so many; 0 never ends")
    wait_s: Seconds = Field(default=0.0, description="end after so many seconds; 0 never ends")


@op(
    "project.watch", WatchRequest, replies.EventsEnd, effect="read", streams=True, live=True,
    cli=CliForm(("project", "watch"), positional=("topics",), columns=("at", "topic", "what", "data")),
    summary="Show what happens in a project, as it happens: work, agents, targets, spin-ups, figures.",
    help="From now on, on every node of the project; nothing is repeated. The first one, `opened`, says that you are heard. "
    "A reader that is too slow is told how many it missed: read the lists again then.",
    examples=(Example("Watch work", {"topics": ["work"]}), Example("See the next changes of agents", {"topics": ["agents"], "limit": 10})),
)  # fmt: skip
def watch(request: WatchRequest, node: NodeControl, caller: Caller) -> endless.Pieces:
    """Return what happens as chunks, then how many there were."""
    rows = node.happenings(caller.project).watch(frozenset[str](request.topics or found.TOPICS), request.after)
    return endless.told(rows, lambda row: row.what == "missed", limit=request.limit, wait_s=request.wait_s)
