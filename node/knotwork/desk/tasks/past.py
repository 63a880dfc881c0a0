"""What does the view know of tasks that are long over, and of all of them together? Its rows as the ops' replies."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

from knotwork.bus import subjects
from knotwork.desk.moments import moment
from knotwork.ops import task_replies
from knotwork.sdk.errors import Unavailable
from knotwork.view.lists import Filter
from knotwork.work import records

if TYPE_CHECKING:
    from collections.abc import Mapping

    from knotwork.ops.task_ports import TaskFilter
    from knotwork.view.room import View
    from knotwork.work.records import Outcome


class Past(Protocol):
    """What is kept of tasks that FACTS has forgotten, and what is known of all of them."""

    async def latest(self, run: str, *, lately: bool = True) -> Outcome | None:
        """Return the outcome of the last attempt of a run that has one, None when that is not known.

        Without `lately` one of the last minute may be left out: nothing is waited for.
        """

    async def list(self, wanted: TaskFilter) -> task_replies.TaskList:
        """Return the tasks that fit, the newest first, a page at a time."""

    async def counts(self) -> dict[str, int]:
        """Return how many tasks there are in each state; nothing while nobody can tell."""


class ViewedPast:
    """The past as the view has it (`Past`)."""

    def __init__(self, view: View) -> None:
        """Ask `view`."""
        self._view = view

    async def latest(self, run: str, *, lately: bool = True) -> Outcome | None:
        """Return the outcome of the last attempt of a run that has one, None when that is not known."""
        data = await self._view.outcome(run, lately=lately)
        return None if data is None else records.decode_outcome(data)

    async def list(self, wanted: TaskFilter) -> task_replies.TaskList:
        """Return the tasks that fit, the newest first, a page at a time."""
        page = await self._view.list(_filter(wanted), cursor=wanted.cursor, limit=wanted.limit)
        return task_replies.TaskList(tasks=[_row(row) for row in page.rows], next=page.cursor)

    async def counts(self) -> dict[str, int]:
        """Return how many tasks there are in each state; nothing while the view cannot tell."""
        try:
            found = await self._view.counts(("state",))
        except Unavailable:
            return {}
        return {state: count for (state,), count in found.items() if count}


def _filter(wanted: TaskFilter) -> Filter:
    return Filter(
        states=wanted.states, capability=wanted.capability, boundary=wanted.boundary, node=wanted.node,
        agent=wanted.agent, labels=dict(wanted.labels), since_ns=wanted.since_ns, until_ns=wanted.until_ns,
        text=wanted.text, moving=wanted.moving, priority_min=wanted.priority_min, priority_max=wanted.priority_max,
        circles=wanted.circles,
    )  # fmt: skip


def _row(row: Mapping[str, Any]) -> task_replies.TaskRow:
    node, agent = subjects.addressee(str(row["target"])) or ("", "")
    meant = f"{node}/{agent}" if node else agent
    return task_replies.TaskRow(
        id=row["id"], state=row["state"], capability=row["capability"], agent=meant,
        boundary=records.shown_boundary(row["boundary"]), priority=row["priority"],
        attempt=row["attempts"], iteration=row["iteration"], worker=row["worker"],
        submitted_at=moment(row["submitted_ns"]),
        started_at=moment(row["started_ns"]), ended_at=moment(row["ended_ns"]), due_at=moment(row["due_ns"]),
        deadline=moment(row["deadline_ns"]), code=row["code"], by=row["submitter"], parent=row["parent"],
        labels=row["labels"],
    )  # fmt: skip
