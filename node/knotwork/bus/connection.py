"""How does a node stay connected to NATS? One connection per project, kept alive until it is closed on purpose.

nats-py's own reconnect is switched off. Whenever a client dies (server gone, half-open link, credentials changed, its
reader ended) it is thrown away whole, a new one is made with growing, jittered pauses, and everything that listens is
subscribed again. So there is one way back from every kind of loss, its state is always visible, and no cancellation
can hurt: callers touch a write buffer and futures, never the client's own coroutines (`nc.flush()`, when cancelled,
kills the client's reader; `nc.drain()` swallows cancellation).
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from knotwork.bus import endpoint as endpoints
from knotwork.bus import library
from knotwork.bus.away import forbidden, lost_error, not_connected
from knotwork.bus.background import heard
from knotwork.bus.inbox import Inbox
from knotwork.bus.waits import set_within
from knotwork.bus.wire import DirectClient, Handler, Message, Wire
from knotwork.sdk.errors import Denied, KnotworkError, TimedOut, Unreachable

if TYPE_CHECKING:
    from knotwork.bus.endpoint import Endpoint

log = logging.getLogger(__name__)

Anew = Callable[[], Awaitable["Endpoint"]]
"""Returns the settings as they are now; raises what is wrong with them."""
State = Literal["connecting", "connected", "reconnecting", "denied", "closed"]
_VIOLATION = "permissions violation"
STEADY_S = 5.0
"""A connection that lasted this long is tried again at once when it is lost, else after a pause."""
CLOSE_S = 1.0
"""How long a dying client may take to say goodbye before its socket is torn down."""
PAGES_AT_ONCE = 3
"""A page may have 16 MiB (`reading.BATCH_MAX_BYTES`, and one message more), and NATS cuts off whom 64 MiB wait for."""


@dataclass(slots=True)
class Listening:
    """Something that listens to a subject, over all reconnects, until it is stopped."""

    subject: str
    handler: Handler
    queue: str
    number: int = field(default=0, repr=False)
    """What the present connection calls it; 0 while there is none."""


class Connection:
    """One lasting connection to NATS. Made by `open_connection`; never by hand."""

    def __init__(
        self, endpoint: Endpoint, on_state: Callable[[State], None] | None = None, anew: Anew | None = None
    ) -> None:
        """Keep the settings; nothing happens before `open_connection` runs it."""
        self.endpoint, self._anew = endpoint, anew
        self.state: State = "connecting"
        self.reconnects = -1
        self.last_error = ""
        self.failure: KnotworkError | None = None
        self.forbidden = ""
        """What the server said that this user may not do, over this link; the server drops it and goes on."""
        self._on_forbidden: list[Callable[[], None]] = []
        self.pages = asyncio.Semaphore(PAGES_AT_ONCE)
        """Held while a page of a stream is on its way (`reading.batch`)."""
        self._on_state = on_state
        self._inbox = Inbox(endpoint.inbox_prefix)
        self._listening: list[Listening] = []
        self._client: DirectClient | None = None
        self._wire: Wire | None = None
        self._up = asyncio.Event()
        self._on_up: list[Callable[[], None]] = []
        self._on_down: dict[object, Callable[[], None]] = {}
        self._ending = asyncio.Event()
        self._up_at_s = 0.0
        self._down_at_s = asyncio.get_running_loop().time()

    # -- sending and asking ------------------------------------------------------------------------------------------

    def send(self, subject: str, payload: bytes = b"", reply: str = "", head: bytes = b"") -> None:
        """Send without waiting; raises `Unreachable` while there is no connection, `TooLarge` over the limit."""
        if self._wire is None or self.state != "connected":
            raise not_connected(self)
        self._wire.send(subject, payload, reply, head)

    def open_reply(self, deliver: Callable[[Message], None]) -> str:
        """Return a reply subject; every message to it goes to `deliver` until `close_reply`, also after a reconnect."""
        return self._inbox.open(deliver)

    def close_reply(self, reply: str) -> None:
        """Stop waiting for answers to `reply`."""
        self._inbox.close(reply)

    async def request(
        self, subject: str, payload: bytes = b"", *, timeout_s: float = 5.0, head: bytes = b"", patient: bool = True
    ) -> Message:
        """Ask and return the first answer.

        Raises `TimedOut` after `timeout_s` seconds, `Unreachable` (`bus.no_responders`) when nobody listens, and
        (`bus.disconnected`) when there was no connection all that time: then nothing was sent. Whoever
        is asked may answer after a reconnect; the server itself will not, so who asks it is not `patient`, and gets
        `Unreachable` (`bus.lost`) as soon as the connection is lost.
        """
        answer: asyncio.Future[Message] = asyncio.get_running_loop().create_future()

        def deliver(message: Message) -> None:
            if not answer.done():
                answer.set_result(message)

        def lost() -> None:
            if not answer.done():
                answer.set_exception(lost_error(subject))

        reply = self.open_reply(deliver)
        forget, sent = None, False
        try:
            async with asyncio.timeout(timeout_s):
                await self.wait_connected()
                self.send(subject, payload, reply, head)
                sent = True
                forget = None if patient else self.on_down(lost)
                message = await answer
        except TimeoutError:
            if not sent and self.state != "connected":
                raise not_connected(self) from None
            raise TimedOut(f"No answer on {subject} within {timeout_s:g} s.", code="bus.no_answer") from None
        finally:
            self.close_reply(reply)
            if forget is not None:
                forget()
        if is_no_responders(message):
            raise Unreachable(f"Nobody listens on {subject}.", code="bus.no_responders")
        return message

    async def listen(self, subject: str, handler: Handler, queue: str = "") -> Listening:
        """Call `handler` (quick, not blocking) for each message, now and after every reconnect."""
        listening = Listening(subject, handler, queue)
        self._listening.append(listening)
        if self._wire is not None:
            listening.number = self._wire.listen(subject, handler, queue)
        return listening

    def unlisten(self, listening: Listening) -> None:
        """Stop listening; nothing arrives afterwards."""
        if listening not in self._listening:
            return
        self._listening.remove(listening)
        if self._wire is not None:
            self._wire.unlisten(listening.number)

    async def round_trip(self, timeout_s: float = 5.0) -> None:
        """Return when the server has handled everything sent before; the cancel-safe `flush`."""
        arrived = asyncio.Event()
        reply = self.open_reply(lambda _message: arrived.set())
        try:
            async with asyncio.timeout(timeout_s):
                self.send(reply)
                await arrived.wait()
        except TimeoutError:
            raise TimedOut(f"NATS did not answer within {timeout_s:g} s.", code="bus.no_answer") from None
        finally:
            self.close_reply(reply)

    # -- state -------------------------------------------------------------------------------------------------------

    async def wait_connected(self) -> None:
        """Return when connected; bound it with `asyncio.timeout`."""
        while self.state != "connected":
            if self.state == "closed":
                raise Unreachable("The connection to NATS is closed.", code="bus.closed")
            await self._up.wait()

    def on_up(self, callback: Callable[[], None]) -> Callable[[], None]:
        """Call `callback` after every (re)connect; returns the function that takes it back."""
        self._on_up.append(callback)
        return lambda: self._on_up.remove(callback)

    def on_down(self, callback: Callable[[], None]) -> Callable[[], None]:
        """Call `callback` whenever the connection is lost or closed; returns the function that takes it back."""
        key = object()
        self._on_down[key] = callback
        return lambda: self._on_down.pop(key, None) and None

    @contextlib.asynccontextmanager
    async def allowed(self) -> AsyncIterator[None]:
        """Raise `Denied` (`bus.denied`) from the block as soon as the server says that something in it is not allowed.

        Nothing else tells: what is not allowed is dropped, and whoever waits for the answer to it waits in vain.
        """
        limit = asyncio.timeout(None)

        def over() -> None:
            if not limit.expired():
                limit.reschedule(0)

        self._on_forbidden.append(over)
        try:
            async with limit:
                yield
                await self.round_trip()  # behind it every refusal has been heard
        except TimeoutError:
            if not limit.expired():
                raise
        finally:
            self._on_forbidden.remove(over)
        if self.forbidden:
            raise forbidden(self)

    def down_for_s(self) -> float:
        """Return for how many seconds we have not been connected, 0 while we are."""
        return 0.0 if self.state == "connected" else asyncio.get_running_loop().time() - self._down_at_s

    def up_for_s(self) -> float:
        """Return for how many seconds we have been connected since we were last not, 0 while we are not."""
        return asyncio.get_running_loop().time() - self._up_at_s if self.state == "connected" else 0.0

    @property
    def max_payload(self) -> int:
        """Return the largest message in bytes, as the server says."""
        return self._client.payload_max_bytes if self._client is not None else 0

    def _set(self, state: State) -> None:
        if self.state in (state, "closed"):
            return
        lost = self.state == "connected"
        if lost:
            self._down_at_s = asyncio.get_running_loop().time()
        self.state = state
        if state == "connected":
            self._up.set()
        else:
            self._up.clear()
        if self._on_state is not None:
            self._on_state(state)
        if lost:
            for callback in list(self._on_down.values()):
                callback()

    # -- the life of it ----------------------------------------------------------------------------------------------

    async def run(self, *, first: asyncio.Future[None]) -> None:
        """Connect, watch, connect again, for ever; `first` is told how the first try went, unless nobody waits for that."""
        loop = asyncio.get_running_loop()
        pause_s = 0.0
        while not self._ending.is_set():  # nats-py swallows a cancellation now and then
            started_s = loop.time()
            try:
                await self._connect()
            except KnotworkError as error:
                if not first.done():
                    first.set_exception(error)  # whoever waits for the first try hears why
                elif self.failure is None or error.message != self.failure.message:  # each reason once, not each try
                    log.warning("%s", error)
                self.last_error, self.failure = error.message, error
                self._set("denied" if isinstance(error, Denied) else "reconnecting")
                if isinstance(error, Denied) and await self._is_renewed():
                    pause_s = 0.0
            else:
                if not first.done():
                    first.set_result(None)
                await self._watch()
                self._set("reconnecting")
                await self._dispose()
                if loop.time() - started_s >= STEADY_S:
                    pause_s = 0.0
                    continue
            pause_s = endpoints.next_pause_s(self.endpoint, pause_s, random.random())  # noqa: S311  (jitter)
            await set_within(self._ending, pause_s)

    async def _connect(self) -> None:
        def heard(error: Exception) -> None:
            self.last_error = str(error) or type(error).__name__
            if _VIOLATION in self.last_error.lower():
                self.forbidden = self.last_error.removeprefix("nats: ")
                for callback in list(self._on_forbidden):
                    callback()

        self.forbidden = ""
        client = await endpoints.connect(self.endpoint, heard)
        if self._ending.is_set():
            client.scrap()
            return
        self._client, self._wire = client, Wire(client)
        self._inbox.attach(self._wire)
        for listening in self._listening:
            listening.number = self._wire.listen(listening.subject, listening.handler, listening.queue)
        self.reconnects += 1
        self._up_at_s = asyncio.get_running_loop().time()
        self.last_error, self.failure = "", None
        self._set("connected")
        for callback in list(self._on_up):
            callback()

    async def _is_renewed(self) -> bool:
        """Take the credentials as they are now; returns whether they are others: a secret may have been replaced."""
        if self._anew is None:
            return False
        before = self.endpoint
        try:
            self.endpoint = await self._anew()
        except KnotworkError as error:
            log.warning("the credentials for NATS at %s cannot be read again: %s", before.shown, error)
        return self.endpoint != before

    async def _watch(self) -> None:
        """Return when the client is lost: it says so, or its reader has ended without saying so."""
        client = self._client
        if client is None:
            return
        while not (client.lost.is_set() or client.is_closed or self._ending.is_set()):
            if not client.reading:
                self.last_error = self.last_error or "the reader of the connection ended"
                return
            await set_within(client.lost, 0.5)

    async def _dispose(self) -> None:
        """Tear the client down, whatever state it is in."""
        client, self._client, self._wire = self._client, None, None
        if client is None:
            return
        client.abort()
        await _goodbye(client)

    async def close(self) -> None:
        """Send what is waiting and close; used by `open_connection`."""
        self._ending.set()
        self._set("closed")
        client, self._client, self._wire = self._client, None, None
        if client is not None:
            await _goodbye(client)
        self._up.set()


async def _goodbye(client: DirectClient) -> None:
    """Close a client whose socket may be gone already (uvloop then raises `RuntimeError`)."""
    try:
        with contextlib.suppress(TimeoutError, library.errors.Error, OSError, RuntimeError):
            async with asyncio.timeout(CLOSE_S):
                await client.close()
    finally:
        client.scrap()


def is_no_responders(message: Message) -> bool:
    """Return whether the server answered that nobody listens."""
    return not message.data and message.headers is not None and message.headers.get("Status") == "503"


@contextlib.asynccontextmanager
async def open_connection(
    endpoint: Endpoint,
    *,
    on_state: Callable[[State], None] | None = None,
    wait_first: bool = True,
    anew: Anew | None = None,
) -> AsyncIterator[Connection]:
    """Connect and stay connected inside the block.

    With `wait_first` a first try that fails raises (`Unreachable`, `Denied`), otherwise the block is entered at once,
    not connected, and a failure is tried again like any later loss. When the credentials are refused, it goes on with
    what `anew` returns.
    """
    connection = Connection(endpoint, on_state, anew)
    first: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    first.add_done_callback(heard)  # whoever waits for it
    if not wait_first:
        first.set_result(None)
    try:
        async with asyncio.TaskGroup() as group:
            runner = group.create_task(connection.run(first=first), name=f"nats {endpoint.name}")
            try:
                if wait_first:
                    await asyncio.shield(first)
                yield connection
            finally:
                runner.cancel()
                first.cancel()
                await connection.close()
    except BaseExceptionGroup as group_error:
        # only what happened inside the block comes out, as itself: the runner raises nothing of its own
        if len(group_error.exceptions) == 1:
            raise group_error.exceptions[0] from None
        raise
