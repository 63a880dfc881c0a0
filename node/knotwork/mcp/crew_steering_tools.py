"""Which tools steer an orchestration that goes on? To hold it, let it go on, stop it, have a part done again."""

from __future__ import annotations

from typing import Any

from pydantic import Field

from knotwork.mcp import crew_tools
from knotwork.mcp.crew_tools import STATE, CrewInput
from knotwork.mcp.tool import HANDS_OUT, SETS, TAKES_AWAY, Session, tool, without
from knotwork.ops.crew_words import PartId
from knotwork.ops.words import Text


@tool(
    "pause_orchestration", CrewInput, STATE, title="Pause an orchestration",
    description="Begin no more parts of an orchestration, nor of those below it. Parts that were begun come to their end; "
    "resume_orchestration lets it go on.",
    hints=SETS,
)  # fmt: skip
async def pause_orchestration(given: CrewInput, session: Session) -> dict[str, Any]:
    """Hold it."""
    return crew_tools.state(await session.ask("crew.pause", id=given.orchestration_id))


class ResumeInput(CrewInput):
    """Which orchestration, and what it may use from now on."""

    tokens: int | None = Field(default=None, ge=0, le=10**15, description="new limit of tokens; 0: any")
    cost: float | None = Field(default=None, ge=0, le=1e12, description="new limit of cost; 0: any")


@tool(
    "resume_orchestration", ResumeInput, STATE, title="Resume an orchestration",
    description="Begin parts of a paused orchestration again. One that used up its budget goes on with a larger one.",
    hints=SETS,
)  # fmt: skip
async def resume_orchestration(given: ResumeInput, session: Session) -> dict[str, Any]:
    """Let it go on."""
    more = {key: value for key, value in (("tokens", given.tokens), ("cost", given.cost)) if value is not None}
    return crew_tools.state(await session.ask("crew.resume", id=given.orchestration_id, **more))


class CancelInput(CrewInput):
    """Which orchestration, and why."""

    reason: Text = Field(default="", description="kept with it")


@tool(
    "cancel_orchestration", CancelInput, STATE, title="Stop an orchestration",
    description="Stop an orchestration and all below it, for good. Agents at work on its parts are told; results that are "
    "there stay. `phase` is cancelled within seconds, when all has ended.",
    hints=TAKES_AWAY,
)  # fmt: skip
async def cancel_orchestration(given: CancelInput, session: Session) -> dict[str, Any]:
    """Stop it."""
    more = without({"why": given.reason})
    return crew_tools.state(await session.ask("crew.cancel", id=given.orchestration_id, **more))


class RetryInput(CrewInput):
    """Which part of which orchestration."""

    part: PartId = Field(description="its id, see get_orchestration_state")


@tool(
    "retry_part", RetryInput, STATE, title="Have a part done again",
    description="Do a part of an orchestration again, and those that depend on it: it failed, or its result is not good "
    "enough. Others keep their results.",
    hints=HANDS_OUT,
)  # fmt: skip
async def retry_part(given: RetryInput, session: Session) -> dict[str, Any]:
    """Begin it again."""
    return crew_tools.state(await session.ask("crew.retry", id=given.orchestration_id, part=given.part))
