"""How does what somebody wants done become a task? It is checked, made, placed by today's policy, and stored."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from knotwork.bus import clock, codec, subjects
from knotwork.desk.callers import asker, caller_name
from knotwork.desk.tasks import rows as task_rows
from knotwork.desk.tasks import values as task_values
from knotwork.mesh import known_nodes
from knotwork.sdk.errors import Conflict, NotFound, Unavailable
from knotwork.trust import scopes
from knotwork.work import ids, keyed, queues, records

if TYPE_CHECKING:
    from knotwork.desk.seen_agents import SeenAgents
    from knotwork.desk.tasks.past import Past
    from knotwork.mesh.membership import Membership
    from knotwork.ops.op import Caller
    from knotwork.ops.task_ports import NewTask, RetryWish
    from knotwork.work.lookup import Sight
    from knotwork.work.records import Task
    from knotwork.work.room import Work


class NewTasks:
    """Makes tasks of one project."""

    def __init__(self, work: Work, membership: Membership, past: Past, agents: SeenAgents) -> None:
        """Store through `work`; what is long over is asked of `past`, and who is there of the project's members."""
        self._work, self._membership, self._past, self._agents = work, membership, past, agents

    async def submit(self, wanted: NewTask, caller: Caller) -> tuple[Task, bool]:
        """Store a task durably and return it; False beside it when one with its key was there before."""
        node, _, agent = self._agents.named(wanted.target).rpartition("/")
        if node:
            await self._check_node(node)
        values = self._work.values
        if wanted.blob:
            await task_values.kept_input(values.blobs, wanted.blob)
        value, digest = await values.keep(codec.encode(wanted.input))
        task = made(wanted, caller, (value, wanted.blob or digest), (node, agent), clock.now_ns())
        task = await self._work.placed(task, wanted.input)
        if wanted.key and await self._was_done(task):
            return task, False
        return task, await self._work.submitter.submit(task)

    async def submit_anew(self, ended: Sight, caller: Caller) -> Task:
        """Store the work of an ended task as a new one; raises `Conflict` (`work.not_ended`, `work.input_not_kept`)."""
        task = await self._work.placed(made_anew(ended, caller, clock.now_ns()))
        await self._work.submitter.submit(task)
        return task

    def note(self, task: Task) -> str:
        """Return what whoever submits should know: that nobody is there to do it now."""
        candidates = self._membership.directory.candidates(
            agent=task.agent, node=task.node, capability=task.capability, attached=True
        )  # fmt: skip
        candidates = self._agents.among(self._membership.directory, candidates)
        barred = self._membership.policy().against(task.boundary, candidates)
        if any(one.state == "online" and one.name not in barred for one in candidates):
            return ""
        name = f"agent {task_rows.place(task.node, task.agent)}" if task.agent else f"capability {task.capability}"
        return f"Nobody is there to do it now ({name}); it waits until somebody is."

    async def _was_done(self, task: Task) -> bool:
        """Return whether a task with a key has ended, longer ago than keys are remembered but not than the past is.

        Its id would be the same, so it is the same task. Raises `Conflict` (`work.key_reused`) for other work.
        """
        try:
            outcome = await self._past.latest(task.run, lately=False)
        except Unavailable:  # the view is being made: keys are remembered for a day without it
            return False
        if outcome is None or outcome.state not in records.FINAL:
            return False
        keyed.check_same(records.decode_task(bytes(outcome.task)).asked, task)
        return True

    async def _check_node(self, node: str) -> None:
        """Raise `NotFound` (`work.no_such_node`) for a node that nobody has ever seen."""
        if any(record.node == node for record, _, _ in self._membership.directory.nodes()):
            return
        if not await known_nodes.is_known(self._membership.connection, node):
            raise NotFound(
                f"There is no node {node!r}, and never was.", code="work.no_such_node",
                hint="See `knotwork nodes`; a capability or an agent without its node waits for whoever comes.",
            )  # fmt: skip


def made(wanted: NewTask, caller: Caller, value: tuple[bytes, str], target: tuple[str, str], now_ns: int) -> Task:
    """Return the task that is wanted; `value` is its input as JSON or as a blob, `target` a node and an agent, or ""."""
    node, agent = target
    own = scopes.circle(wanted.scope, caller.who)
    task = records.Task(
        run=keyed.keyed_run(f"{own}{wanted.key}") if wanted.key else ids.new_run(now_ns),
        queue=subjects.own(own, wanted.capability) if own else queues.routed(wanted.capability, agent, node),
        capability=wanted.capability, agent=agent, node=node, boundary=wanted.boundary or records.NO_BOUNDARY,
        priority=wanted.priority, input=msgspec.Raw(value[0]), blob=value[1],
        timeout_s=wanted.attempt_timeout_s, deadline_ns=wanted.deadline_ns, retry=_retry(wanted.retry),
        key=wanted.key, labels=wanted.labels, parent=wanted.parent, traceparent=caller.traceparent,
        by=caller_name(caller), asker=asker(caller.who), submitted_ns=now_ns,
    )  # fmt: skip
    # what was asked for stays the same, wherever it is placed by today's policy
    return msgspec.structs.replace(task, asked=keyed.asked(task)) if wanted.key else task


def made_anew(ended: Sight, caller: Caller, now_ns: int) -> Task:
    """Return a new task with the work of an ended one.

    Raises `Conflict`: it has not ended (`work.not_ended`), or its input was not kept (`work.input_not_kept`).
    """
    before = ended.task
    if ended.state not in records.FINAL:
        raise Conflict(
            f"{before.run} has not ended: it is {ended.state}.", code="work.not_ended",
            hint="Wait for it, or cancel it first.",
        )  # fmt: skip
    if before.spared:
        raise Conflict(
            f"The input of {before.run} was not kept: the store had no room for it when it ended.",
            code="work.input_not_kept", hint="Submit it anew with its input.",
        )  # fmt: skip
    return msgspec.structs.replace(
        before, run=ids.new_run(now_ns), key="", asked="", deadline_ns=0, parent=before.run,
        traceparent=caller.traceparent, by=caller_name(caller), submitted_ns=now_ns, number=1, iteration=0, past=(),
        why="", asker=asker(caller.who),
        queue=queues.routed(agent=before.agent, node=before.node) if before.agent else before.queue,
    )  # fmt: skip


def _retry(wish: RetryWish) -> records.Retry:
    return records.Retry(
        wish.max_attempts, wish.backoff, wish.delay_s, wish.multiplier, wish.max_delay_s, wish.jitter, wish.on,
        wish.max_crashes,
    )  # fmt: skip
