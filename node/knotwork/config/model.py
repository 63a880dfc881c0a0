"""What may stand in the configuration? Every table and key, with its default, its limits and one line that explains it.

All models are frozen and refuse unknown keys. Numbers, flags and text are taken as written: "8080" is not a number.
The tables of plugins (`[executors.x]`, `[routers.x]` …) have a few keys in common; every other key belongs to the
plugin and waits in `settings` until the plugin's own config class has judged it (`instances.check_instances`).
Rules between keys live in `contradictions`. Durations are seconds (`_s`), sizes are bytes.
"""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, StringConstraints, ValidationInfo, field_validator

from knotwork.config.instance_tables import (
    DEFAULT_PROJECT,
    SECTIONS,
    TABLES,
    ExecutorTable,
    InstanceTable,
    TargetTable,
    TriggerTable,
)
from knotwork.config.memory_table import MemoryTable
from knotwork.config.size import Size
from knotwork.config.written import (
    TOKEN_PATTERN,
    Flag,
    Host,
    HostHeader,
    LabelPattern,
    Port,
    Seconds,
    Table,
    Text,
    Token,
    Url,
    Whole,
    Word,
)
from knotwork.sdk import KINDS, Kind, SecretRef

BUNDLED_ROUTERS = ("policy", "capability", "round-robin", "sticky")
"""Routers that need no table of their own."""
STORE_BYTES = 10 * 1024**3
"""What our own server may store when nobody says."""
READY_BOUNDARIES: dict[str, dict[str, Any]] = {
    "corporate": {"description": "only on Copilot agents", "allow": ["copilot"]},
    "corporate-adjacent": {"description": "on Copilot agents when one is free", "prefer": ["copilot"]},
    "personal": {"description": "on Claude Code agents when one is free", "prefer": ["claude-code"]},
    "open-source": {"description": "on any agent"},
}
"""What holds of these boundaries as long as nobody writes something else: key by key, like every default."""


class NodeTable(Table):
    """Who this node is and how it behaves."""

    name: Annotated[str, StringConstraints(strict=True, pattern=f"^({TOKEN_PATTERN})?$")] = Field(
        default="", description="name of the node in the mesh; empty: made from the host name"
    )
    owner: Annotated[str, StringConstraints(strict=True, pattern=f"^({TOKEN_PATTERN})?$", max_length=48)] = Field(
        default="", description="whose node this is: the same on all your machines; empty: the user it runs as"
    )
    labels: dict[Word, Text] = Field(
        default_factory=dict, max_length=64, description="facts about this machine that routing may ask for"
    )
    drain_s: Seconds = Field(
        default=30.0, ge=0, le=86400, description="seconds that work in flight gets to finish on stop"
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field(
        default="info", description="least severe line logged"
    )


class TlsTable(Table):
    """Certificates for the connection to an external NATS."""

    ca: Text = Field(default="", description="file with the authorities to trust; empty: those of the system")
    cert: Text = Field(default="", description="file with the client certificate, for mutual TLS")
    key: Text = Field(default="", description="file with the key of the client certificate")
    hostname: Text = Field(
        default="", description="name expected in the server's certificate; empty: the host of the URL"
    )
    handshake_first: Flag = Field(default=False, description="start TLS before the server's greeting")


class CommonsTable(Table):
    """Credentials for the account at the NATS that is joined in which lies what is personal or public."""

    user: Text = Field(default="", description="user name for the account COMMONS at the server to join")
    password: SecretRef | None = Field(default=None, description="password of that user, as a secret reference")
    token: SecretRef | None = Field(default=None, description="token for COMMONS, as a secret reference")
    nkey_seed: SecretRef | None = Field(default=None, description="nkey seed for COMMONS, as a secret reference")
    creds: Text = Field(default="", description="credentials file (.creds) for COMMONS")


class NatsTable(Table):
    """The NATS server: our own (embedded) or one that is there already (join)."""

    mode: Literal["embedded", "join"] = Field(
        default="embedded", description="run our own server, or join one by its URLs"
    )
    host: Host = Field(default="127.0.0.1", description="address our own server listens on")
    port: Port = Field(default=0, description="port of our own server; 0: a free one, kept over restarts")
    insecure: Flag = Field(
        default=False, description="allow an address others can reach, without TLS: a VPN protects it"
    )
    durability: Literal["always", "interval"] = Field(
        default="always", description="sync to disk before acknowledging, or every two minutes (faster, may lose)"
    )
    max_file_store: Size = Field(default=STORE_BYTES, description="most bytes that streams may use on disk")
    max_payload: Size = Field(default=8 * 1024**2, ge=1024, le=64 * 1024**2, description="largest message in bytes")
    urls: tuple[Url, ...] = Field(default=(), max_length=32, description="servers to join; tried in turn")
    user: Text = Field(default="", description="user name at the server to join")
    password: SecretRef | None = Field(default=None, description="password of that user, as a secret reference")
    token: SecretRef | None = Field(default=None, description="token for the server to join, as a secret reference")
    nkey_seed: SecretRef | None = Field(
        default=None, description="nkey seed for the server to join, as a secret reference"
    )
    creds: Text = Field(default="", description="credentials file (.creds) for the server to join")
    commons: CommonsTable = Field(
        default_factory=CommonsTable, description="what nodes and projects share, at the server to join"
    )
    tls: TlsTable = Field(default_factory=TlsTable, description="TLS towards the server to join")
    connect_timeout_s: Seconds = Field(default=5.0, gt=0, le=300, description="seconds one attempt to connect may take")


class WebTable(Table):
    """The HTTP door."""

    enabled: Flag = Field(default=True, description="open the HTTP door")
    host: Host = Field(default="127.0.0.1", description="address it listens on")
    port: Port = Field(default=0, description="port it listens on; 0: a free one, kept over restarts")
    insecure: Flag = Field(
        default=False, description="allow an address others can reach, without TLS: a proxy or VPN protects it"
    )
    allowed_hosts: tuple[HostHeader, ...] = Field(
        default=(), max_length=64, description="further Host headers it answers to"
    )
    allowed_origins: tuple[Word, ...] = Field(
        default=(), max_length=64, description="web origins whose pages may call it"
    )


class MeshTable(Table):
    """How nodes notice each other."""

    heartbeat_s: Seconds = Field(default=10.0, ge=0.2, le=600, description="seconds between two signs of life")
    stale_beats: Whole = Field(default=2, ge=1, le=100, description="missed beats after which a node counts as stale")
    offline_beats: Whole = Field(
        default=3, ge=2, le=1000, description="missed beats after which a node counts as offline"
    )
    keepalive_s: Seconds = Field(
        default=5.0, ge=0.2, le=600, description="seconds between signs that a call is still worked on"
    )


class WorkTable(Table):
    """Durable tasks."""

    lease_s: Seconds = Field(
        default=10.0,
        ge=1,
        le=600,
        description="seconds without a sign of life after which a task goes to another worker",
    )


class WorkflowsTable(Table):
    """Workflows: files that bring them, and what is kept of runs."""

    folder: Text = Field(
        default="workflows",
        description="folder of *.toml, *.yaml and *.json, from the configuration's own; empty: none is looked at",
    )
    keep_s: Seconds = Field(
        default=30 * 86400.0, ge=60, le=10 * 365 * 86400, description="seconds that runs are kept which are over"
    )
    keep_max: Size = Field(
        default=0, description="most bytes of a project for runs that are over, the oldest go first; 0: any number"
    )


class RoutingTable(Table):
    """Who chooses the agent."""

    routers: tuple[Token, ...] = Field(
        default=("policy", "capability"),
        min_length=1,
        max_length=32,
        description="ids of [routers.*], asked in this order; policy, capability, round-robin and sticky need no table",
    )


class BoundaryTable(Table):
    """One data class of work: what belongs to it, and who may do it."""

    description: Text = Field(default="", description="one line for people: what belongs to it")
    paths: tuple[Word, ...] = Field(
        default=(), max_length=256, description="work with such a path belongs to it, when it names no boundary itself"
    )
    labels: tuple[LabelPattern, ...] = Field(
        default=(), max_length=256, description="tasks with such a label (key=pattern) belong to it, likewise"
    )
    allow: tuple[Word, ...] = Field(
        default=(), max_length=256, description="agents, node/agent, node/* or executor types that may; empty: all"
    )
    prefer: tuple[Word, ...] = Field(default=(), max_length=256, description="who comes first")
    forbid: tuple[Word, ...] = Field(default=(), max_length=256, description="who may not, whatever else is said")
    fallback: tuple[Word, ...] = Field(
        default=(), max_length=256, description="who may when nobody preferred is free; empty: all who may"
    )
    fallback_after_s: Seconds = Field(
        default=10.0, ge=0, le=30 * 86400, description="seconds a task waits for a preferred agent at most"
    )
    spin_up: Flag = Field(default=True, description="start an agent when none can take such work")


def _ready_tables() -> dict[str, BoundaryTable]:
    return {name: BoundaryTable.model_validate(table) for name, table in READY_BOUNDARIES.items()}


class PluginsTable(Table):
    """Where plugins come from, besides the bundled and the installed ones."""

    files: tuple[Word, ...] = Field(default=(), max_length=256, description="single-file plugins to load")
    folders: tuple[Word, ...] = Field(default=(), max_length=256, description="folders that hold plugin folders")
    start_timeout_s: Seconds = Field(default=10.0, gt=0, le=600, description="seconds a plugin may take to open")
    import_memory_mb: Whole = Field(
        default=1024,
        ge=0,
        le=1024 * 1024,
        description="most MB a foreign plugin may take while it is imported; 0: no limit",
    )
    disabled: tuple[Word, ...] = Field(default=(), max_length=256, description="installed plugins that are not loaded")


class ProjectTable(Table):
    """One tenant of the node: a NATS account."""

    max_storage: Size = Field(default=0, description="most bytes its streams may use; 0: no limit of its own")
    path: tuple[Word, ...] = Field(default=(), max_length=64, description="folders that decide for this project")
    user: Text = Field(default="", description="user name for this project at the server to join")
    password: SecretRef | None = Field(default=None, description="password of that user, as a secret reference")
    token: SecretRef | None = Field(default=None, description="token for this project, as a secret reference")
    nkey_seed: SecretRef | None = Field(default=None, description="nkey seed for this project, as a secret reference")
    creds: Text = Field(default="", description="credentials file (.creds) for this project")


class Config(Table):
    """The whole configuration."""

    KIND_TABLES: ClassVar[dict[Kind, type[InstanceTable]]] = {kind: TABLES.get(kind, InstanceTable) for kind in KINDS}

    node: NodeTable = Field(default_factory=NodeTable, description="who this node is and how it behaves")
    nats: NatsTable = Field(default_factory=NatsTable, description="the NATS server: our own, or one to join")
    web: WebTable = Field(default_factory=WebTable, description="the HTTP door")
    mesh: MeshTable = Field(default_factory=MeshTable, description="how nodes notice each other")
    routing: RoutingTable = Field(default_factory=RoutingTable, description="who chooses the agent")
    work: WorkTable = Field(default_factory=WorkTable, description="durable tasks")
    workflows: WorkflowsTable = Field(default_factory=WorkflowsTable, description="workflows that files bring")
    memory: MemoryTable = Field(default_factory=MemoryTable, description="what agents remember")
    plugins: PluginsTable = Field(default_factory=PluginsTable, description="where plugins come from")
    boundaries: dict[Token, BoundaryTable] = Field(
        default_factory=_ready_tables, description="data classes of work, and who may do it"
    )
    projects: dict[Token, ProjectTable] = Field(
        default_factory=dict, description='tenants, one NATS account each; none declared: one called "default"'
    )
    executors: dict[Token, ExecutorTable] = Field(default_factory=dict, description="agents of this node")
    routers: dict[Token, InstanceTable] = Field(default_factory=dict, description="ways of choosing an agent")
    memories: dict[Token, InstanceTable] = Field(default_factory=dict, description="places to remember things")
    targets: dict[Token, TargetTable] = Field(default_factory=dict, description="places where agents are started")
    telemetry: dict[Token, InstanceTable] = Field(
        default_factory=dict, description="where events, spans and metrics go"
    )
    triggers: dict[Token, TriggerTable] = Field(
        default_factory=dict, description="where firings of triggers of kind plugin come from"
    )

    @field_validator(*SECTIONS.values(), mode="after")
    @classmethod
    def _name_instances(cls, tables: dict[str, InstanceTable], info: ValidationInfo) -> dict[str, InstanceTable]:
        projects = info.data.get("projects", {})
        return {name: table.named(name, projects) for name, table in tables.items()}

    @field_validator("boundaries", mode="before")
    @classmethod
    def _add_ready(cls, tables: Any) -> Any:
        """Lay the boundaries that are written over those that are ready."""
        return _over_ready(tables) if isinstance(tables, dict) else tables

    def instances(self, kind: Kind) -> dict[str, InstanceTable]:
        """Return the instances of one kind by id, the ones that are not enabled included."""
        tables: dict[str, InstanceTable] = getattr(self, SECTIONS[kind])
        return tables

    def project_names(self) -> tuple[str, ...]:
        """Return the names of all projects served: those declared, or "default" alone."""
        return tuple(self.projects) or (DEFAULT_PROJECT,)


def _over_ready(tables: dict[str, Any]) -> dict[str, Any]:
    """Return written tables over the ready ones, key by key; what is no table stays as it is, to be refused."""
    merged: dict[str, Any] = {name: dict(table) for name, table in READY_BOUNDARIES.items()}
    for name, table in tables.items():
        merged[name] = {**merged.get(name, {}), **table} if isinstance(table, dict) else table
    return merged
