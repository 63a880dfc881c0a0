"""What has an agent done with its messages? Which of its inbox are read and acknowledged, and what it is shown next (pure).

A message is done when it was read; one that asks to be acknowledged when it was. Up to `floor` everything is done, and
above it `done` lists the places that are; up to `start` nothing is left either. The floor follows it at a distance: of
what was done last it is known one by one, so that it can be taken back, however much was read since. `shown` says when
those were shown last that wait to be acknowledged: until they are, they are shown again, though not at once. `keyed` says
what was shown to a reading that has an idempotency key, for the last few of them: who asks again with the same key gets
the same.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right, insort
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Annotated, Literal

import msgspec

from knotwork.bus.fitting import fitting
from knotwork.sdk.errors import Invalid
from knotwork.talk.message import Said

AGAIN_S = 60.0
"""A message that waits to be acknowledged is shown again after so long."""
KEPT_MAX = 4000
"""Places kept one by one, at most: four times what an inbox holds."""
TAKEN_BACK_MAX = 200
"""So many of those that are done, the newest, can still be taken back."""
KEYS_MAX = 4
"""Readings that are remembered by their keys."""
Place = Annotated[int, msgspec.Meta(ge=0, le=10**15)]
Status = Literal["unread", "read", "acked"]


class InboxState(msgspec.Struct, frozen=True, omit_defaults=True):
    """How far an agent is with its inbox."""

    floor: Place = 0
    start: Place = 0
    done: Annotated[tuple[Place, ...], msgspec.Meta(max_length=2 * KEPT_MAX)] = ()
    shown: dict[str, int] = {}
    keyed: dict[str, tuple[Place, ...]] = {}

    @property
    def clear(self) -> int:
        """Return the place up to which nothing is left to be done."""
        return max(self.start, self.floor)

    def is_done(self, place: int) -> bool:
        """Return whether nothing is to be done about the message there any more."""
        if place <= self.floor:
            return True
        near = bisect_left(self.done, place)
        return near < len(self.done) and self.done[near] == place

    def status(self, one: Said) -> Status:
        """Return how a message is."""
        if self.is_done(one.place):
            return "acked" if one.envelope.ack else "read"
        return "read" if str(one.place) in self.shown else "unread"


@dataclass(frozen=True, slots=True)
class Wish:
    """Which messages of an inbox are meant; empty fields mean any. `priority` is the least that counts.

    `sender` is an id, or the name that its messages bear. With `all` those that are done count, too. `urgent` puts the
    most urgent first; `after` is a place, `places` are the only ones that are meant; with a `key` that was read with
    before the same ones are meant.
    """

    kind: str = ""
    sender: str = ""
    thread: str = ""
    priority: int = 1
    all: bool = False
    urgent: bool = False
    after: int = 0
    limit: int = 50
    key: str = ""
    places: frozenset[int] = frozenset()

    def means(self, one: Said) -> bool:
        """Return whether a message is meant, read or not."""
        envelope = one.envelope
        return (
            self.kind in ("", envelope.kind)
            and self.sender in ("", envelope.sender, envelope.shown)
            and self.thread in ("", one.thread)
            and envelope.priority >= self.priority
            and one.place > self.after
            and (not self.places or one.place in self.places)
        )


_encoder = msgspec.json.Encoder()
_decoder = msgspec.json.Decoder(InboxState)


def encode(state: InboxState) -> bytes:
    """Return it as JSON."""
    return _encoder.encode(state)


def decode(data: bytes) -> InboxState:
    """Return what was stored; raises `Invalid` (`message.bad_state`)."""
    try:
        return _decoder.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise Invalid(f"How far the inbox was read cannot be told: {error}.", code="message.bad_state") from error


def wanted(state: InboxState, one: Said, wish: Wish, now_ns: int) -> bool:
    """Return whether a message is to be shown to whoever wishes so now."""
    if not wish.means(one) or expired(one, now_ns):
        return False
    if wish.all:
        return True
    return not state.is_done(one.place) and not _rests(state.shown.get(str(one.place), 0), now_ns)


def resting(state: InboxState, now_ns: int) -> set[int]:
    """Return the places of messages that wait to be acknowledged and were shown so lately that they are not shown now."""
    return {int(place) for place, at_ns in state.shown.items() if _rests(at_ns, now_ns)}


def _rests(shown_ns: int, now_ns: int) -> bool:
    return shown_ns > 0 and now_ns - shown_ns < AGAIN_S * 1e9


def expired(one: Said, now_ns: int) -> bool:
    """Return whether the time of a message is over."""
    return 0 < one.envelope.expires_ns <= now_ns


def picked(found: Iterable[Said], wish: Wish, bytes_max: int) -> list[Said]:
    """Return those of the messages wanted that fit into one answer, in the order wished for; one at least."""
    ordered = sorted(found, key=lambda one: (-one.envelope.priority if wish.urgent else 0, one.place))
    return fitting(ordered[: wish.limit], lambda one: one.size, bytes_max)


def after_showing(state: InboxState, shown: Iterable[Said], now_ns: int) -> InboxState:
    """Return the state when these were shown."""
    done, waiting = list(state.done), dict(state.shown)
    for one in shown:
        if state.is_done(one.place):
            continue
        if one.envelope.ack:
            waiting[str(one.place)] = now_ns
        else:
            insort(done, one.place)
    return msgspec.structs.replace(state, done=tuple(done), shown=waiting)


def after_ack(state: InboxState, places: Iterable[int]) -> InboxState:
    """Return the state when these were acknowledged."""
    done, waiting = set(state.done), dict(state.shown)
    for place in places:
        waiting.pop(str(place), None)
        if place > state.floor:
            done.add(place)
    return msgspec.structs.replace(state, done=tuple(sorted(done)), shown=waiting)


def after_taking_back(state: InboxState, places: Iterable[int]) -> InboxState:
    """Return the state when it turned out that these were not shown to anybody.

    What is below the floor by now cannot be told apart from others there, and stays as it is.
    """
    gone = set(places)
    waiting = {place: at_ns for place, at_ns in state.shown.items() if int(place) not in gone}
    done = tuple(one for one in state.done if one not in gone)
    unread = {place for place in gone if place > state.floor}
    keyed = {key: places for key, places in state.keyed.items() if unread.isdisjoint(places)}
    return msgspec.structs.replace(
        state, start=min([state.start, *(one - 1 for one in gone)]), done=done, shown=waiting, keyed=keyed
    )


def after_keying(state: InboxState, key: str, shown: Iterable[Said]) -> InboxState:
    """Return the state when these were shown to a reading with an idempotency key, "" for none."""
    if not key:
        return state
    others = [(name, places) for name, places in state.keyed.items() if name != key][-KEYS_MAX + 1 :]
    return msgspec.structs.replace(state, keyed=dict([*others, (key, tuple(one.place for one in shown))]))


def after_forgetting(state: InboxState, places: Iterable[int]) -> InboxState:
    """Return the state when these are not in the inbox any more."""
    gone = set(places)
    return msgspec.structs.replace(state, done=tuple(one for one in state.done if one not in gone))


def starting(state: InboxState, seen: Iterable[int]) -> InboxState:
    """Return the same state with its start raised over what is done of the places `seen`, every one that was not clear."""
    start = state.clear
    for place in seen:
        if not state.is_done(place):
            break
        start = place
    return msgspec.structs.replace(state, start=start)


def settled(state: InboxState) -> InboxState:
    """Return the same state in fewer words: the floor follows the start, `TAKEN_BACK_MAX` messages behind it."""
    clear = state.clear
    behind = state.done[: bisect_right(state.done, clear)]
    floor = max(state.floor, behind[-TAKEN_BACK_MAX - 1]) if len(behind) > TAKEN_BACK_MAX else state.floor
    return InboxState(
        floor,
        clear,
        tuple(place for place in state.done if place > floor)[-KEPT_MAX:],
        {place: at_ns for place, at_ns in state.shown.items() if int(place) > clear},
        state.keyed,
    )
