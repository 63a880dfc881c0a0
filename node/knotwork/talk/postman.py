"""How do messages from other projects get into the inboxes of this one? Fetched from COMMONS, judged, stored, and done.

Every node of the project fetches; each message goes to one of them, and comes again to whoever asks when that one did
not finish. The inbox's stream knows it by its place in COMMONS, so it is stored once, however often it comes. What may
not come in goes back to its sender with the reason.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import TYPE_CHECKING

import msgspec

from knotwork.bus import clock, publisher, pulls, subjects
from knotwork.bus.blobs import Blobs
from knotwork.bus.pauses import comes_again
from knotwork.sdk.errors import Conflict, Denied, Internal, Invalid, KnotworkError, NotFound
from knotwork.talk import contact, message
from knotwork.talk.contact import Policy
from knotwork.talk.message import Envelope, Said
from knotwork.trust.scopes import may_see
from knotwork.trust.who import Who

if TYPE_CHECKING:
    from knotwork.bus.connection import Connection
    from knotwork.bus.pulls import Delivery
    from knotwork.talk.book import Book
    from knotwork.talk.inboxes import Inboxes
    from knotwork.talk.post import Post

log = logging.getLogger(__name__)
LEASE_S = 30.0
"""After so long a message comes again that was not finished: its inbox was full, say."""
WAIT_S, BATCH, AGAIN_S = 5.0, 100, 1.0


class Postman:
    """Brings what comes from other projects to the agents of one. `run` it beside the inboxes."""

    def __init__(
        self,
        post: Post,
        connection: Connection,
        project: str,
        book: Book,
        *,
        inboxes: Inboxes,
        policy: Callable[[], Policy],
    ) -> None:
        """Store over the project's `connection`; `policy()` is the contact policy in force."""
        self._post, self._connection, self._project = post, connection, project
        self._book, self._inboxes, self._policy = book, inboxes, policy
        self._arrived: asyncio.Queue[Delivery | None] = asyncio.Queue()

    async def run(self) -> None:
        """Fetch and store, for ever."""
        while True:
            try:
                await self._fetch(await self._post.connection())
            except (KnotworkError, TimeoutError) as error:
                log.debug("messages from other projects are fetched in a moment: %s", str(error) or "nobody answers")
            self._post.reopen()
            await asyncio.sleep(AGAIN_S)

    async def _fetch(self, commons: Connection) -> None:
        name = subjects.postman(self._project)
        config = {
            "filter_subject": subjects.post(self._project), "ack_wait": int(LEASE_S * 1e9), "max_deliver": -1,
            "max_ack_pending": -1,
        }  # fmt: skip
        await pulls.ensure_consumer(commons, subjects.POST, name, config)
        taking = pulls.Pulls(commons, subjects.POST, self._arrived.put_nowait, lambda _: self._arrived.put_nowait(None))
        await taking.open()
        try:
            loop = asyncio.get_running_loop()
            while True:
                asked_s = loop.time()
                taking.ask(name, BATCH, wait_s=WAIT_S)
                if not await self._bring(taking) and loop.time() - asked_s < WAIT_S / 2:
                    return  # nothing came, and not for want of messages: the consumer is gone
        finally:
            await taking.close()

    async def _bring(self, taking: pulls.Pulls) -> int:
        """Bring what one request gives, and return how many that were; raises `TimeoutError` when it was lost."""
        for count in range(BATCH):
            async with asyncio.timeout(WAIT_S + AGAIN_S):
                delivery = await self._arrived.get()
            if delivery is None:
                return count
            with comes_again(f"letting in message f{delivery.seq} of COMMONS"):
                await self._one(delivery)
                taking.answer(delivery.reply, pulls.ACK)
        return BATCH

    async def _one(self, delivery: Delivery) -> None:
        """Put one message where it belongs; raises what storing raises: it comes again then."""
        said = message.posted(delivery.subject, delivery.data, delivery.seq, delivery.stored_ns)
        if said is None or said.to_project != self._project:
            return
        try:
            to = await self._admitted(said)
        except (NotFound, Denied) as error:
            log.info("message %s of %s is not let in: %s", said.id, said.envelope.sender, error)
            await self._send_back(said, error)
            return
        await self._store(said, to)

    async def _admitted(self, said: Said) -> Who:
        """Return whom a message is for; raises `NotFound`, `Denied` (`contact.denied`) when it may not come in."""
        sender, answering = said.envelope.who, await self._answers(said)
        known = self._book.look(said.to)
        if answering:
            known = known or Who(said.to, said.to, self._project, "")
        elif known is None or self._book.look(said.to, sender) is None:
            raise NotFound(f"There is no agent {said.to} in {self._project}.", code="agent.not_found")
        elif known.kind == "person" and not may_see("personal", known, sender):
            raise NotFound(f"There is nobody {said.to} in {self._project}.", code="agent.not_found")
        policy = self._policy()
        if not contact.allows(policy, sender, known, of=self._project, answering=answering):
            raise contact.refused(policy, sender, known, of=self._project)
        return known

    async def _answers(self, said: Said) -> bool:
        """Return whether it answers a message that its recipient had sent to its sender."""
        if not said.envelope.reply_to:
            return False
        try:
            where, place = message.place_of(said.envelope.reply_to)
        except NotFound:
            return False
        before = await self._post.find(place) if where == "post" else None
        if before is None:
            return False
        here = (before.envelope.sender, before.envelope.project) == (said.to, said.to_project)
        return here and (before.to, before.to_project) == (said.envelope.sender, said.envelope.project)

    async def _store(self, said: Said, to: Who) -> None:
        envelope = msgspec.structs.replace(said.envelope, thread=said.thread, post=said.id)
        pairs = [publisher.once(f"post-{_stored(said)}")]
        if envelope.expires_ns:
            left_s = -(-(envelope.expires_ns - clock.now_ns()) // 1_000_000_000)  # it may have waited for room
            pairs.append(publisher.ttl(max(1, left_s)))
        payload, head = message.encode(envelope), publisher.head(*pairs)
        await self._fetch_blob(envelope.blob)
        try:
            ack = await publisher.publish(self._connection, subjects.inbox(said.to), payload, head=head)
        except Conflict as error:
            if error.code == "bus.exists":  # it is full: it comes again, and there may be room then
                await self._inboxes.make_room(said.to)
            raise
        notice = {
            "event": "message", "id": message.name("inbox", ack.seq), "kind": envelope.kind,
            "sender": f"{envelope.handle}@{envelope.project}", "priority": envelope.priority,
        }  # fmt: skip
        self._book.tell(to.id, notice)

    async def _fetch_blob(self, name: str) -> None:
        """Keep what a message tells of; one that is not lent any more keeps no message back."""
        try:
            if name:
                await self._post.fetch(name, Blobs(self._connection))
        except (NotFound, Invalid, Internal) as error:
            log.info("a message from another project comes without its blob: %s", error)

    async def _send_back(self, said: Said, error: KnotworkError) -> None:
        """Let the sender know; what tells of that is not sent back itself."""
        sender = said.envelope.who
        if said.envelope.kind == message.REFUSED:
            return
        # who may not see the recipient is not told what it is called now
        known = self._book.look(said.to, None if isinstance(error, Denied) else sender)
        told = Envelope(
            sender=said.to, handle=known.name if known is not None else said.to, project=self._project, owner="",
            kind=message.REFUSED, reply_to=said.id,
            thread=said.thread, text=f"Your message {said.id} was not let in: {error.message}",
            data={"code": error.code, "id": said.id},
        )  # fmt: skip
        key = publisher.head(publisher.once(f"back-{_stored(said)}"))
        await self._post.send(sender, message.encode(told), key)


def _stored(said: Said) -> str:
    """Return what tells a message in COMMONS from every other: places alone begin anew when its store is lost."""
    return f"{said.place}-{said.at_ns}"
