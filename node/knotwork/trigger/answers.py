"""What does a run answer whoever waits for it? What its `respond` step gave, or what it ended with."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import msgspec

from knotwork.bus import reading, subjects
from knotwork.bus.background import what_ended
from knotwork.bus.waits import set_within
from knotwork.flow import facts, history
from knotwork.sdk.errors import Failed, KnotworkError, TimedOut, from_wire
from knotwork.work import records

if TYPE_CHECKING:
    from knotwork.bus.connection import Connection
    from knotwork.bus.wire import Message
    from knotwork.flow.facts import Finish, StepEnd
    from knotwork.flow.room import Flow
    from knotwork.work.values import Values

LOOK_S = 1.0
_ends = msgspec.json.Decoder(facts.StepEnd)
_STATUS = {"completed": 200, "cancelled": 503}


@dataclass(frozen=True, slots=True)
class Answer:
    """What a request is answered: a status, a JSON body or an error in its place, and the run that it was for."""

    status: int
    body: bytes = b""
    run: str = ""
    error: KnotworkError | None = None


class Answers:
    """Waits for what runs of one project respond."""

    def __init__(self, connection: Connection, flow: Flow, values: Values) -> None:
        """Listen over `connection`."""
        self._connection, self._flow, self._values = connection, flow, values

    @contextlib.asynccontextmanager
    async def hearing(self) -> AsyncIterator[Heard]:
        """Hear inside the block what steps give."""
        yield Heard(self._connection, self._flow, self._values)

    def too_late(self, run: str, timeout_s: float) -> Answer:
        """Return the answer when none came in time; the run goes on."""
        error = TimedOut(
            f"The run has not answered within {timeout_s:g} s; it goes on.", code="trigger.timeout",
            hint=f"See `knotwork run show {run}`.", detail={"id": run},
        )  # fmt: skip
        return _failed(504, error.to_wire(), run)


class Heard:
    """Waits for the answer of one run."""

    def __init__(self, connection: Connection, flow: Flow, values: Values) -> None:
        """Listen over `connection`."""
        self._connection, self._flow, self._values = connection, flow, values
        self._news = asyncio.Event()

    async def answer(self, run: str) -> Answer:
        """Return what a run responds, or how it ended; bound it with `asyncio.timeout`."""
        steps = await self._responding(run)
        pattern = subjects.told(f"{facts.subject(run, 'outcome')}.>")
        listening = await self._connection.listen(pattern, lambda message: self._heard(message, steps))
        try:
            async with asyncio.TaskGroup() as group:
                ended = group.create_task(self._flow.runs.ended(run))
                ended.add_done_callback(lambda _: self._news.set())
                found = await self._first(run, steps, ended)
                ended.cancel()
        except BaseExceptionGroup as failed:
            raise what_ended(failed) from None
        finally:
            self._connection.unlisten(listening)
        return found

    def _heard(self, message: Message, steps: dict[str, int]) -> None:
        if message.subject.split(".")[4] in steps:
            self._news.set()

    async def _first(self, run: str, steps: dict[str, int], ended: asyncio.Task[Finish]) -> Answer:
        while True:
            self._news.clear()
            over = ended.done()
            with contextlib.suppress(KnotworkError):  # looked up again in a moment
                for step, status in steps.items():
                    end = await self._end_of(run, step)
                    if end is not None and end.state == "completed":
                        return Answer(status, await self._values.read(bytes(end.output), end.blob), run)
            if over:
                return await self._at_its_end(run, ended.result())
            await set_within(self._news, LOOK_S)

    async def _responding(self, run: str) -> dict[str, int]:
        """Return the steps of a run that answer, and with which status."""
        sight = await self._flow.runs.look(run)
        graph = await self._flow.definitions.graph(sight.start.digest)
        steps: dict[str, Any] = dict(graph.workflow.steps)
        return {name: step.status for name, step in steps.items() if step.kind == "respond"}

    async def _end_of(self, run: str, step: str) -> StepEnd | None:
        place = records.outcome_subject(run, step, 0, 1)
        stored = await reading.last(self._connection, subjects.FACTS, place)
        if stored is not None:
            return _ends.decode(stored.data)
        if await reading.last(self._connection, subjects.FACTS, facts.subject(run, "start")) is not None:
            return None
        kept = await history.kept_facts(self._connection, run)
        return next((_ends.decode(one.data) for one in kept if one.subject == place), None)

    async def _at_its_end(self, run: str, finish: Finish) -> Answer:
        if finish.state == "completed":
            return Answer(200, await self._values.read(bytes(finish.output), finish.blob), run)
        return _failed(_STATUS.get(finish.state, 500), finish.error or {}, run)


def _failed(status: int, error: dict[str, Any], run: str) -> Answer:
    told = error or Failed("The run failed.").to_wire()
    detail = told.get("detail")
    if isinstance(detail, dict):  # whoever asks from outside need not know our folders
        told = {**told, "detail": {key: value for key, value in detail.items() if key != "where"}}
    return Answer(status, run=run, error=from_wire(told))
