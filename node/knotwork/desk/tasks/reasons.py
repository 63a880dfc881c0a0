"""Why is a task, or the task of a run's step, where it is? What there is beside it, asked of the rooms; told by `work.why`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from knotwork.bus import clock, reading, subjects
from knotwork.desk.moments import moment
from knotwork.desk.seen_agents import SeenAgents
from knotwork.work import queues, why

if TYPE_CHECKING:
    from knotwork.mesh.membership import Membership
    from knotwork.ops.flow_replies import Wait
    from knotwork.spinup.room import SpinUps
    from knotwork.work.lookup import Sight
    from knotwork.work.room import Work

WAITS_MAX = 20
"""Among how many things that a run waits for, tasks are looked up."""


class TaskReasons:
    """Looks around in one project, for somebody to whom these agents may be shown."""

    def __init__(
        self, work: Work, membership: Membership, spinups: SpinUps | None = None, agents: SeenAgents | None = None
    ) -> None:
        """Ask these rooms."""
        self._work, self._membership, self._spinups = work, membership, spinups
        self._agents = agents or SeenAgents()

    async def around(self, sight: Sight) -> why.Surroundings:
        """Return what there is beside a task."""
        task = sight.task
        self._membership.look()
        directory = self._membership.directory
        candidates = directory.candidates(agent=task.agent, capability=task.capability, attached=True)
        candidates = self._agents.among(directory, candidates)
        called = {one.name for one in directory.candidates(agent=task.agent, capability=task.capability)}
        barred = self._membership.policy().against(task.boundary, candidates)
        worker = sight.started.node if sight.started is not None else task.node
        return why.Surroundings(
            agents=[
                *(
                    why.Seen(one.node, one.agent, one.state, one.load, barred.get(one.name, ""), one.name not in called)
                    for one in candidates
                ),
                *(
                    why.Seen(node, one.name, directory.state(node), barred=one.why)
                    for node, one in directory.away(agent=task.agent, capability=task.capability)
                ),
            ],
            before=await self._before(sight) if sight.seq and sight.state == "pending" else None,
            node_state=directory.state(worker) if worker else "",
            lease_s=self._work.lease_s,
            spin_up=self._spinups.told(task.boundary, task.queue, missing=not candidates) if self._spinups else "",
            dropped=sight.state == "dead" and not await self._work.dead.is_there(task.run),
            held=sight.state == "pending" and await self._work.gate.holds(task),
        )

    async def beside(self, run: str, waits: list[Wait], tasks: set[str]) -> list[Wait]:
        """Return what a run waits for, with why the tasks of these steps are where they are and when that is over."""
        told = [await self._with_reason(run, one) if one.step in tasks else one for one in waits[:WAITS_MAX]]
        return told + waits[WAITS_MAX:]

    async def _with_reason(self, run: str, wait: Wait) -> Wait:
        sight = await self._work.look(run, wait.step)
        if sight is None:  # nobody has given it out yet: a limit holds it up
            return wait
        reason = why.explain(sight, await self.around(sight), clock.now_ns())
        due_ns = sight.outcome.due_ns if sight.state == "waiting" and sight.outcome is not None else 0
        return wait.model_copy(update={"why": reason, "until": moment(due_ns) or wait.until})

    async def _before(self, sight: Sight) -> int | None:
        """Return how many tasks of its queue come before one; None when that cannot be told."""
        queue = queues.Queue(sight.task.boundary, sight.task.queue, sight.task.lane)
        connection, count = self._membership.connection, reading.count_from
        given = await queues.given_up_to(connection, queue)
        if given is None:
            return None
        from_there = await count(connection, subjects.TASKS, queue.filter, sight.seq)
        return max(0, await count(connection, subjects.TASKS, queue.filter, given + 1) - from_there)
