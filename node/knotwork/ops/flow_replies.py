"""What does a node answer about workflows and runs? The reply models of the rooms `workflow` and `run`.

Times are RFC 3339 strings in UTC, empty when it has not happened; durations are seconds.
"""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from knotwork.ops.op import Reply
from knotwork.ops.task_replies import TaskError

RunState = Literal["scheduled", "running", "paused", "stopping", "completed", "failed", "cancelled", "timed-out"]


class Flaw(Reply):
    """Something wrong in a definition."""

    path: str = ""
    line: int = 1
    column: int = 1
    message: str
    hint: str = ""


class DefinitionSchema(Reply):
    """What may be written in a workflow."""

    json_schema: dict[str, Any] = Field(description="JSON Schema, draft 2020-12")


class Verdict(Reply):
    """Whether a definition makes sense."""

    ok: bool
    name: str = ""
    digest: str = ""
    steps: int = 0
    problems: list[Flaw] = Field(default=[])
    warnings: list[str] = Field(default=[], description="what may be meant so: a sub-workflow that is not there")


class Registered(Reply):
    """A definition that is kept."""

    name: str
    digest: str
    new: bool = Field(description="whether the name meant something else before, or nothing")
    warnings: list[str] = Field(default=[], description="what may be meant so: a sub-workflow that is not there")


class WorkflowRow(Reply):
    """One workflow, in short."""

    name: str
    digest: str
    versions: int = 1
    steps: int = 0
    owner: str = Field(default="", description="the file that brought it")
    updated_at: str = ""
    description: str = ""
    problem: str = Field(default="", description="why this version cannot start it; it can still be read")


class WorkflowList(Reply):
    """All workflows."""

    workflows: list[WorkflowRow]


class WorkflowInfo(WorkflowRow):
    """One workflow, whole."""

    definition: dict[str, Any]
    digests: list[str] = Field(default=[], description="what the name meant, the newest last")


class Drawing(Reply):
    """A workflow as a picture in words."""

    text: str


class Removed(Reply):
    """Whether a name was taken away."""

    name: str
    removed: bool


class RunRow(Reply):
    """One run, in short."""

    id: str
    workflow: str
    state: RunState
    done: int = Field(default=0, description="steps that have ended")
    steps: int = 0
    by: str = ""
    trigger: str = ""
    started_at: str = ""
    ended_at: str = ""
    code: str = Field(default="", description="the code of its error")
    labels: dict[str, str] = Field(default={})
    next: str = Field(default="", description="the run that goes on for it, when it started itself anew")
    problem: str = Field(default="", description="why this node, of an older version, cannot say all there is of it")


class RunList(Reply):
    """Runs, the newest first."""

    runs: list[RunRow]
    next: str = Field(default="", description="go on with this as `cursor`; empty: these were all")


class StepInfo(Reply):
    """One step of a run."""

    id: str
    kind: str
    state: str
    title: str = Field(default="", description="of an approval: what is asked")
    items: str = Field(default="", description="of a map: how many are done, of how many")
    handles: str = Field(default="", description="of a handler: the step that it undoes, or whose failure it handles")
    begun_at: str = ""
    ended_at: str = ""
    output: Any = None
    error: TaskError | None = None


class Child(Reply):
    """What the worker of a step started."""

    step: str = Field(description="its name among the steps of the run")
    what: str = Field(description="workflow or capability")
    run: str = Field(default="", description="its run, when it is one")
    state: str
    output: Any = None
    error: TaskError | None = None


class Spawned(Reply):
    """Something that was started under a budget."""

    step: str
    run: str = ""
    new: bool
    left: int = Field(description="how many more the budget allows, as far as this run goes")


class Children(Reply):
    """What the worker of a step started."""

    children: list[Child]


class RunInfo(RunRow):
    """One run, whole."""

    digest: str = ""
    parent: str = ""
    previous: str = Field(default="", description="the run that it goes on for")
    number: int = Field(default=0, description="how many runs went before, of those that go on for each other")
    input: Any = None
    input_blob: str = Field(default="", description="digest of an input that is too large to stand here: `blob.get`")
    output: Any = None
    output_blob: str = Field(default="", description="digest of an output that is too large to stand here: `blob.get`")
    error: TaskError | None = None
    facts: int = 0
    new: bool = Field(default=False, description="this request started it")
    progress: list[StepInfo] = Field(default=[])
    children: list[Child] = Field(default=[], description="what its workers started")


class Wait(Reply):
    """One thing that a run waits for."""

    step: str
    what: str
    since: str = ""
    until: str = ""
    why: str = Field(default="", description="of a step's task: why it is where it is, as `task.why` says of a task")


class RunWhy(Reply):
    """What a run waits for."""

    id: str
    state: RunState
    waits: list[Wait]


class RunEvent(Reply):
    """One fact of a run."""

    number: int
    at: str
    what: str
    step: str = ""
    state: str = ""
    by: str = ""
    message: str = ""


class RunEvents(Reply):
    """The facts of a run."""

    id: str
    events: list[RunEvent]


CHANGED = ("id", "changed", "run", "why", "code")


class Changed(Reply):
    """What became of a wish."""

    id: str
    changed: bool
    why: str = ""
    run: str = Field(default="", description="the run that was made")
    code: str = Field(default="", description="the code of what went wrong")


class AllChanged(Reply):
    """What became of wishes, run by run."""

    runs: list[Changed]
    matched: int = Field(default=0, description="how many were meant by this request")
    done: int = 0
    failed: int = 0
    dry_run: bool = False
    id: str = Field(default="", description="runs that were made, one a line")
    next: str = Field(default="", description="go on with this as `cursor`; empty: these were all")


class ApprovalLink(Reply):
    """A link by which one question can be answered, in one name."""

    url: str
    by: str
    expires_at: str


class Question(Reply):
    """What a run asks, and how it was answered."""

    run: str
    workflow: str
    step: str
    title: str = ""
    input: Any = None
    by: str = Field(description="in whose name the link answers; once it is answered, who did")
    state: Literal["waiting", "approved", "rejected", "gone"]
    comment: str = ""
    asked_at: str = ""
    expires_at: str


class Exported(Reply):
    """A run as it is kept; of many, how many were written, which could not be, how many go on, and where to go on."""

    id: str = ""
    definition: dict[str, Any] = Field(default={})
    facts: list[dict[str, Any]] = Field(default=[])
    part: int = Field(default=0, description="which part of a large run this is; 0: all of it")
    more: bool = Field(default=False, description="another part follows")
    exported: int = 1
    failed: list[Changed] = Field(default=[])
    going: int = Field(default=0, description="runs that have not ended, and so were not written down")
    next: str = Field(default="", description="go on with this as `cursor`; empty: these were all")

    def line(self) -> dict[str, Any]:
        """Return the line that a run, or a part of one, is written as."""
        return self.model_dump(include={"id", "definition", "facts"} | ({"part", "more"} if self.part else set()))


class Replay(Reply):
    """Whether today's rules would lead to the same history."""

    id: str
    same: bool
    number: int = Field(default=0, description="the first fact where they part")
    fact: str = ""
    expected: str = ""


class Published(Reply):
    """An event that is stored. `already`: it was published before, with the same key."""

    kind: str
    number: int
    already: bool = False
