"""What must a host offer so that the ops about workflows can be answered? One protocol, implemented by `host.flows`."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, Protocol

if TYPE_CHECKING:
    from knotwork.ops import flow_replies, replies
    from knotwork.ops.op import Caller


@dataclass(frozen=True, slots=True)
class NewRun:
    """One run asked for: of a workflow by name or digest, with any JSON, or with that of a `blob`."""

    workflow: str
    input: Any = None
    key: str = ""
    labels: dict[str, str] = field(default_factory=dict)
    priority: int | None = None
    boundary: str = ""
    blob: str = ""


@dataclass(frozen=True, slots=True)
class RunFilter:
    """Which runs are meant; empty fields mean any. Times are nanoseconds since 1970, the second bound is excluded.

    `text` may stand anywhere in id, workflow, labels, starter, code or message. `below` is the start and id of the last
    run before, in a list that has the newest first.
    """

    workflow: str = ""
    states: frozenset[str] = frozenset()
    labels: frozenset[tuple[str, str]] = frozenset()
    since_ns: int = 0
    until_ns: int = 0
    text: str = ""
    below: tuple[int, str] | None = None

    @property
    def narrows(self) -> bool:
        """Return whether it means less than every run there is."""
        return self != RunFilter(below=self.below)

    def fits(self, started_ns: int, run: str, workflow: str, labels: Mapping[str, str], *said: str) -> bool:
        """Return whether a run fits, but for its state; `said` is what its text is looked for in beside these (pure)."""
        told = (run, workflow, *(f"{key}={text}" for key, text in labels.items()), *said)
        return (
            self.workflow in ("", workflow)
            and self.labels <= labels.items()
            and started_ns >= self.since_ns
            and (not self.until_ns or started_ns < self.until_ns)
            and (self.below is None or (started_ns, run) < self.below)
            and self.text.lower() in "\n".join(told).lower()
        )


Wish = Literal["cancel", "pause", "resume", "retry"]


@dataclass(frozen=True, slots=True)
class RunBatch:
    """One wish about many runs: those with `ids`, else those that fit, `limit` at most, for `timeout_s` seconds."""

    what: Wish
    ids: tuple[str, ...]
    wanted: RunFilter
    limit: int
    timeout_s: float
    dry_run: bool = False
    why: str = ""
    step: str = ""
    key: str = ""


class Flows(Protocol):
    """One project's workflows and their runs. Every method raises errors of `knotwork.sdk.errors`."""

    def schema(self) -> flow_replies.DefinitionSchema:
        """Return the JSON Schema of a workflow."""
        ...

    async def check(self, definition: Any) -> flow_replies.Verdict:
        """Return everything that is wrong with a definition: a text, or what was read from one."""
        ...

    async def register(self, definition: Any) -> flow_replies.Registered:
        """Keep a definition under its name."""
        ...

    async def workflows(self) -> list[flow_replies.WorkflowRow]:
        """Return every workflow there is."""
        ...

    async def workflow(self, name: str) -> flow_replies.WorkflowInfo:
        """Return one workflow, by name or digest."""
        ...

    async def drawn(self, name: str, form: str) -> str:
        """Return a workflow as a picture in words."""
        ...

    async def remove(self, name: str, caller: Caller, *, force: bool) -> bool:
        """Take a name away; raises `Conflict` (`flow.in_use`, `flow.owned`), with `force` as far as `caller` may not."""
        ...

    async def start(self, wanted: NewRun, caller: Caller) -> flow_replies.RunInfo:
        """Start a run."""
        ...

    async def runs(self, wanted: RunFilter, limit: int) -> flow_replies.RunList:
        """Return runs that fit, the newest first."""
        ...

    async def run(self, run: str, *, up_to: int | None = None) -> flow_replies.RunInfo:
        """Return one run, as it is or as it was after so many facts."""
        ...

    async def ended(self, run: str, timeout_s: float) -> flow_replies.RunInfo:
        """Return a run when it has ended, or as it is after so many seconds."""
        ...

    def watch(
        self, run: str, timeout_s: float, *, tree: bool
    ) -> AsyncGenerator[replies.Progress | replies.Chunk, None]:
        """Yield what happens to a run, and those that go on for it; with `tree` also its steps, when they change."""
        ...

    async def why(self, run: str) -> flow_replies.RunWhy:
        """Return what a run waits for."""
        ...

    async def events(self, run: str) -> list[flow_replies.RunEvent]:
        """Return the facts of a run."""
        ...

    def change(
        self, batch: RunBatch, caller: Caller
    ) -> AsyncGenerator[replies.Progress | flow_replies.AllChanged, None]:
        """Yield how far it is, then what became of each run; of one that is named alone, raise what went wrong."""
        ...

    async def signal(self, run: str, name: str, payload: Any, key: str, caller: Caller) -> flow_replies.Changed:
        """Send a signal."""
        ...

    async def answer(self, run: str, step: str, comment: str, caller: Caller, *, approve: bool) -> flow_replies.Changed:
        """Approve or reject."""
        ...

    async def spawn(self, claim: str, run: str, wanted: NewRun, capability: str) -> flow_replies.Spawned:
        """Start a run, or a task for a capability, in the name of whoever holds a step; raises `Denied`."""
        ...

    async def children(self, claim: str, run: str) -> flow_replies.Children:
        """Return what was started so."""
        ...

    async def link(self, run: str, step: str, by: str, expires_s: float, caller: Caller) -> flow_replies.ApprovalLink:
        """Return a link by which a question can be answered, in a name (that of the caller when left out)."""
        ...

    async def fork(
        self, run: str, step: str, inputs: Mapping[str, Any], key: str, caller: Caller
    ) -> flow_replies.RunInfo:
        """Start a new run that takes over what was done before a step; `inputs`: `input` of that step, `run_input`."""
        ...

    def exported(self, run: str) -> AsyncGenerator[replies.Chunk | flow_replies.Exported, None]:
        """Yield a run as it is kept: as one answer, or a large one in parts, the last of them as the answer."""
        ...

    def exported_all(
        self, wanted: RunFilter, limit: int
    ) -> AsyncGenerator[replies.Chunk | flow_replies.Exported, None]:
        """Yield runs that fit as they are kept, then how to go on."""
        ...

    async def imported(self, run: Any) -> flow_replies.Changed:
        """Keep a run that was written down."""
        ...

    async def imported_all(self, runs: list[Any]) -> flow_replies.AllChanged:
        """Keep runs that were written down, and say of each what became of it."""
        ...

    async def replay(self, run: str) -> flow_replies.Replay:
        """Say whether today's rules lead to the history of a run."""
        ...

    async def publish(self, kind: str, body: Any, key: str) -> flow_replies.Published:
        """Publish an event, once with a key."""
        ...


class Approvals(Protocol):
    """What can be answered by a link, whatever project it is of; who holds the link needs no token."""

    async def question(self, link: str) -> flow_replies.Question:
        """Return what is asked; raises `NotFound` (`flow.no_link`), `Denied` (`flow.link_expired`)."""
        ...

    async def answer(self, link: str, comment: str, *, approve: bool) -> flow_replies.Question:
        """Approve or reject; raises what `question` raises, and `Conflict` (`flow.answered`)."""
        ...
