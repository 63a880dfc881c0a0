"""How does a round of an orchestration begin? As a run of its own, named by the orchestration, however often it is tried."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from knotwork.bus import clock, codec
from knotwork.crew import budget, definition, plan
from knotwork.flow.definitions import parsed
from knotwork.flow.effects import NULL
from knotwork.flow.facts import Start, StepEnd
from knotwork.flow.runs import Wanted, keyed_run
from knotwork.trust.scopes import circle
from knotwork.trust.who import Who
from knotwork.work.records import Asker

if TYPE_CHECKING:
    from knotwork.crew.files import Files
    from knotwork.crew.records import Record, Round
    from knotwork.crew.sight import PartSight, View
    from knotwork.flow.model import Workflow
    from knotwork.flow.room import Flow
    from knotwork.work.values import Values

INLINE_MAX_BYTES, GIVEN_MAX_BYTES = 64 * 1024, 2 * 1024 * 1024
"""A larger result is given to the next round by its digest, and so is what is beyond so much: together they are one message."""


KEPT_S, ENDLESS_S = 40 * 86400, 365 * 86400
"""How long what a round carries out is kept after its end, and how long one without a limit of time may take."""


class Starting:
    """Starts rounds."""

    def __init__(self, flow: Flow, values: Values, files: Files, node: str) -> None:
        """Start runs of `flow`; workspaces are those of this node."""
        self.values = values
        self._flow, self._files, self._node = flow, files, node

    def workflow(self, record: Record, made: Round, *, left_s: float = 0.0) -> Workflow:
        """Return what a round carries out; raises `Invalid` (`flow.bad_workflow`)."""
        if plan.SYNTHESIS in made.parts:
            return parsed(definition.synthesis(record, made.taken, left_s))
        chosen = [part for part in record.parts if part.id in made.parts]
        return parsed(definition.definition(record, chosen, made.taken, left_s))

    async def begin(self, record: Record, made: Round, before: View | None) -> None:
        """Start a round unless it was started; raises what starting a run raises, and `crew.budget_spent`."""
        left_s = budget.left_s(record, clock.now_ns())
        workflow = self.workflow(record, made, left_s=left_s)
        ttl_s = int(record.budget.time_s or ENDLESS_S) + KEPT_S
        digest = await self._flow.definitions.put(workflow, now_ns=clock.now_ns(), named=False, ttl_s=ttl_s)
        places = self._files.places(record) if record.node == self._node else {}
        given = await self._given(made, before) if made.taken and before is not None else None
        await self._flow.runs.start(
            Wanted(
                digest, codec.encode(definition.run_input(record, record.parts, places)), key_of(record, made),
                record.by.name, {"orchestration": record.id}, record.priority, record.boundary,
                traceparent=record.traceparent, given=given, circle=_circle(record),
                asker=Asker(record.spawner.id, record.spawner.owner),
            )
        )  # fmt: skip

    async def _given(self, made: Round, before: View) -> dict[str, StepEnd]:
        together, found, left = plan.SYNTHESIS in made.parts, dict[str, StepEnd](), GIVEN_MAX_BYTES
        for place, name in enumerate(made.taken):
            if name in before.parts:
                end = await self._end(before.parts[name], min(INLINE_MAX_BYTES, left))
                left -= len(bytes(end.output))
                found[definition.alias(place) if together else name] = end
        return found

    async def _end(self, part: PartSight, inline_max: int) -> StepEnd:
        output, blob = part.output, part.blob
        if len(output) > max(inline_max, len(NULL)) and not blob:
            output, blob = NULL, await self.values.blobs.put(output)
        return StepEnd(
            "completed", msgspec.Raw(output), blob, None, part.node, part.agent, part.begun_ns, part.ended_ns
        )


def _circle(record: Record) -> str:
    """Return who alone may take its parts, "" for everybody in the project."""
    return circle(record.scope, Who(record.by.id, record.by.name, "", record.by.owner))


def carried_out(run: str, start: Start) -> str:
    """Return the orchestration of which a run carries out a round, "" for any other run."""
    orchestration = start.key.rpartition(".")[0]
    is_round = run == keyed_run(definition.WORKFLOW, start.key) and start.labels.get("orchestration") == orchestration
    return orchestration if is_round else ""


def run_of(orchestration: str, number: int) -> str:
    """Return the id of the run of a round; the first has number 0."""
    return keyed_run(definition.WORKFLOW, f"{orchestration}.{number}")


def key_of(record: Record, made: Round) -> str:
    """Return the key of the run of a round."""
    return f"{record.id}.{[one.run for one in record.rounds].index(made.run)}"
