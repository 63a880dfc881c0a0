"""How is a plan made? By rules, or by an agent that is asked for one and whose answer is taken when it is a good plan."""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

import msgspec

from knotwork.bus import clock, codec
from knotwork.crew import hints, planner
from knotwork.crew.assess import Assessment, assess, complexity
from knotwork.crew.outline import outline
from knotwork.flow.definitions import parsed
from knotwork.flow.run import decoded
from knotwork.flow.runs import Wanted
from knotwork.sdk.errors import Failed, Invalid, KnotworkError, TimedOut
from knotwork.work.records import NOBODY, Asker

if TYPE_CHECKING:
    from collections.abc import Collection

    from knotwork.crew import plan
    from knotwork.flow.facts import Finish
    from knotwork.flow.room import Flow

STOP_S = 5.0


@dataclass(frozen=True, slots=True)
class Planner:
    """Who is asked for a plan, and for how long (seconds); exactly one of `capability` and `agent` is set."""

    capability: str = ""
    agent: str = ""
    wait_s: float = 60.0


@dataclass(frozen=True, slots=True)
class Wish:
    """What a plan is wanted for. `known` are the capabilities that somebody has."""

    task: str
    by: str
    known: Collection[str]
    default: str = ""
    parts_max: int = 20
    orchestration: str = ""
    circle: str = ""
    """Who alone may be asked for a plan by capability (`trust.scopes.circle`), "" for everybody in the project."""
    asker: Asker = NOBODY


async def plan_of(flow: Flow, wish: Wish, asked: Planner | None) -> tuple[Assessment, str]:
    """Return a plan, and by whom it was made: an agent's, or that of the rules with the reason why not.

    Raises what `assess` raises.
    """
    made = await asyncio.to_thread(
        assess, wish.task, wish.known, default=wish.default, parts_max=wish.parts_max
    )  # up to a second for a hostile text
    if asked is None:
        return made, "rules"
    name = asked.agent or asked.capability
    try:
        parts = await _asked(flow, wish, made, asked)
    except KnotworkError as error:
        told = f"{name} gave no plan, so it is by rules: {error.message}"
        return msgspec.structs.replace(made, notes=(*made.notes, told[:2048])), "rules"
    size = complexity(wish.task, outline(wish.task), parts)
    return msgspec.structs.replace(made, parts=parts, complexity=size, notes=()), name


async def _asked(flow: Flow, wish: Wish, made: Assessment, asked: Planner) -> plan.Parts:
    """Return an agent's plan; raises why there is none."""
    default = wish.default or hints.DEFAULT
    workflow = parsed(planner.definition(asked.capability, asked.agent, asked.wait_s))
    digest = await flow.definitions.put(workflow, now_ns=clock.now_ns(), named=False)
    told = {
        "task": wish.task, "max_parts": wish.parts_max, "capabilities": sorted(wish.known)[:500], "default": default,
        "by_rules": made.parts,
    }  # fmt: skip
    labels = {"orchestration": wish.orchestration} if wish.orchestration else {}
    begun = await flow.runs.start(
        Wanted(
            digest, codec.encode(msgspec.to_builtins(told)), by=wish.by, labels=labels, circle=wish.circle,
            asker=wish.asker,
        )
    )  # fmt: skip
    finish = await _ended(flow, begun.id, asked.wait_s)
    if finish.state != "completed":
        error = finish.error or {}
        raise Failed(str(error.get("message", finish.state))[:1000], code=str(error.get("code", "agent.failed"))[:128])
    if finish.blob or len(bytes(finish.output)) > planner.ANSWER_MAX_BYTES:
        raise Invalid("The planner's answer is too large.", code="crew.bad_plan")
    return planner.read(decoded(bytes(finish.output)), wish.known, default, wish.parts_max)


async def _ended(flow: Flow, run: str, wait_s: float) -> Finish:
    try:
        async with asyncio.timeout(wait_s):
            return await flow.runs.ended(run)
    except TimeoutError:
        raise TimedOut(f"Nobody planned it within {wait_s:g} s.", code="crew.no_plan") from None
    finally:
        with contextlib.suppress(KnotworkError, TimeoutError):
            async with asyncio.timeout(STOP_S):
                await flow.runs.cancel(run, why="nobody waits for the plan any more")
