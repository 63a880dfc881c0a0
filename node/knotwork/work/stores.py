"""In which streams does durable work live? Their shapes (ARCHITECTURE §6), made when a node joins a project."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from knotwork.bus import patterns, streams, subjects
from knotwork.bus.streams import NS, StreamSpec

if TYPE_CHECKING:
    from knotwork.bus.connection import Connection

_ONCE: dict[str, Any] = {"max_msgs_per_subject": 1, "discard": "new", "discard_new_per_subject": True}
"""One message for each subject; the second is refused: so the server itself makes each fact happen at most once."""
_DAY_NS = 24 * 3600 * NS
QUEUES_MAX = 100_000
"""How many queues a project may have, each with a consumer of its own: where a stream says nothing, a server of 2.15 stops at 1,000."""

FACTS = StreamSpec(
    subjects.FACTS,
    (patterns.FACTS, patterns.TRIGGER_FACTS),
    {
        **_ONCE,
        "allow_atomic": True,
        "allow_msg_ttl": True,
        "republish": {"src": patterns.FACTS, "dest": patterns.TOLD},
    },
)
TASKS = StreamSpec(subjects.TASKS, (patterns.TASKS,), {**_ONCE, "allow_atomic": True, "max_consumers": QUEUES_MAX})
TIMERS = StreamSpec(
    subjects.TIMERS, (patterns.TIMERS, patterns.FIRED), {"allow_msg_schedules": True, "allow_msg_ttl": True}
)
DEAD = StreamSpec(subjects.DEAD, (patterns.DEAD,), {"max_msgs_per_subject": 1, "max_age": 90 * _DAY_NS})
ARCHIVE = StreamSpec(subjects.ARCHIVE, (patterns.SEGMENTS,), {"compression": "s2", "max_age": 30 * _DAY_NS})
ALL = (FACTS, TASKS, TIMERS, DEAD, ARCHIVE)


async def open_stores(connection: Connection) -> None:
    """Make sure that every stream is there, in this shape."""
    for spec in ALL:
        await streams.ensure(connection, spec)
