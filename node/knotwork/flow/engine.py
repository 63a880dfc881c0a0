"""Who makes runs go on? The owner of a run's shard takes its facts in their order and carries out what they call for.

Follow one fact: `told` (or `journal` reads it), `_take`, `_apply` (decide), `_carry_out` (an effect). Everything here may
be done twice, by two nodes at once or again after a crash: what is stored has a name that can be stored once.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import deque
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec

from knotwork.bus import reading, subjects
from knotwork.flow import decide, facts
from knotwork.flow.facts import Start, StepEnd
from knotwork.flow.run import Run, begin
from knotwork.sdk.errors import Invalid, KnotworkError, NotFound

if TYPE_CHECKING:
    from knotwork.bus.connection import Connection
    from knotwork.bus.wire import Message
    from knotwork.flow.carrying import Carrier
    from knotwork.flow.definitions import Definitions
    from knotwork.flow.facts import Fact
    from knotwork.work.values import Values

log = logging.getLogger(__name__)
AGAIN_MIN_S, AGAIN_MAX_S = 0.1, 5.0
BATCH = 500
SILENT_S = 10.0
"""After how long without a fact it is counted whether a run has any that we were not told of."""
LOOKS_PER_S = 50


class Raw(NamedTuple):
    """A fact as it arrived."""

    subject: str
    data: bytes
    time: str
    seq: int


@dataclass(eq=False, slots=True)
class Live:
    """A run that this node looks after. `waiting` are facts not taken yet, `busy` while one of them needs time."""

    id: str
    replaying: bool
    """It is being read from its facts; what is open in the end is carried out then."""
    run: Run | None = None
    waiting: deque[Raw] = field(default_factory=deque)
    early: list[Fact] = field(default_factory=list)
    """What was recorded of it before its start."""
    busy: bool = False
    left: bool = False
    """It cannot be looked after here: a newer version wrote of it, or what it is made of is gone."""
    count: int = 0
    heard_s: float = 0.0


@dataclass(eq=False, slots=True)
class Shard:
    """A shard that is ours. `place`: up to where its facts were taken; `early`: those told while it was being read."""

    name: str
    ready: bool = False
    place: int = 0
    early: list[Raw] = field(default_factory=list)
    runs: dict[str, Live] = field(default_factory=dict)


class Engine:
    """Looks after the runs in this node's shards of one project."""

    def __init__(
        self,
        group: asyncio.TaskGroup,
        connection: Connection,
        *,
        definitions: Definitions,
        values: Values,
        carrier: Carrier,
        ended: Callable[[str], None],
    ) -> None:
        """Work in tasks of `group`; `carrier` carries effects out, `ended` is told of runs that are over."""
        self._ended = ended
        self._group, self._connection = group, connection
        self._definitions, self._values, self._carrier = definitions, values, carrier
        self._shards: dict[str, Shard] = {}
        self._loop = asyncio.get_running_loop()

    # -- which runs --------------------------------------------------------------------------------------------------

    def own(self, names: frozenset[str]) -> None:
        """Look after these shards from now on, and no others."""
        for name in [name for name in self._shards if name not in names]:
            for live in self._shards.pop(name).runs.values():
                self._carrier.forget(live.id)
        for name in sorted(names - self._shards.keys()):
            self._shards[name] = shard = Shard(name)
            self._spawn(self._load(shard))

    def runs(self) -> list[Run]:
        """Return the runs that are looked after here."""
        return [live.run for shard in self._shards.values() for live in shard.runs.values() if live.run is not None]

    def find(self, run: str) -> Run | None:
        """Return a run that is looked after here."""
        shard = self._shards.get(facts.shard(run))
        live = shard.runs.get(run) if shard is not None else None
        return live.run if live is not None else None

    async def open(self) -> None:
        """Listen for facts."""
        await self._connection.listen("told.*.>", self._told)

    def reconnected(self) -> None:
        """Read what was stored while we were not told of it."""
        for shard in self._shards.values():
            if shard.ready:
                shard.ready = False
                self._spawn(self._load(shard))

    async def look_after(self) -> None:
        """Look now and then whether a silent run has facts that we were not told of (a change of leaders), for ever."""
        while True:
            await asyncio.sleep(1.0)
            now_s = self._loop.time()
            silent = [
                (shard, live)
                for shard in self._shards.values()
                for live in shard.runs.values()
                if shard.ready and not live.busy and not live.left and now_s - live.heard_s > SILENT_S
            ]
            for shard, live in silent[:LOOKS_PER_S]:
                live.heard_s = now_s
                with contextlib.suppress(KnotworkError):
                    await self._count(shard, live)

    async def _count(self, shard: Shard, live: Live) -> None:
        before = live.count
        there = await reading.count_from(self._connection, subjects.FACTS, f"{facts.subject(live.id)}.>", 1)
        if there != live.count == before and shard.runs.get(live.id) is live:
            log.warning("run %s has %d facts and not %d: it is read anew", live.id, there, before)
            self._carrier.forget(live.id)
            shard.runs[live.id] = fresh = Live(live.id, replaying=True)
            await self._read(shard, f"{facts.subject(live.id)}.>", 0)
            self._resume(fresh)

    # -- facts -------------------------------------------------------------------------------------------------------

    def _told(self, message: Message) -> None:
        parts = message.subject.split(".", 3)
        shard = self._shards.get(parts[1])
        if shard is None or message.headers is None:
            return
        head = message.headers
        raw = Raw(
            f"run{message.subject[4:]}",
            message.data,
            head.get("Nats-Time-Stamp", ""),
            int(head.get("Nats-Sequence", 0)),
        )
        if shard.ready:
            self._take(shard, raw)
        else:
            shard.early.append(raw)

    async def _load(self, shard: Shard) -> None:
        """Read every fact of a shard that we do not know yet, and carry out again whatever is still open."""
        await self._insist(self._connection.round_trip, shard)  # what is stored after this is told
        await self._insist(lambda: self._read(shard, f"run.{shard.name}.>", shard.place), shard)
        if self._shards.get(shard.name) is not shard:
            return
        shard.ready = True
        early, shard.early = shard.early, []
        for raw in early:
            self._take(shard, raw)
        for live in list(shard.runs.values()):
            self._resume(live)

    def _resume(self, live: Live) -> None:
        """Carry out what a run still calls for, after it was read from its facts."""
        if live.busy or not live.replaying:
            return
        live.replaying = False
        if live.run is not None:
            for effect in list(live.run.open.values()):
                self._carrier.carry_out(live.run, effect, again=True)

    async def _read(self, shard: Shard, pattern: str, place: int) -> None:
        while found := await reading.batch(self._connection, subjects.FACTS, pattern, place + 1, BATCH, timeout_s=30):
            for stored in found:
                self._take(shard, Raw(stored.subject, stored.data, stored.time, stored.seq), anew=True)
            place = found[-1].seq
            await asyncio.sleep(0)

    def _take(self, shard: Shard, raw: Raw, *, anew: bool = False) -> None:
        if not anew and raw.seq <= shard.place:
            return
        shard.place = max(shard.place, raw.seq)
        run = raw.subject.split(".", 3)[2]
        live = shard.runs.get(run)
        if live is None:
            shard.runs[run] = live = Live(run, replaying=not shard.ready)
        live.heard_s = self._loop.time()
        live.count += 1
        live.waiting.append(raw)
        if not live.busy:
            self._go_on(live)

    def _go_on(self, live: Live) -> None:
        """Take the facts that wait, as long as none needs time."""
        while live.waiting:
            raw = live.waiting[0]
            try:
                fact = facts.read(raw.subject, raw.data, reading.time_ns(raw.time), raw.seq)
            except facts.Unknown as error:
                log.error("run %s is left to a newer version: it has a fact %r", live.id, str(error))  # noqa: TRY400
                live.left = True
                fact = None
            except Invalid as error:
                log.error("%s is passed over: %s", raw.subject, error)  # noqa: TRY400  somebody else's doing
                fact = None
            if fact is not None and not live.left and self._needs_time(live, fact):
                live.busy = True
                self._spawn(self._slowly(live, fact))
                return
            live.waiting.popleft()
            if fact is not None and not live.left:
                self._apply(live, fact)

    def _needs_time(self, live: Live, fact: Fact) -> bool:
        """Return whether something must be fetched before a fact can be understood: a definition, or a large value."""
        if isinstance(fact.body, Start):
            graph = self._definitions.known(fact.body.digest)
            return graph is None or bool(fact.body.blob) or any(end.blob for end in fact.body.given.values())
        if isinstance(fact.body, StepEnd) and fact.body.blob and live.run is not None:
            name = fact.about.partition("--")[0]
            return name in live.run.graph.looked_at or "--" in fact.about
        return False

    async def _slowly(self, live: Live, fact: Fact) -> None:
        """Fetch what a fact needs, and take it and those behind it."""
        pause_s = AGAIN_MIN_S
        while True:
            try:
                fact = await self._completed(fact)
                break
            except NotFound as error:
                log.error("run %s cannot go on: %s", live.id, error)  # noqa: TRY400  its definition or value is gone
                live.left = True
                break
            except KnotworkError as error:
                log.debug("run %s goes on in a moment: %s", live.id, error)
                await asyncio.sleep(pause_s)
                pause_s = min(2 * pause_s, AGAIN_MAX_S)
        live.waiting.popleft()
        live.busy = False
        if not live.left:
            self._apply(live, fact)
        self._go_on(live)
        shard = self._shards.get(facts.shard(live.id))
        if shard is not None and shard.ready:
            self._resume(live)

    async def _completed(self, fact: Fact) -> Fact:
        if isinstance(fact.body, Start):
            await self._definitions.graph(fact.body.digest)
        body = fact.body
        if isinstance(body, Start):
            for name, end in body.given.items():
                if end.blob:
                    whole = msgspec.structs.replace(
                        end, output=msgspec.Raw(await self._values.blobs.get(end.blob)), blob=""
                    )
                    body = msgspec.structs.replace(body, given={**body.given, name: whole})
        if isinstance(body, Start | StepEnd) and body.blob:
            value = await self._values.blobs.get(body.blob)
            key = "input" if isinstance(body, Start) else "output"
            body = msgspec.structs.replace(body, **{key: msgspec.Raw(value), "blob": ""})
        return msgspec.structs.replace(fact, body=body)

    def _apply(self, live: Live, fact: Fact) -> None:
        """Let the rules decide what follows, and have it carried out; a bug of ours in them stops this run alone."""
        try:
            self._decide(live, fact)
        except Exception:
            log.exception("run %s is left where it is: the rules fail on its fact %d", live.id, fact.seq)
            live.left = True

    def _decide(self, live: Live, fact: Fact) -> None:
        if fact.what == "ended":
            self._over(live)
            return
        if isinstance(fact.body, Start):
            graph = self._definitions.known(fact.body.digest)
            if live.run is not None or graph is None:
                return
            live.run = begin(live.id, graph, fact.body, fact.at_ns)
            effects = decide.started(live.run)
            for early in live.early:
                effects += decide.advance(live.run, early)
        elif live.run is None:
            live.early.append(fact)
            return
        else:
            effects = decide.advance(live.run, fact)
        if not live.replaying:
            for effect in effects:
                self._carrier.carry_out(live.run, effect, again=False)

    def _over(self, live: Live) -> None:
        """Let go of a run that has ended."""
        self._carrier.forget(live.id)
        if live.run is not None:
            live.run.open.clear()
        self._shards[facts.shard(live.id)].runs.pop(live.id, None)
        self._ended(live.id)

    # -- within ------------------------------------------------------------------------------------------------------

    async def _insist(self, work: Any, shard: Shard) -> None:
        pause_s = AGAIN_MIN_S
        while self._shards.get(shard.name) is shard:
            try:
                await work()
            except KnotworkError as error:
                log.debug("shard %s is read in a moment: %s", shard.name, error)
                await asyncio.sleep(pause_s)
                pause_s = min(2 * pause_s, AGAIN_MAX_S)
            else:
                return

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        try:
            self._group.create_task(work)
        except RuntimeError:  # closing
            work.close()
