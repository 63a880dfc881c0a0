"""Who makes runs go on? The owner of a run's shard takes its facts in their order and carries out what they call for.

Follow one fact: `Journal` (told, or read), `take`, `_apply` (the rules decide), `Carrier.carry_out` (an effect). Everything
here may be done twice, by two nodes at once or again after a crash: what is stored has a name that can be stored once.
"""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING

from knotwork.bus.background import begin_in
from knotwork.bus.pauses import Pauses
from knotwork.flow import calls, decide, facts, large
from knotwork.flow.effects import Dispatch, SetTimer
from knotwork.flow.facts import Start
from knotwork.flow.forgetting import Over
from knotwork.flow.run import begin
from knotwork.sdk.errors import Invalid, KnotworkError, NotFound

if TYPE_CHECKING:
    from knotwork.flow.carrying import Carrier
    from knotwork.flow.definitions import Definitions
    from knotwork.flow.effects import Effect
    from knotwork.flow.facts import Fact
    from knotwork.flow.journal import Live
    from knotwork.work.values import Values

log = logging.getLogger(__name__)


class Engine:
    """Lets the rules decide what follows from the facts of runs, and has it carried out (`journal.Taker`)."""

    def __init__(
        self,
        group: asyncio.TaskGroup,
        *,
        definitions: Definitions,
        values: Values,
        carrier: Carrier,
        over: dict[str, Over],
    ) -> None:
        """Work in tasks of `group`; `carrier` carries effects out, into `over` go the runs that are over."""
        self._group, self._over = group, over
        self._definitions, self._values, self._carrier = definitions, values, carrier
        self._loop = asyncio.get_running_loop()

    def resume(self, live: Live) -> None:
        """Carry out what a run still calls for, after it was read from its facts."""
        if live.busy or not live.replaying:
            return
        live.replaying = False
        if live.run is not None:
            for effect in list(live.run.open.values()):
                self._carrier.carry_out(live.run, effect, again=True)

    def forget(self, live: Live) -> None:
        """Do nothing more for a run: it is somebody else's, or read anew."""
        live.left = True
        live.waiting.clear()
        if live.run is not None:
            live.run.close_all()  # what is being tried for it is tried no more
        self._carrier.forget(live.id)

    def take(self, live: Live) -> None:
        """Take the facts that wait, as long as none needs time."""
        while live.waiting:
            stored = live.waiting[0]
            try:
                fact = facts.read_stored(stored)
            except facts.Unknown as error:
                log.error("run %s is left to a newer version: it has a fact %r", live.id, str(error))  # noqa: TRY400
                live.left = True
                fact = None
            except Invalid as error:
                log.error("%s is passed over: %s", stored.subject, error)  # noqa: TRY400  somebody else's doing
                fact = None
            if fact is not None and not live.left and self._needs_time(live, fact):
                live.busy = True
                begin_in(self._group, self._slowly(live, fact))
                return
            live.waiting.popleft()
            if fact is not None and not live.left:
                self._apply(live, fact)

    def _needs_time(self, live: Live, fact: Fact) -> bool:
        """Return whether something must be fetched before a fact can be understood: a definition, or a large value."""
        if isinstance(fact.body, Start) and self._definitions.known(fact.body.digest) is None:
            return True
        return large.stands_for_more(fact, live.run.graph if live.run is not None else None)

    async def _slowly(self, live: Live, fact: Fact) -> None:
        """Fetch what a fact needs, and take it and those behind it."""
        pauses = Pauses()
        while not live.left:
            try:
                fact = await self._completed(fact)
                break
            except NotFound as error:
                log.error("run %s cannot go on: %s", live.id, error)  # noqa: TRY400  its definition or value is gone
                live.left = True
                break
            except KnotworkError as error:
                log.debug("run %s goes on in a moment: %s", live.id, error)
                await pauses.wait()
            except Exception:
                log.exception("run %s is left where it is: its fact %d cannot be completed", live.id, fact.seq)
                live.left = True
        live.busy = False
        if live.waiting:  # else it was forgotten
            live.waiting.popleft()
        if not live.left:
            self._apply(live, fact)
        self.take(live)
        if live.shard.ready:
            self.resume(live)

    async def _completed(self, fact: Fact) -> Fact:
        if isinstance(fact.body, Start):
            await self._definitions.graph(fact.body.digest)
        return await large.whole(fact, self._values.blobs)

    def _apply(self, live: Live, fact: Fact) -> None:
        """Let the rules decide what follows, and have it carried out; a bug of ours in them stops this run alone."""
        try:
            self._decide(live, fact)
        except Exception:
            log.exception("run %s is left where it is: the rules fail on its fact %d", live.id, fact.seq)
            live.left = True

    def _decide(self, live: Live, fact: Fact) -> None:
        if fact.what == "ended":
            self._let_go(live)
            return
        if fact.what == "fired":
            live.timers.discard(fact.about)
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
            asked = live.run.open.get(f"do.{fact.about}") if fact.what in ("outcome", "again") else None
            tries = calls.tries(live.run, fact.about)
            effects = decide.advance(live.run, fact)
            if not live.replaying:
                self._let_in(live.id, fact, asked, tries)
        live.timers.update(effect.timer for effect in effects if isinstance(effect, SetTimer))
        if not live.replaying:
            for effect in effects:
                self._carrier.carry_out(live.run, effect, again=False)

    def _let_in(self, run: str, fact: Fact, asked: Effect | None, tries: int) -> None:
        """Let others have the place that an attempt leaves, or those of a run that goes on have theirs."""
        if isinstance(asked, Dispatch):
            self._carrier.step_over(run, asked, tries)
        elif fact.what == "resume":
            self._carrier.resumed()

    def _let_go(self, live: Live) -> None:
        """Let go of a run that has ended."""
        self._carrier.forget(live.id)
        if live.run is not None:
            live.run.close_all()
            self._carrier.run_over(live.run)
        live.shard.runs.pop(live.id, None)
        timed = bool(live.timers) or (live.run is not None and live.run.graph.timed)
        first = live.first if live.run is not None else 1  # nobody told of its start: it may stand anywhere
        self._over[live.id] = Over(live.id, first, live.last, live.found, timed=timed, ended_s=self._loop.time())
