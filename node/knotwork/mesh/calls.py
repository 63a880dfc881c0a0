"""How is an agent called? Choose, send, wait; try the next when one is busy; stop the work when nobody waits any more."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import random
import secrets
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from knotwork.bus import clock, frames, subjects
from knotwork.bus.away import why_away
from knotwork.mesh import routing
from knotwork.mesh.policy import READY
from knotwork.sdk import Span
from knotwork.sdk.errors import Busy, Invalid, KnotworkError, NotFound, TimedOut, Unavailable, Unreachable
from knotwork.telemetry import trace

if TYPE_CHECKING:
    from knotwork.bus.connection import Connection
    from knotwork.bus.frames import Frame, Kind
    from knotwork.bus.wire import Message
    from knotwork.mesh.directory import Directory, Place
    from knotwork.mesh.hosting import Hosting
    from knotwork.mesh.policy import Policy
    from knotwork.sdk.router import Ask, Candidate
    from knotwork.sockets.slot import Slot
    from knotwork.telemetry.emitter import Emitter

UNFIT = "agent.bad_input"
"""The answer of an agent whose input schema refuses the input; another with the same capability may take it."""
ELSEWHERE = frozenset(
    {
        "agent.busy", "bus.no_responders", "node.draining", "node.stopping", "agent.not_found", "plugin.not_running",
        "policy.forbidden", UNFIT,
    }
)  # fmt: skip
"""Answers that mean: this one will not do it, and has not begun; ask the next. One that has begun says so in its detail."""
SHOWN_MAX = 20
LOST_AFTER = 3
"""Missed signs of life after which a node counts as lost in the middle of a call."""
BACKOFF_MAX_S = 10.0


@dataclass(frozen=True, slots=True)
class Answered:
    """What came back: the output as JSON (`more`: the agent is not finished), who gave it, and how many were tried."""

    output: bytes
    more: bool
    node: str
    agent: str
    attempts: int
    traceparent: str


@dataclass(frozen=True, slots=True)
class Asked:
    """One invocation on its way to an agent; `limit` is the deadline of the whole of it."""

    ask: Ask
    data: bytes
    caller: str
    traceparent: str
    limit: asyncio.Timeout
    on_piece: Callable[[Frame], None] | None
    key: str = ""
    number: int = 1


class Waiting:
    """One call that waits for its answer (`hosting.Answering` for calls to our own agents)."""

    __slots__ = ("_now_s", "answer", "heard_s", "loop", "more", "node", "on_piece")

    def __init__(self, node: str, on_piece: Callable[[Frame], None] | None, now_s: Callable[[], float]) -> None:
        """Wait for `node`; pieces go to `on_piece`. `now_s()` is the time by which it is heard."""
        self._now_s = now_s
        self.loop = asyncio.get_running_loop()
        self.answer: asyncio.Future[bytes] = self.loop.create_future()
        self.node = node
        self.on_piece = on_piece
        self.more = False
        self.heard_s = now_s()

    def frame(self, kind: Kind, data: bytes) -> None:
        """Take a frame of an agent of this node."""
        self.take(frames.Frame(kind, data))

    def close(self) -> None:
        """Hear that nothing more comes (`hosting.Answering`): whoever waits is on this node, and got everything."""

    def arrived(self, message: Message) -> None:
        """Take a message of an agent elsewhere; a result carries no header at all."""
        if message.headers is None:
            if not self.answer.done():
                self.answer.set_result(message.data)
        else:
            self.take(frames.read(message))

    def take(self, frame: Frame) -> None:
        """Take one frame."""
        self.heard_s = self._now_s()
        if self.answer.done():
            return
        if frame.kind in ("result", "continue"):
            self.more = frame.kind == "continue"
            self.answer.set_result(frame.data)
        elif frame.kind == "error":
            self.answer.set_exception(frames.read_error(frame.data))
        elif frame.kind != "alive" and self.on_piece is not None:
            self.on_piece(frame)

    def lost(self, why: str) -> None:
        """Give up: whoever should answer is gone."""
        if not self.answer.done():
            self.answer.set_exception(
                Unreachable(
                    f"{self.node} was lost during the call: {why}.",
                    code="node.lost",
                    hint="The work may have been done or not; call again if that does no harm.",
                )
            )


class Calls:
    """The caller's side of one project."""

    def __init__(
        self,
        connection: Connection,
        directory: Directory,
        hosting: Hosting,
        routers: Callable[[], Sequence[Slot]],
        emitter: Emitter,
        *,
        here: str,
        project: str,
        policy: Callable[[], Policy] = lambda: READY,
        now_s: Callable[[], float] = time.monotonic,
    ) -> None:
        """Call through `connection`, or straight into `hosting` for our own agents.

        Of those whom `policy` allows, `routers` choose, asked in order. Silence is measured by `now_s()`.
        """
        self._now_s = now_s
        self._connection = connection
        self._directory = directory
        self._hosting = hosting
        self._routers, self._policy = routers, policy
        self._emitter = emitter
        self._here = here
        self._project = project
        self._waiting: set[Waiting] = set()
        self._prefix = secrets.token_hex(6)
        self._numbers = itertools.count()
        directory.on_gone(self._gone)

    async def invoke(
        self,
        ask: Ask,
        data: bytes,
        *,
        timeout_s: float,
        caller: str,
        retries: int = 0,
        key: str = "",
        on_piece: Callable[[Frame], None] | None = None,
        traceparent: str = "",
    ) -> Answered:
        """Call and return the answer; pieces go to `on_piece` as they come.

        Raises what the agent answered, `TimedOut` after `timeout_s` seconds for everything together, and what
        `routing.choose` raises. Another agent is tried only when the one before did not begin; `retries` allow as many
        further tries after failures that may pass.
        """
        span = trace.child_of(traceparent or trace.current.get())
        start_ns = clock.now_ns()
        error = ""
        attempts = 0
        try:
            async with asyncio.timeout(timeout_s) as limit:
                key = key or (f"{self._prefix}-{next(self._numbers)}" if retries else "")
                while True:
                    attempts += 1
                    asked = Asked(ask, data, caller, span.traceparent, limit, on_piece, key, attempts)
                    try:
                        place, output, more = await self._route(asked)
                    except KnotworkError as failure:
                        if attempts > retries or not _may_pass(failure):
                            raise
                        await asyncio.sleep(_pause_s(failure, attempts))
                    else:
                        return Answered(output, more, place.node, place.record.name, attempts, span.traceparent)
        except TimeoutError:
            error = "call.timed_out"
            wanted = ask.agent or ask.capability
            raise TimedOut(
                f"{wanted} did not answer within {timeout_s:g} s; it was told to stop.",
                code="call.timed_out",
                hint="Allow more time with timeout_s.",
            ) from None
        except KnotworkError as failure:
            error = failure.code
            raise
        except asyncio.CancelledError:
            error = "call.cancelled"
            raise
        finally:
            if self._emitter.wants_spans and trace.sampled(span.traceparent):
                self._tell(ask, span, start_ns, error)

    async def who(self, ask: Ask, directory: Directory | None = None) -> Sequence[Candidate]:
        """Return who would be tried, best first; raises what `routing.choose` raises."""
        try:
            return await routing.choose(self._routers(), ask, directory or self._directory, self._policy())
        except (NotFound, Unavailable):
            self._tell_of_ours(ask)
            if (away := why_away(self._connection)) is not None:  # who is not here cannot be asked for
                raise away from None
            raise

    def _tell_of_ours(self, ask: Ask) -> None:
        """Raise why an agent of this node cannot be seen, when it is the one that is meant: its plugin does not run."""
        if ask.node not in ("", self._here):
            return
        for agent in self._hosting.agents():
            meant = agent.record.name == ask.agent if ask.agent else ask.capability in agent.record.capabilities
            if meant and self._project in agent.projects and agent.slot.state != "running":
                _ = agent.slot.plugin  # raises `plugin.not_running` with the reason

    def watch_over(self) -> None:
        """Give up calls whose node has been silent for too long; call it every second or so.

        Only silence on a link counts: while NATS is away nobody can be heard, and their answers come when it is back.
        """
        if not self._waiting or self._connection.state != "connected":
            return
        now_s, up_for_s = self._now_s(), self._connection.up_for_s()
        for waiting in list(self._waiting):
            silent_s = min(now_s - waiting.heard_s, up_for_s)
            if silent_s > self._directory.keepalive_s(waiting.node) * LOST_AFTER:
                waiting.lost(f"no sign of life for {silent_s:.0f} s")

    async def _route(self, asked: Asked) -> tuple[Place, bytes, bool]:
        refused: list[KnotworkError] = []
        unfit: list[object] = []  # schemas that refused the input: others with the same would, too
        for candidate in await self.who(asked.ask):
            place = self._directory.place(candidate.node, candidate.agent)
            if place is None or (unfit and place.record.input_schema in unfit):
                continue
            try:
                output, more = await self._call(candidate, place, asked)
            except KnotworkError as error:
                if error.code not in ELSEWHERE or error.detail.get("begun"):
                    raise
                if error.code == UNFIT and place.record.input_schema is not None:
                    unfit.append(place.record.input_schema)
                refused.append(error if error.code != "bus.no_responders" else _away(candidate))
            else:
                return place, output, more
        raise _everyone_refused(asked.ask, refused)

    async def _call(self, candidate: Candidate, place: Place, asked: Asked) -> tuple[bytes, bool]:
        ask, waiting = asked.ask, Waiting(candidate.node, asked.on_piece, self._now_s)
        when = asked.limit.when()
        left_s = max(0.001, when - waiting.loop.time()) if when is not None else None
        call_id = f"{self._prefix}-{next(self._numbers)}"
        envelope = frames.Envelope(
            call_id,
            left_s,
            asked.caller,
            ask.capability,
            ask.boundary,
            asked.number,
            asked.key,
            asked.traceparent,
            plain=False,
        )
        local = candidate.node == self._here
        reply = ""
        place.ours.now += 1
        try:
            if local:
                self._hosting.arrive(self._project, candidate.agent, asked.data, envelope, waiting)
            else:
                self._waiting.add(waiting)
                reply = self._connection.open_reply(waiting.arrived)
                subject = subjects.agent(candidate.node, candidate.agent)
                self._connection.send(subject, asked.data, reply, envelope.head())
            return await waiting.answer, waiting.more
        finally:
            place.ours.now -= 1
            if not local:
                self._waiting.discard(waiting)
                self._connection.close_reply(reply)
            if not waiting.answer.done() or waiting.answer.cancelled():
                self._stop(candidate.node, call_id, local=local)

    def _stop(self, node: str, call_id: str, *, local: bool) -> None:
        """Tell the other side that nobody waits any more."""
        if local:
            self._hosting.cancel(self._project, call_id)
        else:
            with contextlib.suppress(KnotworkError):  # it would replace the cancellation that brought us here
                self._connection.send(subjects.cancel(node, call_id))

    def _gone(self, node: str) -> None:
        for waiting in [one for one in self._waiting if one.node == node]:
            waiting.lost("it left")

    def _tell(self, ask: Ask, span: trace.Child, start_ns: int, error: str) -> None:
        name = ask.agent or ask.capability
        self._emitter.emit(
            Span(
                f"invoke {name}", span.trace_id, span.span_id, span.parent_id, start_ns, clock.now_ns(), "client",
                not error, error, self._here, self._project, {"knotwork.wanted": name},
            )
        )  # fmt: skip


def _may_pass(error: KnotworkError) -> bool:
    return error.retriable or bool(error.detail.get("retriable"))


def _pause_s(error: KnotworkError, attempts: int) -> float:
    """Return how long to wait before the next try: what was asked for, else exponential with full jitter."""
    if error.retry_after_s is not None:
        return min(error.retry_after_s, BACKOFF_MAX_S)
    return random.uniform(0, min(BACKOFF_MAX_S, 0.1 * 2**attempts))  # noqa: S311  (jitter, not a secret)


def _away(candidate: Candidate) -> Unreachable:
    """Return the error of a call that nobody took: its node is listed until it has been silent for long enough."""
    return Unreachable(
        f"{candidate.name} cannot be reached: nobody answers for node {candidate.node} any more.",
        code="agent.away",
        hint=f"See `knotwork nodes`; start {candidate.node} again, or give another agent the same capability.",
        detail={"agent": candidate.agent, "node": candidate.node},
    )


def _everyone_refused(ask: Ask, refused: list[KnotworkError]) -> KnotworkError:
    if len(refused) == 1:
        return refused[0]
    if refused and all(error.code == UNFIT for error in refused):
        told = " ".join(dict.fromkeys(error.message for error in refused[:SHOWN_MAX]))
        return Invalid(told, code=UNFIT, hint=refused[0].hint, detail=refused[0].detail)
    told = "; ".join(error.message for error in refused[:SHOWN_MAX])
    if refused and all(isinstance(error, Busy) for error in refused):
        hint = "Try again, raise their concurrency or queue_max, or give others the same capability."
        return Busy(f"All {len(refused)} agents are busy. {told}", code="agent.busy", hint=hint, retry_after_s=1.0)
    return Unavailable(
        f"No agent took the call for {ask.agent or ask.capability}. {told}",
        code="route.no_eligible_agent",
        detail={"refused": [error.to_wire() for error in refused[:SHOWN_MAX]]},
        retry_after_s=1.0,
    )
