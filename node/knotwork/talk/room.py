"""How does a node take part in what a project says? The parts of this room, opened together."""

from __future__ import annotations

import logging
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from knotwork.bus import subjects
from knotwork.bus.background import background
from knotwork.bus.commit import open_group_commit
from knotwork.talk.channels import Channels
from knotwork.talk.following import Following, open_following
from knotwork.talk.history import History
from knotwork.talk.inboxes import Inboxes
from knotwork.talk.post import Post
from knotwork.talk.postman import Postman
from knotwork.talk.reads import Reads
from knotwork.talk.sending import Sending
from knotwork.talk.stores import open_stores

if TYPE_CHECKING:
    from pathlib import Path

    from knotwork.bus.connection import Connection
    from knotwork.talk.book import Book
    from knotwork.talk.message import Said
    from knotwork.trust.who import Who

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Talk:
    """One node's part in what one project says. Made by `open_talk`."""

    project: str
    book: Book
    channels: Channels
    following: Following
    reads: Reads
    inboxes: Inboxes
    sending: Sending
    history: History
    post: Post

    async def get(self, name: str, who: Who) -> Said:
        """Return a message that somebody may see, wherever it lies; raises `NotFound` (`message.not_found`)."""
        return await self.sending.get(name, who)


@asynccontextmanager
async def open_talk(
    connection: Connection, book: Book, *, project: str, folder: Path, post: Post | None = None
) -> AsyncIterator[Talk]:
    """Take part inside the block; the index of channels is kept in `folder`. `post` leads to other projects."""
    started_s = time.monotonic()
    await open_stores(connection)
    channels = Channels(connection)
    reads = Reads(connection)
    async with AsyncExitStack() as stack:
        group = await stack.enter_async_context(background())
        inboxes = Inboxes(connection, reads, group)
        group.create_task(channels.run(), name="channels")
        await channels.ready()
        following = await stack.enter_async_context(open_following(connection, folder / f"{project}.db", channels.all))
        channels.changed = following.changed
        group.create_task(reads.run(), name="read marks")
        writers = {
            stream: await stack.enter_async_context(open_group_commit(connection, returning=True))
            for stream in (subjects.TALK, subjects.INBOXES)
        }
        out = post or Post(lambda: None)
        sending = Sending(connection, book, channels, following, inboxes, writers=writers, post=out)
        if post is not None:
            postman = Postman(post, connection, project, book, inboxes=inboxes, policy=lambda: channels.policy)
            group.create_task(postman.run(), name="messages from other projects")
        history = History(connection, channels, following, inboxes, reads)
        log.debug("what %s says is open after %.3f s", project, time.monotonic() - started_s)
        yield Talk(project, book, channels, following, reads, inboxes, sending, history, out)
