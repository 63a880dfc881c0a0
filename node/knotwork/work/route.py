"""Where does a task wait, and why there? Its boundary is found, then the routers may put it into one agent's own queue.

By default it waits in the queue of its capability, so that whoever is free first takes it: that balances load better
than any choice made beforehand. Only a router that pins (`sticky`, `round-robin`) chooses an agent, and only one that
is online; whoever names an agent has chosen already. All of it is told in `Task.why`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from knotwork.bus import subjects
from knotwork.mesh import classes, routing
from knotwork.mesh.policy import NONE
from knotwork.sdk.errors import Denied, KnotworkError
from knotwork.sdk.router import Ask
from knotwork.work import queues, records

if TYPE_CHECKING:
    from collections.abc import Mapping

    from knotwork.mesh.membership import Membership
    from knotwork.mesh.policy import Policy
    from knotwork.work.records import Task

KEY_LABEL = "sticky"
"""The label whose value is what `sticky` keeps together."""
PATH_LABEL = "path"
PINS = "pins"
"""What a router is able to do that chooses agents for tasks."""
SHOWN_MAX = 5


class _HasPath(msgspec.Struct):
    """The one field of an input that is looked at."""

    path: str = ""


_input = msgspec.json.Decoder(_HasPath)


class Routing:
    """Places the tasks of one project."""

    def __init__(self, membership: Membership) -> None:
        """Follow the policy and the routers of `membership`."""
        self._membership = membership

    async def placed(self, task: Task, value: Any = None) -> Task:
        """Return a new task with boundary, queue and `why` filled in; `value` is its input when that is kept elsewhere.

        Raises `Invalid` (`policy.unknown_boundary`), and `Denied` (`policy.forbidden`) when an agent is named that may
        not do such work.
        """
        policy = self._membership.policy()
        task, why = bounded(task, policy, value)
        return _told(task, why, *await self.route(task, policy))

    def placed_at_once(self, task: Task) -> Task | None:
        """Do the same without asking routers; None when one must be asked."""
        policy = self._membership.policy()
        task, why = bounded(task, policy)
        route = self._unasked(task, policy)
        return None if route is None else _told(task, why, *route)

    def _unasked(self, task: Task, policy: Policy) -> tuple[str, str] | None:
        """Return the queue of a task, and why it is that one, when that follows without any router."""
        if subjects.circle_of(task.queue):
            return (
                task.queue,
                f"it waits for those with {task.capability} whom {task.by or 'whoever submitted it'} meant",
            )
        queue = queues.routed(task.capability, task.agent, task.node)
        if task.agent:
            named = f"{queue.lstrip('=').replace('=', '/')} was named by {task.by or 'whoever submitted it'}"
            if task.queue == subjects.seen(task.agent):
                return task.queue, named
            self._check_named(task, policy)
            return queue, named
        if not any(PINS in slot.factory.abilities for slot in self._membership.routers()):
            return queue, self._pulled(task, policy)
        return None

    async def route(self, task: Task, policy: Policy) -> tuple[str, str]:
        """Return the queue of a task whose boundary is known, and why it is that one."""
        if (route := self._unasked(task, policy)) is not None:
            return route
        queue, routers = queues.routed(task.capability), self._membership.routers()
        ask = Ask(
            capability=task.capability, boundary=task.boundary, here=self._membership.here,
            key=task.labels.get(KEY_LABEL, ""),
        )  # fmt: skip
        try:
            choice = await routing.decide(routers, ask, self._membership.directory, policy)
        except KnotworkError as error:
            return queue, f"nobody can be chosen now, so it waits for any agent with {task.capability}: {error.message}"
        if not choice.answer.pin:
            return queue, f"{choice.router} leaves it to any agent with {task.capability}{_left_out(choice.forbidden)}"
        first = choice.candidates[0]
        why = f"{choice.router} chose {first.name}: {choice.reason}{_left_out(choice.refused)}"
        return queues.routed(agent=first.agent, node=first.node), why

    def near(self, task: Task, node: str, agent: str) -> str:
        """Return an agent of a node that can do a task and may, this one rather than others; "" when there is none."""
        asked = {"agent": task.agent} if task.agent else {"capability": task.capability}
        found = self._membership.directory.candidates(**asked, node=node, attached=True)
        found = [one for one in found if one.state in ("online", "stale")]
        if task.boundary != NONE:
            found, _ = self._membership.policy().sift(task.boundary, found)
        best = min(found, key=lambda one: (one.agent != agent, one.load, one.agent), default=None)
        return best.agent if best is not None else ""

    def _check_named(self, task: Task, policy: Policy) -> None:
        """Raise `Denied` when every agent of this name that is there may not do such work."""
        if task.boundary == NONE:
            return
        candidates = self._membership.directory.candidates(agent=task.agent, node=task.node, attached=True)
        may, refused = policy.sift(task.boundary, candidates)
        if refused and not may:
            told = "; ".join(f"{name}: {why}" for name, why in list(refused.items())[:SHOWN_MAX])
            raise Denied(
                f"{task.agent} may do no {task.boundary} work. {told}.", code="policy.forbidden",
                hint="Name a capability instead, or see `knotwork route explain`.",
            )  # fmt: skip

    def _pulled(self, task: Task, policy: Policy) -> str:
        """Return why a task waits for whoever is free first, and who of those there are now is out of the question."""
        why = f"it waits for whoever has {task.capability} and is free first"
        if task.boundary == NONE:
            return why
        candidates = self._membership.directory.candidates(capability=task.capability)  # of others not all see all
        judged = (
            (one.name, policy.judge(task.boundary, one.node, one.agent, one.executor, one.boundaries))
            for one in candidates
        )
        return why + _left_out({name: judgement.why for name, judgement in judged if not judgement.may})


def _told(task: Task, why: str, queue: str, more: str) -> Task:
    """Return a task in its queue, with all that led there."""
    told = "; ".join(part for part in (why, more) if part)
    return msgspec.structs.replace(task, queue=queue, why=told[: records.WHY_MAX])


def near(task: Task, node: str, agent: str, *, hard: bool) -> Task:
    """Return a task as it waits for an agent on a node, "" for none; `hard`: for that one alone (pure)."""
    if not agent:
        told = f"{task.why}; it was to be done on {node}, where nobody can do it"
        return msgspec.structs.replace(task, why=told[-records.WHY_MAX :])
    told = f"a step before it was done on {node}, so it is done by {agent} there"
    task = msgspec.structs.replace(task, queue=queues.routed(agent=agent, node=node), why=told)
    return msgspec.structs.replace(task, agent=agent, node=node) if hard else task


def bounded(task: Task, policy: Policy, value: Any = None) -> tuple[Task, str]:
    """Return a task with its boundary, and why it is that one; raises `Invalid` (`policy.unknown_boundary`).

    What a submitter names holds; work without a boundary is classified by its path (the label `path`, else the field
    `path` of its input) and its labels.
    """
    boundary = policy.admit(task.boundary)
    if boundary != NONE:
        return task, f"boundary {boundary}: it was named"
    found = policy.classes.find(_path(task, policy, value), task.labels)
    if found is None:
        return task, ""
    return msgspec.structs.replace(task, boundary=found.boundary), f"boundary {found.boundary}: {found.why}"


def _path(task: Task, policy: Policy, value: Any) -> str:
    if not policy.classes.by_path:
        return ""
    path = task.labels.get(PATH_LABEL, "") or classes.path_in(value)
    if path or not bytes(task.input).startswith(b"{"):
        return path
    try:
        return _input.decode(task.input).path
    except msgspec.DecodeError:  # a path that is no text
        return ""


def _left_out(refused: Mapping[str, str]) -> str:
    if not refused:
        return ""
    shown = "; ".join(f"{name}: {why}" for name, why in list(refused.items())[:SHOWN_MAX])
    more = len(refused) - SHOWN_MAX
    return f" (left out: {shown}" + (f"; and {more} more, see `knotwork route explain`)" if more > 0 else ")")
