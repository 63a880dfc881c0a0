"""How do plain NATS tools see our agents? As NATS micro services: `nats micro ls`, `info` and `stats` show them.

Protocol: NATS architecture decision record 32, "NATS Service API". nats-py's own service class is not used: it handles
one request at a time per endpoint and wants one subscription for each.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

from knotwork.bus import clock, codec, subjects
from knotwork.sdk.errors import KnotworkError

if TYPE_CHECKING:
    from knotwork.bus.connection import Connection
    from knotwork.bus.wire import Message
    from knotwork.mesh.hosting import HostedAgent

VERBS = ("PING", "INFO", "STATS")
_TYPE = "io.nats.micro.v1.{}_response"
_RELEASE = re.compile(r"(\d+)\.(\d+)(?:\.(\d+))?(.*)")


class Counts(Protocol):
    """What happened at an endpoint since the node started; `busy_ns` is nanoseconds of work."""

    requests: int
    errors: int
    busy_ns: int
    last_error: str


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where a service takes requests; `data` is what it adds to its statistics."""

    name: str
    subject: str
    queue: str
    counts: Counts
    metadata: dict[str, str] = field(default_factory=dict)
    data: dict[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class Service:
    """One service as it is shown; `id` is its own, `name` may be shared."""

    name: str
    id: str
    description: str
    metadata: dict[str, str]
    endpoints: tuple[Endpoint, ...]


def of_agent(agent: HostedAgent, node: str, instance: str) -> Service:
    """Return an agent as a service whose one endpoint is its invocation; it counts calls by whichever door."""
    record = agent.record
    invoke = Endpoint(
        "invoke",
        subjects.agent(node, record.name),
        node,
        agent.counts,
        {"executor": record.executor, "tags": ",".join(record.tags)},
        {"running": agent.admission.running, "queued": agent.admission.queued},
    )
    metadata = {"node": node, "capabilities": ",".join(record.capabilities)}
    return Service(record.name, f"{instance}-{record.name}", record.description, metadata, (invoke,))


def semver(version: str) -> str:
    """Return a Python version as a semantic version, which is what the protocol demands: `1.2.dev3` is `1.2.0-dev3`."""
    found = _RELEASE.match(version)
    if found is None:
        return "0.0.0"
    major, minor, patch, rest = found.groups()
    rest = re.sub(r"[^0-9A-Za-z]+", "-", rest).strip("-")
    return f"{int(major)}.{int(minor)}.{int(patch or 0)}" + (f"-{rest}" if rest else "")


class Micro:
    """Answers `$SRV.>` for the services of this node in one project."""

    def __init__(
        self, connection: Connection, services: Callable[[str], Iterable[Service]], *, version: str, started_ns: int
    ) -> None:
        """Describe what `services(name)` yields at the moment of the question; the empty name means all."""
        self._connection = connection
        self._services = services
        self._version = semver(version)
        self._started = clock.written(started_ns)

    async def open(self) -> None:
        """Listen to the questions."""
        for verb in VERBS:
            await self._connection.listen(f"$SRV.{verb}", self._asked)
            await self._connection.listen(f"$SRV.{verb}.>", self._asked)

    def _asked(self, message: Message) -> None:
        if not subjects.may_answer(message.reply):
            return
        _, verb, *wanted = message.subject.split(".")
        for service in self._services(wanted[0] if wanted else ""):
            if wanted not in ([], [service.name], [service.name, service.id]):
                continue
            try:
                self._connection.send(message.reply, codec.encode(self._answer(verb, service)))
            except KnotworkError:
                return  # the link is gone, and with it whoever asked

    def _answer(self, verb: str, service: Service) -> dict[str, Any]:
        answer: dict[str, Any] = {
            "type": _TYPE.format(verb.lower()),
            "name": service.name,
            "id": service.id,
            "version": self._version,
            "metadata": service.metadata,
        }
        if verb == "INFO":
            answer |= {"description": service.description, "endpoints": list(map(_shown, service.endpoints))}
        if verb == "STATS":
            answer |= {"started": self._started, "endpoints": list(_counted(service.endpoints))}
        return answer


def _shown(endpoint: Endpoint) -> dict[str, Any]:
    return {
        "name": endpoint.name,
        "subject": endpoint.subject,
        "queue_group": endpoint.queue,
        "metadata": endpoint.metadata,
    }


def _counted(endpoints: Iterable[Endpoint]) -> Iterator[dict[str, Any]]:
    for endpoint in endpoints:
        counts = endpoint.counts
        yield {
            "name": endpoint.name,
            "subject": endpoint.subject,
            "queue_group": endpoint.queue,
            "num_requests": counts.requests,
            "num_errors": counts.errors,
            "last_error": counts.last_error,
            "processing_time": counts.busy_ns,
            "average_processing_time": counts.busy_ns // max(1, counts.requests),
            "data": endpoint.data,
        }
