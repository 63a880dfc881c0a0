"""What does a node tell others about itself? One record, written by its owner only."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec

from knotwork.bus import subjects
from knotwork.sdk.errors import Invalid

Name = Annotated[str, msgspec.Meta(max_length=256)]
Text = Annotated[str, msgspec.Meta(max_length=16_384)]
Count = Annotated[int, msgspec.Meta(ge=0, le=1_000_000_000)]
Beats = Annotated[int, msgspec.Meta(ge=1, le=10_000)]
Time = Annotated[int, msgspec.Meta(ge=0, le=4_000_000_000_000_000_000)]
"""Bounds for what others write: a number that cannot be counted with would break every reader."""


class AgentRecord(msgspec.Struct, frozen=True):
    """One agent of a node. `running` and `queued` are calls, as of the node's last beat."""

    name: str
    capabilities: tuple[str, ...]
    description: Text = ""
    tags: tuple[Name, ...] = ()
    boundaries: tuple[str, ...] = ()
    executor: Name = ""
    concurrency: Count = 1
    queue_max: Count = 0
    timeout_s: float = 0.0
    running: Count = 0
    queued: Count = 0
    input_schema: dict[str, Any] | None = None
    output_schema: dict[str, Any] | None = None
    attached: bool = False
    """It came in from outside: it asks for tasks, and cannot be called."""


class AwayRecord(msgspec.Struct, frozen=True):
    """One agent of a node that takes nothing now, because its plugin does not run; `why` says so in a few words."""

    name: Name
    capabilities: tuple[Name, ...] = ()
    why: Name = ""


class NodeRecord(msgspec.Struct, frozen=True):
    """One node. `uid` stays over restarts, `instance` does not; `started_ns` is nanoseconds since 1970."""

    node: Name
    uid: Name
    instance: Name
    started_ns: Time
    heartbeat_s: float
    stale_beats: Beats = 2
    offline_beats: Beats = 3
    state: Literal["online", "draining"] = "online"
    version: Name = ""
    owner: Name = ""
    host: Name = ""
    keepalive_s: float = 5.0
    labels: dict[Name, Name] = {}
    agents: tuple[AgentRecord, ...] = ()
    away: tuple[AwayRecord, ...] = ()

    @property
    def ttl_s(self) -> int:
        """Return after how many whole seconds of silence the server drops the record: when it counts as offline."""
        return max(1, int(self.heartbeat_s * self.offline_beats + 0.999))


_encoder = msgspec.json.Encoder()
_decoder = msgspec.json.Decoder(NodeRecord)
AGENTS_MAX = 10_000
LONGEST_S = 3600.0


def encode(record: NodeRecord) -> bytes:
    """Return the record as JSON."""
    return _encoder.encode(record)


def decode(key: str, data: bytes) -> NodeRecord:
    """Return the record stored under `key`; raises `Invalid` when it is malformed or speaks for another node."""
    try:
        record = _decoder.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise Invalid(f"The record of node {key} is malformed: {error}.", code="mesh.bad_record") from error
    names = [agent.name for agent in record.agents]
    tokens = [*names, *(word for agent in record.agents for word in (*agent.capabilities, *agent.boundaries))]
    sound = (
        record.node == key
        and 0 < record.heartbeat_s <= LONGEST_S
        and 0 < record.keepalive_s <= LONGEST_S
        and len(names) == len(set(names)) <= AGENTS_MAX
        and all(map(subjects.is_token, tokens))
        and all(agent.concurrency > 0 for agent in record.agents)
    )
    if not sound:
        raise Invalid(f"The record of node {key} makes no sense.", code="mesh.bad_record")
    return record
