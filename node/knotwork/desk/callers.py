"""Who asks, as it goes on record with what came of it? By name for people, by id for what he may see."""

from __future__ import annotations

from typing import TYPE_CHECKING

from knotwork.work.records import Asker

if TYPE_CHECKING:
    from knotwork.ops.op import Caller
    from knotwork.trust.who import Who


def asker(who: Who) -> Asker:
    """Return with whose eyes agents are looked for that somebody's work names."""
    return Asker(who.id, who.owner)


def agent_id(caller: Caller) -> str:
    """Return the id of the agent that asks in a session of its own, "" for everybody else."""
    return caller.who.id if caller.who.kind == "agent" else ""


def caller_name(caller: Caller) -> str:
    """Return who asks as it may stand in an envelope: door and name as established, then what it calls itself."""
    name = caller.who.name if caller.who.kind == "agent" else caller.name
    told = f"{caller.door}/{name}" + (f" ({caller.label})" if caller.label else "")
    return "".join(char for char in told if char.isalnum() or char in "-_/.@ ()")[:128]
