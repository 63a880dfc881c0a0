"""What does a node answer: the reply models of every op, filled in by the host.

Times are RFC 3339 strings in UTC, durations seconds, sizes bytes.
"""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from knotwork.ops.op import Reply

NodeState = Literal["starting", "connecting", "running", "draining", "stopping"]
SeenState = Literal["online", "stale", "offline", "draining"]


class Problem(Reply):
    """One thing wrong with the configuration, and where."""

    message: str
    file: str = ""
    line: int = 0
    column: int = 0
    key: str = ""
    hint: str = ""
    code: str = ""


class ReloadVerdict(Reply):
    """What a reload did. A refused one is raised as an error; here `refused` stands only in `node.status`."""

    result: Literal["applied", "unchanged", "refused"]
    revision: int
    at: str = ""
    took_s: float = 0.0
    trigger: str = Field(default="", description="file, signal, op or rollback")
    added: list[str] = Field(default=[])
    changed: list[str] = Field(default=[])
    removed: list[str] = Field(default=[])
    live: list[str] = Field(default=[], description="keys that changed without restarting anything")
    problems: list[Problem] = Field(default=[])
    message: str = ""


class BusStatus(Reply):
    """How the node is connected."""

    mode: str
    url: str
    state: str = Field(description="connected, reconnecting or closed; unknown of a node that is held up")
    durability: str = ""
    reconnects: int = 0
    server_pid: int | None = None
    server_restarts: int = 0
    server_state: str = ""


class Slot(Reply):
    """One configured plugin instance and how it is."""

    kind: str
    id: str
    type: str
    state: str
    why: str = ""
    since: str = ""
    starts: int = 0
    hosted: bool = False


class NodeStatus(Reply):
    """What a node is doing now."""

    node: str
    name: str
    version: str
    pid: int
    state: NodeState
    why: str = Field(default="", description="what it waits for while it starts")
    started_at: str
    uptime_s: float
    data_dir: str
    projects: list[str]
    http_url: str = ""
    config_files: list[str] = Field(default=[])
    revision: int = 0
    last_reload: ReloadVerdict | None = None
    bus: BusStatus
    agents: int = 0
    nodes: int = 0
    running: int = Field(default=0, description="work in flight on this node")
    queued: int = 0
    idle_s: float | None = Field(default=None, description="seconds since it had any work; 0 while it has some")
    memory_bytes: int = 0
    safe_mode: bool = False
    warnings: list[str] = Field(default=[], description="what it can do without, and somebody should look at")
    slots: list[Slot] = Field(default=[])


class Check(Reply):
    """One thing that was looked at."""

    name: str
    ok: bool
    why: str = ""
    needed: bool = Field(default=True, description="false: the node is ready without it, and this is a warning")


class NodeHealth(Reply):
    """Whether the node is alive, and ready for work."""

    live: bool
    ready: bool
    checks: list[Check] = Field(default=[])


class Draining(Reply):
    """How far a drain is."""

    state: NodeState
    running: int = 0
    deadline_s: float = 0.0


class Stopping(Reply):
    """The node is going; its process is gone when `pid` is."""

    pid: int
    node: str
    running: int = 0


class EventRow(Reply):
    """One thing that happened."""

    name: str
    at: str
    node: str = ""
    project: str = ""
    level: str = "info"
    data: dict[str, Any] = Field(default={})
    traceparent: str = ""


class EventsEnd(Reply):
    """How many events were sent before the end."""

    count: int
    dropped: int = 0


class NodeRow(Reply):
    """One node, as presence says."""

    node: str
    name: str
    state: SeenState
    version: str = ""
    host: str = ""
    agents: int = 0
    labels: dict[str, str] = Field(default={})
    seen_s: float = Field(default=0.0, description="seconds since its last heartbeat")
    started_at: str = ""
    here: bool = Field(default=False, description="it is the node that answers")


class NodeList(Reply):
    """Every node of the project."""

    nodes: list[NodeRow]


class AgentRow(Reply):
    """One agent, as the directory says."""

    name: str = Field(description="node/agent")
    agent: str
    node: str
    state: SeenState
    description: str = ""
    capabilities: list[str] = Field(default=[])
    tags: list[str] = Field(default=[])
    boundaries: list[str] = Field(default=[], description="data classes it accepts; empty accepts all")
    executor: str = ""
    concurrency: int = 1
    running: int = 0
    queued: int = 0
    load: float = 0.0


class AgentList(Reply):
    """Agents that fit the filter, by name. `total` counts them before the limit; `next` is the cursor of the next page."""

    agents: list[AgentRow]
    total: int
    next: str = ""


class AgentDetail(AgentRow):
    """Everything that is known about one agent."""

    input_schema: dict[str, Any] | None = None
    output_schema: dict[str, Any] | None = None
    project: str = ""
    timeout_s: float = 0.0
    queue_max: int = 0


class RouteCandidate(Reply):
    """One agent that could be meant for a piece of work."""

    agent: str = Field(description="node/agent")
    place: int = Field(default=0, description="in which place it would be tried; 0: it is left out")
    standing: str = Field(default="", description="preferred or fallback, where the boundary prefers somebody")
    state: SeenState = "online"
    load: float = 0.0
    executor: str = ""
    why: str = Field(default="", description="why it is left out")


class RouteWhy(Reply):
    """Who would do a piece of work, and why."""

    boundary: str = Field(default="", description="the data class it belongs to; empty: none")
    boundary_why: str = ""
    router: str = Field(default="", description="which router answered; empty: nobody is eligible")
    reason: str = Field(description="the router's own words, or why nobody is eligible")
    queue: str = Field(default="", description="where a task of this kind would wait now")
    candidates: list[RouteCandidate] = Field(default=[])


class Progress(Reply):
    """A piece: how far the work is, in percent when known."""

    percent: float | None = None
    text: str = ""


class Chunk(Reply):
    """A piece: one part of live output."""

    data: Any = None


class Answer(Reply):
    """The end of an invocation: what the agent returned, and which one it was."""

    output: Any = None
    outcome: Literal["done", "continue"] = "done"
    agent: str = Field(default="", description="node/agent")
    attempts: int = 1
    took_s: float = 0.0
    traceparent: str = ""


class Setting(Reply):
    """One value in force and where it came from."""

    key: str
    value: Any = None
    origin: str = ""


class ConfigShown(Reply):
    """The configuration in force; secrets are redacted."""

    revision: int
    files: list[str] = Field(default=[])
    settings: list[Setting]


class Change(Reply):
    """One thing a reload would do. `how`: `start`, `replace`, `stop`, `live` or `restart` (needs a node restart)."""

    what: str
    how: Literal["start", "replace", "stop", "live", "restart"]
    why: str = ""


class ConfigPlan(Reply):
    """What a reload would do now; nothing was changed. `ok` is false when it would be refused."""

    ok: bool
    changes: list[Change] = Field(default=[])


class Revision(Reply):
    """One accepted configuration."""

    number: int
    at: str
    digest: str = ""
    current: bool = False
    files: list[str] = Field(default=[])


class RevisionList(Reply):
    """The last 20 accepted configurations, newest first."""

    revisions: list[Revision]


class PluginRow(Reply):
    """One type of plugin that can be configured, or the reason why it cannot."""

    kind: str
    type: str
    origin: str = ""
    version: str = ""
    summary: str = ""
    abilities: list[str] = Field(default=[])
    hosted_only: bool = False
    broken: str = Field(default="", description="why it cannot be used; empty when it can")


class PluginList(Reply):
    """What can be configured, and what is configured."""

    plugins: list[PluginRow]
    slots: list[Slot] = Field(default=[])


class PluginInfo(PluginRow):
    """One type of plugin, with its options and its instances."""

    config_schema: dict[str, Any] = Field(default={})
    docs: str = Field(default="", description="Markdown")
    slots: list[Slot] = Field(default=[])
