"""Which work is meant by an id? An orchestration is a run: where work or a run is asked for, its own id may stand."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from knotwork.bus import subjects
from knotwork.sdk.errors import Conflict, NotFound

if TYPE_CHECKING:
    from knotwork.mcp.ways import Ask

_crew = re.compile(r"o[a-z0-9]{7,39}").fullmatch


async def orchestration(ask: Ask, given: str) -> dict[str, Any] | None:
    """Return how the orchestration of an id stands, None when it is the id of something else."""
    if not _crew(given):
        return None
    try:
        return await ask("crew.state", id=given)
    except NotFound:  # a task may be called so
        return None


def is_workflow_run(work_id: str) -> bool:
    """Return whether an id is one of a run: those of tasks begin otherwise."""
    return work_id.startswith(subjects.WORKFLOW)


async def work(ask: Ask, given: str) -> str:
    """Return the run that an orchestration is now, any other id as it is; raises `Conflict` (`crew.not_spawned`)."""
    found = await orchestration(ask, given)
    if found is None:
        return given
    if not found["runs"]:
        raise Conflict(
            f"{given} was not spawned.", code="crew.not_spawned", hint="`knotwork crew spawn` carries its plan out."
        )
    return str(found["runs"][-1])


async def whole(ask: Ask, given: str, found: dict[str, Any]) -> dict[str, Any]:
    """Return a run as it was `found`: as its orchestration, with what that came to, when that one's id was `given`."""
    if given == found["id"]:
        return found
    if found["state"] != "completed":
        return found | {"id": given}
    result = (await ask("crew.results", id=given))["result"] or {}
    return found | {"id": given, "output": result.get("output"), "output_blob": result.get("blob", "")}
