"""What is kept of targets and launches? One record each in the TARGETS bucket.

The node that owns a target writes both; that it is disabled any node may write into the target's.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec

from knotwork.sdk.errors import Invalid

Name = Annotated[str, msgspec.Meta(max_length=256)]
Token = Annotated[str, msgspec.Meta(max_length=64)]
Text = Annotated[str, msgspec.Meta(max_length=4096)]
Time = Annotated[int, msgspec.Meta(ge=0, le=4_000_000_000_000_000_000)]
Count = Annotated[int, msgspec.Meta(ge=0, le=1_000_000_000)]

State = Literal["starting", "up", "idle", "stopping", "stopped", "failed"]
ALIVE: frozenset[str] = frozenset({"starting", "up", "idle"})
LIVE: frozenset[str] = ALIVE | {"stopping"}
Health = Literal["unknown", "healthy", "unhealthy"]


class Target(msgspec.Struct, frozen=True, omit_defaults=True):
    """One target of one node, as every node ranks it. `cost` is in the operator's own unit; times in seconds.

    `wait_s` is how long work may wait for busy agents before one more is started, 0: for ever. `enabled` is the
    configuration's word, `disabled` somebody's at run time. `capabilities` empty: any. `running` counts its live
    launches, `failures` those that failed in a row, `failed_why` why the last one did, `useless` those in a row whose
    agent came and took nothing.
    """

    node: Token
    target: Token
    type: Name = ""
    capabilities: tuple[Token, ...] = ()
    boundaries: tuple[Token, ...] = ()
    cost: float = 0.0
    max_concurrent: Count = 1
    cooldown_s: float = 30.0
    register_s: float = 120.0
    wait_s: float = 0.0
    enabled: bool = True
    disabled: bool = False
    health: Health = "unknown"
    why: Text = ""
    checked_ns: Time = 0
    running: Count = 0
    failures: Count = 0
    failed_why: Text = ""
    useless: Count = 0
    last_launch_ns: Time = 0
    last_success_ns: Time = 0
    last_failure_ns: Time = 0
    launches: Count = 0


class Launch(msgspec.Struct, frozen=True, omit_defaults=True):
    """One start of an agent. `ref` finds it again; `agent` is what registered, as `node/agent` or the node's name.

    `place` marks what its target led to when it was started: a ref is of use there and nowhere else.

    `by` is who asked: `demand`, or a caller by hand; `routed` is how the work is routed that demanded it. Times are nanoseconds since 1970.
    """

    id: Token
    target: Token
    node: Token
    state: State
    capability: Token = ""
    boundary: Token = ""
    task: Token = ""
    by: Name = ""
    routed: Name = ""
    ref: dict[str, Any] = {}
    place: Token = ""
    agent: Name = ""
    why: Text = ""
    created_ns: Time = 0
    registered_ns: Time = 0
    idle_since_ns: Time = 0
    ended_ns: Time = 0


encode = msgspec.json.Encoder().encode
_target = msgspec.json.Decoder(Target)
_launch = msgspec.json.Decoder(Launch)
_BROKEN = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)


def target_key(node: str, target: str) -> str:
    """Return where the record of a target is kept."""
    return f"target.{node}.{target}"


def launch_key(launch: str) -> str:
    """Return where the record of a launch is kept."""
    return f"launch.{launch}"


def decode_target(data: bytes) -> Target:
    """Return a kept target; raises `Invalid` (`spinup.bad_record`)."""
    try:
        return _target.decode(data)
    except _BROKEN as error:
        raise Invalid(f"This is not a target: {error}.", code="spinup.bad_record") from error


def decode_launch(data: bytes) -> Launch:
    """Return a kept launch; raises `Invalid` (`spinup.bad_record`)."""
    try:
        return _launch.decode(data)
    except _BROKEN as error:
        raise Invalid(f"This is not a launch: {error}.", code="spinup.bad_record") from error
