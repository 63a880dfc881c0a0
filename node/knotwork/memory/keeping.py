"""How is memory kept in order? What passes is bounded, what was forgotten goes for good, and authors can be hidden."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from knotwork.memory import asking, names, rules, scanning
from knotwork.memory.changing import Changing
from knotwork.memory.index import Filter, Row
from knotwork.memory.model import OWN_SCOPES, Category, Quarantine, encode
from knotwork.memory.room import Memory
from knotwork.memory.rules import Sight
from knotwork.memory.settings import QUARANTINES
from knotwork.sdk.errors import NotFound
from knotwork.sdk.memory import Place
from knotwork.trust.who import Who

PASSING_MAX: dict[Category, int] = {"recent": 1000, "tasks": 500}
"""As many of an agent's own are kept by a clean-up, the newest."""
LOOK_MAX = 20_000


@dataclass(frozen=True, slots=True)
class Cleaned:
    """What a clean-up did: what was over, what had been forgotten, what was too many; and what could not be removed."""

    expired: int
    forgotten: int
    too_many: int
    errors: tuple[str, ...] = ()


class Keeping:
    """Keeps the memory of one project in order."""

    def __init__(self, memory: Memory, changing: Changing) -> None:
        """Remove by `changing`."""
        self._memory, self._changing = memory, changing

    async def clean(self, who: Who, *, expire_only: bool) -> Cleaned:
        """Remove what is over of one's own and, unless told not to, what was forgotten and what is too many.

        The server lets things expire by itself: what is counted as expired was about to.
        """
        await self._memory.shelf.caught_up()
        over = await self._over(who)
        if expire_only:
            return Cleaned(over, 0, 0)
        forgotten = await self._own(who, forgotten=True)
        gone = [row for row in forgotten if row.record.author.id == who.id]  # others may want theirs back
        many: list[Row] = []
        for scope in OWN_SCOPES:
            for category, limit in PASSING_MAX.items():
                rows = await self._own(who, category=category)
                mine = [row for row in rows if row.record.scope == scope and row.record.author.id == who.id]
                many += mine[limit:]
        removed = await self._purge(gone, who)
        cut = await self._purge(many, who)
        return Cleaned(over, removed[0], cut[0], (*removed[1], *cut[1]))

    async def quarantine(self, author: str, who: Who, why: str = "") -> list[Quarantine]:
        """Hide everything that an author wrote from the agents of this project; returns who it was, by id or handle.

        Raises `NotFound` (`memory.no_author`) for somebody who wrote nothing here, `Invalid` (`memory.secret`).
        """
        why, _ = scanning.cleared(why, self._memory.settings.secrets)
        await self._memory.shelf.caught_up()
        found = await self._memory.shelf.ask(lambda index: index.author_ids(author))
        if not found:
            raise NotFound(
                f"{author[:64]!r} wrote nothing that this project knows of.", code="memory.no_author",
                hint="Give an agent's id or handle, as `author` of what it wrote shows it.",
            )  # fmt: skip
        made = [Quarantine(id_, name, self._memory.by(who), self._memory.now_ns(), why) for id_, name in found.items()]
        for one in made:
            await self._store(self._place(one.author), encode(one))
        return made

    async def release(self, author: str) -> list[Quarantine]:
        """Show again what an author wrote; raises `NotFound` (`memory.no_author`) for one who is not hidden."""
        await self._memory.shelf.caught_up(("team",))
        found = [one for one in self.quarantined() if author in (one.author, one.name)]
        if not found:
            raise NotFound(
                f"{author[:64]!r} is not in quarantine.", code="memory.no_author", hint="See `knotwork memory stats`."
            )
        for one in found:
            await self._store(self._place(one.author), None)
        return found

    def quarantined(self) -> Sequence[Quarantine]:
        """Return who is hidden, in the order in which they were."""
        return sorted(self._memory.shelf.quarantines.values(), key=lambda one: one.at_ns)

    async def written_by(self, author: str) -> int:
        """Return how many memories an author has."""
        return await self._memory.shelf.ask(lambda index: index.written_by(author))

    def _place(self, author: str) -> Place:
        return Place(self._memory.project, "team", self._memory.project, names.quarantine_id(author))

    async def _store(self, place: Place, value: bytes | None) -> None:
        await asking.asked(
            self._memory.around, QUARANTINES,
            lambda store: store.delete(place) if value is None else store.store(place, value),
        )  # fmt: skip
        await self._memory.shelf.caught_up(("team",))

    async def _own(self, who: Who, *, forgotten: bool = False, category: Category | None = None) -> list[Row]:
        wanted = Filter(
            tuple(rules.sights(who)), self._memory.now_ns(), forgotten=forgotten,
            categories=(category,) if category else (),
        )  # fmt: skip
        return await self._memory.shelf.ask(lambda index: index.page(wanted, LOOK_MAX, newest=True))

    async def _over(self, who: Who) -> int:
        sights = (Sight("private", who.id), *([Sight("personal", who.owner)] if who.owner else []))
        wanted = Filter(sights, self._memory.now_ns())
        counts = await self._memory.shelf.ask(lambda index: index.counts(wanted))
        return sum(over for _, over, _ in counts.values())

    async def _purge(self, rows: Sequence[Row], who: Who) -> tuple[int, tuple[str, ...]]:
        ids = [row.record.id for row in rows]
        answers = await self._changing.forget_all(ids, who, force=True, purge=True, stop_on_error=False)
        removed = sum(not isinstance(answer, Exception) for answer in answers)
        errors = tuple(
            f"{id_}: {answer}"
            for id_, answer in zip(ids, answers, strict=True)
            if isinstance(answer, Exception) and not isinstance(answer, NotFound)  # it went meanwhile, as it was to
        )
        return removed, errors
