"""Where is kept what is said? Two streams and two buckets, made when a node joins a project.

Channels and inboxes lie in streams of their own, because they end differently: of a channel the oldest messages go, an
inbox that is full of unread ones takes nothing more, and the server itself sees to that. Both tell listeners about each
message only once it is stored.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from knotwork.bus import kv, patterns, streams, subjects
from knotwork.bus.streams import NS, StreamSpec

if TYPE_CHECKING:
    from knotwork.bus.connection import Connection

INBOX_MAX = 1000
"""Messages in one inbox, read ones included; those go first when room is needed."""
INBOX_AGE_S = 7 * 86400
POST_MAX = 10_000
"""Messages from other projects to one agent within that time."""
KEY_S = 86400
"""How long the server remembers an idempotency key."""
READS_S = 90 * 86400
"""An agent that has read nothing for so long begins anew."""
TALK = StreamSpec(
    subjects.TALK,
    (patterns.CHANNELS,),
    {
        "allow_atomic": True,
        "allow_msg_ttl": True,
        "duplicate_window": KEY_S * NS,
        "republish": {"src": patterns.SAID, "dest": patterns.SAID_HEARD, "headers_only": True},
    },
)
INBOXES = StreamSpec(
    subjects.INBOXES,
    (patterns.INBOXES,),
    {
        "allow_atomic": True,
        "allow_msg_ttl": True,
        "duplicate_window": KEY_S * NS,
        "max_age": INBOX_AGE_S * NS,
        "max_msgs_per_subject": INBOX_MAX,
        "discard": "new",
        "discard_new_per_subject": True,
        "republish": {"src": patterns.SENT, "dest": patterns.SENT_HEARD, "headers_only": True},
    },
)


POST = StreamSpec(
    subjects.POST,
    (patterns.POST,),
    {
        "allow_atomic": True,
        "allow_msg_ttl": True,
        "duplicate_window": KEY_S * NS,
        "max_age": INBOX_AGE_S * NS,
        "max_msgs_per_subject": POST_MAX,
        "discard": "new",
        "discard_new_per_subject": True,
    },
)
"""What goes from one project to another lies here, in COMMONS."""


async def open_stores(connection: Connection) -> None:
    """Make sure that all of them are there, in this shape."""
    await streams.ensure(connection, TALK)
    await streams.ensure(connection, INBOXES)
    await kv.open_bucket(connection, subjects.CHANNELS)
    await kv.open_bucket(connection, subjects.READS)
