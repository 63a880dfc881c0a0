"""What is the way back to a caller, and does anybody still listen at its end? NATS itself answers what nobody gets.

A caller that was killed says nothing, but his subscription ends with him: signs of life to him come back as "no
responders". One that lost his link looks the same, so he has a moment to come back, longer the longer he has waited
already (that much work would be lost), and longest when NATS itself was away. An answer that is ready while NATS is
away, or before he is back, is sent again until somebody got it.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable
from typing import TYPE_CHECKING

from knotwork.bus import frames
from knotwork.bus.connection import is_no_responders
from knotwork.bus.pauses import Pauses
from knotwork.sdk.errors import KnotworkError, Unreachable

if TYPE_CHECKING:
    from knotwork.bus.connection import Connection
    from knotwork.bus.wire import Message

log = logging.getLogger(__name__)
EVERY_S = 1.0
"""Between two signs of life to one caller."""
AGAIN_S = 0.25
"""Until it is tried again to reach somebody who did not listen."""
GONE_AFTER_S = 1.0
"""A caller that did not listen for so long is gone."""
SHARE = 0.1
"""Or for this share of the time that he has waited already, up to `PATIENT_S`, when that is longer."""
PATIENT_S = 15.0
"""The same after NATS was away: others may take longer than we to come back."""
KEEP_S = 60.0
"""How long an answer that cannot be sent is kept at most."""
POLL_S = 0.02
POLL_MAX_S = 0.25
_MARK = b"."


class Way:
    """The way back to one caller, who has just asked and listens at `to`."""

    __slots__ = (
        "_again", "_asked_s", "_connection", "_gone", "_last_s", "_probe", "_receipt", "_since_s", "_sure", "_to",
    )  # fmt: skip

    def __init__(self, connection: Connection, to: str, gone: Callable[[], object] | None = None) -> None:
        """Call `gone`, once, when he is gone; only whoever gets signs of life can be missed."""
        self._connection, self._to, self._gone = connection, to, gone
        self._sure = connection.reconnects  # the link he is known to listen on
        self._probe = ""
        self._asked_s = asyncio.get_running_loop().time()
        self._since_s = self._last_s = 0.0
        self._again: asyncio.TimerHandle | None = None
        self._receipt: _Receipt | None = None

    def send(self, data: bytes, head: bytes) -> None:
        """Send what he must get; raises `TooLarge`, and `Unreachable` until he has got it: call it again with the same.

        A caller who has been away for too long gets nothing, without an error; so does everybody once we are closed.
        """
        if self._connection.state == "closed":
            log.debug("an answer is lost: the connection is closed")
            return
        away = self._is_away()
        if self._sure == self._connection.reconnects and self._receipt is None and not away:
            self._connection.send(self._to, data, "", head)
            return
        if self._receipt is None or self._receipt.data is not data:
            self._no_receipt()
            patient_until_s = self._since_s + self._patient_s() if away else 0.0
            self._receipt = _Receipt(self._connection, self._to, data, head, patient_until_s)
        link = self._receipt.deliver()
        self._sure = self._sure if link is None else link
        self._no_receipt()

    async def bring(self, data: bytes, head: bytes, within_s: float) -> None:
        """Send what he must get, for `within_s` seconds at most; raises as `send` does."""
        end_s = asyncio.get_running_loop().time() + within_s
        pauses: Pauses | None = None  # almost always the first try is the last
        while True:
            try:
                self.send(data, head)
            except Unreachable:
                if asyncio.get_running_loop().time() >= end_s:
                    raise
            else:
                return
            pauses = pauses or Pauses(POLL_S, POLL_MAX_S)
            await pauses.wait()

    async def hand_over(self, data: bytes, head: bytes, within_s: float) -> bool:
        """Send what is worth nothing unless he gets it; return whether he did. False, too, when nobody can say.

        Raises `TooLarge`.
        """
        end_s = asyncio.get_running_loop().time() + within_s
        receipt = _Receipt(self._connection, self._to, data, head)
        try:
            while asyncio.get_running_loop().time() < end_s:
                with contextlib.suppress(Unreachable):
                    return receipt.deliver() is not None
                await asyncio.sleep(POLL_S / 4)
            return False
        finally:
            receipt.close()

    def sign(self, data: bytes = b"", head: bytes = frames.HEADS["alive"]) -> None:
        """Tell him that we are still there; to be called every `EVERY_S` or so, never raises."""
        if self._gone is not None and not self._probe:
            self._probe = self._connection.open_reply(lambda message: self._unheard(message, data, head))
        if not self._is_away():
            self._since_s = 0.0  # what was sent since then did not come back
        with contextlib.suppress(KnotworkError):  # no link: we hear of him when it is back
            self._connection.send(self._to, data, self._probe, head)

    def close(self) -> None:
        """Send and ask no more."""
        self._gone = None
        self._since_s = 0.0
        if self._again is not None:
            self._again.cancel()
        if self._probe:
            self._connection.close_reply(self._probe)
            self._probe = ""
        self._no_receipt()

    def _unheard(self, message: Message, data: bytes, head: bytes) -> None:
        if not is_no_responders(message):
            return
        loop = asyncio.get_running_loop()
        self._last_s = loop.time()
        self._since_s = self._since_s or self._last_s
        if self._last_s - self._since_s >= self._patient_s() and not self._may_come_back():
            gone = self._gone
            self.close()
            if gone is not None:
                gone()
        elif self._again is None or self._again.when() <= self._last_s:
            self._again = loop.call_later(AGAIN_S, self.sign, data, head)

    def _is_away(self) -> bool:
        """Return whether the last sign of life to him came back."""
        return bool(self._since_s) and asyncio.get_running_loop().time() - self._last_s <= EVERY_S

    def _patient_s(self) -> float:
        """Return how long he may be away, whose link alone is lost."""
        return max(GONE_AFTER_S, min(SHARE * (self._since_s - self._asked_s), PATIENT_S))

    def _may_come_back(self) -> bool:
        return self._sure != self._connection.reconnects and self._connection.up_for_s() < PATIENT_S

    def _no_receipt(self) -> None:
        if self._receipt is not None:
            self._receipt.close()
            self._receipt = None


class _Receipt:
    """Whether one message has arrived. Behind it a mark goes to ourselves: a refusal comes back before the mark does."""

    __slots__ = ("_connection", "_head", "_link", "_patient_until_s", "_reply", "_sent_s", "_state", "_to", "data")

    def __init__(self, connection: Connection, to: str, data: bytes, head: bytes, patient_until_s: float = 0.0) -> None:
        """Send `data` until somebody gets it; until that time (of the loop's clock) he may come back in any case."""
        self._connection, self._to, self.data, self._head = connection, to, data, head
        self._patient_until_s = patient_until_s
        self._reply, self._state, self._link, self._sent_s = "", "unsent", -1, 0.0

    def deliver(self) -> int | None:
        """Return the link it arrived over, None when nobody is left to get it; raises until then."""
        connection, now_s = self._connection, asyncio.get_running_loop().time()
        if self._state == "heard":
            return self._link
        if self._state == "sent" and (self._link != connection.reconnects or connection.state != "connected"):
            self._state = "unsent"  # nobody knows what became of it
        if self._state == "refused":
            patient = now_s < self._patient_until_s or connection.up_for_s() <= PATIENT_S
            if connection.state == "connected" and not patient:
                log.debug("an answer is lost: nobody listens at %s any more", self._to)
                return None
            if now_s - self._sent_s >= AGAIN_S:
                self._state = "unsent"
        if self._state == "unsent":
            self.close()
            self._reply = connection.open_reply(self._arrived)
            connection.send(self._to, self.data, self._reply, self._head)
            connection.send(self._reply, _MARK)
            self._state, self._link, self._sent_s = "sent", connection.reconnects, now_s
        raise Unreachable("It is not known yet whether the caller is back.", code="bus.unheard", retry_after_s=1.0)

    def close(self) -> None:
        if self._reply:
            self._connection.close_reply(self._reply)

    def _arrived(self, message: Message) -> None:
        if is_no_responders(message):
            self._state = "refused"
        elif self._state == "sent" and message.data == _MARK:
            self._state = "heard"
