"""Writes into the streams what durable work writes there, without a worker: what a view has to read."""

from __future__ import annotations

import time
from typing import Any

import msgspec

from knotwork.bus import publisher, reading, subjects
from knotwork.bus.connection import Connection
from knotwork.view import archive
from knotwork.view.room import View
from knotwork.work import ids, records

FRESH_S = 30.0
"""How long a test waits for what was stored: it takes milliseconds, on a busy machine seconds."""


class Past:
    """Somebody who works."""

    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        self._moment_ns = time.time_ns()

    def task(self, **given: Any) -> records.Task:
        self._moment_ns += 1_000_000
        run = ids.new_run(self._moment_ns)
        fields: dict[str, Any] = {"run": run, "queue": "echo", "capability": "echo", "submitted_ns": self._moment_ns}
        return records.Task(**{**fields, **given})

    async def submit(self, **given: Any) -> records.Task:
        task = self.task(**given)
        await self.put(task.subject, records.encode(task))
        return task

    async def end(self, task: records.Task, state: Any = "completed", **given: Any) -> records.Outcome:
        fields: dict[str, Any] = {"node": "here", "agent": "ann", "output": msgspec.Raw(b'"done"')}
        fields |= {"started_ns": task.submitted_ns + 1, "ended_ns": task.submitted_ns + 2}
        if state not in ("completed", "continued"):
            fields["error"] = {"kind": "failed", "code": f"test.{state}", "message": "on purpose"}
        outcome = records.Outcome(state, records.raw(task), **{**fields, **given})
        place = records.outcome_subject(task.run, task.step, task.iteration, task.number)
        await self.put(place, records.encode(outcome))
        return outcome

    async def started(self, task: records.Task, delivery: int = 1) -> None:
        fact = records.Started("there", "bob", task.submitted_ns + 1, delivery)
        await self.put(self._trace(task, "started", delivery), records.encode(fact))

    async def released(self, task: records.Task, delivery: int = 1) -> None:
        fact = records.Released("there", "bob", task.submitted_ns + 2, "node.draining")
        await self.put(self._trace(task, "released", delivery), records.encode(fact))

    @staticmethod
    def _trace(task: records.Task, what: str, delivery: int) -> str:
        return f"{records.facts_of(task.run)}.{what}.task.{task.iteration}.{task.number}.{delivery}"

    async def pack(self, *, forget: bool = True) -> None:
        """Do at once what the archiver does within half a minute: everything that ended goes to ARCHIVE."""
        found = await reading.batch(self.connection, subjects.FACTS, archive.OUTCOMES, 1, 5000)
        for place, segment in archive.pack(found):
            await self.put(subjects.archived(place), segment)
        if forget and found:
            for pattern in (archive.OUTCOMES, *archive.TRACES):
                await reading.purge(self.connection, subjects.FACTS, pattern, found[-1].seq + 1)
            await reading.purge(self.connection, subjects.TASKS, "task.>", 0)

    async def put(self, subject: str, data: bytes) -> None:
        await publisher.publish(self.connection, subject, data)


async def states(view: View) -> dict[str, str]:
    """Return the state of every task, when everything that was stored is read."""
    rows = (await view.list(limit=10_000, fresh_s=FRESH_S)).rows
    return {row["id"]: row["state"] for row in rows}
