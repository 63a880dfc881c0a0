"""What may be written in a workflow? One model, read from TOML, JSON or YAML, from a builder or an op; it makes the schema.

Only the shape is checked here; whether the steps make sense together is `graph`'s question.
"""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, ConfigDict, Field, model_validator

from knotwork.flow.durations import DURATION, seconds
from knotwork.sdk.checked import Checked
from knotwork.work.records import PAUSE_MAX_S

STEPS_MAX = 5_000
ITEMS_MAX = 10_000
YEAR_S = 365 * 86400.0
NAME = r"[a-z0-9](?:-?[a-z0-9_])*"
"""A name of a workflow or a step. Two dashes in a row set off what the engine adds, such as the number of an item."""
RESERVED = frozenset({"task"})
"""What a step cannot be called: it is the one step of a run that is a task."""

Name = Annotated[str, Field(pattern=f"^{NAME}$", max_length=32)]
WORD = r"^[a-z0-9][a-z0-9_-]{0,63}$"
AGENT = r"^[a-z0-9][a-z0-9_-]{0,63}(/[a-z0-9][a-z0-9_-]{0,63})?$"
EVENT = r"^[a-z0-9_-]{1,64}(\.[a-z0-9_-]{1,64}){0,7}$"
Token = Annotated[str, Field(pattern=WORD)]
Expression = Annotated[str, Field(min_length=1, max_length=4096)]
_TIME = re.compile(r"\d{4}-\d\d-\d\d[Tt ][0-9:.]+(?:[Zz]|[+-]\d\d:\d\d)$")
Text = Annotated[str, Field(max_length=16_384)]
_Spelled = Annotated[str, Field(pattern=rf"^(?:{DURATION})+$")]
Duration = Annotated[
    float,
    Field(ge=0, le=YEAR_S, allow_inf_nan=False),
    BeforeValidator(seconds, json_schema_input_type=Annotated[float, Field(ge=0, le=YEAR_S)] | _Spelled),
]
"""Seconds, or a text such as "30s", "5m", "1h30m"."""
Some = Annotated[
    float,
    Field(gt=0, le=YEAR_S, allow_inf_nan=False),
    BeforeValidator(seconds, json_schema_input_type=Annotated[float, Field(gt=0, le=YEAR_S)] | _Spelled),
]
Schema = dict[str, Any]


def _moment(value: Any) -> Any:
    """Return a plain time, RFC 3339 or seconds since 1970, as the expression that always gives it."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        return f"`{value}`"
    if isinstance(value, str) and _TIME.match(value) is not None:  # no expression begins so
        return f"'{value}'"
    return value


Moment = Annotated[Expression, BeforeValidator(_moment)]


class Part(Checked):
    """A table of a workflow: unknown keys are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True, defer_build=True)  # a node that runs none need not build it


class Retry(Part):
    """When a failed attempt is followed by another; the same words as for tasks."""

    max_attempts: int = Field(default=1, ge=1, le=1000, description="attempts in all")
    backoff: Literal["fixed", "linear", "exponential"] = "exponential"
    delay: Duration = Field(default=1.0, description="before the second attempt")
    multiplier: float = Field(default=2.0, ge=1, le=100)
    max_delay: Duration | None = Field(
        default=None, description="no pause is longer; left out: 5 minutes, or `delay` where that is longer"
    )
    jitter: bool = True
    on: tuple[Annotated[str, Field(max_length=256)], ...] = Field(
        default=(), max_length=50, description="error codes worth another attempt; empty: what the error says itself"
    )
    max_crashes: int = Field(default=3, ge=1, le=1000, description="workers it may kill before it counts as poison")

    def longest_pause(self) -> float:
        """Return how long a pause may be, in seconds: the default of that bound cuts nothing short."""
        return max(PAUSE_MAX_S, self.delay) if self.max_delay is None else self.max_delay


class StepLimit(Part):
    """How many such steps may be under way at a time, or begin in a time, over all runs and nodes."""

    concurrency: int = Field(default=0, ge=0, le=100_000, description="at a time; 0: any number")
    rate: float = Field(
        default=0.0, ge=0, le=1e6, allow_inf_nan=False, description="units that may begin in `per`; 0: any"
    )
    per: Some = Field(default=1.0, description="the time of the rate")
    units: float = Field(default=1.0, gt=0, le=1e6, allow_inf_nan=False, description="what one of these counts")
    key: Expression | None = Field(
        default=None,
        description="a limit of its own for each value that this gives; in a map it sees `item` and `index`",
    )
    scope: Literal["capability", "step"] = Field(
        default="capability", description="shared by all steps with this capability or agent, or this step's own"
    )

    @model_validator(mode="after")
    def _limits(self) -> StepLimit:
        if not (self.concurrency or self.rate):
            msg = "it limits nothing: give concurrency, rate or both, above 0"
            raise ValueError(msg)
        return self


class Sticky(Part):
    """Where a step is done: on the node that did another one."""

    step: Name = Field(description="a step that ends before, carried out by one agent")
    mode: Literal["soft", "hard"] = Field(
        default="soft", description="soft: anywhere when nobody there can do it; hard: it waits for that node"
    )


class Children(Part):
    """What whoever carries out a step may start; what is not named is denied."""

    workflows: tuple[Name, ...] = Field(default=(), max_length=100, description="runs of these")
    capabilities: tuple[Token, ...] = Field(default=(), max_length=100, description="tasks for agents with these")
    max: int = Field(default=10, ge=1, le=1000, description="how many, with all that those start in turn")
    depth: int = Field(default=1, ge=1, le=8, description="how deep: 1: what is started may start nothing")
    seconds: Some | None = Field(default=None, description="for how long after the step began")

    @model_validator(mode="after")
    def _something(self) -> Children:
        if not (self.workflows or self.capabilities):
            msg = "name workflows or capabilities"
            raise ValueError(msg)
        return self


class RunLimit(Part):
    """How many runs of a workflow may be under way at a time, and what becomes of another."""

    max_runs: int = Field(default=1, ge=1, le=100_000)
    key: Expression | None = Field(default=None, description="a limit of its own for each value that this gives")
    when_full: Literal["queue", "skip", "cancel_previous"] = Field(
        default="queue", description="it waits, the most urgent first; it is cancelled; those under way are"
    )


class Step(Part):
    """What all steps have."""

    depends_on: tuple[Name, ...] = Field(default=(), max_length=STEPS_MAX, description="steps that must end before")
    when: Expression | None = Field(default=None, description="it is skipped when this is not true")
    input: Any = Field(
        default=None,
        description="an expression, or a table or list of them; left out: the run's input, the one parent's output, or"
        " all parents' outputs by their ids",
    )
    on_failure: Name | None = Field(default=None, description="step that runs when this one failed, in its place")
    compensate: Name | None = Field(default=None, description="step that undoes this one when the run fails later")
    allow_failure: bool = Field(default=False, description="the run goes on when it failed; its output is then null")
    description: Text = ""


class Work(Step):
    """What all steps have that agents carry out."""

    capability: Token | None = Field(default=None, description="any agent with this capability")
    agent: Annotated[str, Field(pattern=AGENT)] | None = Field(
        default=None, description="this agent instead: agent, or node/agent"
    )
    boundary: Token | None = None
    priority: int | None = Field(default=None, ge=1, le=10)
    labels: dict[Token, Annotated[str, Field(max_length=256)]] = Field(default={}, max_length=32)
    timeout: Some | None = Field(default=None, description="for one attempt")
    schedule_to_start: Some | None = Field(default=None, description="how long an attempt may wait until it is begun")
    heartbeat_timeout: Some | None = Field(default=None, description="how long its worker may give no sign of life")
    children: Children | None = Field(default=None, description="what its worker may start; left out: nothing")
    sticky: Sticky | None = Field(default=None, description="do it on the node that did another step")
    limit: StepLimit | None = Field(default=None, description="how many may be under way, or begin in a time")
    retry: Retry | None = Field(default=None, description="left out: that of the workflow")
    output_schema: Schema | None = Field(default=None, description="JSON Schema that its output must fit")

    @model_validator(mode="after")
    def _one_target(self) -> Work:
        if (self.capability is None) == (self.agent is None):
            msg = "name a capability or an agent, one of the two"
            raise ValueError(msg)
        return self


class TaskStep(Work):
    """One task."""

    kind: Literal["task"] = "task"


class AgentStep(Work):
    """An agent that is told what to do in words."""

    kind: Literal["agent"]
    prompt: Text = Field(min_length=1, description="with {{ expressions }} in it")
    tools: tuple[Token, ...] = Field(default=(), max_length=100)


class LoopStep(Work):
    """A task that is given its own `continue` output again, until it is done."""

    kind: Literal["agent_loop"]
    max_iterations: int = Field(default=100, ge=1, le=10_000)
    max_duration: Some | None = None
    delay: Duration = Field(default=0.0, description="between two iterations")
    budget: dict[Token, Annotated[float, Field(ge=0, allow_inf_nan=False)]] = Field(
        default={}, max_length=16, description="told to the worker, such as tokens"
    )


class MapStep(Work):
    """One task for each item of a list; its output is the list of theirs, in order."""

    kind: Literal["map"]
    items: Expression | None = Field(default=None, description="left out: what its input would be")
    parallelism: int = Field(default=100, ge=1, le=ITEMS_MAX)
    max_items: int = Field(default=1000, ge=0, le=ITEMS_MAX)
    allowed_failures: (
        Annotated[int, Field(ge=0, le=ITEMS_MAX)] | Annotated[str, Field(pattern=r"^(100|\d{1,2}(\.\d{1,3})?)%$")]
    ) = Field(default=0, description='how many items may fail, or a share such as "10%"')


class WorkflowStep(Step):
    """A run of another workflow."""

    kind: Literal["workflow"]
    workflow: Name
    detach: bool = Field(default=False, description="go on at once, with the id of the run as output")


class SleepStep(Step):
    """A pause; its input is its output."""

    kind: Literal["sleep"]
    duration: Duration | None = None
    until: Moment | None = Field(
        default=None, description="an RFC 3339 time or seconds since 1970, or an expression that gives one"
    )
    cron: Annotated[str, Field(max_length=256)] | None = Field(default=None, description="until it is next due")
    timezone: Annotated[str, Field(max_length=64)] = "UTC"

    @model_validator(mode="after")
    def _one_way(self) -> SleepStep:
        if sum(one is not None for one in (self.duration, self.until, self.cron)) != 1:
            msg = "name one of duration, until and cron"
            raise ValueError(msg)
        return self


class Waiting(Step):
    """What all steps have that wait for something outside."""

    timeout: Some | None = None
    on_timeout: Literal["fail", "value"] = "fail"
    timeout_value: Any = Field(default=None, description='its output when it timed out and on_timeout = "value"')


class EventStep(Waiting):
    """Waits for an event that is published in the project; the event's body is its output."""

    kind: Literal["wait_for_event"]
    event: Annotated[str, Field(pattern=EVENT)]
    match: Expression | None = Field(default=None, description="true for the event that is meant; sees `event`")


class SignalStep(Waiting):
    """Waits for a signal to this run; what was sent along is its output."""

    kind: Literal["wait_for_signal"]
    signal: Name


class SendStep(Step):
    """Sends a signal to a run."""

    kind: Literal["signal"]
    signal: Name
    run: Expression = Field(description="gives the id of the run")


class ApprovalStep(Waiting):
    """Waits until somebody approves or rejects."""

    kind: Literal["approval"]
    title: Text = Field(default="", description="what is asked, with {{ expressions }} in it")
    approvers: tuple[Annotated[str, Field(max_length=256)], ...] = Field(
        default=(), max_length=100, description="who may decide; empty: whoever may write"
    )


class PlannerStep(Work):
    """An agent that returns steps, which then run; its output is theirs."""

    kind: Literal["planner"]
    max_steps: int = Field(default=50, ge=1, le=1000)
    capabilities: tuple[Token, ...] = Field(
        default=(), max_length=100, description="what its steps may ask for; empty: nothing but the planner's own"
    )


class RespondStep(Step):
    """Answers whoever started the run and waits; the run goes on."""

    kind: Literal["respond"]
    status: int = Field(default=200, ge=200, le=599)


class AnewStep(Step):
    """Ends the run, once its other steps have ended, and starts it anew with this input as a run of its own."""

    kind: Literal["continue_as_new"]
    latest: bool = Field(default=False, description="with what the workflow's name means then, not this definition")


class Case(Part):
    """One branch of a choice."""

    when: Expression | None = Field(default=None, description="left out: in all other cases")
    then: tuple[Name, ...] = Field(default=(), max_length=STEPS_MAX, description="steps that go on; others are skipped")


class ChoiceStep(Step):
    """Goes on with the steps of the first case that is true; the steps of the others are skipped."""

    kind: Literal["choice"]
    cases: tuple[Case, ...] = Field(min_length=1, max_length=100)


class JoinStep(Step):
    """Goes on when enough of the steps that it depends on are done."""

    kind: Literal["join"]
    need: Literal["all", "any"] | Annotated[int, Field(ge=1, le=STEPS_MAX)] = "all"
    cancel_rest: bool = Field(default=False, description="stop the others then")


AnyStep = Annotated[
    TaskStep | AgentStep | LoopStep | MapStep | WorkflowStep | SleepStep | EventStep | SignalStep | SendStep
    | ApprovalStep | PlannerStep | RespondStep | AnewStep | ChoiceStep | JoinStep,
    Field(discriminator="kind"),
]  # fmt: skip


KINDS: dict[str, type[Step]] = {
    "task": TaskStep, "agent": AgentStep, "agent_loop": LoopStep, "map": MapStep, "workflow": WorkflowStep,
    "sleep": SleepStep, "wait_for_event": EventStep, "wait_for_signal": SignalStep, "signal": SendStep,
    "approval": ApprovalStep, "planner": PlannerStep, "respond": RespondStep, "continue_as_new": AnewStep,
    "choice": ChoiceStep, "join": JoinStep,
}  # fmt: skip


def with_kind(step: Any) -> Any:
    """Return a step with its kind said: without one it is a task."""
    return {"kind": "task", **step} if isinstance(step, dict) else step


class Workflow(Part):
    """A workflow: named steps, and what holds for all of them."""

    name: Name
    description: Text = ""
    version: Annotated[str, Field(max_length=64)] = ""
    steps: dict[Name, Annotated[AnyStep, BeforeValidator(with_kind)]] = Field(min_length=1, max_length=STEPS_MAX)
    output: Any = Field(
        default=None, description="an expression, or a table of them; left out: what its last steps gave"
    )
    input_schema: Schema | None = None
    output_schema: Schema | None = None
    retry: Retry = Field(default=Retry(), description="for steps that say nothing else")
    timeout: Some | None = Field(default=None, description="for the whole run")
    concurrency: RunLimit | None = Field(default=None, description="how many runs may be under way")
    max_parallel: int = Field(default=0, ge=0, le=ITEMS_MAX, description="steps of a run at a time; 0: no limit")
    boundary: Token | None = None
    priority: int = Field(default=5, ge=1, le=10)
    labels: dict[Token, Annotated[str, Field(max_length=256)]] = Field(default={}, max_length=32)
    on_failure: Name | None = Field(default=None, description="step that runs before a failed run ends")


def json_schema() -> Schema:
    """Return the JSON Schema (draft 2020-12) of a workflow as it is written."""
    found = Workflow.model_json_schema(mode="validation")
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **found}
