"""What may FACTS forget now? Only what is in HISTORY, of shards that are ours, and nothing of a run that goes on (pure).

Of a shard all goes in one step that stands below the first run which is not over; what ended above it, because a long
run goes on, goes one by one. Who owns a shard only decides who does it: a former owner may purge while the next one
reads. So whoever read the beginning of a run without its end looks whether HISTORY has it before it goes on with it.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

from knotwork.bus import patterns
from knotwork.flow import facts

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

LATE_S = 2.0
"""How long a run above one that goes on stays in FACTS once it is in HISTORY."""
LATE_AT_ONCE = 20
"""So many of them go at a time: each costs the server some milliseconds."""
STRAY_S = 60.0
"""What was recorded of a run that never began holds nothing back for longer."""
_FAR = 2**62


@dataclass(eq=False, slots=True)
class Over:
    """A run that is over: where its first and last fact stand, and all of them (`reading.Stored`), unless they are too many."""

    id: str
    first: int
    last: int
    found: list[Any]
    timed: bool = False
    """Timers are left of it."""
    ended_s: float = 0.0
    kept_s: float = 0.0
    """When it was put into HISTORY; 0: it was not yet."""
    shard: str = field(init=False)

    def __post_init__(self) -> None:
        """Find its shard."""
        self.shard = facts.shard(self.id)


class Going(Protocol):
    """A run that is not over, as far as its owner knows; `first` is the place of its first fact."""

    @property
    def first(self) -> int:
        """Return where its first fact stands."""

    @property
    def heard_s(self) -> float:
        """Return when its last fact was taken."""

    @property
    def is_known(self) -> bool:
        """Return whether it began: else there is only what was recorded of it too early, or of none."""

    @property
    def is_being_read(self) -> bool:
        """Return whether it is being read: where its first fact stands is not known yet."""


class Owned(Protocol):
    """A shard of ours. `place`: up to where its facts were taken."""

    @property
    def ready(self) -> bool:
        """Return whether all of it was read."""

    @property
    def place(self) -> int:
        """Return up to where its facts were taken."""

    @property
    def runs(self) -> Mapping[str, Going]:
        """Return the runs that are not over."""


@dataclass(frozen=True, slots=True)
class Purge:
    """What FACTS may forget: of one run, or of a whole shard (`run` is empty then), all below a place."""

    shard: str
    run: str
    below: int
    gone: tuple[str, ...]
    """The runs of which nothing is left then."""

    @property
    def pattern(self) -> str:
        """Return the subjects that it takes."""
        return patterns.facts_of(self.run) if self.run else patterns.shard_facts(self.shard)


def floor(shard: Owned | None, now_s: float) -> int:
    """Return up to which place of a shard nothing is of a run that is not over; 0 when it is not ours, or not known."""
    if shard is None or not shard.ready:
        return 0
    runs = shard.runs.values()
    if any(one.is_being_read for one in runs):
        return 0
    return min((one.first for one in runs if one.is_known or one.heard_s > now_s - STRAY_S), default=shard.place + 1)


def due(over: Iterable[Over], floors: Callable[[str], int], now_s: float) -> list[Purge]:
    """Return what may go now, the whole shards first; `floors(shard)` is as `floor` has it.

    It is decided in one step: a run that ended while one awaits something would have left those that go on, and not be
    among those that are over.
    """
    kept: dict[str, list[Over]] = {}
    ended: dict[str, int] = {}
    for one in over:
        if one.kept_s:
            kept.setdefault(one.shard, []).append(one)
        else:
            ended[one.shard] = min(ended.get(one.shard, one.first), one.first)
    found: list[Purge] = []
    late: list[Purge] = []
    for name, runs in kept.items():
        standing = floors(name)
        if not standing:
            continue
        below = min(standing, ended.get(name, _FAR))
        gone = tuple(one.id for one in runs if one.last < below)
        if gone:
            found.append(Purge(name, "", below, gone))
        late += [
            Purge(name, one.id, one.last + 1, (one.id,))
            for one in runs
            if one.last >= below and now_s - one.kept_s > LATE_S
        ]
    return found + late[:LATE_AT_ONCE]


def stands(purge: Purge, over: Iterable[Over], floors: Callable[[str], int]) -> bool:
    """Return whether what was due may still go, after something was awaited."""
    standing = floors(purge.shard)
    if purge.run:
        return standing > 0
    late = (one.first for one in over if one.shard == purge.shard and not one.kept_s)
    return purge.below <= min(standing, min(late, default=_FAR))
