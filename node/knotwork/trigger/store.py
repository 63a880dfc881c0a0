"""Where are triggers kept? In TRIGGERS: each as it was written, and beside it how far it has come; every node watches.

What is decided about a trigger (what fires next, up to where messages are dealt with) is written with compare-and-set
before it is done, so that two nodes which see to one trigger for a moment decide once.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import msgspec
from pydantic import ValidationError

from knotwork.bus import kv, subjects
from knotwork.sdk.errors import Conflict, Invalid, KnotworkError, NotFound, TooLarge, Unavailable
from knotwork.trigger.model import ADAPTER, Arriving, Definition, Http, Subject
from knotwork.trigger.resting import Rest

if TYPE_CHECKING:
    from knotwork.bus.connection import Connection
    from knotwork.bus.kv import Entry

log = logging.getLogger(__name__)
SIZE_MAX_BYTES = 512 * 1024
COUNT_MAX = 100_000
AGAIN_S = 0.5
MARK_S = 3600
"""How long it is known that something was removed: all who watch have heard of it by then, or read everything anew."""


class Pending(msgspec.Struct, array_like=True):
    """A firing that is decided and not done: its key, its time, when it is done at the earliest, and which messages."""

    key: str
    due_ns: int = 0
    at_ns: int = 0
    messages: list[int] = []


class Window(msgspec.Struct, array_like=True):
    """Messages that are being gathered: the first and the last time, their places (of a debounce: the last), their bytes."""

    first_ns: int
    last_ns: int
    messages: list[int] = []
    size: int = 0


class State(msgspec.Struct, omit_defaults=True):
    """How far a trigger has come. `since_ns`: all times up to here are decided; `place`: the next message to look at.

    `of` says in which stream that is, and of which subject: places of another mean nothing here.
    `fired` is what was counted here before COUNTS did; `mark` where a plugin goes on from, `why` what ails it, `rests`
    which nodes leave it to others for a while.
    """

    since_ns: int = 0
    place: int = 0
    of: str = ""
    pending: list[Pending] = []
    windows: dict[str, Window] = {}
    runs: list[str] = []
    fired: int = 0
    last_ns: int = 0
    mark: Any = None
    why: str = ""
    rests: dict[str, Rest] = {}


class Kept(msgspec.Struct, omit_defaults=True):
    """A trigger as it stands in the bucket. `since_ns`: what came before this moment is none of its business.

    `agent` is the id of the agent that made it in a session of its own, whatever it is called by now.
    """

    trigger: msgspec.Raw
    since_ns: int = 0
    by: str = ""
    agent: str = ""


@dataclass(frozen=True, slots=True)
class Known:
    """A trigger that is kept."""

    trigger: Definition
    since_ns: int
    by: str
    revision: int
    agent: str = ""


class Store:
    """The triggers of one project."""

    def __init__(self, connection: Connection, changed: Callable[[str], None]) -> None:
        """Keep them over `connection`; `changed` is told the id of each that is new, different or gone."""
        self._connection, self._changed = connection, changed
        self._bucket = kv.Bucket(connection, subjects.TRIGGERS)
        self.known: dict[str, Known] = {}
        self.states: dict[str, State] = {}
        self.current = asyncio.Event()

    async def open(self) -> None:
        """Make sure that there is a place for them."""
        await kv.open_bucket(self._connection, subjects.TRIGGERS)

    async def run(self) -> None:
        """Learn what is kept, for ever."""
        while True:
            try:
                await self._bucket.watch(self._entry, self.current.set)
            except KnotworkError as error:
                log.debug("triggers are watched in a moment: %s", error)
            await asyncio.sleep(AGAIN_S)

    def _entry(self, entry: Entry) -> None:
        what, _, name = entry.key.partition(".")
        if what == "state":
            self._state(name, entry.value)
        elif what == "def":
            if entry.value is None:
                self.known.pop(name, None)
            else:
                try:
                    self.known[name] = read(entry.value, entry.revision)
                except Invalid as error:  # written by a newer version
                    log.warning("the trigger %s is left alone: %s", name, error)
                    self.known.pop(name, None)
            self._changed(name)

    def _state(self, name: str, value: bytes | None) -> None:
        if value is None:
            self.states.pop(name, None)
            return
        try:
            self.states[name] = _states.decode(value)
        except msgspec.DecodeError:
            log.warning("how far the trigger %s has come cannot be read", name)

    # -- triggers ----------------------------------------------------------------------------------------------------

    async def get(self, name: str) -> Known:
        """Return a trigger as it is now; raises `NotFound` (`trigger.not_found`)."""
        entry = await self._bucket.get(f"def.{subjects.token(name, 'trigger')}")
        if entry is None or entry.value is None:
            raise NotFound(f"There is no trigger {name!r}.", code="trigger.not_found", hint="See `knotwork triggers`.")
        return read(entry.value, entry.revision)

    async def put(
        self,
        trigger: Definition,
        *,
        now_ns: int,
        by: str = "",
        agent: str = "",
        replace: bool = True,
        instead_of: Known | None = None,
    ) -> bool:
        """Keep a trigger under its id; returns whether it is new. What came before now is none of its business.

        Raises `Conflict` (`trigger.exists`, `trigger.route_taken`; `trigger.changed` when it would take the place of
        another one than `instead_of`), `TooLarge`, `Unavailable` (`trigger.too_many`).
        """
        before = await self._bucket.get(f"def.{trigger.id}")
        if instead_of is not None and (before is None or before.revision != instead_of.revision):
            raise _changed(trigger.id)
        old = _read_or_none(before.value) if before is not None else None
        since_ns = old.since_ns if old is not None and _goes_on(old.trigger, trigger) else now_ns
        text = msgspec.json.encode(Kept(msgspec.Raw(ADAPTER.dump_json(trigger)), since_ns, by, agent))
        if len(text) > SIZE_MAX_BYTES:
            raise TooLarge(f"The trigger has {len(text)} bytes, {SIZE_MAX_BYTES} at most.", code="trigger.too_large")
        if before is not None and not replace:
            raise Conflict(
                f"There is a trigger {trigger.id!r} already.", code="trigger.exists",
                hint="Choose another id, or say replace (`--replace`): it takes its place.",
            )  # fmt: skip
        if before is None and len(self.known) >= COUNT_MAX:
            raise Unavailable(f"There are {COUNT_MAX} triggers already.", code="trigger.too_many")
        await self._claim(trigger)
        try:
            if before is None:
                await self._forget(f"state.{trigger.id}")  # of one that had its name
                await self._bucket.create(f"def.{trigger.id}", text)
            else:
                await self._bucket.update(f"def.{trigger.id}", text, before.revision)
        except Conflict as error:
            raise _changed(trigger.id) from error
        await self._must_still_be(trigger)
        if old is not None and route(old.trigger) != route(trigger):
            await self._release(old.trigger)
        return before is None

    async def remove(self, name: str, *, only: Known | None = None) -> bool:
        """Forget a trigger; its runs go on. False when there was none, or another one than `only`."""
        try:
            known = await self.get(name)
            await self._bucket.delete(f"def.{name}", revision=only.revision if only is not None else None, ttl_s=MARK_S)
        except NotFound:
            return False
        except Conflict:
            if only is None:
                raise
            return False
        await self._forget(f"state.{name}")
        await self._release(known.trigger)
        return True

    async def _forget(self, key: str) -> None:
        entry = await self._bucket.get(key)
        if entry is not None and entry.value is not None:
            await self._bucket.delete(key, ttl_s=MARK_S)

    async def _claim(self, trigger: Definition) -> None:
        """Take the path of a trigger, for which there can be one alone."""
        taken = route(trigger)
        if not taken:
            return
        try:
            await self._bucket.create(_route_key(taken), trigger.id.encode())
        except Conflict as error:
            entry = await self._bucket.get(_route_key(taken))
            holder = (entry.value or b"").decode() if entry is not None else ""
            if entry is None or holder == trigger.id:
                return
            if not await self._is_served(holder, taken):  # who took it did not come to use it
                await self._bucket.update(_route_key(taken), trigger.id.encode(), entry.revision)
                return
            raise Conflict(
                f"{taken} belongs to the trigger {holder!r}.", code="trigger.route_taken",
                hint="Choose another path, or remove that trigger.", detail={"trigger": holder},
            ) from error  # fmt: skip

    async def _is_served(self, name: str, taken: str) -> bool:
        try:
            return route((await self.get(name)).trigger) == taken
        except (Invalid, NotFound):
            return False

    async def _must_still_be(self, trigger: Definition) -> None:
        """Take back a trigger whose path was given to another while it was made."""
        taken = route(trigger)
        entry = await self._bucket.get(_route_key(taken)) if taken else None
        if entry is not None and entry.value != trigger.id.encode():
            await self._bucket.delete(f"def.{trigger.id}", ttl_s=MARK_S)
            raise Conflict(f"{taken} was just given to another trigger.", code="trigger.route_taken")

    async def _release(self, trigger: Definition) -> None:
        taken = route(trigger)
        if taken:
            entry = await self._bucket.get(_route_key(taken))
            if entry is not None and entry.value == trigger.id.encode():
                await self._bucket.delete(_route_key(taken), ttl_s=MARK_S)

    # -- how far they have come --------------------------------------------------------------------------------------

    async def state(self, name: str) -> tuple[State, int]:
        """Return how far a trigger has come, and the revision to change it with; 0 when nothing is written yet."""
        entry = await self._bucket.get(f"state.{name}")
        if entry is None or entry.value is None:
            return State(), 0
        return _states.decode(entry.value), entry.revision

    async def save(self, name: str, state: State, revision: int) -> int:
        """Write how far it has come, if nobody else did since; returns the new revision, raises `Conflict`."""
        text = msgspec.json.encode(state)
        if revision:
            return await self._bucket.update(f"state.{name}", text, revision)
        return await self._bucket.create(f"state.{name}", text)


_states = msgspec.json.Decoder(State)
_kept = msgspec.json.Decoder(Kept)


def route(trigger: Definition) -> str:
    """Return what a trigger alone may be served under, in words; an empty text for kinds that are not served."""
    if isinstance(trigger, Http):
        return f"{trigger.method} /run/{trigger.path}"
    return f"POST /hooks/{trigger.path}" if isinstance(trigger, Arriving) else ""


def _changed(name: str) -> Conflict:
    return Conflict(f"Somebody else changed {name!r} now.", code="trigger.changed")


def _route_key(taken: str) -> str:
    return f"route.{hashlib.sha256(taken.encode()).hexdigest()[:32]}"


def read(value: bytes, revision: int) -> Known:
    """Return a trigger from the bucket; raises `Invalid` (`trigger.bad_definition`)."""
    try:
        kept = _kept.decode(value)
        return Known(ADAPTER.validate_json(bytes(kept.trigger)), kept.since_ns, kept.by, revision, kept.agent)
    except (msgspec.DecodeError, ValidationError) as error:
        raise Invalid(f"It is no trigger: {str(error)[:200]}", code="trigger.bad_definition") from error


def _goes_on(old: Definition, new: Definition) -> bool:
    """Return whether a change leaves what a trigger waits for: then it goes on from where it has come."""
    if old.enabled != new.enabled or type(old) is not type(new):
        return False
    same = ("subject", "stream") if isinstance(new, Subject) else ("cron", "timezone", "at", "folder", "source")
    return all(getattr(old, name, None) == getattr(new, name, None) for name in same)


def _read_or_none(value: bytes | None) -> Known | None:
    try:
        return read(value or b"", 0)
    except Invalid:
        return None


def shown(trigger: Definition) -> dict[str, Any]:
    """Return a trigger as it is shown: what is left at its default is left out, references stay references."""
    return {"kind": trigger.kind, **trigger.model_dump(mode="json", exclude_defaults=True)}
