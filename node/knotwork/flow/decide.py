"""What follows from a fact of a run? Every rule of workflows is here and in `opening`, `items`, `plans` and `ending` (pure).

`advance` takes the facts of a run in the order in which they were stored, and leaves in `Run.new` what each calls for.
The same facts always give the same: so whoever reads them anew, after a crash or on another node, goes on as the one
before would have, by carrying out what is still open.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from knotwork.flow import calls, ending, items, opening, outputs, plans
from knotwork.flow.effects import End, SetTimer
from knotwork.flow.facts import Finish, Signal, Spawn, StepEnd, Wish
from knotwork.sdk.errors import Invalid

if TYPE_CHECKING:
    from knotwork.flow.effects import Effect
    from knotwork.flow.facts import Fact
    from knotwork.flow.run import Progress, Run

S = 1_000_000_000


def started(run: Run) -> list[Effect]:
    """Return what a run that has just begun calls for."""
    workflow = run.graph.workflow
    if workflow.timeout is not None:
        run.emit(SetTimer("run", run.now_ns + int(workflow.timeout * S)))
    if workflow.input_schema is not None:
        try:
            outputs.must_fit(workflow.input_schema, bytes(run.start.input), "The input")
        except Invalid as error:
            ending.stop(run, "failed", error.to_wire())
    if run.phase == "running":
        try:
            calls.admit(run)
        except Invalid as error:
            ending.stop(run, "failed", error.to_wire())
    return _settled(run)


def advance(run: Run, fact: Fact) -> list[Effect]:
    """Take the next fact of a run, and return the effects it calls for; facts of what is over change nothing."""
    run.now_ns = max(run.now_ns, fact.at_ns)
    if fact.what == "ended" and isinstance(fact.body, Finish):
        run.phase = "over"
        run.close_all()
    if run.phase == "over":
        return []
    run.place = max(run.place, fact.seq)
    match fact.what:
        case "outcome" | "again" if isinstance(fact.body, StepEnd):
            (_step_ended if fact.what == "outcome" else calls.again)(run, fact.about, fact.body)
        case "fired":
            _fired(run, fact.about)
        case "spawned" if isinstance(fact.body, Spawn):
            calls.spawn(run, fact.about, fact.body)
        case "signal" if isinstance(fact.body, Signal):
            opening.signalled(run, fact.about, fact.seq, bytes(fact.body.payload))
        case "cancel":
            ending.stop(run, "cancelled", ending.cancelled(fact.body))
        case "admitted":
            run.held = False
            run.close("admit")
        case "pause" | "resume":
            _hold(run, fact)
    return _settled(run)


def _settled(run: Run) -> list[Effect]:
    """Begin what can begin, until nothing more follows, and return all that is called for."""
    while True:
        while (step := _next(run)) is not None:
            if step.state == "ready":
                opening.begin(run, step)
        if run.phase == "running" and run.left == 0 and run.awaited == 0 and not (run.anew and run.paused):
            _complete(run)
        if not ending.proceed(run):
            break
    new, run.new = run.new, []
    return [effect for effect in new if run.open.get(effect.name) is effect]


def _next(run: Run) -> Progress | None:
    """Return the next step that may begin."""
    limit = run.graph.workflow.max_parallel
    if run.phase != "running" or run.paused or run.held:
        return None
    if run.at_once:
        return run.steps[run.at_once.popleft()]
    if run.ready and not (limit and run.working >= limit):
        return run.steps[run.ready.popleft()]
    return None


def _hold(run: Run, fact: Fact) -> None:
    """Begin nothing more, or go on, and have the attached runs below do the same."""
    order = fact.body.order if isinstance(fact.body, Wish) else 0
    if order and order <= run.heard:
        return  # its parent wished something else since
    run.heard, run.paused = max(run.heard, order), fact.what == "pause"
    if run.phase == "running":
        calls.hold_children(run)
    if not run.paused and (asked := run.open.get("admit")) is not None:
        run.emit(asked)  # while it was paused others went before it
    for step in run.steps.values() if not run.paused else ():
        if step.items is not None:
            items.go_on(run, step)


def _complete(run: Run) -> None:
    if run.anew is not None:
        unheard = sorted(place for waiting in run.signals.values() for place, _ in waiting)
        run.phase = "over"
        run.close_all()
        anew = replace(run.anew, after=run.place, unheard=tuple(unheard), heard=run.heard)
        run.emit(End("completed", anew=anew))
        return
    try:
        output, blob = outputs.of_run(run)
    except Invalid as error:
        ending.stop(run, "failed", error.to_wire())
        return
    run.phase = "over"
    run.close_all()
    run.emit(End("completed", output, blob))


# -- facts of steps ------------------------------------------------------------------------------------------------------


def _step_ended(run: Run, token: str, end: StepEnd) -> None:
    """Take note of how an agent, a run, a person or the engine ended a step."""
    awaited = [name for kind in _AWAITED if (name := f"{kind}.{token}") in run.open]
    if not awaited:
        return  # it is over already: a late answer
    for name in awaited:
        run.close(name)
    for kind in ("again", "withdraw", "cancel-child", "hold-child"):
        run.close(f"{kind}.{token}")
    if token in run.spawned:
        run.spawned[token].end = end
        return
    if token in run.handling:
        ending.handled(run, token, end)
        return
    name, _, item = token.partition("--")
    step = run.steps.get(name)
    if step is None or step.state != "open":
        return
    if item == plans.PLAN and end.state == "completed":
        plans.ended(run, step, bytes(end.output))
    elif item.isdigit():
        items.ended(run, step, int(item), end)
    else:
        run.close(f"timer.{opening.timer_of(step)}")
        ending.finish(run, step, end)


_AWAITED = ("do", "child", "event", "ask", "send", "respond")
"""Effects that end with the outcome of a step."""


def _fired(run: Run, timer: str) -> None:
    if f"timer.{timer}" not in run.open:
        return
    run.close(f"timer.{timer}")
    if timer == "run":
        ending.stop(run, "timed-out", ending.too_late(run))
        return
    step = run.steps.get(timer.partition("-")[2])
    if step is not None and step.state == "open":
        opening.time_is_up(run, step)
