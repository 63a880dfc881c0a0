"""What must a host offer so that the ops can be answered: protocols, implemented by `host` (tasks: `task_ports`).

Every method raises errors of `knotwork.sdk.errors` with a stable code; anything else counts as a bug of ours.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from knotwork.ops import replies
    from knotwork.ops.claim_ports import Claims
    from knotwork.ops.crew_ports import Crews
    from knotwork.ops.flow_ports import Approvals, Flows
    from knotwork.ops.memory_ports import Memories
    from knotwork.ops.op import Caller
    from knotwork.ops.project_replies import Happenings
    from knotwork.ops.session_ports import Sessions
    from knotwork.ops.talk_ports import Talk
    from knotwork.ops.target_replies import Targets
    from knotwork.ops.task_ports import Tasks
    from knotwork.ops.tool_replies import Tools
    from knotwork.ops.trigger_ports import Hooks, Triggers
    from knotwork.ops.view_replies import PastView
    from knotwork.trust.who import Who


@dataclass(frozen=True, slots=True)
class AgentFilter:
    """Which agents are meant; empty fields mean any. `states` are presence states."""

    capability: str = ""
    node: str = ""
    boundary: str = ""
    tags: frozenset[str] = frozenset()
    states: frozenset[str] = frozenset({"online", "draining", "stale"})


@dataclass(frozen=True, slots=True)
class Call:
    """One invocation asked for, already checked: exactly one of `target` and `capability` is set.

    `target` is `agent` or `node/agent` (a node by name or id). `timeout_s` bounds the whole call, retries included.
    `stream` says whether anybody looks at progress and chunks.
    """

    input: Any
    target: str = ""
    capability: str = ""
    timeout_s: float = 600.0
    require: frozenset[str] = frozenset()
    prefer: frozenset[str] = frozenset()
    exclude: frozenset[str] = frozenset()
    boundary: str = ""
    retries: int = 0
    stream: bool = False
    idempotency_key: str = ""
    sticky: str = ""


@dataclass(frozen=True, slots=True)
class RouteQuestion:
    """Who would do a piece of work that is described like this? Exactly one of `target` and `capability` is set."""

    target: str = ""
    capability: str = ""
    boundary: str = ""
    path: str = ""
    labels: dict[str, str] = field(default_factory=dict)
    require: frozenset[str] = frozenset()
    prefer: frozenset[str] = frozenset()
    exclude: frozenset[str] = frozenset()
    sticky: str = ""


class Mesh(Protocol):
    """One project's nodes and agents, as this node sees them."""

    async def nodes(self) -> Sequence[replies.NodeRow]:
        """Return every node known, offline ones included."""
        ...

    async def agents(self, wanted: AgentFilter) -> Sequence[replies.AgentRow]:
        """Return the agents that fit, sorted by name."""
        ...

    async def agent(self, target: str) -> replies.AgentDetail:
        """Return one agent; raises `NotFound` (`agent.not_found`), naming near ones."""
        ...

    async def why(self, question: RouteQuestion) -> replies.RouteWhy:
        """Return who would do a piece of work and why; raises `Invalid` (`policy.unknown_boundary`), `NotFound`."""
        ...

    def invoke(
        self, call: Call, caller: Caller
    ) -> AsyncGenerator[replies.Progress | replies.Chunk | replies.Answer, None]:
        """Call an agent: any number of `Progress` and `Chunk`, then exactly one `Answer`, or an error.

        Closing the generator early (the caller went away) cancels the work, wherever it runs.
        """
        ...


class NodeControl(Protocol):
    """The node itself, as far as the ops may touch it."""

    def mesh(self, project: str, by: Who | None = None) -> Mesh:
        """Return the mesh of a project this node serves, as somebody may see it, all by default; raises `NotFound` (`project.not_found`)."""
        ...

    def tasks(self, project: str, by: Who | None = None) -> Tasks:
        """Return the durable tasks of a project this node serves, as somebody may see them, all by default; raises `NotFound` (`project.not_found`)."""
        ...

    def targets(self, project: str, by: Who | None = None) -> Targets:
        """Return the targets of a project this node serves, as somebody may see them, all by default; raises `NotFound` (`project.not_found`)."""
        ...

    def past(self, project: str) -> PastView:
        """Return the view of the past of a project this node serves; raises `NotFound` (`project.not_found`)."""
        ...

    def claims(self, project: str) -> Claims:
        """Return the claims of a project this node serves; raises `NotFound` (`project.not_found`)."""
        ...

    def flows(self, project: str, by: Who | None = None) -> Flows:
        """Return the workflows of a project this node serves, with the runs that somebody may see; raises `NotFound` (`project.not_found`)."""
        ...

    def crews(self, project: str, by: Who) -> Crews:
        """Return the orchestrations of a project this node serves, as somebody may see them; raises `NotFound` (`project.not_found`)."""
        ...

    def triggers(self, project: str) -> Triggers:
        """Return the triggers of a project this node serves; raises `NotFound` (`project.not_found`)."""
        ...

    def sessions(self, project: str) -> Sessions:
        """Return the sessions of a project this node serves; raises `NotFound` (`project.not_found`)."""
        ...

    def talk(self, project: str) -> Talk:
        """Return the channels and inboxes of a project this node serves; raises `NotFound` (`project.not_found`)."""
        ...

    def tools(self) -> Tools:
        """Return the tools that agents use."""
        ...

    def who(self, project: str, session: str) -> Who:
        """Return who asks with the secret of a session, with none the node's owner; raises `Denied`."""
        ...

    def memories(self, project: str) -> Memories:
        """Return the memory of a project this node serves; raises `NotFound` (`project.not_found`)."""
        ...

    def approvals(self) -> Approvals:
        """Return what can be answered by a link."""
        ...

    def hooks(self) -> Hooks:
        """Return what triggers serve to those who have no token."""
        ...

    def happenings(self, project: str) -> Happenings:
        """Return what happens in a project this node serves; raises `NotFound` (`project.not_found`)."""
        ...

    async def status(self) -> replies.NodeStatus:
        """Return what the node is doing."""
        ...

    async def health(self) -> replies.NodeHealth:
        """Return whether the node is alive and ready; never raises."""
        ...

    async def reload(self) -> replies.ReloadVerdict:
        """Read the configuration again and put it into force, to the end even when the caller goes away.

        Raises `ConfigInvalid` or `PluginFailed` with nothing changed.
        """
        ...

    async def drain(self, deadline_s: float | None, *, resume: bool) -> replies.Draining:
        """Take nothing new (or, with `resume`, take work again); returns at once. None: `node.drain_s`."""
        ...

    async def stop(self, drain_s: float | None) -> replies.Stopping:
        """Begin to stop, draining for `drain_s` seconds at most; returns at once, the answer still goes out."""
        ...

    def events(self, names: Sequence[str], project: str) -> AsyncGenerator[replies.EventRow, None]:
        """Yield events as they happen, for ever. `names` are whole names or `room.*`; empty means all.

        The buffer behind it is bounded: a slow reader loses events and gets one `telemetry.dropped` telling how many.
        """
        ...

    async def show_config(self) -> replies.ConfigShown:
        """Return the configuration in force with the origin of every value, secrets redacted."""
        ...

    async def plan(self) -> replies.ConfigPlan:
        """Return what `reload` would do now; raises `ConfigInvalid` when the files cannot be read."""
        ...

    async def revisions(self) -> Sequence[replies.Revision]:
        """Return the accepted configurations kept, newest first."""
        ...

    async def rollback(self, number: int) -> replies.ReloadVerdict:
        """Put revision `number` into force; raises `NotFound` (`config.no_revision`), `Conflict` or what `reload` raises.

        When it is refused the files are as they were before.
        """
        ...

    async def plugins(self) -> replies.PluginList:
        """Return the types that can be configured and the slots that are."""
        ...

    async def plugin(self, kind: str, type_name: str) -> replies.PluginInfo:
        """Return one type; an empty `kind` finds it in any. Raises `NotFound` (`plugin.not_found`)."""
        ...

    async def restart_plugin(self, kind: str, instance: str) -> replies.Slot:
        """Stop and start one instance, out of quarantine too; raises `NotFound` (`plugin.no_such_instance`)."""
        ...
