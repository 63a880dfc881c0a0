"""Which tools are about orchestrations? To split a big job, have sub-agents do the parts, and put them together."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import Field, StringConstraints, model_validator

from knotwork.crew.records import How, Phase
from knotwork.mcp import crew_values, spoken, wording
from knotwork.mcp.shapes import many, record
from knotwork.mcp.tool import ADDS, HANDS_OUT, READS, CamelInput, Capability, JobWords, Session, tool, without
from knotwork.ops.crew_words import CrewId, ListPlace, PartId
from knotwork.ops.words import Target, Token
from knotwork.sdk.errors import Invalid, NotFound
from knotwork.trust.scopes import Scope

Plan = list[dict[str, Any]] | dict[str, Any]
_PART = record(id="text", title="text?", instructions="text?", capability="text?", agent="text?", needs="texts?")
PART_CHARS, NOTES_CHARS, PLAN_CHARS = 1500, 6000, 16_000
"""What is shown of one part beside others, of all notes, and of a plan before its parts are told in short."""
STATE = record(
    orchestrationId="text", phase="text", percent="number", order="text?", held="text?", why="text?", error="object?",
    parts=many(
        record(
            id="text", state="text", title="text?", percent="number?", agent="text?", node="text?", text="text?",
            attempt="int?", needs="texts?", error="object?",
        )
    ),
    used="object?", budget="object?", notes="rows?", task="text?", already="flag?", next="text?",
)  # fmt: skip


class AssessInput(CamelInput):
    """A task, and how it may be split."""

    task: JobWords = Field(description="the whole job in words; lists and `after` are understood")
    max_parts: int = Field(default=20, ge=1, le=200)
    capability: Capability | None = Field(default=None, description="for parts that nothing hints at")
    planner_capability: Capability | None = Field(default=None, description="let an agent with this capability plan")
    planner_agent: Target | None = Field(default=None, description="or this agent")
    planner_wait_secs: float = Field(default=50, gt=0, le=3600, description="seconds to wait for its plan")
    parent: CrewId | None = Field(default=None, description="the orchestration that this is a part of")
    scope: Scope = Field(default="team", description="who may see and steer it")


@tool(
    "assess_task", AssessInput,
    record(
        orchestrationId="text", complexity="object", order="text?", groups={"type": "array"}, parts=many(_PART),
        revision="int", notes="texts?", plannedBy="text?", next="text?",
    ),
    title="Split a big job",
    description="Say how complex a job is and split it into parts for sub-agents, with what depends on what. Nothing "
    "begins yet: show the plan, change it, then spawn_subagents. A long plan goes on in get_orchestration_state at `next`.",
    hints=ADDS,
)  # fmt: skip
async def assess_task(given: AssessInput, session: Session) -> dict[str, Any]:
    """Make a plan."""
    more = without(
        {
            "capability": given.capability, "planner_capability": given.planner_capability,
            "planner_agent": given.planner_agent, "parent": given.parent,
        }
    )  # fmt: skip
    plan = await session.ask(
        "crew.assess",
        task=given.task,
        max_parts=given.max_parts,
        timeout_s=given.planner_wait_secs,
        scope=given.scope,
        **more,
        **session.key,
    )
    shown = {
        "orchestrationId": plan["id"], "order": plan["order"], "notes": plan["notes"], "plannedBy": plan["planned_by"],
    }  # fmt: skip
    told = without(shown) | {
        "complexity": plan["complexity"], "groups": plan["groups"], "revision": plan["revision"],
    }  # fmt: skip
    parts = [_only(one, "id", "title", "instructions", "capability", "agent", "needs") for one in plan["parts"]]
    if wording.size(parts) > PLAN_CHARS:  # then what each is to do stands in short
        parts = [wording.fit(one, 400) for one in parts]
    return told | crew_values.behind("parts", parts, "", wording.size(told))


def _only(one: dict[str, Any], *names: str) -> dict[str, Any]:
    return without({name: one[name] for name in names})


def state(found: dict[str, Any], cursor: str = "") -> dict[str, Any]:
    """Return what an agent is told of an orchestration, with as many parts behind `cursor` as can be read at once.

    Raises `NotFound` (`crew.no_part`) for a cursor that is no part.
    """
    names = ("id", "state", "title", "agent", "node", "text", "needs", "error")
    parts = [
        wording.fit(_only(one, *names) | {key: one[key] for key in ("percent", "attempt") if one[key]}, PART_CHARS)
        for one in found["parts"]
    ]
    shown = {
        "orchestrationId": found["id"], "phase": found["phase"], "order": found["order"], "held": found["held"],
        "why": spoken.for_agents(found["why"]), "error": spoken.told(found["error"]), "task": wording.fit(found["task"], 2000),
    }  # fmt: skip
    notes = wording.fit([without(one) for one in found["notes"][-20:]], NOTES_CHARS)
    told = without(shown | {"notes": notes}) | {
        "percent": found["percent"], "used": found["used"], "budget": found["budget"],
    }  # fmt: skip
    return told | crew_values.behind("parts", parts, cursor, wording.size(told))


class SpawnInput(CamelInput):
    """Which plan, how it is carried out, and what it may use."""

    orchestration_id: CrewId = Field(description="as assess_task answered it")
    plan: Plan | None = Field(
        default=None, description="parts, to change the plan: id, instructions, capability, needs"
    )
    synthesis: How = Field(default="concatenate", description="what becomes of the results")
    synthesis_capability: Capability | None = None
    synthesis_agent: Target | None = None
    depth: int = Field(default=3, ge=0, le=8, description="levels below it")
    children: int = Field(default=200, ge=1, le=10_000, description="parts, also below it")
    time_secs: float = Field(default=0, ge=0, le=365 * 86400, description="0: any, also tokens, cost")
    tokens: int = Field(default=0, ge=0, le=10**15)
    cost: float = Field(default=0, ge=0, le=1e12)
    parallel: int = Field(default=0, ge=0, le=200, description="parts at a time; 0: all")
    boundary: Token | None = Field(default=None, description="data class")


@tool(
    "spawn_subagents", SpawnInput, STATE, title="Have sub-agents do the parts",
    description="Carry out the plan of assess_task: each part is offered to its capability, anew when its agent "
    "dies. Follow it with get_orchestration_state.",
    hints=HANDS_OUT,
)  # fmt: skip
async def spawn_subagents(given: SpawnInput, session: Session) -> dict[str, Any]:
    """Begin an orchestration."""
    parts = given.plan.get("parts", given.plan) if isinstance(given.plan, dict) else given.plan
    more = without(
        {
            "parts": parts, "synthesis_capability": given.synthesis_capability, "boundary": given.boundary,
            "synthesis_agent": given.synthesis_agent,
        }
    )  # fmt: skip
    try:
        found = await session.ask(
            "crew.spawn", id=given.orchestration_id, synthesis=given.synthesis, depth=given.depth,
            children=given.children, time_s=given.time_secs, tokens=given.tokens, cost=given.cost,
            parallel=given.parallel, **more,
        )  # fmt: skip
    except Invalid as error:
        raise crew_values.of_plan(error) from error
    return state(found) | ({"already": True} if found["already"] else {})


class CrewInput(CamelInput):
    """Which orchestration."""

    orchestration_id: CrewId


class CheckpointInput(CrewInput):
    """How far you are."""

    phase: Phase | None = Field(default=None, description="where the whole is now")
    part: PartId | None = Field(default=None, description="of this part")
    percent: float | None = Field(default=None, ge=0, le=100)
    message: Annotated[str, StringConstraints(max_length=4096)] = ""
    tokens: int = Field(default=0, ge=0, le=10**15, description="used for the part so far")
    cost: float = Field(default=0, ge=0, le=1e12, description="what it cost so far")
    data: Any = Field(default=None, description="any JSON")


@tool(
    "checkpoint_progress", CheckpointInput,
    record(orchestrationId="text", phase="text", percent="number", part="text?", state="text?", go_on="flag", why="text?"),
    title="Say how far it is",
    description="Record how far a part or the whole is. Stop when go_on is false: it was stopped, or its budget is used up.",
    hints=ADDS,
)  # fmt: skip
async def checkpoint_progress(given: CheckpointInput, session: Session) -> dict[str, Any]:
    """Record progress."""
    more = without({"phase": given.phase, "part": given.part, "percent": given.percent, "data": given.data})
    kept = await session.ask(
        "crew.checkpoint", id=given.orchestration_id, text=given.message, tokens=given.tokens, cost=given.cost, **more
    )
    shown = without({"part": kept["part"], "state": kept["state"], "why": kept["why"]})
    return {
        "orchestrationId": kept["id"], "phase": kept["phase"], "percent": kept["percent"], "go_on": kept["go_on"], **shown,
    }  # fmt: skip


class ListInput(CamelInput):
    """Which orchestrations."""

    phase: Annotated[list[Phase], Field(max_length=8)] = Field(default=[], description="in one of these phases")
    limit: int = Field(default=20, ge=1, le=100)
    cursor: ListPlace = Field(default="", description="`next` of the page before")


@tool(
    "list_orchestrations", ListInput,
    record(
        orchestrations=many(
            record(orchestrationId="text", phase="text", percent="number", done="int", parts="int", held="text?", task="text?", by="text?")
        ),
        next="text?",
    ),
    title="List orchestrations", description="List orchestrations, the newest first.", hints=READS,
    rows="orchestrations",
)  # fmt: skip
async def list_orchestrations(given: ListInput, session: Session) -> dict[str, Any]:
    """Return orchestrations."""
    page = await session.ask("crew.list", phase=given.phase, limit=given.limit, cursor=given.cursor)
    rows = [
        {"orchestrationId": one["id"], **{key: one[key] for key in ("phase", "percent", "done", "parts")}}
        | without({"held": one["held"], "task": wording.fit(one["task"], 150), "by": one["by"]})
        for one in page["orchestrations"]
    ]
    return without({"next": page["next"]}) | {"orchestrations": rows}


class ResultsInput(CrewInput):
    """Whose results."""

    part: PartId | None = Field(default=None, description="of this part alone")
    result: bool = Field(default=False, description="only what all became together")
    offset: int = Field(
        default=0, ge=0, le=64 * 1024 * 1024, description="with part or result: `cut` of what you read before"
    )
    cursor: PartId | None = Field(default=None, description="`next` of the page before")

    @model_validator(mode="after")
    def _makes_sense(self) -> Self:
        if self.offset and not (self.part or self.result):
            raise ValueError("offset goes with part, or with result: true")
        if sum((self.part is not None, self.result, self.cursor is not None)) > 1:
            raise ValueError("give one of part, result and cursor")
        return self


@tool(
    "get_results", ResultsInput,
    record(
        orchestrationId="text", phase="text", complete="flag", result="any?", blob="text?", cut="int?", length="int?",
        conflicts="rows?", missing="texts?",
        parts=many(
            record(
                id="text", state="text", title="text?", agent="text?", output="any?", cut="int?", length="int?",
                blob="text?", error="object?",
            )
        ),
        total="int", next="text?",
    ),
    title="Get results",
    description="Return what the parts gave so far, a page at a time. What is long goes on at `cut`: ask for that part, or "
    "result, with offset.",
    hints=READS,
)  # fmt: skip
async def get_results(given: ResultsInput, session: Session) -> dict[str, Any]:
    """Return results."""
    found = await session.ask("crew.results", id=given.orchestration_id, **without({"part": given.part}))
    told = {"orchestrationId": found["id"], "phase": found["phase"], "complete": found["complete"]}
    if given.result and found["result"] is None:
        raise NotFound(
            f"There is no result of the whole yet: it is in {found['phase']}.", code="tool.no_result",
            hint="synthesize_results puts the results of the parts together.",
        )  # fmt: skip
    return told | crew_values.results(found, given.part or "", given.offset, given.cursor or "", whole=given.result)


class SynthesizeInput(CrewInput):
    """Whose results become one, and how."""

    how: Literal["concatenate", "merge", "agent"] = Field(
        default="concatenate", description="one text; one structure with its conflicts; or by an agent"
    )
    capability: Capability | None = Field(default=None, description="for agent: who has this capability")
    agent: Target | None = Field(default=None, description="for agent: this one")
    partial: bool = Field(default=False, description="of those that are done")
    wait_secs: float = Field(default=0, ge=0, le=3600, description="for agent: seconds to wait")


@tool(
    "synthesize_results", SynthesizeInput,
    record(
        orchestrationId="text", phase="text", ready="flag", why="text?", output="any?", cut="int?", length="int?",
        blob="text?", conflicts="rows?", missing="texts?",
    ),
    title="Put the results together",
    description="Make one result of all parts, and complete the orchestration. A long one goes on in get_results: "
    "result, offset.",
    hints=ADDS,
)  # fmt: skip
async def synthesize_results(given: SynthesizeInput, session: Session) -> dict[str, Any]:
    """Put results together."""
    found = await session.ask(
        "crew.synthesize", id=given.orchestration_id, how=given.how, partial=given.partial, wait_s=given.wait_secs,
        **without({"capability": given.capability, "agent": given.agent}),
    )  # fmt: skip
    shown = {"orchestrationId": found["id"], "phase": found["phase"], "ready": found["ready"]}
    return shown | crew_values.synthesized(found)


class StateInput(CrewInput):
    """Which orchestration, and which of its parts."""

    cursor: PartId | None = Field(default=None, description="`next` of the answer before: the parts behind")


@tool(
    "get_orchestration_state", StateInput, STATE, title="Look at an orchestration",
    description="Say how far an orchestration is, who does which part, and what it has used.", hints=READS,
)  # fmt: skip
async def get_orchestration_state(given: StateInput, session: Session) -> dict[str, Any]:
    """Return everything about it."""
    return state(await session.ask("crew.state", id=given.orchestration_id), given.cursor or "")
