"""How far is an orchestration? What the facts of its runs, the claims on its parts and its checkpoints add up to (pure)."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

import msgspec

from knotwork.crew import answers, plan
from knotwork.crew.budget import Spent
from knotwork.flow.run import OVER
from knotwork.work.records import Released, Started

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from knotwork.bus.reading import Stored
    from knotwork.crew.records import Checkpoint, Phase, Record, Round
    from knotwork.flow.run import Progress
    from knotwork.flow.runs import Sight
    from knotwork.work.leases import Claim

State = Literal["planned", "waiting", "queued", "running", "completed", "failed", "skipped", "cancelled"]
ENDED: frozenset[str] = OVER
PERCENT_OPEN_MAX = 99.0
"""What an agent may say of a part that is not over: it is over when its outcome is on record."""
_FORGOTTEN = {
    "code": "flow.forgotten",
    "message": "Its run is over and not kept any more: `keep_s` and `keep_max` of [workflows] say for how long.",
}
Expenses = dict[tuple[str, str], Spent]
"""By part and agent what was used, however often the part was done."""


@dataclass(slots=True)
class PartSight:
    """One part as it is: who does it (`agent` on `node`), in which run, how far, and what came of it. `attempt` from 1.

    `agent_id` is the id of an agent that holds it now, whatever it, or another, is called by now. `since_ns` is when
    whoever does it now began, or it was to be done again: how far it was before that is past.
    """

    id: str
    state: State = "planned"
    run: str = ""
    agent: str = ""
    agent_id: str = ""
    node: str = ""
    attempt: int = 0
    percent: float = 0.0
    text: str = ""
    begun_ns: int = 0
    since_ns: int = 0
    ended_ns: int = 0
    output: bytes = b"null"
    blob: str = ""
    error: dict[str, Any] | None = None
    used: Spent = field(default_factory=Spent)


@dataclass(slots=True)
class View:
    """One orchestration as it is now."""

    record: Record
    phase: Phase
    parts: dict[str, PartSight]
    synthesis: PartSight | None
    percent: float
    used: Spent
    runs: dict[str, bool]
    """Its runs, and whether each is over."""
    paused: set[str]
    """Runs that begin nothing new."""
    begun: set[str] = field(default_factory=set)
    """Its runs that are there, or were: they are not kept for ever."""
    error: dict[str, Any] | None = None
    """Why its last run ended before its parts did, such as that its time was over."""

    @property
    def over(self) -> bool:
        """Return whether every run has ended."""
        return all(self.runs.values())

    def named(self, *states: State) -> list[str]:
        """Return the parts in one of these states."""
        return [name for name, part in self.parts.items() if part.state in states]

    @property
    def open(self) -> list[str]:
        """Return the parts that have not ended."""
        return [name for name, part in self.parts.items() if part.state not in ENDED]

    @property
    def done(self) -> bool:
        """Return whether all parts are completed."""
        return bool(self.parts) and all(part.state == "completed" for part in self.parts.values())


def view(
    record: Record,
    rounds: Sequence[tuple[Round, Sight | None]],
    claims: Mapping[tuple[str, str], Claim],
    checkpoints: Sequence[Checkpoint],
    large: Mapping[str, Spent] | None = None,
) -> View:
    """Return how far an orchestration is; a round without a sight was not started yet.

    `large` is by digest what outputs say they took that are kept as blobs.
    """
    parts = {part.id: PartSight(part.id, "planned" if not record.rounds else "waiting") for part in record.parts}
    synthesis: PartSight | None = None
    took: Expenses = {}
    for made, sight in rounds:
        begun = _begun(sight.facts) if sight is not None else {}
        for name in made.parts:
            seen = _part(name, made, sight, begun.get(name), claims.get((made.run, name)))
            if sight is None and made.run in record.begun:
                seen = PartSight(name, "failed", made.run, error=_FORGOTTEN)
            if seen.state == "completed":  # what is done again took something the first time, too
                told = (large or {}).get(seen.blob, Spent()) if seen.blob else answers.took(seen.output)
                took[name, seen.agent] = took.get((name, seen.agent), Spent()) + told
            if name == plan.SYNTHESIS:
                synthesis = seen
            elif name in parts:
                parts[name] = seen
        if plan.SYNTHESIS not in made.parts:
            synthesis = None  # what was put together before is out of date
    used = _expenses(took, checkpoints)
    _told(parts, synthesis, checkpoints, used)
    there = {made.run for made, sight in rounds if sight is not None}
    runs = {
        made.run: sight.finish is not None if sight is not None else made.run in record.begun for made, sight in rounds
    }
    paused = {made.run for made, sight in rounds if sight is not None and sight.run.paused and sight.finish is None}
    percent = sum(part.percent for part in parts.values()) / len(parts) if parts else 0.0
    total = sum(used.values(), Spent())
    found = View(
        record, record.phase, parts, synthesis, round(percent, 1), total, runs, paused, there | {*record.begun}
    )
    last = rounds[-1][1] if rounds else None
    if last is not None and last.finish is not None:
        found.error = last.finish.error
    found.phase = _phase(found)
    return found


def _phase(found: View) -> Phase:
    """Return the phase that it is in, whatever was noted last: facts come before notes."""
    record = found.record
    if not record.live:
        return record.phase
    if found.open:
        return "spawning" if record.phase == "spawning" and not any(_seen(found)) else "execution"
    if found.synthesis is not None and found.synthesis.state not in ENDED:
        return "synthesis"
    return record.phase if record.phase in ("collection", "synthesis") else "collection"


def _seen(found: View) -> Iterable[bool]:
    return (part.run != "" for part in found.parts.values())


def _part(
    name: str, made: Round, sight: Sight | None, begun: tuple[Started | None, int] | None, claim: Claim | None
) -> PartSight:
    if sight is None or name not in sight.run.steps:
        return PartSight(name, "waiting", since_ns=made.begun_ns)
    step = sight.run.steps[name]
    state = _state(step, sight)
    found = PartSight(
        name, state, made.run, begun_ns=step.begun_ns, ended_ns=step.ended_ns, output=step.output, blob=step.blob,
        error=step.error if state in ("failed", "cancelled") else None, percent=100.0 if state == "completed" else 0.0,
        since_ns=made.begun_ns,
    )  # fmt: skip
    if state in ("failed", "cancelled") and step.error is None and sight.finish is not None:
        found.error = sight.finish.error
    started, number = begun or (None, 1)
    if state == "queued":
        found.attempt = number
        if claim is not None and not claim.over:
            found.state, found.agent, found.node = "running", claim.worker, claim.node
            found.agent_id, found.since_ns = claim.agent, claim.started_ns
            found.attempt = int(claim.subject.split(".")[7])
        elif started is not None and not started.claimed:
            found.state, found.agent, found.node = "running", started.agent, started.node
            found.since_ns = started.started_ns
    elif state in ENDED:
        end = _end(sight.facts, name)
        found.agent, found.node, found.attempt = end
    return found


def _state(step: Progress, sight: Sight) -> State:
    if step.state in ENDED:
        return step.state  # type: ignore[return-value]  # the words are the same
    if sight.finish is not None:
        return "cancelled"
    return "queued" if step.state == "open" else "waiting"


def _begun(facts: Sequence[Stored]) -> dict[str, tuple[Started | None, int]]:
    """Return who began the present attempt of each step, None when it was handed back, and its number."""
    found: dict[str, tuple[Started | None, int]] = {}
    for stored in facts:
        what = stored.subject.split(".")
        if len(what) < 7 or what[3] not in ("started", "released", "outcome"):  # noqa: PLR2004  …<step>.<it>.<number>
            continue
        try:
            number = int(what[6])
            if what[3] == "started":
                found[what[4]] = (msgspec.json.decode(stored.data, type=Started), number)
            elif what[3] == "released":
                msgspec.json.decode(stored.data, type=Released)
                found[what[4]] = (None, number)
            else:
                found[what[4]] = (None, number + 1)
        except (msgspec.DecodeError, UnicodeDecodeError, ValueError):
            continue
    return found


class _End(msgspec.Struct):
    agent: str = ""
    node: str = ""


def _end(facts: Sequence[Stored], step: str) -> tuple[str, str, int]:
    """Return who ended a step, where, and in which attempt."""
    for stored in reversed(facts):
        what = stored.subject.split(".")
        if len(what) >= 7 and what[3] == "outcome" and what[4] == step:  # noqa: PLR2004
            try:
                end = msgspec.json.decode(stored.data, type=_End)
                return end.agent, end.node, int(what[6])
            except (msgspec.DecodeError, UnicodeDecodeError, ValueError):
                continue
    return "", "", 0


def _told(
    parts: dict[str, PartSight], synthesis: PartSight | None, checkpoints: Sequence[Checkpoint], used: Expenses
) -> None:
    """Add what agents said themselves: the last word on a part counts, and what each of them used."""
    everything = {**parts, **({plan.SYNTHESIS: synthesis} if synthesis is not None else {})}
    for one in checkpoints:
        part = everything.get(one.part)
        if part is None or one.at_ns < part.begun_ns or (part.state == "waiting" and one.at_ns < part.since_ns):
            continue
        part.text = one.text or part.text
        if one.percent is not None and part.state in ("running", "waiting") and one.at_ns >= part.since_ns:
            part.percent = min(one.percent, PERCENT_OPEN_MAX)
    for (name, _), spent in used.items():
        if name in everything:
            everything[name].used += spent


def _expenses(took: Expenses, checkpoints: Sequence[Checkpoint]) -> Expenses:
    """Return what each agent used for each part: what its reports say, or its outputs together if that is more."""
    found = dict(took)
    for one in checkpoints:
        before = found.get((one.part, one.by), Spent())
        found[one.part, one.by] = Spent(max(before.tokens, one.tokens), max(before.cost, one.cost))
    return found


def large_ones(rounds: Sequence[tuple[Round, Sight | None]]) -> set[str]:
    """Return the digests of outputs of completed parts that are kept as blobs."""
    steps = [seen.run.steps.get(name) for made, seen in rounds if seen is not None for name in made.parts]
    return {step.blob for step in steps if step is not None and step.state == "completed" and step.blob}
