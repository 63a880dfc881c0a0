"""How do nodes, agents and calls look to those who ask? The mesh of one project, as the ops' replies."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from knotwork.bus import codec
from knotwork.desk import route_view
from knotwork.desk.callers import caller_name
from knotwork.desk.moments import rfc3339
from knotwork.mesh import classes, late
from knotwork.mesh.calls import Answered
from knotwork.ops import replies
from knotwork.sdk.errors import KnotworkError, NotFound, guess
from knotwork.sdk.router import Ask

if TYPE_CHECKING:
    from knotwork.bus.frames import Frame
    from knotwork.desk.seen_agents import SeenAgents
    from knotwork.mesh.directory import State
    from knotwork.mesh.membership import Membership
    from knotwork.mesh.records import AgentRecord, NodeRecord
    from knotwork.ops.op import Caller
    from knotwork.ops.ports import AgentFilter, Call, RouteQuestion

PIECES_MAX = 10_000
PIECES_MAX_BYTES = 64 * 1024 * 1024
"""How far a reader may fall behind a stream."""


class MeshDesk:
    """One project's nodes and agents (`ops.ports.Mesh`)."""

    def __init__(self, membership: Membership, seen: SeenAgents) -> None:
        """Look through our membership of the project, for somebody who sees these agents."""
        self._membership, self._seen = membership, seen

    async def nodes(self) -> Sequence[replies.NodeRow]:
        """Return every node known, with how many of its agents are seen."""
        return [
            replies.NodeRow(
                node=record.node,
                name=record.node,
                state=state,
                version=record.version,
                host=record.host,
                agents=self._seen.count(record),
                labels=record.labels,
                seen_s=0.0 if record.node == self._membership.here else round(heard_s, 1),
                started_at=rfc3339(record.started_ns),
                here=record.node == self._membership.here,
            )
            for record, state, heard_s in self._membership.directory.nodes()
        ]

    async def agents(self, wanted: AgentFilter) -> Sequence[replies.AgentRow]:
        """Return the agents that fit."""
        self._membership.look()
        return [
            replies.AgentRow(**_row(record, agent, state))
            for record, agent, state in self._agents()
            if state in wanted.states
            and (not wanted.capability or wanted.capability in agent.capabilities)
            and (not wanted.node or wanted.node == record.node)
            and (not wanted.boundary or not agent.boundaries or wanted.boundary in agent.boundaries)
            and wanted.tags <= {*agent.tags, *(f"{key}={value}" for key, value in record.labels.items())}
        ]

    def _agents(self) -> Iterator[tuple[NodeRecord, AgentRecord, State]]:
        return self._seen.of(self._membership.directory)

    async def agent(self, target: str) -> replies.AgentDetail:
        """Return one agent; of several with this name the first."""
        node, _, name = self._seen.named(target).rpartition("/")
        self._membership.look()
        for record, agent, state in self._agents():
            if agent.name == name and node in ("", record.node):
                return replies.AgentDetail(
                    **_row(record, agent, state),
                    input_schema=agent.input_schema,
                    output_schema=agent.output_schema,
                    project=self._membership.project,
                    timeout_s=agent.timeout_s,
                    queue_max=agent.queue_max,
                )
        known = [name for record, agent, _ in self._agents() for name in (agent.name, f"{record.node}/{agent.name}")]
        hint = guess(target, known) or "See `knotwork agents`."
        raise NotFound(f"There is no agent {target!r}.", code="agent.not_found", hint=hint)

    async def invoke(
        self, call: Call, caller: Caller
    ) -> AsyncGenerator[replies.Progress | replies.Chunk | replies.Answer, None]:
        """Call an agent: pieces, then the answer. Closing the generator cancels the work."""
        node, _, agent = call.target.rpartition("/")
        ask = Ask(
            capability=call.capability,
            agent=agent,
            node=node,
            boundary=call.boundary or self._class_of(call.input),
            require=call.require,
            prefer=call.prefer,
            exclude=call.exclude,
            here=self._membership.here,
            key=call.sticky,
        )
        start_s = time.monotonic()
        if not call.stream:
            yield _answer(await self._call(ask, call, caller, None), start_s)
            return
        arrived = _Arrived()

        def on_piece(frame: Frame) -> None:
            if not arrived.add(frame):
                working.cancel()

        async def work() -> None:
            try:
                end: Answered | KnotworkError = await self._call(ask, call, caller, on_piece)
            except KnotworkError as error:
                end = error
            arrived.end(end)

        async with asyncio.TaskGroup() as group:
            working = group.create_task(work(), name="streamed call")
            try:
                while not isinstance(end := await arrived.next(), Answered | KnotworkError):
                    yield piece_of(end)
            except GeneratorExit:  # the group must not see it: it would take it for an error of its own
                return
            finally:
                working.cancel()
        if isinstance(end, KnotworkError):
            raise end
        yield _answer(end, start_s)

    async def why(self, question: RouteQuestion) -> replies.RouteWhy:
        """Return who would do a piece of work, and why."""
        return await route_view.explain(self._membership, question)

    def _class_of(self, value: Any) -> str:
        """Return the boundary of an input that came without one, "" when no pattern fits."""
        known = self._membership.policy().classes
        found = known.find(classes.path_in(value)) if known.by_path else None
        return found.boundary if found is not None else ""

    async def _call(self, ask: Ask, call: Call, caller: Caller, on_piece: Callable[[Frame], None] | None) -> Answered:
        return await self._membership.calls.invoke(
            ask,
            codec.encode(call.input),
            timeout_s=call.timeout_s,
            caller=caller_name(caller),
            retries=call.retries,
            key=call.idempotency_key,
            on_piece=on_piece,
            traceparent=caller.traceparent,
        )


class _Arrived:
    """What came of a streamed call and was not read yet."""

    def __init__(self) -> None:
        self._queue: asyncio.Queue[Frame | Answered | KnotworkError] = asyncio.Queue()
        self._held_bytes = 0
        self._over = False

    def add(self, frame: Frame) -> bool:
        """Keep a piece; False when the reader is too far behind, which ends the call behind what is kept."""
        if self._over:
            return False
        if self._queue.qsize() >= PIECES_MAX or self._held_bytes + len(frame.data) > PIECES_MAX_BYTES:
            self.end(late.too_slow())
            return False
        self._held_bytes += len(frame.data)
        self._queue.put_nowait(frame)
        return True

    def end(self, end: Answered | KnotworkError) -> None:
        """Take the end; the first one counts."""
        if not self._over:
            self._over = True
            self._queue.put_nowait(end)

    async def next(self) -> Frame | Answered | KnotworkError:
        """Return the next piece, or the end."""
        found = await self._queue.get()
        if not isinstance(found, Answered | KnotworkError):
            self._held_bytes -= len(found.data)
        return found


def _answer(answered: Answered, start_s: float) -> replies.Answer:
    return replies.Answer(
        output=codec.decode(answered.output),
        outcome="continue" if answered.more else "done",
        agent=f"{answered.node}/{answered.agent}",
        attempts=answered.attempts,
        took_s=round(time.monotonic() - start_s, 6),
        traceparent=answered.traceparent,
    )


def _row(record: NodeRecord, agent: AgentRecord, state: Any) -> dict[str, Any]:
    return {
        "name": f"{record.node}/{agent.name}",
        "agent": agent.name,
        "node": record.node,
        "state": state,
        "description": agent.description,
        "capabilities": list(agent.capabilities),
        "tags": list(agent.tags),
        "boundaries": list(agent.boundaries),
        "executor": agent.executor,
        "concurrency": agent.concurrency,
        "running": agent.running,
        "queued": agent.queued,
        "load": round((agent.running + agent.queued) / agent.concurrency, 3),
    }


def piece_of(frame: Frame) -> replies.Progress | replies.Chunk:
    """Return a piece of what an agent says while it works."""
    try:
        value = codec.decode(frame.data)
        if frame.kind == "progress":
            return replies.Progress(percent=value.get("percent"), text=str(value.get("text", "")))
    except (KnotworkError, AttributeError):
        return replies.Chunk(data=None)
    return replies.Chunk(data=value)
