"""Which channels are there? In CHANNELS, each with its limits, and the contact policy beside them; every node watches."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import TYPE_CHECKING

from knotwork.bus import kv, subjects
from knotwork.bus.waits import set_within
from knotwork.sdk.errors import Conflict, Invalid, KnotworkError, Unavailable
from knotwork.talk import channel as settings
from knotwork.talk import contact
from knotwork.talk.channel import DEFAULTS, Channel
from knotwork.talk.contact import Policy
from knotwork.talk.reads import contended

if TYPE_CHECKING:
    from knotwork.bus.connection import Connection
    from knotwork.bus.kv import Entry

log = logging.getLogger(__name__)
AGAIN_S = 0.5
READY_S = 30.0
TRIES = 20
_CHANNEL, _POLICY = "channel.", "contact"


class Channels:
    """The channels of one project."""

    def __init__(self, connection: Connection, changed: Callable[[], None] = lambda: None) -> None:
        """Keep them over `connection`; `changed` is called when limits may be different."""
        self._bucket = kv.Bucket(connection, subjects.CHANNELS)
        self._known = {name: settings.always(name) for name in DEFAULTS}
        self._revisions: dict[str, int] = {}
        self._current = asyncio.Event()
        self.changed = changed
        self.policy = Policy()

    async def run(self) -> None:
        """Learn which there are; for ever."""
        while True:
            try:
                await self._bucket.watch(self._entry, self._current.set)
            except KnotworkError as error:
                log.debug("channels are watched in a moment: %s", error)
            await asyncio.sleep(AGAIN_S)

    async def ready(self) -> None:
        """Return when it is known which there are; raises `Unavailable` when that takes too long."""
        if not await set_within(self._current, READY_S):
            raise Unavailable("The channels are not known yet.", code="talk.not_ready", retry_after_s=1.0)

    def _entry(self, entry: Entry) -> None:
        if entry.revision and entry.revision <= self._revisions.get(entry.key, 0):
            return  # we wrote it, or something later
        self._revisions[entry.key] = entry.revision
        try:
            self._take(entry.key, entry.value)
        except Invalid as error:  # written by a newer version, or by hand
            log.warning("%s is left alone: %s", entry.key, error)

    def _take(self, key: str, value: bytes | None) -> None:
        if key == _POLICY:
            self.policy = contact.decode(value) if value is not None else Policy()
        elif key.startswith(_CHANNEL):
            name = key.removeprefix(_CHANNEL)
            if value is not None:
                made = settings.decode(value)
                if made.name == name:
                    self._known[name] = made
            elif name in DEFAULTS:
                self._known[name] = settings.always(name)
            else:
                self._known.pop(name, None)
            self.changed()

    def all(self) -> list[Channel]:
        """Return every channel, those that are always there first, then by name."""
        place = {name: number for number, name in enumerate(DEFAULTS)}
        return sorted(self._known.values(), key=lambda one: (place.get(one.name, len(place)), one.name))

    async def get(self, name: str) -> Channel:
        """Return a channel; raises `NotFound` (`channel.not_found`) naming those there are."""
        found = self._known.get(name)
        if found is not None:
            return found
        if not subjects.is_token(name):
            raise settings.unknown(name, list(self._known))
        entry = await self._bucket.get(_CHANNEL + name)  # another node may have made it just now
        if entry is None or entry.value is None:
            raise settings.unknown(name, list(self._known))
        self._entry(entry)
        found = self._known.get(name)
        if found is None:  # it cannot be read here, or went in this moment
            raise settings.unknown(name, list(self._known))
        return found

    async def create(self, wanted: Channel) -> Channel:
        """Make a channel; raises `Conflict` (`channel.exists`), `Unavailable` (`channel.too_many`)."""
        subjects.token(wanted.name, "channel")
        if wanted.name in self._known:
            raise _exists(wanted.name, self._known.get(wanted.name))
        if len(self._known) >= settings.CHANNELS_MAX:
            raise Unavailable(
                f"There are {settings.CHANNELS_MAX} channels already.", code="channel.too_many",
                hint="Use one of them; see `knotwork channel list`.",
            )  # fmt: skip
        key = _CHANNEL + wanted.name
        try:
            revision = await self._bucket.create(key, settings.encode(wanted))
        except Conflict as error:
            raise _exists(wanted.name, self._known.get(wanted.name)) from error
        self._wrote(key, settings.encode(wanted), revision)
        return wanted

    async def change(self, name: str, make: Callable[[Channel], Channel]) -> Channel:
        """Change a channel; raises `NotFound` (`channel.not_found`) and what `make` raises."""
        await self.get(name)
        key = _CHANNEL + name
        for _ in range(TRIES):
            entry = await self._bucket.get(key)
            if entry is not None and entry.value is not None:
                before, revision = settings.decode(entry.value), entry.revision
            elif name in DEFAULTS:
                before, revision = settings.always(name), 0
            else:
                raise settings.unknown(name, list(self._known))
            made = make(before)
            try:
                revision = await self._put(key, settings.encode(made), revision)
            except Conflict:
                continue
            self._wrote(key, settings.encode(made), revision)
            return made
        raise contended()

    async def set_policy(self, policy: Policy) -> Policy:
        """Put a contact policy into force, here at once, elsewhere in a moment."""
        revision = await self._bucket.put(_POLICY, contact.encode(policy))
        self._wrote(_POLICY, contact.encode(policy), revision)
        return policy

    async def _put(self, key: str, value: bytes, revision: int) -> int:
        return await (self._bucket.update(key, value, revision) if revision else self._bucket.create(key, value))

    def _wrote(self, key: str, value: bytes, revision: int) -> None:
        """Take note of what we wrote: whoever reads after us finds it."""
        if revision > self._revisions.get(key, 0):
            self._revisions[key] = revision
            self._take(key, value)


def _exists(name: str, known: Channel | None) -> Conflict:
    closed = known is not None and known.archived_ns
    return Conflict(
        f"There is a channel {name} already" + (", which is archived." if closed else "."),
        code="channel.exists",
        hint="Bring it back with `knotwork channel archive --undo`, or choose another name."
        if closed
        else "Use it, or change it with `knotwork channel set`.",
    )
