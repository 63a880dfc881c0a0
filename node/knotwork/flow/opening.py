"""What does a step call for when its turn comes? One rule for each kind of step (pure)."""

from __future__ import annotations

from collections import deque
from datetime import datetime
from typing import TYPE_CHECKING, Any

from knotwork.flow import calls, ending, expressions, items, outputs, plans
from knotwork.flow.durations import next_due
from knotwork.flow.effects import Anew, Ask, Expect, Respond, SendSignal, SetTimer, WatchEvent
from knotwork.flow.run import context
from knotwork.sdk.errors import Invalid, TimedOut

if TYPE_CHECKING:
    from knotwork.flow.model import AnyStep, ChoiceStep, JoinStep, SleepStep
    from knotwork.flow.run import Progress, Run

S = 1_000_000_000
FAR_NS = 4_000_000_000 * S
TITLE_MAX = 16_384
"""Letters of what an approval asks, when it is filled in."""
_NOT_DONE = frozenset({"skipped", "cancelled"})


def begin(run: Run, step: Progress) -> None:
    """Begin a step whose turn has come, or skip it."""
    if step.barred or _all_left_out(run, step):
        ending.settle(run, step, "skipped")
        return
    spec, token = step.box.spec, step.box.id
    try:
        if spec.when is not None and not expressions.is_true(
            expressions.evaluate(spec.when, context(run, step.box.reads))
        ):
            ending.settle(run, step, "skipped")
            return
        step.state, step.begun_ns = "open", run.now_ns
        run.working += 1
        if (end := run.start.given.get(token)) is not None:
            if spec.compensate is not None:  # whoever undoes it is told what it was given
                step.input, step.input_blob = (
                    (_items_of(run, step), "") if spec.kind == "map" else outputs.input_of(run, step)
                )
            ending.finish(run, step, end)
            return
        if spec.kind == "map":
            _begin_map(run, step)
            return
        step.input, step.input_blob = outputs.input_of(run, step)
        _open(run, step, spec, token)
    except Invalid as error:
        if step.state != "open":
            step.state, step.begun_ns = "open", run.now_ns
            run.working += 1
        ending.finish(run, step, ending.failure(error))


def _all_left_out(run: Run, step: Progress) -> bool:
    parents = step.box.parents
    return bool(parents) and all(run.steps[name].state in _NOT_DONE for name in parents)


def _begin_map(run: Run, step: Progress) -> None:
    spec = step.box.spec
    assert spec.kind == "map"
    step.input = _items_of(run, step)
    items.begin(run, step, spec, step.input)


def _items_of(run: Run, step: Progress) -> bytes:
    """Return the list that a map goes through; raises `Invalid` when it cannot be worked out."""
    spec = step.box.spec
    assert spec.kind == "map"
    if (handed := run.start.handed.get(step.box.id)) is not None:
        return bytes(handed.input)
    if spec.items is not None:
        return outputs.encoded(expressions.evaluate(spec.items, context(run, step.box.reads)))
    return outputs.input_by_default(run, step)[0]


def _open(run: Run, step: Progress, spec: AnyStep, token: str) -> None:  # noqa: C901, PLR0912  one rule for each kind
    value, blob = step.input, step.input_blob
    match spec.kind:
        case "sleep":
            run.emit(SetTimer(timer_of(step), _wakes_ns(run, step, spec)))
        case "wait_for_event":
            seen = context(run, step.box.reads) if spec.match is not None else {}
            run.emit(WatchEvent(token, spec.event, spec.match, seen, run.now_ns))
            _limit(run, step, spec.timeout)
        case "wait_for_signal":
            if waiting := run.signals.get(spec.signal):
                ending.finish(run, step, ending.done(waiting.popleft()[1]))
            else:
                run.emit(Expect(token, spec.signal, run.now_ns))
                run.expecting.setdefault(spec.signal, deque()).append(token)
                _limit(run, step, spec.timeout)
        case "approval":
            step.title = _title(run, step, spec.title)
            run.emit(Ask(token, spec, value, run.now_ns))
            _limit(run, step, spec.timeout)
        case "signal":
            to = expressions.evaluate(spec.run, context(run, step.box.reads))
            if not isinstance(to, str):
                raise Invalid(f"{spec.run!r} gives no id of a run.", code="flow.expression_failed")
            run.emit(SendSignal(token, to, spec.signal, value))
        case "respond":
            run.emit(Respond(token, spec.status, value))
        case "choice":
            _choose(run, step, spec)
        case "join":
            _join(run, step, spec)
        case "planner":
            plans.ask(run, step)
        case "continue_as_new":
            outputs.must_be_kept(value, "Its input", "Pass on what the next run needs of it.")
            run.anew = run.anew or Anew(token, value, blob, spec.latest)
            ending.finish(run, step, ending.done(value, blob))
        case _:
            calls.call(run, step, token, value, blob)


# -- kinds that need nobody ----------------------------------------------------------------------------------------------


def _choose(run: Run, step: Progress, spec: ChoiceStep) -> None:
    seen = context(run, step.box.reads)
    for case in spec.cases:
        if case.when is None or expressions.is_true(expressions.evaluate(case.when, seen)):
            step.chosen = case.then
            break
    ending.finish(run, step, ending.done(step.input, step.input_blob))


def _join(run: Run, step: Progress, spec: JoinStep) -> None:
    parents = [run.steps[name] for name in step.box.parents]
    done = [parent.box.id for parent in parents if parent.state == "completed"]
    need = len(parents) if spec.need == "all" else 1 if spec.need == "any" else spec.need
    if spec.need != "all" and len(done) < need:
        told = f"{len(done)} of its steps are done, and {need} are needed."
        raise Invalid(told, code="flow.join_short")
    if spec.cancel_rest:
        for parent in parents:
            if parent.state == "open":
                _call_off(run, parent)
            elif parent.state in ("blocked", "ready"):
                ending.settle(run, parent, "cancelled")
    ending.finish(run, step, ending.done(outputs.together(run, done)))


def _call_off(run: Run, step: Progress) -> None:
    """End a step that is not needed any more: it counts as cancelled at once, whatever becomes of its work."""
    name = step.box.id
    if getattr(step.box.spec, "detach", False):
        run.close(f"child.{name}")
    calls.recall(run, name)
    calls.recall(run, plans.token_of(step))
    items.recall(run, step)
    calls.recall_spawned(run, step)
    for token, (one, _) in run.handling.items():
        if one == name:
            calls.recall(run, token)
    for kind in ("event", "signal", "ask", "send", "respond"):
        run.close(f"{kind}.{name}")
    run.close(f"timer.{timer_of(step)}")
    ending.settle(run, step, "cancelled")


# -- kinds that wait -----------------------------------------------------------------------------------------------------


def timer_of(step: Progress) -> str:
    """Return the name of the one timer that a step may have."""
    return f"{'sleep' if step.box.spec.kind == 'sleep' else 'wait'}-{step.box.id}"


def _title(run: Run, step: Progress, template: str) -> str:
    """Return what an approval asks; as it is written where that cannot be worked out: people can still answer.

    It follows from the facts alone, and nothing follows from it: no history is led elsewhere by it.
    """
    if not expressions.holes(template):
        return template
    try:
        return expressions.filled(template, context(run, step.box.reads))[:TITLE_MAX]
    except Invalid:
        return template


def _limit(run: Run, step: Progress, timeout_s: float | None) -> None:
    if timeout_s is not None:
        run.emit(SetTimer(timer_of(step), run.now_ns + int(timeout_s * S)))


def time_is_up(run: Run, step: Progress) -> None:
    """End a step whose timer fired: a pause is over, or nobody came."""
    spec, token = step.box.spec, step.box.id
    for kind in ("event", "signal", "ask"):
        run.close(f"{kind}.{token}")
    if spec.kind == "sleep":
        ending.finish(run, step, ending.done(step.input, step.input_blob))
    elif spec.kind in ("wait_for_event", "wait_for_signal", "approval"):
        if spec.on_timeout == "value":
            ending.finish(run, step, ending.done(outputs.encoded(spec.timeout_value)))
        else:
            error = TimedOut(f"Nothing came within {spec.timeout:g} s.", code="flow.wait_timeout")
            ending.finish(run, step, ending.failure(error, "timed-out"))


def signalled(run: Run, name: str, place: int, payload: bytes) -> None:
    """Give a signal to the first step that waits for it, or keep it for the next."""
    waiting = run.expecting.get(name)
    while waiting:
        step = run.steps[waiting.popleft()]
        if f"signal.{step.box.id}" in run.open:  # else it was in vain, or called off
            run.close(f"signal.{step.box.id}")
            run.close(f"timer.{timer_of(step)}")
            ending.finish(run, step, ending.done(payload))
            return
    run.signals.setdefault(name, deque()).append((place, payload))


def _wakes_ns(run: Run, step: Progress, spec: SleepStep) -> int:
    if spec.duration is not None:
        return run.now_ns + int(spec.duration * S)
    if spec.cron is not None:
        return next_due(spec.cron, spec.timezone, run.now_ns)
    moment = expressions.evaluate(str(spec.until), context(run, step.box.reads))
    if (found := time_ns(moment)) is not None:
        return found
    raise Invalid(
        f"{spec.until!r} gives {str(moment)[:80]!r}, no time.",
        code="flow.bad_time",
        hint="Give an RFC 3339 time with its zone, or seconds since 1970.",
    )


def time_ns(moment: Any) -> int | None:
    """Return the nanoseconds since 1970 that a value means as a time, None for one that means none."""
    if isinstance(moment, int | float) and not isinstance(moment, bool) and 0 <= moment * S < FAR_NS:
        return int(moment * S)
    try:
        when = datetime.fromisoformat(str(moment))
        if when.tzinfo is not None and 0 <= when.timestamp() * S < FAR_NS:
            return int(when.timestamp() * S)
    except (ValueError, OverflowError):
        pass
    return None
