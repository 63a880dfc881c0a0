"""How do clients of the Synadia Agent Protocol v0.3 reach our agents? As the micro service `agents`, prompts streamed back.

Each agent that may be called is one instance: `agent` is the type of its executor, `owner` the node, `session` the
agent's name. A prompt becomes a call like any other: admission, queue, deadline and drain hold for it.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import secrets
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING, Any

from knotwork.bus import codec, patterns, subjects
from knotwork.bus.frames import Envelope
from knotwork.bus.waits import set_within
from knotwork.mesh import prompts
from knotwork.mesh.job import Tally
from knotwork.mesh.micro import Endpoint, Service
from knotwork.mesh.prompt_stream import PromptStream
from knotwork.sdk.errors import KnotworkError, NotFound
from knotwork.telemetry import trace

if TYPE_CHECKING:
    from knotwork.bus.connection import Connection
    from knotwork.bus.wire import Message
    from knotwork.mesh.hosting import HostedAgent, Hosting

SERVICE = "agents"
QUEUE = "agents"
INTERVAL_S = 30
"""Between two heartbeats; a client counts an agent as offline after three."""


class AgentProtocol:
    """Our agents of one project as this protocol sees them."""

    def __init__(
        self,
        connection: Connection,
        hosting: Hosting,
        agents: Callable[[], tuple[HostedAgent, ...]],
        *,
        project: str,
        node: str,
        instance: str,
    ) -> None:
        """Show whatever `agents` returns at the moment; calls go to `hosting`."""
        self._connection, self._hosting, self._agents = connection, hosting, agents
        self._project, self._node, self._instance = project, node, instance
        self._tallies: dict[tuple[str, str], Tally] = {}
        self._due_s: dict[str, float] = {}
        self._changed = asyncio.Event()
        self._prefix, self._numbers = f"ap-{secrets.token_hex(6)}", itertools.count()

    async def open(self) -> None:
        """Listen for prompts and questions about status."""
        await self._connection.listen(patterns.prompts_of(self._node, "prompt"), self._prompted, QUEUE)
        await self._connection.listen(patterns.prompts_of(self._node, "status"), self._asked, QUEUE)

    async def run(self) -> None:
        """Send heartbeats until cancelled: at once for an agent that is new and after a reconnect."""
        forget = self._connection.on_up(self._reconnected)
        try:
            while True:
                self._changed.clear()
                pause_s = self._beat(time.monotonic())
                await set_within(self._changed, pause_s)
        finally:
            forget()

    def changed(self) -> None:
        """Take note that our agents are different."""
        self._changed.set()

    def services(self, name: str) -> Iterator[Service]:
        """Yield each agent as an instance of the service `agents`, when `name` is that or empty."""
        if name not in ("", SERVICE):
            return
        for agent in self._shown():
            endpoints = tuple(
                Endpoint(verb, self._subject(verb, agent), QUEUE, self._tally(verb, agent), self._metadata(verb))
                for verb in ("prompt", "status")
            )
            record = agent.record
            metadata = {**self._who(agent), "protocol_version": prompts.VERSION}
            yield Service(SERVICE, self._id(record.name), record.description or record.name, metadata, endpoints)

    # -- within ------------------------------------------------------------------------------------------------------

    def _shown(self) -> tuple[HostedAgent, ...]:
        return () if self._hosting.draining else self._agents()

    def _reconnected(self) -> None:
        self._due_s.clear()
        self._changed.set()

    def _beat(self, now_s: float) -> float:
        """Send every heartbeat that is due; returns the seconds until the next one is."""
        shown = {agent.record.name: agent for agent in self._shown()}
        self._due_s = {name: due_s for name, due_s in self._due_s.items() if name in shown}
        for name, agent in shown.items():
            if self._due_s.get(name, now_s) > now_s:
                continue
            try:
                self._connection.send(self._subject("hb", agent), codec.encode(self._heartbeat(agent)))
            except KnotworkError:
                return INTERVAL_S  # no link: all of them beat again when it is back, and nothing is due before
            self._due_s[name] = now_s + INTERVAL_S
        return max(0.0, min(self._due_s.values(), default=now_s + INTERVAL_S) - now_s)

    def _prompted(self, message: Message) -> None:
        if not subjects.may_answer(message.reply):
            return
        name = message.subject.rpartition(".")[2]
        try:
            agent = self._named(message.subject)
            call = f"{self._prefix}-{next(self._numbers)}"
            gone = partial(self._hosting.cancel, self._project, call)
            stream = PromptStream(self._connection, message.reply, self._tally("prompt", agent), gone)
        except NotFound as error:
            _refuse(PromptStream(self._connection, message.reply, Tally()), error)
            return
        try:
            data = codec.encode(prompts.read(message.data))
        except KnotworkError as error:
            _refuse(stream, error)
            return
        traceparent = trace.clean((message.headers or {}).get(trace.HEADER))
        envelope = Envelope(call, caller="agent-protocol", traceparent=traceparent, plain=False)
        self._hosting.arrive(self._project, name, data, envelope, stream)
        if not stream.over:  # not refused; its work begins in a task, so nothing was said before this
            stream.ack()

    def _asked(self, message: Message) -> None:
        if not subjects.may_answer(message.reply):
            return
        try:
            agent = self._named(message.subject)
            self._tally("status", agent).requests += 1
            head, body = b"", codec.encode(self._heartbeat(agent))
        except NotFound as error:
            head, body = prompts.error_head(error), prompts.error_body(error)
        with contextlib.suppress(KnotworkError):
            self._connection.send(message.reply, body, "", head)

    def _named(self, subject: str) -> HostedAgent:
        """Return the agent that a subject means; raises `NotFound`."""
        _, _, kind, _, name = subject.split(".")
        agent = self._hosting.get(name)
        if agent is None or self._project not in agent.projects or prompts.kind(agent.record.executor) != kind:
            raise NotFound(f"There is no agent {kind}.{name} on {self._node}.", code="agent.not_found")
        return agent

    def _who(self, agent: HostedAgent) -> dict[str, str]:
        record = agent.record
        return {"agent": prompts.kind(record.executor), "owner": self._node, "session": record.name}

    def _id(self, name: str) -> str:
        return f"p{self._instance}-{name}"

    def _subject(self, verb: str, agent: HostedAgent) -> str:
        return subjects.prompt(verb, prompts.kind(agent.record.executor), self._node, agent.record.name)

    def _metadata(self, verb: str) -> dict[str, str]:
        if verb != "prompt":
            return {}
        return {"max_payload": prompts.size(self._connection.max_payload), "attachments_ok": "true"}

    def _tally(self, verb: str, agent: HostedAgent) -> Tally:
        return self._tallies.setdefault((verb, agent.record.name), Tally())

    def _heartbeat(self, agent: HostedAgent) -> dict[str, Any]:
        prompt = {"subject": self._subject("prompt", agent), "metadata": self._metadata("prompt")}
        return {
            **self._who(agent),
            "instance_id": self._id(agent.record.name),
            "ts": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
            "interval_s": INTERVAL_S,
            "protocol_version": prompts.VERSION,
            "endpoints": {"prompt": prompt},
        }


def _refuse(stream: PromptStream, error: KnotworkError) -> None:
    with contextlib.suppress(KnotworkError):  # no room for it
        stream.frame("error", prompts.error_body(error))
    stream.close()
