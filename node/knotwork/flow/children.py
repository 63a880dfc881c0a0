"""What may whoever holds a step start? What the step grants, as often, as deep and for as long: else nothing.

Each start takes a numbered place of the step, which can be taken once, whoever races whom; what is started below takes
one of each step above that granted what led there as well. So a budget holds exactly, and a place that was taken is a fact: whoever
looks after the run starts what it stands for, as it starts any other child, and ends it with the run.
"""

from __future__ import annotations

import contextlib
import secrets
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import msgspec

from knotwork.bus import clock, codec, digits, reading, subjects
from knotwork.flow import anew, facts
from knotwork.flow.facts import Parent, Spawn
from knotwork.sdk.errors import Conflict, Denied

if TYPE_CHECKING:
    from collections.abc import Mapping

    from knotwork.bus.connection import Connection
    from knotwork.flow.definitions import Definitions
    from knotwork.flow.facts import Start
    from knotwork.flow.model import Children as Grant
    from knotwork.flow.runs import Runs, Sight
    from knotwork.work.leases import Claim
    from knotwork.work.room import Work

_decode = msgspec.json.Decoder(Spawn).decode


@dataclass(frozen=True, slots=True)
class _Above:
    """A step of a run on whose account something is started, so many levels below it."""

    run: str
    start: Start
    step: str
    depth: int


class Children:
    """What workers start in one project."""

    def __init__(self, connection: Connection, work: Work, runs: Runs, definitions: Definitions) -> None:
        """Take places over `connection`."""
        self._connection, self._work, self._runs, self._definitions = connection, work, runs, definitions

    def check(self, claim: str, run: str) -> None:
        """Raise `Invalid` (`claim.invalid`) unless a claim is one on this run."""
        self._work.claims.check(claim, run)

    async def of(self, claim: str) -> tuple[Sight, str]:
        """Return the run and step that a claim is about; raises what claims raise, `Denied` (`flow.no_grant`)."""
        sight, held = await self._held(claim)
        return sight, held.step

    async def _held(self, claim: str) -> tuple[Sight, Claim]:
        held, _ = await self._work.claims.saved(claim)
        if not facts.is_run(held.run):
            raise _no_grant("A task of no workflow")
        return await self._runs.look(held.run), held

    async def spawn(
        self, claim: str, *, workflow: str, capability: str, value: bytes, key: str = ""
    ) -> tuple[Parent, bool, int]:
        """Have a run of a workflow, or a task for a capability, started; returns its place, and how many are left.

        With the same key it is the same place, and False comes back. Raises what claims raise, `Denied`
        (`flow.no_grant`, `flow.budget_spent`), `NotFound` (`flow.no_workflow`).
        """
        sight, held = await self._held(claim)
        step = held.step
        grant = _granted(sight.run.steps[step.partition("--")[0]].box.spec, workflow, capability)
        if workflow:
            await self._definitions.find(workflow)
        key = key or secrets.token_hex(8)
        kept, blob = await self._work.values.keep(value)
        wish = Spawn(workflow, capability, msgspec.Raw(kept), blob, key, sight.start.by)
        known = await self._taken(sight.id, step)
        number = next((number for number, one in known.items() if one.key == key and not one.below), 0)
        if number:
            _must_be_same(known[number], wish)
            with contextlib.suppress(Denied):  # it stands, also when nothing more may be started
                return _place(sight, step, number), False, await self._admit(sight, held, grant, known, key)
            return _place(sight, step, number), False, 0
        if len(known) >= grant.max:  # it would take places above for nothing
            raise _spent(sight.id, f"it allows {grant.max}")
        rest = await self._admit(sight, held, grant, known, key)
        number, left = await self._take(sight.id, step, grant.max, wish)
        return _place(sight, step, number), True, min(left, rest)

    async def _admit(self, sight: Sight, held: Claim, grant: Grant, known: Mapping[int, Spawn], key: str) -> int:
        """Take a place of each step above; returns how many are left. Raises `Denied` (`flow.budget_spent`)."""
        _must_hold(sight, held.step, grant, held)
        below = Spawn(key=f"{sight.id}/{held.step}/{key}"[-256:], below=sight.id)
        above = [(one, await self._reach(one, held)) for one in await self._above(sight, held.step)]
        rest = [await self._take_of(one, most, below) for one, most in above]
        return min([grant.max - len(known), *rest])

    async def _above(self, sight: Sight, step: str) -> list[_Above]:
        """Return the steps below which a step is done that somebody spawned, in its own run and above, the nearest first."""
        found: list[_Above] = []
        run, start, depth = sight.id, sight.start, 1
        tree, behind = start.tree, start.tree_depth + step.count(facts.CHILD)
        while True:
            depth += step.count(facts.CHILD)
            if facts.CHILD in step:
                found.append(_Above(run, start, facts.root(step), depth))
            if start.parent is None:
                break
            run, step = start.parent.run, start.parent.step
            start = await self._there(run)
        if tree is not None and all(one.run != tree.run for one in found):  # a detached run lies between
            found.append(_Above(tree.run, await self._there(tree.run), facts.root(tree.step), behind + 1))
        return found

    async def _there(self, run: str) -> Start:
        """Return how a run above started; raises `Denied` (`flow.budget_spent`) when it is over."""
        start = await anew.start_of(self._connection, run)
        if start is None or await self._runs.over(run):
            raise _spent(run, "that run is over")
        return start

    async def _reach(self, above: _Above, held: Claim) -> int:
        """Return how many a step above allows; raises `Denied` (`flow.budget_spent`) unless it allows any so deep, and now."""
        graph = await self._definitions.graph(above.start.digest)
        grant: Grant | None = getattr(graph.workflow.steps.get(above.step.partition("--")[0]), "children", None)
        if grant is None or above.depth > grant.depth:
            raise _spent(above.run, f"it allows {grant.depth if grant is not None else 0} deep")
        if grant.seconds is not None:
            _must_hold(await self._runs.look(above.run), above.step, grant, held)
        return grant.max

    async def _take_of(self, above: _Above, most: int, wish: Spawn) -> int:
        """Take a place of a step above, unless one was taken by one who died before it went on; returns how many are left."""
        run, step = above.run, above.step
        taken = await self._taken(run, step)
        if any(one.key == wish.key for one in taken.values()):
            return most - len(taken)
        return (await self._take(run, step, most, wish))[1]

    async def _take(self, run: str, step: str, most: int, wish: Spawn) -> tuple[int, int]:
        """Take the first free place; returns its number, and how many are left."""
        taken = await self._taken(run, step)
        for number in range(1, most + 1):
            if number not in taken:
                with contextlib.suppress(Conflict):  # somebody else was faster
                    await self._work.facts.append(facts.subject(run, "spawned", step, str(number)), facts.encode(wish))
                    return number, most - len(taken) - 1
        raise _spent(run, f"it allows {most}")

    async def _taken(self, run: str, step: str) -> dict[int, Spawn]:
        found: dict[int, Spawn] = {}
        pattern = f"{facts.subject(run, 'spawned', step)}.*"
        for stored in await reading.each_last(self._connection, subjects.FACTS, [pattern]):
            number = digits.read(stored.subject.rpartition(".")[2])
            with contextlib.suppress(msgspec.DecodeError, UnicodeDecodeError):
                if number is not None:
                    found[number] = _decode(stored.data)
        return found


def _place(sight: Sight, step: str, number: int) -> Parent:
    return Parent(sight.id, f"{step}{facts.CHILD}{number}")


def _must_hold(sight: Sight, step: str, grant: Grant, held: Claim) -> None:
    """Raise `Denied` (`flow.budget_spent`) when a grant held no longer."""
    if grant.seconds is not None and clock.now_ns() > _begun_ns(sight, step, held) + int(grant.seconds * 1e9):
        raise _spent(sight.id, f"it held for {grant.seconds:g} s")


def _begun_ns(sight: Sight, step: str, held: Claim) -> int:
    """Return when a step began: a handler, which has no turn, with its first child, or with the attempt that asks."""
    first = (fact.time_ns for fact in sight.facts if fact.subject.split(".")[3:5] == ["spawned", step])
    return sight.run.steps[step.partition("--")[0]].begun_ns or min((held.started_ns, *first))


def _granted(spec: Any, workflow: str, capability: str) -> Grant:
    grant: Grant | None = getattr(spec, "children", None)
    if grant is None:
        raise _no_grant("This step")
    if workflow and workflow not in grant.workflows:
        raise _no_grant(f"For a run of {workflow} this step", [*grant.workflows])
    if not workflow and capability not in grant.capabilities:
        raise _no_grant(f"For a task for {capability!r} this step", [*grant.capabilities])
    return grant


def _must_be_same(before: Spawn, wish: Spawn) -> None:
    asked = [
        (one.workflow, one.capability, codec.canonical(bytes(one.input)), one.blob) for one in (before, wish)
    ]  # fmt: skip
    if asked[0] != asked[1]:
        raise Conflict(f"The key {wish.key!r} was used for something else.", code="flow.key_reused")


def _no_grant(what: str, allowed: list[str] | None = None) -> Denied:
    return Denied(
        f"{what} grants nothing.", code="flow.no_grant", hint="Its definition names what it may start, in `children`.",
        detail={"allowed": allowed} if allowed else None,
    )  # fmt: skip


def _spent(run: str, why: str) -> Denied:
    return Denied(f"The budget of {run} is spent: {why}.", code="flow.budget_spent", detail={"run": run})
