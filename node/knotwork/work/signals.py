"""How does somebody tell a run that works, or waits, something by name? As a fact of that run, once for each name.

Whoever waits for a signal gets it whenever it was sent, before or after the wait began.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import msgspec

from knotwork.bus import clock, codec, reading, subjects
from knotwork.sdk.errors import Conflict, Invalid, NotFound, TooLarge
from knotwork.work import lookup, records
from knotwork.work.records import Name, Whole

if TYPE_CHECKING:
    from knotwork.bus.commit import GroupCommit
    from knotwork.bus.connection import Connection
    from knotwork.bus.wire import Message

MAX_BYTES = 512 * 1024
TTL_S = 30 * 24 * 3600
"""How long a signal is kept."""


class Signal(msgspec.Struct, frozen=True):
    """What was sent: any JSON value, by whom, when (nanoseconds since 1970)."""

    value: msgspec.Raw
    by: Name
    at_ns: Whole


_decoder = msgspec.json.Decoder(Signal)


class Signals:
    """Signals of one project."""

    def __init__(self, connection: Connection, facts: GroupCommit) -> None:
        """Store them through `facts`."""
        self._connection, self._facts = connection, facts

    async def send(self, run: str, name: str, value: Any, by: str) -> bool:
        """Store a signal; returns False when the same was sent before.

        Raises `NotFound` (`work.not_found`), `Conflict` (`work.ended` for a run that is over, `work.signal_sent` when
        something else was sent by that name), `TooLarge` (`work.signal_too_large`).
        """
        data = codec.encode(value)
        if len(data) > MAX_BYTES:
            raise TooLarge(
                f"The signal has {len(data)} bytes; the limit is {MAX_BYTES}.", code="work.signal_too_large",
                hint="Keep the data elsewhere, and send its address.",
            )  # fmt: skip
        await self._check(run)
        fact = records.encode(Signal(msgspec.Raw(data), by[:256], clock.now_ns()))
        try:
            await self._facts.append(_subject(run, name), fact, ("Nats-TTL", str(TTL_S)))
        except Conflict as error:
            if error.code != "bus.exists":
                raise
            before = await self.sent(run, name)
            if before is not None and bytes(before.value) == data:
                return False
            raise Conflict(
                f"{run} was sent a signal {name} before, with another value.", code="work.signal_sent",
                hint="Each name is sent once to a run: use another.",
            ) from None  # fmt: skip
        return True

    async def sent(self, run: str, name: str) -> Signal | None:
        """Return a signal that was sent, None when none was."""
        stored = await reading.last(self._connection, subjects.FACTS, _subject(run, name))
        return None if stored is None else _read(stored.data)

    async def wait(self, run: str, name: str, wait_s: float) -> Signal | None:
        """Return a signal when it is there, None after `wait_s` seconds; raises `NotFound` (`work.not_found`)."""
        told: asyncio.Event = asyncio.Event()

        def heard(_message: Message) -> None:
            told.set()

        again = self._connection.on_up(told.set)
        listening = await self._connection.listen(subjects.told(_subject(run, name)), heard)
        try:
            await self._connection.round_trip()  # what is stored after this is heard
            async with asyncio.timeout(wait_s):
                found = await self.sent(run, name)
                if found is None:
                    await self._check(run, over=True)
                while found is None:
                    await told.wait()
                    told.clear()
                    found = await self.sent(run, name)
        except TimeoutError:
            return None
        finally:
            again()
            self._connection.unlisten(listening)
        return found

    async def _check(self, run: str, *, over: bool = False) -> None:
        sight = await lookup.look(self._connection, records.run_id(run))
        if sight is None:
            raise NotFound(
                f"There is no task {run}.", code="work.not_found", hint="It may be over for longer than it is kept."
            )
        if sight.state in records.FINAL and not over:
            raise Conflict(
                f"{run} has ended: it is {sight.state}.", code="work.ended", hint="Nobody there waits for a signal."
            )


def _subject(run: str, name: str) -> str:
    return subjects.fact(records.shard(records.run_id(run)), run, "signal", name)


def _read(data: bytes) -> Signal:
    try:
        return _decoder.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise Invalid(f"This is not a signal: {error}.", code="work.bad_record") from error
