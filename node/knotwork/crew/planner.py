"""What may an agent plan? Parts as JSON, all of them valid, for capabilities that somebody has; else the rules plan (pure)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from knotwork.crew import answers, plan
from knotwork.crew.plan import Part
from knotwork.crew.synthesis import structure
from knotwork.sdk.errors import Invalid

if TYPE_CHECKING:
    from collections.abc import Collection

WORKFLOW = "crew-plan"
STEP = "planning"
ANSWER_MAX_BYTES = 512 * 1024
_PROMPT = """Split this task among several agents who work side by side, each on one part.

Answer with JSON only: {"parts": [{"id": "short-name", "title": "…", "instructions": "…", "capability": "…", \
"needs": ["ids of parts whose results it must be given"], "acceptance": ["…"]}]}

At most {{ input.max_parts }} parts; as few dependencies as possible; no two parts that change the same thing at the \
same time. An id has a-z, 0-9 and '-'. Capabilities that somebody has: {{ input.capabilities }}; of others: \
{{ input.default }}. A plan by rules, to begin with: {{ input.by_rules }}

THE TASK:
{{ input.task }}
"""


def definition(capability: str, agent: str, timeout_s: float) -> dict[str, Any]:
    """Return the run in which an agent plans."""
    target = {"agent": agent} if agent else {"capability": capability}
    step = {
        "kind": "agent", **target, "prompt": _PROMPT, "input": "input", "timeout": max(1.0, timeout_s),
        "retry": {"max_attempts": 2},
    }  # fmt: skip
    return {"name": WORKFLOW, "steps": {STEP: step}, "timeout": max(1.0, timeout_s)}


def read(answer: Any, known: Collection[str], default: str, most: int) -> plan.Parts:
    """Return the plan that an agent gave; raises `Invalid` (`crew.bad_plan`) that names what is wrong with it."""
    found = _structure(answers.data(answer))
    if isinstance(found, dict) and "parts" not in found:
        found = next((_structure(found[key]) for key in ("text", "result", "output", "plan") if key in found), found)
    if isinstance(found, dict):
        found = found.get("parts")
    if not isinstance(found, list):
        raise Invalid("The planner gave no list of parts.", code="crew.bad_plan")
    if len(found) > most:
        raise Invalid(f"The planner gave {len(found)} parts, {most} at most.", code="crew.bad_plan")
    try:
        parts = msgspec.convert(found, type=tuple[Part, ...], strict=True)
    except (msgspec.ValidationError, RecursionError) as error:
        raise Invalid(f"The planner gave what are no parts: {error}.", code="crew.bad_plan") from error
    made = plan.checked(
        msgspec.structs.replace(part, capability=default) if not (part.capability or part.agent) else part
        for part in parts
    )
    unknown = sorted({part.capability for part in made if part.capability and part.capability not in {*known, default}})
    if unknown:
        raise Invalid(f"The planner asks for what nobody can: {', '.join(unknown[:10])}.", code="crew.bad_plan")
    if named := sorted({part.agent for part in made if part.agent}):
        raise Invalid(
            f"The planner names agents ({', '.join(named[:10])}); it may name capabilities.", code="crew.bad_plan"
        )
    return made


def _structure(answer: Any) -> Any:
    """Return an answer as data, also when the JSON stands fenced among words, as models like to write it."""
    found = structure(answer)
    if not isinstance(found, str):
        return found
    fenced = (structure(piece.removeprefix("json").strip()) for piece in found.split("```")[1::2])
    return next((one for one in fenced if not isinstance(one, str)), found)
