"""Which tasks and dead letters does a filter mean? Decided here for those that are looked at one by one."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from typing import TYPE_CHECKING

from knotwork.bus import subjects
from knotwork.work import live, records

if TYPE_CHECKING:
    from knotwork.bus.connection import Connection
    from knotwork.ops.task_ports import DeadFilter, TaskFilter
    from knotwork.work.dead import Letter
    from knotwork.work.lookup import Sight
    from knotwork.work.records import Task

    Look = Callable[[str], Awaitable[Sight | None]]


async def fitting(connection: Connection, wanted: TaskFilter, look: Look) -> AsyncIterator[Sight]:
    """Yield each task that has not ended and fits; `look(run)` tells how a run is."""
    async for task in live.tasks(connection, boundary=wanted.boundary, capability=wanted.capability):
        if not _may_fit(task, wanted):
            continue
        sight = await look(task.run)
        if sight is not None and sight.state not in records.FINAL and fits(sight, wanted):
            yield sight


def may_know(task: Task, circles: tuple[str, ...] | None) -> bool:
    """Return whether those of some circles may know of a task; None: everybody."""
    return circles is None or subjects.circle_of(task.queue) in ("", *circles)


def _may_fit(task: Task, wanted: TaskFilter) -> bool:
    """Return whether a task fits, as far as it says itself."""
    return (
        may_know(task, wanted.circles)
        and wanted.capability in ("", task.capability)
        and wanted.boundary in ("", task.boundary)
        and wanted.labels <= set(task.labels.items())
        and wanted.priority_min <= task.priority <= wanted.priority_max
        and task.submitted_ns >= wanted.since_ns
        and (not wanted.until_ns or task.submitted_ns < wanted.until_ns)
        and (not wanted.text or wanted.text.encode() in bytes(task.input))
    )


def fits(sight: Sight, wanted: TaskFilter) -> bool:
    """Return whether a run fits; agent and node may be meant, or be at work."""
    task, started = sight.task, sight.started
    return (
        _may_fit(task, wanted)
        and (not wanted.states or sight.state in wanted.states)
        and wanted.agent in ("", task.agent, started.agent if started is not None else "")
        and wanted.node in ("", task.node, started.node if started is not None else "")
    )


def letter_fits(letter: Letter, wanted: DeadFilter) -> bool:
    """Return whether a dead letter fits."""
    task = letter.task
    return (
        may_know(task, wanted.circles)
        and wanted.capability in ("", task.capability)
        and wanted.agent in ("", task.agent, letter.outcome.agent)
        and wanted.boundary in ("", task.boundary)
        and wanted.code in ("", str((letter.outcome.error or {}).get("code", "")))
        and wanted.labels <= set(task.labels.items())
        and (not wanted.before_ns or letter.died_ns < wanted.before_ns)
    )
