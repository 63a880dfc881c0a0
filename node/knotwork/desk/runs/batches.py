"""What becomes of one wish about many runs? Each has an answer of its own; whoever asks can go on where it stopped."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Awaitable, Callable
from dataclasses import replace
from typing import TYPE_CHECKING

from knotwork.crew import starting
from knotwork.desk.callers import asker, caller_name
from knotwork.desk.runs.lists import LIVING, Found
from knotwork.flow.looking import check_id
from knotwork.ops import replies, run_words
from knotwork.ops.flow_replies import AllChanged, Changed
from knotwork.sdk.errors import Conflict, Invalid, KnotworkError, NotFound

if TYPE_CHECKING:
    from knotwork.desk.runs.lists import RunLists
    from knotwork.desk.runs.planned import Planned
    from knotwork.desk.runs.sight import RunSight
    from knotwork.flow.runs import Runs
    from knotwork.ops.flow_ports import RunBatch, RunFilter
    from knotwork.ops.op import Caller

AT_ONCE = 16
TELL_EVERY_S = 1.0
USUAL = {
    "cancel": LIVING - {"scheduled"},
    "pause": frozenset({"running"}),
    "resume": frozenset({"paused"}),
    "retry": frozenset({"failed", "cancelled", "timed-out"}),
}
"""Which runs a wish is about when no state is named; those to come are called off when that is said."""
Act = Callable[[str], Awaitable[Changed]]


async def change(
    runs: Runs, lists: RunLists, sight: RunSight, batch: RunBatch, caller: Caller, *, planned: Planned | None = None
) -> AsyncGenerator[replies.Progress | AllChanged, None]:
    """Yield how far it is, then what became of each run; of one that is named alone, raise what went wrong."""
    act = _act(runs, sight, batch, caller, planned)
    if planned is not None:
        act = _unless_planned(act, planned)
    if batch.ids:
        meant, cursor = list(batch.ids), ""
        places: dict[str, Found] = {}
    else:
        found, cursor = await lists.page(_usual(batch), batch.limit)
        meant, places = [one.id for one in found], {one.id: one for one in found}
    if batch.dry_run:
        told = [_would(one) for one in meant]
        wrong = sum(bool(one.code) for one in told)
        yield AllChanged(runs=told, matched=len(told), failed=wrong, dry_run=True, next=cursor)
        return
    if len(batch.ids) == 1:
        yield _summed([await act(batch.ids[0])], 1, "")
        return
    until_s, tell_s = time.monotonic() + batch.timeout_s, time.monotonic() + TELL_EVERY_S
    done: list[Changed] = []
    for begin in range(0, len(meant), AT_ONCE):
        if time.monotonic() >= until_s:
            cursor = _behind(places.get(meant[begin - 1]))
            break
        async with asyncio.TaskGroup() as group:
            acts = [group.create_task(_told(act, one)) for one in meant[begin : begin + AT_ONCE]]
        done += [one.result() for one in acts]
        if time.monotonic() >= tell_s:
            tell_s = time.monotonic() + TELL_EVERY_S
            failed = sum(bool(one.code) for one in done)
            told_failed = f", {failed} failed" if failed else ""
            text = f"{batch.what}: {len(done)} of {len(meant)} runs{told_failed}"
            yield replies.Progress(percent=100 * len(done) / len(meant), text=text)
    if batch.ids:
        why = f"the {batch.timeout_s:g} s were over before its turn: ask again"
        done += [Changed(id=one, changed=False, why=why, code="flow.not_reached") for one in meant[len(done) :]]
    yield _summed(done, len(meant), cursor)


def _behind(found: Found | None) -> str:
    return run_words.write_cursor(found.started_ns, found.id) if found is not None else ""


def _usual(batch: RunBatch) -> RunFilter:
    return batch.wanted if batch.wanted.states else replace(batch.wanted, states=USUAL[batch.what])


def _summed(done: list[Changed], matched: int, cursor: str) -> AllChanged:
    made = "\n".join(one.run for one in done if one.run)
    return AllChanged(
        runs=done, matched=matched, done=sum(one.changed for one in done), failed=sum(bool(one.code) for one in done),
        id=made, next=cursor,
    )  # fmt: skip


def _would(run: str) -> Changed:
    """Return what is told of a run when nothing is done; of what is no id at all, that."""
    try:
        return Changed(id=check_id(run), changed=False, why="dry run")
    except Invalid as error:
        return Changed(id=run, changed=False, why=error.message, code=error.code)


def _act(runs: Runs, sight: RunSight, batch: RunBatch, caller: Caller, planned: Planned | None) -> Act:
    by = caller_name(caller)

    async def act(run: str) -> Changed:
        if batch.ids:  # what a filter found may be seen
            await sight.admit(check_id(run))
        match batch.what:
            case "cancel":
                try:
                    await runs.cancel(run, by=by, why=batch.why)
                except NotFound:
                    trigger = await planned.call_off(run) if planned is not None else ""
                    if not trigger:
                        raise
                    return Changed(id=run, changed=True, why=f"it had not begun: the trigger {trigger} is removed")
            case "retry":
                return await _retried(runs, run, batch, caller)
            case "pause" | "resume":
                await runs.hold(run, by=by, resume=batch.what == "resume")
        return Changed(id=run, changed=True)

    return act


async def _retried(runs: Runs, run: str, batch: RunBatch, caller: Caller) -> Changed:
    """Begin a run again; raises what `runs.fork` does, and `Conflict`.

    That is `crew.run` for one of an orchestration, and `flow.not_over` for one that goes on: all would be done twice.
    """
    outline = await runs.outline(run)
    start = outline.start
    if batch.key and not batch.ids and start.of and start.key == batch.key:
        return Changed(id=run, changed=False, why="it is a retry with this key itself")
    if orchestration := starting.carried_out(run, start):
        raise Conflict(
            f"{run} carries out the orchestration {orchestration}, which would know nothing of another run.",
            code="crew.run", hint="`knotwork crew retry` does a part of it again.", detail={"id": orchestration},
        )  # fmt: skip
    last = await runs.latest(run) if batch.ids else run  # what a filter found is meant itself
    if (outline if last == run else await runs.outline(last)).finish is None:
        raise Conflict(
            f"{last} has not ended.", code="flow.not_over",
            hint="Wait for its end (`knotwork run await`), or cancel it first; `knotwork run fork` takes a copy from a step on.",
        )  # fmt: skip
    made, new = await runs.fork(last, batch.step, by=caller_name(caller), key=batch.key, asker=asker(caller.who))
    why = "" if new else "it was retried with this key before"
    if last != run:
        why = "; ".join(one for one in (f"from {last}, which went on for it", why) if one)
    return Changed(id=run, changed=new, run=made, why=why)


def _unless_planned(act: Act, planned: Planned) -> Act:
    """Do the same; of a run that is to come say that it has not begun, where none is found."""

    async def told(run: str) -> Changed:
        async with planned.begun_by_now(run):
            return await act(run)

    return told


async def _told(act: Act, run: str) -> Changed:
    try:
        return await act(run)
    except KnotworkError as error:
        return Changed(id=run, changed=False, why=error.message, code=error.code)
