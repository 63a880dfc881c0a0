"""What becomes of a run when a step of it that died is to have another chance? It is retried, as a whole, once.

A run does not wait for a step that died: it ended with it, or went on without it. So the step is not queued again; the
run that failed by it, or the one that this was a part of, is retried, which takes over all that was done.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from knotwork.desk.callers import asker, caller_name
from knotwork.desk.runs import rows as flow_rows
from knotwork.desk.runs.batches import USUAL
from knotwork.sdk.errors import Conflict, NotFound

if TYPE_CHECKING:
    from knotwork.desk.runs.sight import RunSight
    from knotwork.flow.room import Flow
    from knotwork.ops.op import Caller
    from knotwork.work.records import Task

KEY = "dead-redrive"


class RunRevival:
    """Retries runs of one project for the sake of a step, as somebody may see them."""

    def __init__(self, flow: Flow, sight: RunSight) -> None:
        """Retry runs of `flow`."""
        self._flow, self._sight = flow, sight

    async def meant(self, task: Task) -> str:
        """Return the run that has to be retried for a step that died: its own, or the outermost that this is a part of.

        Raises `Conflict` (`work.step_of_run`) when that did not fail, or is not there any more.
        """
        run = task.run
        try:
            await self._sight.admit(run)
            sight = await self._flow.runs.glance(run)
            while sight.start.parent is not None:
                run = sight.start.parent.run
                sight = await self._flow.runs.glance(run)
        except NotFound as error:
            raise _alone(task, error.message) from error
        state = flow_rows.state_of(sight)
        if state not in USUAL["retry"]:
            raise _alone(task, f"{run} is {state} without it.")
        return run

    async def retry(self, task: Task, caller: Caller) -> str:
        """Retry a run for a step that died and return the run that takes its place.

        That is the same for all its steps, and however often it is asked: what dies there is under its own id.

        Raises what `meant` does, and `runs.fork`.
        """
        run = await self.meant(task)
        made, _ = await self._flow.runs.fork(run, by=caller_name(caller), key=KEY, asker=asker(caller.who))
        return made


def _alone(task: Task, why: str) -> Conflict:
    return Conflict(
        f"It was the step {task.step} of the run {task.run}: {why}", code="work.step_of_run",
        hint="See `knotwork run show`; drop the letter when it is not needed any more.",
    )  # fmt: skip
