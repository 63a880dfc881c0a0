"""Where is kept what is said? Two streams and two buckets, made when a node joins a project.

Channels and inboxes lie in streams of their own, because they end differently: of a channel the oldest messages go, an
inbox that is full of unread ones takes nothing more, and the server itself sees to that. Both tell listeners about each
message only once it is stored.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from knotwork.bus import kv, patterns, streams, subjects
from knotwork.bus.streams import KEY_S, NS, StreamSpec

if TYPE_CHECKING:
    from knotwork.bus.connection import Connection

INBOX_MAX = 1000
"""Messages in one inbox, read ones included; those go first when room is needed."""
INBOX_AGE_S = 7 * 86400
POST_MAX = 10_000
"""Messages from other projects to one agent within that time."""
READS_S = 90 * 86400
"""An agent that has read nothing for so long begins anew."""
_KEYED = {"allow_atomic": True, "allow_msg_ttl": True, "duplicate_window": KEY_S * NS}
_BOUNDED = {**_KEYED, "max_age": INBOX_AGE_S * NS, "discard": "new", "discard_new_per_subject": True}
"""What is for one agent has a bound of its own: beyond it the server takes nothing more for that one."""
TALK = StreamSpec(
    subjects.TALK, (patterns.CHANNELS,),
    {**_KEYED, "republish": {"src": patterns.SAID, "dest": patterns.SAID_HEARD, "headers_only": True}},
)  # fmt: skip
INBOXES = StreamSpec(
    subjects.INBOXES, (patterns.INBOXES,),
    {
        **_BOUNDED, "max_msgs_per_subject": INBOX_MAX,
        "republish": {"src": patterns.SENT, "dest": patterns.SENT_HEARD, "headers_only": True},
    },
)  # fmt: skip
POST = StreamSpec(subjects.POST, (patterns.POST,), {**_BOUNDED, "max_msgs_per_subject": POST_MAX})
"""What goes from one project to another lies here, in COMMONS: `Post` makes it."""


async def open_stores(connection: Connection) -> None:
    """Make sure that those of a project are there, in this shape."""
    await streams.ensure(connection, TALK)
    await streams.ensure(connection, INBOXES)
    await kv.open_bucket(connection, subjects.CHANNELS)
    await kv.open_bucket(connection, subjects.READS)
