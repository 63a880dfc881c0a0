"""Which runs are to come? Those that a trigger starts once, at a moment: their ids are known before they begin."""

from __future__ import annotations

from typing import TYPE_CHECKING

from knotwork.flow.definitions import DIGEST_LENGTH
from knotwork.flow.runs import keyed_run
from knotwork.ops import flow_replies
from knotwork.sdk.errors import KnotworkError
from knotwork.trigger import due
from knotwork.trigger.model import Once

if TYPE_CHECKING:
    from knotwork.trigger.room import Triggers
    from knotwork.trigger.store import Known


def id_of(trigger: Once, workflow: str) -> str:
    """Return the id of the run that a trigger starts; `workflow` is the name that the trigger's means (pure)."""
    return keyed_run(workflow, trigger.key or due.key(trigger.id, trigger.at_ns))


def info(trigger: Once, workflow: str, *, by: str, new: bool = False) -> flow_replies.RunInfo:
    """Return the run that a trigger starts, as it will be (pure)."""
    return flow_replies.RunInfo(
        id=id_of(trigger, workflow), workflow=workflow, state="scheduled", started_at=trigger.at, by=by,
        trigger=trigger.id, labels=trigger.labels, input=trigger.input, new=new,
    )  # fmt: skip


class Planned:
    """The runs of one project that are to come."""

    def __init__(self, triggers: Triggers) -> None:
        """Look among these triggers."""
        self._triggers = triggers

    async def find(self, run: str) -> flow_replies.RunInfo | None:
        """Return a run that is to come, None when there is none with this id."""
        for known in list(self._triggers.store.known.values()):
            if isinstance(known.trigger, Once) and (found := await self._meant(known)) is not None and found.id == run:
                return found
        return None

    async def _meant(self, known: Known) -> flow_replies.RunInfo | None:
        trigger = known.trigger
        assert isinstance(trigger, Once)
        workflow = trigger.workflow
        if len(workflow) == DIGEST_LENGTH:  # it may be a digest, and names of workflows may be as long
            try:
                workflow = (await self._triggers.flow.definitions.find(workflow))[1].workflow.name
            except KnotworkError:
                return None
        return info(trigger, workflow, by=known.by)

    async def call_off(self, run: str) -> str:
        """Remove the trigger that would start a run; returns its id, an empty text when there is none."""
        found = await self.find(run)
        return found.trigger if found is not None and await self._triggers.remove(found.trigger) else ""
