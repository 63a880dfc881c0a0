"""A shard of FACTS, HISTORY, and owners that come, go, crash, lag and race while what is over is kept and purged.

Messages are read one at a time, and anything may happen in between; what is told may be lost. What may be purged, and
what becomes of a run that was read, is decided by `forgetting` and by nothing here.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from knotwork.bus.reading import Stored
from knotwork.flow import facts, forgetting
from knotwork.flow.forgetting import Over, Purge
from knotwork.flow.history import is_whole
from knotwork.flow.journal import FOUND_MAX_BYTES, Live, Shard, distrust

Step = Iterator[None]
"""Work that others come between at each `yield`, and that a crash ends there."""


def what(stored: Stored) -> str:
    return stored.subject.split(".", 3)[3]


def run_of(stored: Stored) -> str:
    return stored.subject.split(".")[2]


@dataclass
class Node:
    """A node that may own the shard: what it knows of it, as `Journal` and `Historian` do."""

    world: World
    shard: Shard | None = None
    over: dict[str, Over] = field(default_factory=dict)
    telling: list[Stored] = field(default_factory=list)
    work: list[Step] = field(default_factory=list)
    acted: set[tuple[str, int]] = field(default_factory=set)

    def floor(self, _: str) -> int:
        return forgetting.floor(self.shard, self.world.now_s)

    # -- as Journal does ---------------------------------------------------------------------------------------------

    def own(self) -> None:
        self.shard, self.telling = Shard("w0"), []
        self.work.append(self.load(self.shard))

    def lose(self) -> None:
        self.shard = None
        self.over.clear()

    def crash(self) -> None:
        self.lose()
        self.work, self.telling = [], []

    def hear(self) -> None:
        stored = self.telling.pop(0)
        if self.shard is None:
            return
        if not self.shard.ready:
            self.shard.early.append(stored)
        elif stored.seq > self.shard.place:
            self.shard.place = stored.seq
            self.take(self.shard, stored)

    def load(self, shard: Shard) -> Step:
        while (stored := self.world.after(shard.place)) is not None:
            self.take(shard, stored)
            shard.place = stored.seq
            yield
            if self.shard is not shard:
                return
        yield from self.leave_past(shard, list(shard.runs))
        if self.shard is not shard:
            return
        shard.ready = True
        for stored in shard.early:
            if stored.seq > shard.place:
                shard.place = stored.seq
                self.take(shard, stored)
        shard.early = []
        if shard.distrusted:
            self.doubt()
        for live in shard.runs.values():
            self.go_on(live)

    def leave_past(self, shard: Shard, runs: list[str]) -> Step:
        yield
        for run in runs:
            if run in self.world.history and self.shard is shard and run in shard.runs:
                live = shard.runs.pop(run)
                self.over[run] = Over(run, live.first, shard.place, [], kept_s=self.world.now_s)

    def read_anew(self, shard: Shard, run: str) -> Step:
        shard.runs[run] = live = Live(run, shard, replaying=True, told=[])
        found: list[Stored] = []
        while (stored := self.world.after(found[-1].seq if found else 0, run)) is not None:
            found.append(stored)
            yield
        if found and not is_whole(found):
            yield from self.leave_past(shard, [run])
        told, live.told = live.told or [], None
        for stored in [*found, *told]:
            if shard.runs.get(run) is live and self.shard is shard:
                live.first = live.first or stored.seq
                self.take(shard, stored)
        if shard.runs.get(run) is live and self.shard is shard:
            if live.count:
                self.go_on(live)
            else:
                del shard.runs[run]

    def take(self, shard: Shard, stored: Stored) -> None:
        run = run_of(stored)
        live = shard.runs.get(run)
        if live is None:
            if run in self.over:
                return
            shard.runs[run] = live = Live(run, shard, replaying=not shard.ready, first=stored.seq)
        if live.told is not None:
            live.told.append(stored)
            return
        if stored.seq <= live.last:
            return
        live.last, live.heard_s, live.count = stored.seq, self.world.now_s, live.count + 1
        if live.size <= FOUND_MAX_BYTES:
            live.found.append(stored)
        live.left = live.left or what(stored) == "start"  # it began: what it adds up to is no matter here
        if what(stored) == "ended":
            del shard.runs[run]
            first = live.first if live.left else 1
            self.over[run] = Over(run, first, live.last, live.found, ended_s=self.world.now_s)
        elif shard.ready and not live.replaying:
            self.go_on(live)

    def go_on(self, live: Live) -> None:
        """Carry out what a run calls for: none that is over may be among them, unless its end is still to be heard of."""
        if live.left:
            self.world.must_go_on(self, live)
        live.replaying = False

    def missed(self, shard: Shard) -> list[str]:
        starts = {run_of(one) for one in self.world.facts if what(one) == "start"}
        lives = shard.runs
        return [run for run in sorted(starts) if run not in self.over and (run not in lives or not lives[run].left)]

    def doubt(self) -> None:
        distrust(self.shard.runs.values() if self.shard is not None else (), self.over.values())
        if self.shard is not None:
            self.shard.distrusted = not self.shard.ready

    def look_after(self) -> None:
        """Count: what nobody told of is read anew."""
        shard = self.shard
        if shard is None or not shard.ready:
            return
        for live in list(shard.runs.values()):
            if live.told is None and live.count != sum(run_of(one) == live.id for one in self.world.facts):
                self.work.append(self.read_anew(shard, live.id))
                return

    # -- as Historian does -------------------------------------------------------------------------------------------

    def keep(self, over: Over) -> Step:
        found = over.found
        if not is_whole(found):
            found = []
            while (stored := self.world.after(found[-1].seq if found else 0, over.id)) is not None:
                found.append(stored)
                yield
        yield
        if found and (is_whole(found) or over.id not in self.world.history):
            self.world.history[over.id] = list(found)
        yield  # it is stored, and not known to be
        if found:
            over.last = found[-1].seq
        over.found, over.kept_s = [], self.world.now_s

    def forget(self) -> Step:
        for purge in forgetting.due(self.over.values(), self.floor, self.world.now_s):
            yield
            shard = self.shard
            if not purge.run:
                if shard is None or not shard.ready:
                    continue
                unknown = self.missed(shard)
                for run in unknown:
                    yield from self.read_anew(shard, run)
                if unknown:
                    continue
            if forgetting.stands(purge, self.over.values(), self.floor):
                self.world.flying.append(purge)  # the server does it a little later, whoever owns the shard then
                yield
                for run in purge.gone:
                    self.over.pop(run, None)


class World:
    """The streams, and the nodes."""

    def __init__(self, seed: int, *, lossy: bool) -> None:
        self.chance, self.lossy = random.Random(seed), lossy
        self.now_s = 1000.0
        self.facts: list[Stored] = []
        self.every: dict[str, list[Stored]] = {}
        self.history: dict[str, list[Stored]] = {}
        self.flying: list[Purge] = []
        self.nodes = [Node(self) for _ in range(3)]
        self.places = itertools.count(1)
        names = (f"w{number:022x}" for number in itertools.count())
        self.names = (name for name in names if facts.shard(name) == "w0")
        self.purged = 0
        self.doubtful: list[Node] = []
        """Those that were not told of something: the server that leads then says so before much time has passed.

        It says so behind what was told before, which is heard by then.
        """

    def after(self, seq: int, run: str = "") -> Stored | None:
        return next((one for one in self.facts if one.seq > seq and (not run or run_of(one) == run)), None)

    def store(self, run: str, *place: str) -> None:
        stored = Stored(facts.subject(run, *place), b"{}", next(self.places), "")
        self.facts.append(stored)
        self.every.setdefault(run, []).append(stored)
        for node in self.nodes:
            if self.lossy and self.chance.random() < 0.1:
                self.doubtful.append(node)
            elif node.shard is not None:
                node.telling.append(stored)

    def must_go_on(self, node: Node, live: Live) -> None:
        end = next((one for one in self.every[live.id] if what(one) == "ended"), None)
        assert node.shard is not None
        to_hear = [*node.telling, *node.shard.early]
        untold = self.lossy and not live.replaying  # that is noticed when its facts are counted
        assert end is None or end in self.facts or end in to_hear or untold, f"{live.id} is done again"

    def purge(self, purge: Purge) -> None:
        for one in list(self.facts):
            if one.seq < purge.below and purge.run in ("", run_of(one)):
                assert is_whole(self.history.get(run_of(one), [])), f"{run_of(one)} is lost"
                assert self.history[run_of(one)][: len(self.every[run_of(one)])] == self.every[run_of(one)]
                self.facts.remove(one)
                self.purged += 1

    # -- what may happen ---------------------------------------------------------------------------------------------

    def possible(self) -> list[Callable[[], None]]:
        found: list[Callable[[], None]] = [self.begin, self.tick]
        going = [run for run, all_of in self.every.items() if what(all_of[-1]) != "ended"]
        if going:
            found += [lambda: self.store(self.chance.choice(going), "outcome", str(next(self.places)))] * 2
            found += [lambda: self.store(self.chance.choice(going), "ended")] * 2
        for node in self.nodes:
            found += [node.hear] * (3 * bool(node.telling)) + [node.look_after]
            found += [lambda node=node, one=one: self.go(node, one) for one in node.work] * 3
            found += [lambda node=node, one=one: node.work.append(node.keep(one)) for one in self.due(node)]
            found += [lambda node=node: node.work.append(node.forget())] * bool(node.over)
            found.append(node.own if node.shard is None else self.chance.choice([node.lose, node.crash, self.tick]))
        return found + [lambda one=one: self.land(one) for one in self.flying]

    def due(self, node: Node) -> list[Over]:
        return [one for one in node.over.values() if not one.kept_s and one.ended_s + 5 <= self.now_s]

    def begin(self) -> None:
        if len(self.every) - len(self.history) < 8:
            self.store(next(self.names), "start")

    def tick(self) -> None:
        while self.doubtful:
            node = self.doubtful.pop()
            while node.telling:
                node.hear()
            node.doubt()
        self.now_s += self.chance.choice((0.5, 2.0, 10.0, 3600.0))

    def go(self, node: Node, step: Step) -> None:
        if next(step, "end") == "end" and step in node.work:
            node.work.remove(step)

    def land(self, purge: Purge) -> None:
        self.flying.remove(purge)
        self.purge(purge)

    def run(self, actions: int) -> None:
        for _ in range(actions):
            self.chance.choice(self.possible())()

    def calm(self) -> None:
        """Let all that goes on end, one node own the shard, and everything be done that is due."""
        for run, all_of in list(self.every.items()):
            if what(all_of[-1]) != "ended" and self.chance.random() < 0.7:
                self.store(run, "ended")
        for node in self.nodes:
            node.crash()
        self.lossy = False
        node = self.nodes[0]
        node.own()
        for _ in range(2000):
            self.now_s += 10.0
            if node.telling:
                node.hear()
            elif node.work:
                self.go(node, node.work[0])
            elif self.flying:
                self.land(self.flying[0])
            elif due := self.due(node):
                node.work.append(node.keep(due[0]))
            elif node.over:
                node.work.append(node.forget())
            else:
                return
        raise AssertionError(f"it goes on for ever: {node.over}")
