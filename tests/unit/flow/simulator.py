"""A world in which runs are carried out by owners that crash, lag, race and repeat themselves, while clocks jump.

Facts are stored once for each subject, as in the real stream; all else may happen twice, late or in another order.
Nothing here knows a rule of workflows but what effects mean.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import msgspec

from knotwork.flow import again, anew, decide, facts, outputs
from knotwork.flow.effects import (
    Anew,
    Ask,
    CancelChild,
    Dispatch,
    End,
    Expect,
    HoldChild,
    Readmit,
    Respond,
    SendSignal,
    SetTimer,
    StartChild,
    WatchEvent,
    Withdraw,
)
from knotwork.flow.graph import Graph, graph
from knotwork.flow.model import Workflow
from knotwork.flow.run import Run, begin

if TYPE_CHECKING:
    from tests.unit.flow.programs import Program

    from knotwork.flow.effects import Effect

S = 1_000_000_000
NOW_NS = 1_800_000_000 * S
ACTIONS_MAX = 20_000
FAIL = {"kind": "failed", "code": "agent.failed", "message": "no", "detail": "not a table"}
GARBAGE = (
    ("outcome", "s0--999", "outcome.s0--999"), ("outcome", "s0--x", "outcome.s0--x"), ("outcome", "zz", "outcome.zz"),
    ("outcome", "s0--²", "outcome.s0--²"), ("fired", "sleep-zz", "fired.sleep-zz"), ("fired", "zz", "fired.zz"),
    ("signal", "zz", "signal.zz.1"), ("odd", "s0", "odd.s0"), ("outcome", "h0--999u", "outcome.h0--999u"),
)  # fmt: skip


@dataclass
class Stored:
    """A run as the stream has it: its facts in their order, no two on one subject."""

    id: str
    graph: Graph
    where: str
    facts: list[facts.Fact] = field(default_factory=list)
    subjects: set[str] = field(default_factory=set)
    done: dict[str, Effect] = field(default_factory=dict)
    """Effects that somebody carried out, by their names: whoever does so again must do the same."""
    pauses: int = 0
    paused: bool = False
    ended: facts.Finish | None = None


def fold(stored: Stored, upto: int) -> Run | None:
    """Return what the first facts of a run add up to, from nothing."""
    run: Run | None = None
    early = []
    for fact in stored.facts[:upto]:
        if isinstance(fact.body, facts.Start):
            run = begin(stored.id, stored.graph, fact.body, fact.at_ns)
            decide.started(run)
            for one in early:
                decide.advance(run, one)
        elif run is None:
            early.append(fact)
        else:
            decide.advance(run, fact)
    return run


class Owner:
    """Somebody who takes the facts of one run, as fast as it likes, and carries out what they call for."""

    def __init__(self, stored: Stored) -> None:
        self.stored, self.place, self.run = stored, 0, None
        self.todo: list[Effect] = []

    def take(self) -> None:
        fact = self.stored.facts[self.place]
        self.place += 1
        if self.run is None:
            self.run = fold(self.stored, self.place)
            self.todo += list(self.run.open.values()) if self.run is not None else []
            return
        effects = decide.advance(self.run, fact)
        assert all(self.run.open.get(effect.name) is effect for effect in effects)
        assert not self.run.new
        self.todo += effects

    def again(self) -> None:
        """Take the last fact a second time: it must change nothing."""
        if (
            self.run is not None
            and self.place
            and self.stored.facts[self.place - 1].what in ("outcome", "fired", "cancel")
        ):
            assert decide.advance(self.run, self.stored.facts[self.place - 1]) == []
            self.must_agree()

    def crash(self) -> None:
        """Forget everything, and begin anew."""
        self.must_agree()
        self.run = fold(self.stored, self.place)
        self.todo = list(self.run.open.values()) if self.run is not None else []

    def must_agree(self) -> None:
        """The fold of the facts from nothing gives what taking them one by one gave."""
        assert fold(self.stored, self.place) == self.run


class World:
    """All runs of one program, and everybody who has to do with them."""

    def __init__(
        self, program: Program, seed: int, *, owners: int = 2, faults: float = 0.15, before: World | None = None
    ) -> None:
        """`before` is one whose run is done again here."""
        self.before, self.root = before, f"{before.root}again" if before is not None else "wroot"
        self.program, self.chance, self.faults, self.owners_each = program, random.Random(seed), faults, owners
        self.now_ns = NOW_NS
        self.graphs = {name: graph(Workflow.model_validate(spec)) for name, spec in program.workflows.items()}
        self.runs: dict[str, Stored] = {}
        self.owners: list[Owner] = []
        self.early: dict[str, list[tuple[str, str, Any, str]]] = {}
        self.tasks: dict[tuple[str, str], Dispatch] = {}
        self.asked: dict[tuple[str, str], Effect] = {}
        self.signals: list[tuple[str, str, str]] = []
        self.pausing: dict[tuple[str, str], int] = {}
        """Limited steps whose attempt failed: which of them waits to be admitted."""
        self.timers: dict[tuple[str, str], int] = {}
        start = facts.Start("main", "digest", msgspec.Raw(outputs.encoded(program.input)))
        self.start(self.root, self.graphs["main"], "", start if before is None else before.again(before.root, start))

    def again(self, run: str, start: facts.Start) -> facts.Start:
        """Return how a run starts that does one of this world again, or of one before."""
        if run not in self.runs:
            return start if self.before is None else self.before.again(run, start)
        stored = self.runs[run]
        given, left = again.taken_over(fold(stored, len(stored.facts)))
        return msgspec.structs.replace(start, of=run, given=given, left=left)

    # -- the stream --------------------------------------------------------------------------------------------------

    def start(self, run: str, made: Graph, where: str, start: facts.Start) -> None:
        if run in self.runs:
            return
        self.runs[run] = Stored(run, made, where)
        self.owners += [Owner(self.runs[run]) for _ in range(self.owners_each)]
        for early in self.early.pop(run, ()):
            self.put(run, *early)
        self.put(run, "start", "", start)
        for box in made.boxes.values():
            if box.spec.kind == "wait_for_signal" and self.program.fate(where, box.id) == "come":
                self.signals.append((run, box.id, box.spec.signal))

    def put(self, run: str, what: str, about: str, body: Any, subject: str = "") -> bool:
        """Store a fact, unless there is one on its subject."""
        if run not in self.runs:
            self.early.setdefault(run, []).append((what, about, body, subject))
            return True
        stored, subject = self.runs[run], subject or f"{what}.{about}"
        if subject in stored.subjects:
            return False
        stored.subjects.add(subject)
        at_ns = self.now_ns - self.chance.choice((0, 0, 0, S, 100 * S))  # another server's clock
        stored.facts.append(facts.Fact(what, about, body, at_ns, len(stored.facts) + 1))
        if what == "ended":
            stored.ended = body
        return True

    def outcome(self, run: str, token: str, output: Any, *, failed: bool = False) -> None:
        end = (
            facts.StepEnd("failed", error=FAIL)
            if failed
            else facts.StepEnd("completed", msgspec.Raw(outputs.encoded(output)), node=f"n{len(token) % 3}", agent="do")
        )
        self.put(run, "outcome", token, end)

    # -- effects -----------------------------------------------------------------------------------------------------

    def carry_out(self, owner: Owner, effect: Effect) -> None:  # noqa: C901, PLR0912
        stored = owner.stored
        run = stored.id
        name = effect.name
        if isinstance(effect, Readmit | HoldChild):
            name += f".{effect.count if isinstance(effect, Readmit) else effect.order}"
        assert stored.done.setdefault(name, effect) == effect, "two owners would do different things"
        match effect:
            case Dispatch():
                self.must_be_near(stored, effect)
                if f"outcome.{effect.token}" not in stored.subjects and (run, effect.token) not in self.pausing:
                    self.tasks[run, effect.token] = effect
            case Readmit():
                if (
                    f"outcome.{effect.token}" not in stored.subjects
                    and self.pausing.get((run, effect.token)) == effect.count
                ):
                    self.tasks[run, effect.token] = stored.done[f"do.{effect.token}"]
            case Withdraw():
                self.pausing.pop((run, effect.token), None)
                self.tasks.pop((run, effect.token), None)
                self.put(run, "outcome", effect.token, facts.StepEnd("cancelled"))
            case SetTimer():
                self.timers[run, effect.timer] = effect.due_ns
            case StartChild():
                child, where = facts.child_run(run, effect.token), f"{stored.where}/{effect.token}"
                made = (
                    self.graphs[effect.workflow] if effect.made is None else graph(Workflow.model_validate(effect.made))
                )
                parent = None if effect.detach else facts.Parent(run, effect.token)
                start = facts.Start(
                    effect.workflow, "d", msgspec.Raw(effect.input), parent=parent, paused=effect.paused
                )
                left = owner.run.start.left.get(effect.token)
                self.start(child, made, where, start if left is None else self.before.again(left.run, start))
                if effect.detach:
                    self.outcome(run, effect.token, {"run": child})
            case CancelChild():
                self.send(facts.child_run(run, effect.token), "cancel", "", facts.Wish(by=run))
            case HoldChild():
                wish = facts.Wish(by=run, order=effect.order)
                what, subject = "pause" if effect.pause else "resume", f"hold.{run}.{effect.order}"
                self.send(facts.child_run(run, effect.token), what, "", wish, subject)
            case WatchEvent() | Ask():
                if f"outcome.{effect.token}" not in stored.subjects:
                    self.asked[run, effect.token] = effect
            case SendSignal():
                self.outcome(run, effect.token, msgspec.json.decode(effect.payload))
            case Respond():
                self.outcome(run, effect.token, msgspec.json.decode(effect.payload))
            case End(anew=None):
                self.end(stored, effect)
            case End():
                self.end_anew(stored, effect)
            case Expect():
                pass

    def must_be_near(self, stored: Stored, effect: Dispatch) -> None:
        """A step that sticks to another is done where that was done."""
        sticky = getattr(effect.spec, "sticky", None)
        if sticky is not None and stored.graph.boxes[sticky.step].spec.output_schema is None:
            ends = [fact.body for fact in stored.facts if fact.what == "outcome" and fact.about == sticky.step]
            before = next((end.node for end in ends if end.state == "completed"), None)
            where = effect.near.node if effect.near is not None else None
            handled = where is not None and before is None
            assert handled or where == (before or None), (stored.id, effect.token, where, before)

    def end(self, stored: Stored, effect: End) -> None:
        start = next(fact.body for fact in stored.facts if isinstance(fact.body, facts.Start))
        if start.parent is not None:
            end = facts.StepEnd(effect.state, msgspec.Raw(effect.output), error=effect.error)
            self.put(start.parent.run, "outcome", start.parent.step, end)
        self.put(stored.id, "ended", "", facts.Finish(effect.state, msgspec.Raw(effect.output), error=effect.error))

    def end_anew(self, stored: Stored, effect: End) -> None:
        """Start the next run, give it what this one has not seen, end this one; a crash may come in between."""
        start = next(fact.body for fact in stored.facts if isinstance(fact.body, facts.Start))
        following, made = anew.started(stored.id, start, effect.anew, start.digest)
        self.start(following, stored.graph, stored.where, made)
        for step in (lambda: self.pass_on(stored, following, effect.anew), lambda: self.seal(stored, following)):
            if self.chance.random() < self.faults:
                return  # somebody does it again: nobody ended it yet
            step()

    def pass_on(self, stored: Stored, following: str, wanted: Anew) -> None:
        for fact in stored.facts:
            unseen = fact.seq > wanted.after or fact.seq in wanted.unheard
            place = f"{fact.what}.{fact.about}.of.{stored.id}.{fact.seq}"
            if fact.what in anew.PASSED_ON and unseen:
                new = self.put(following, fact.what, fact.about, fact.body, place)
                if new and fact.what in ("pause", "resume") and not fact.body.order:
                    self.runs[following].paused = fact.what == "pause"

    def seal(self, stored: Stored, following: str) -> None:
        self.put(stored.id, "ended", "", facts.Finish("completed", next=following))

    def send(self, run: str, what: str, about: str, body: Any, subject: str = "") -> None:
        """Send something to a run, and to those that go on for it."""
        self.put(run, what, about, body, subject)
        number = 1
        while (following := facts.chained(run, number)) in self.runs:
            self.put(following, what, about, body, subject)
            number += 1

    # -- what may happen next ----------------------------------------------------------------------------------------

    def possible(self) -> list[Callable[[], None]]:
        found: list[Callable[[], None]] = []
        for owner in self.owners:
            if owner.place < len(owner.stored.facts):
                found.append(owner.take)
            if owner.todo:
                found.append(lambda owner=owner: self.do_one(owner))
        found += [
            lambda key=key: self.work(*key)
            for key in self.tasks
            if self.program.fate(self.where(key[0]), key[1]) != "hang"
        ]
        found += [lambda key=key: self.answer(*key) for key in self.asked if self.fate(*key) != "never"]
        found += [lambda key=key: self.signal(key) for key in self.signals]
        found += [lambda key=key: self.fire(key) for key, due_ns in self.timers.items() if due_ns <= self.now_ns]
        found += [lambda stored=stored: self.pause(stored) for stored in self.runs.values() if stored.paused]
        return found

    def where(self, run: str) -> str:
        return self.runs[run].where

    def fate(self, run: str, token: str) -> str:
        return self.program.fate(self.where(run), token)

    def do_one(self, owner: Owner) -> None:
        effect = owner.todo.pop(self.chance.randrange(len(owner.todo)))
        if owner.run is not None and owner.run.open.get(effect.name) is effect:
            self.carry_out(owner, effect)
            if self.chance.random() < self.faults:
                owner.todo.append(effect)

    def work(self, run: str, token: str) -> None:
        effect = self.tasks.pop((run, token))
        where = self.where(run)
        tries = self.pausing.get((run, token), 0)
        if effect.limit is not None and self.chance.random() < 0.5 and tries < 5:
            self.pausing[run, token] = tries + 1
            body = facts.StepEnd("waiting", due_ns=self.now_ns + S)
            self.put(run, "again", token, body, f"again.{token}.{tries}")
            return
        if getattr(effect.spec, "children", None) is not None:
            self.spawn(run, token)
        failed = self.program.fate(where, token) == "fail"
        self.outcome(run, token, self.program.output(where, token, msgspec.json.decode(effect.input)), failed=failed)

    def spawn(self, run: str, token: str) -> None:
        """Have the worker of a step start some more, a run or a task."""
        for number in range(self.chance.randrange(4)):
            workflow = self.chance.choice(("", "kid"))
            wish = facts.Spawn(workflow, "" if workflow else "work", msgspec.Raw(b"[7]"))
            self.put(run, "spawned", f"{token}{facts.CHILD}{number + 1}", wish)

    def answer(self, run: str, token: str) -> None:
        del self.asked[run, token]
        self.outcome(run, token, {"came": token}, failed=self.fate(run, token) == "reject")

    def signal(self, key: tuple[str, str, str]) -> None:
        self.signals.remove(key)
        run, step, name = key
        self.put(run, "signal", name, facts.Signal(msgspec.Raw(outputs.encoded({"came": step}))))

    def fire(self, key: tuple[str, str]) -> None:
        del self.timers[key]
        self.put(key[0], "fired", key[1], None)

    def pause(self, stored: Stored) -> None:
        stored.paused, stored.pauses = not stored.paused, stored.pauses + 1
        self.put(stored.id, "pause" if stored.paused else "resume", "", facts.Wish(), f"hold.{stored.pauses}")

    def left_open(self) -> bool:
        """Have ends that were carried out halfway carried out again, as a crash makes the next owner do."""
        found = [owner for owner in self.owners if owner.run is not None and "end" in owner.run.open and not owner.todo]
        for owner in found:
            owner.crash()
        return bool(found)

    def mishap(self) -> None:
        """Let something go wrong."""
        owner = self.chance.choice(self.owners)
        match self.chance.randrange(6):
            case 0 | 1:
                owner.crash()
            case 2:
                owner.again()
            case 3:
                self.now_ns += self.chance.randrange(3600) * S
            case 4:
                what, about, subject = self.chance.choice(GARBAGE)
                bodies = {"outcome": facts.StepEnd("completed", node="garbage"), "signal": facts.Signal()}
                self.put(owner.stored.id, what, about, bodies.get(what), f"garbage.{subject}")
            case 5 if not owner.stored.paused and owner.stored.ended is None and owner.stored.pauses < 6:
                self.pause(owner.stored)

    def run(self) -> None:
        """Go on until every run is over and everybody knows; raises AssertionError when nothing can happen before."""
        cancel_at = self.chance.randrange(1, 60) if self.program.cancel else 0
        for number in range(ACTIONS_MAX):
            if self.faults and self.chance.random() < self.faults:
                self.mishap()
            if number == cancel_at and cancel_at:
                self.send(self.root, "cancel", "", facts.Wish(by="me"))
            found = self.possible()
            if found:
                self.chance.choice(found)()
            elif self.left_open():
                continue
            elif all(stored.ended for stored in self.runs.values()):
                for owner in self.owners:
                    owner.must_agree()
                    assert owner.run is not None
                    assert owner.run.phase == "over"
                    assert not owner.run.open
                    assert owner.run.awaited == 0
                return
            else:
                due = [due_ns for (run, _), due_ns in self.timers.items() if self.runs[run].ended is None]
                assert due, f"hangs: {[(owner.stored.id, owner.run.phase, owner.run.open) for owner in self.owners]}"
                self.now_ns = max(self.now_ns, min(due))
        raise AssertionError("it goes on for ever")
