"""How is an orchestration now? Its record, its runs, the claims on its parts and what agents said, read by name."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING

from knotwork.bus import reading, subjects
from knotwork.crew import answers, sight
from knotwork.crew.budget import Spent
from knotwork.sdk.errors import Invalid, KnotworkError, NotFound
from knotwork.work import leases

if TYPE_CHECKING:
    from collections.abc import Mapping

    from knotwork.crew.records import Record, Round
    from knotwork.crew.sight import View
    from knotwork.crew.store import Store
    from knotwork.flow.room import Flow
    from knotwork.flow.runs import Sight
    from knotwork.trust.who import Who
    from knotwork.work.leases import Claim

AT_ONCE = 4
"""Orchestrations that are read at a time: a page of each may have 8 MiB, and of whom 64 MiB wait is cut off by NATS."""
LARGE_MAX = 10_000
"""Digests of which it is known what they took: they never mean anything else."""
PATTERNS_MAX = 500
"""In one question to the server, which takes 1024 at most."""


class Looking:
    """Looks at orchestrations of one project."""

    def __init__(self, store: Store, flow: Flow) -> None:
        """Read what `store` and the runs of `flow` say."""
        self._store, self._flow = store, flow
        self._large: dict[str, Spent] = {}

    async def view(self, record: Record) -> View:
        """Return how far it is."""
        rounds = [(one, await self._sight(one)) for one in record.rounds]
        running = [one.run for one, seen in rounds if seen is not None and seen.finish is None]
        claims = await self._claims(running) if running else {}
        checkpoints = await self._store.checkpoints(record.id) if record.rounds else []
        large = {digest: await self._took(digest) for digest in sight.large_ones(rounds)}
        return sight.view(record, rounds, claims, checkpoints, large)

    async def _took(self, digest: str) -> Spent:
        """Return what an output that is kept as a blob says it took; each is read once, and nothing when it is gone."""
        known = self._large.get(digest)
        if known is None:
            with contextlib.suppress(NotFound):
                known = await asyncio.to_thread(answers.took, await self._flow.values.read(b"", digest))
            if len(self._large) >= LARGE_MAX:
                self._large.clear()
            known = self._large[digest] = known or Spent()
        return known

    async def views(self, records: list[Record]) -> list[View]:
        """Return the same for many; one that cannot be read is left out."""
        found: list[View] = []
        for begin in range(0, len(records), AT_ONCE):
            async with asyncio.TaskGroup() as group:
                looks = [group.create_task(self._readable(one)) for one in records[begin : begin + AT_ONCE]]
            found += [view for look in looks if (view := look.result()) is not None]
        return found

    async def _readable(self, record: Record) -> View | None:
        try:
            return await self.view(record)
        except KnotworkError:
            return None

    async def used(self, view: View) -> Spent:
        """Return what it and all below it took."""
        total = view.used
        for name in view.record.subs:
            with contextlib.suppress(NotFound, Invalid):  # one that was never spawned, or is forgotten
                total += (await self.view(await self._store.get(name))).used
        return total

    async def above(self, record: Record) -> list[Record]:
        """Return the orchestrations above one, the nearest first."""
        found: list[Record] = []
        name = record.parent
        while name and name not in {one.id for one in found}:
            try:
                found.append(await self._store.get(name))
            except NotFound:
                break
            name = found[-1].parent
        return found

    async def held_by(self, by: Who, runs: Mapping[str, str]) -> str:
        """Return the orchestration of which an agent has a part, of those with these runs; "" for none."""
        names = list(runs)
        for begin in range(0, len(names), PATTERNS_MAX):
            for (run, _), claim in (await self._claims(names[begin : begin + PATTERNS_MAX])).items():
                if claim.is_of(by.id, (by.name,)) and not claim.over:
                    return runs[run]
        return ""

    async def _sight(self, one: Round) -> Sight | None:
        try:
            return await self._flow.runs.look(one.run)
        except NotFound as error:
            if error.code not in ("flow.no_run", "flow.forgotten"):
                raise
            return None

    async def _claims(self, runs: list[str]) -> dict[tuple[str, str], Claim]:
        """Return who holds which step of these runs."""
        patterns = [leases.places_of(run) for run in runs]
        stream = subjects.bucket_stream(subjects.LEASES)
        found: dict[tuple[str, str], Claim] = {}
        for stored in await reading.each_last(self._flow.connection, stream, patterns):
            if stored.data:
                with contextlib.suppress(Invalid):
                    claim = leases.decode(stored.data)
                    found[claim.run, claim.step] = claim
        return found
