"""What is a trigger of a plugin's own? Something in the world that happens, told one firing after the other."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

ID_MAX = 256
"""Characters of a firing's id."""
MARK_MAX_BYTES = 64 * 1024
"""Bytes of a mark as JSON."""


@dataclass(frozen=True, slots=True)
class Firing:
    """That it happened. `id` tells it from everything else that happens: fired again with it, it is the same run.

    `id` has 1 to 256 characters and is the same whoever tells it, whenever: the message's number, the entry's address;
    never a random value or the time at which it was noticed. `input` is any JSON value, what the run is given. `more`
    is what expressions (`mapping`) may look at beside it. `mark`, when given, is where to go on from after this one.
    """

    id: str
    input: Any = None
    more: Mapping[str, Any] = field(default_factory=dict)
    mark: Any = None


@dataclass(frozen=True, slots=True)
class Mark:
    """Where to go on from, without that anything fires: up to here all is told. Any JSON value up to 64 KiB."""

    value: Any


class Trigger(Protocol):
    """The contract of a trigger: one instance per table `[triggers.*]` and node that has it."""

    def firings(self, since: Any) -> AsyncIterator[Firing | Mark]:
        """Tell what happens, from `since` on, for ever: an async generator.

        `since` is the newest mark that was told, by this instance or another one on another node; None when there is
        none yet: then what was there before is none of its business, unless the plugin's options say otherwise.

        Of the nodes that have such an instance, one at a time runs this for each trigger that names it; for different
        triggers it runs side by side. When the generator is resumed after a firing, that has its run, durably: what
        must be acknowledged somewhere is acknowledged then. A node that dies between the two is followed by one
        that goes on from the mark before, so tell it again; its id makes that harmless.

        Leaving (`aclose`, cancelling) ends it within seconds and loses nothing. An error, or an end, is a failure:
        it is run again with growing pauses. Raise `sdk.Unavailable` when it may work later, with `retry_after_s`
        where that is known; whatever else is raised counts as a crash, and five in ten minutes end in quarantine.
        """
        ...
