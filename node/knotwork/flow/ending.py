"""What follows when a step ends, and when a run fails? Handlers, compensation, cancellation, the end (pure)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from knotwork.flow import briefly, calls, outputs
from knotwork.flow.effects import NULL, Dispatch, End, StartChild, is_awaited
from knotwork.flow.facts import StepEnd, Wish
from knotwork.flow.run import OVER, context, decoded
from knotwork.sdk.errors import Cancelled, Failed, Invalid, KnotworkError, TimedOut

if TYPE_CHECKING:
    from knotwork.flow.run import Progress, Run, StepState
    from knotwork.work.records import Ended, Final

Error = dict[str, Any]
ERROR_MAX_BYTES = 1024 * 1024
"""How large the error of a run may be: one that fits into no message would never be recorded, and the run never end."""


def done(output: bytes = NULL, blob: str = "") -> StepEnd:
    """Return the end of a step that did what it should."""
    return StepEnd("completed", msgspec.Raw(output), blob)


def failure(error: KnotworkError, state: Ended = "failed") -> StepEnd:
    """Return the end of a step that did not."""
    return StepEnd(state, error=error.to_wire())


def finish(run: Run, step: Progress, end: StepEnd) -> None:
    """End a step that is open, and let what depended on it go on."""
    spec, state, error = step.box.spec, end.state, end.error
    if state == "completed":
        error = _unfit(step, end)
        if error is None:
            step.node, step.agent = end.node, end.agent
            settle(run, step, "completed", bytes(end.output), end.blob)
            return
    calls.recall_spawned(run, step)
    step.error = error or Failed("It was cancelled.", code="flow.step_cancelled").to_wire()
    if run.phase != "running":
        settle(run, step, "cancelled" if state == "cancelled" else "failed")
    elif spec.on_failure is not None:
        _handle(run, spec.on_failure, step, "on_failure")
    else:
        _failed(run, step, state)


def _failed(run: Run, step: Progress, state: str) -> None:
    settle(run, step, "failed")
    if not step.box.spec.allow_failure:
        error = step.error or {}
        told = {**error, "message": _from_step(step.box.id, error, state)}
        stop(run, "failed", _with_detail(told, step=step.box.id))


def _from_step(name: str, error: Error, state: str) -> str:
    """Return a message with the step that it comes from; one from a sub-workflow as a path: "Step a → b: no"."""
    message = str(error.get("message", state))
    inner = (error.get("detail") or {}).get("step") if isinstance(error.get("detail"), dict) else None
    if isinstance(inner, str) and message.startswith((f"Step {inner}: ", f"Step {inner} → ")):
        return f"Step {name} → {message.removeprefix('Step ')}"
    return f"Step {name}: {message}"


def settle(run: Run, step: Progress, state: StepState, output: bytes = NULL, blob: str = "") -> None:
    """Note the end of a step, whether it was open or not, and see which steps can go on."""
    if step.state in OVER or step.box.id in run.graph.handlers:
        return
    if step.state == "open":
        run.working -= 1
    if step.items is not None and state != "completed":
        step.kept = step.items.done()
    step.state, step.output, step.blob, step.items = state, output, blob, None
    step.ended_ns = run.now_ns
    run.left -= 1
    if state == "completed" and step.box.spec.compensate is not None:
        run.done.append(step.box.id)
    if step.box.spec.kind == "choice":
        for case in step.box.spec.cases:
            for name in set(case.then).difference(step.chosen):
                run.steps[name].barred = True
    if run.phase == "running":
        for name in step.box.children:
            _parent_ended(run, run.steps[name], completed=state == "completed")


def _parent_ended(run: Run, child: Progress, *, completed: bool) -> None:
    child.left -= 1
    child.done += completed
    if child.state == "blocked" and (child.left == 0 or _has_enough(child)):
        run.enqueue(child)


def _has_enough(step: Progress) -> bool:
    """Return whether a join has what it needs, though not all of its steps have ended."""
    spec = step.box.spec
    if spec.kind != "join" or spec.need == "all":
        return False
    return step.done >= (1 if spec.need == "any" else spec.need)


# -- the run fails, or is cancelled --------------------------------------------------------------------------------------


def stop(run: Run, final: Final, error: Error) -> None:
    """Begin nothing more, recall what runs, and then end like this; the first reason counts.

    A run that is cancelled while it is being undone ends as it would have, but at once.
    """
    if run.phase != "running":
        if final == "cancelled" and run.final != "cancelled" and run.cut is None:
            run.cut = error
            for token in run.handling:
                calls.recall(run, token)
        return
    run.phase, run.final, run.error = "stopping", final, error
    run.ready.clear()
    run.at_once.clear()
    awaited = {step for token, (step, _) in run.handling.items() if _is_awaited(run, token)}
    for name, effect in list(run.open.items()):
        if is_awaited(effect) and isinstance(effect, Dispatch | StartChild):
            awaited.add(effect.token.partition("--")[0])
            calls.recall(run, effect.token)
        elif not name.startswith(("withdraw.", "cancel-child.", "again.")):
            run.close(name)
    for step in run.steps.values():
        if step.box.id not in awaited:
            settle(run, step, "cancelled")


def proceed(run: Run) -> bool:
    """Take the next step towards the end of a run that is stopping; say whether one was taken."""
    if run.phase in ("running", "over") or run.awaited:
        return False
    if run.phase == "stopping":
        for step in run.steps.values():
            settle(run, step, "cancelled")
        run.phase = "undoing"
    if run.phase == "undoing":
        if run.final != "cancelled" and run.cut is None and run.done:
            step = run.steps[run.done.pop()]
            _handle(run, str(step.box.spec.compensate), step, "compensate")
            return True
        run.phase = "handling"
        if run.final != "cancelled" and run.cut is None and run.graph.workflow.on_failure is not None:
            _handle(run, run.graph.workflow.on_failure, None, "run")
            return True
    run.phase = "over"
    error = run.error
    if run.cut is not None:
        run.undone += [{"step": name, "error": run.cut} for name in reversed(run.done)]
    if error is not None and run.undone:
        error = _with_detail(error, not_undone=run.undone[: briefly.UNDONE_MAX])
    run.close_all()
    run.emit(End(run.final, error=error and briefly.kept(error, ERROR_MAX_BYTES)))
    return False


def _is_awaited(run: Run, token: str) -> bool:
    return f"do.{token}" in run.open or f"child.{token}" in run.open


# -- handlers ------------------------------------------------------------------------------------------------------------


def _handle(run: Run, name: str, step: Progress | None, role: str) -> None:
    """Start a step that handles a failure, or undoes another; it may do so for several."""
    handler = run.steps[name]
    token = f"{name}--{step.box.place if step else len(run.steps)}{'u' if role == 'compensate' else ''}"
    try:
        told = _told(run, step, role)
        seen = {key: value for key, value in told.items() if key != "run"}
        shape = handler.box.spec.input
        value = (
            outputs.encoded(told) if shape is None else outputs.shaped(shape, context(run, handler.box.reads, **seen))
        )
        run.handling[token] = (step.box.id if step else "", role)
        calls.call(run, handler, token, value, **seen)
    except Invalid as error:
        run.handling.pop(token, None)
        _handler_ended(run, step, role, failure(error))


def _told(run: Run, step: Progress | None, role: str) -> dict[str, Any]:
    """Return what a handler is given that says nothing of it."""
    if step is None:
        return {"error": run.error, "run": run.id}
    told: dict[str, Any] = {"step": step.box.id, "input": _shown(step.input, step.input_blob)}
    if role == "compensate":
        return {**told, "output": _shown(step.output, step.blob)}
    return {**told, "error": step.error}


def handled(run: Run, token: str, end: StepEnd) -> None:
    """Take note of the end of a step that handled a failure, or undid another."""
    step, role = run.handling.pop(token)
    if end.state == "completed":
        error = _unfit(run.steps[token.partition("--")[0]], end)
        if error is None and role == "on_failure":
            error = _unfit(run.steps[step], end)
        end = end if error is None else StepEnd("failed", error=error)
    _handler_ended(run, run.steps.get(step), role, end)


def _handler_ended(run: Run, step: Progress | None, role: str, end: StepEnd) -> None:
    if step is None:
        if end.state != "completed":
            run.error = _with_detail(run.error or {}, handler_error=end.error)
    elif role == "compensate":
        step.undone = end.state == "completed"
        if not step.undone:
            run.undone.append({"step": step.box.id, "error": end.error})
    elif step.state in OVER:
        return  # a join called it off meanwhile
    elif end.state == "completed":
        step.node, step.agent = end.node, end.agent
        settle(run, step, "completed", bytes(end.output), end.blob)
    elif run.phase != "running":
        settle(run, step, "failed")
    else:
        step.error = _with_detail(step.error or {}, handler_error=end.error)
        _failed(run, step, "failed")


def _with_detail(error: Error, **more: Any) -> Error:
    """Return an error that tells more; what a worker wrote as detail may be anything."""
    detail = error.get("detail")
    return {**error, "detail": {**(detail if isinstance(detail, dict) else {}), **more}}


# -- words ---------------------------------------------------------------------------------------------------------------


def cancelled(wish: object) -> Error:
    """Return the error of a run that somebody cancelled."""
    by = wish.by if isinstance(wish, Wish) else ""
    why = f": {wish.why}" if isinstance(wish, Wish) and wish.why else "."
    return Cancelled(f"It was cancelled{f' by {by}' if by else ''}{why}", code="flow.cancelled").to_wire()


def too_late(run: Run) -> Error:
    """Return the error of a run that took too long."""
    return TimedOut(f"It took longer than {run.graph.workflow.timeout:g} s.", code="flow.timeout").to_wire()


def _unfit(step: Progress, end: StepEnd) -> Error | None:
    schema = getattr(step.box.spec, "output_schema", None)
    if schema is None or end.blob:
        return None
    try:
        outputs.must_fit(schema, bytes(end.output), "Its output")
    except Invalid as error:
        return error.to_wire()
    return None


def _shown(value: bytes, blob: str) -> Any:
    return {"blob": blob} if blob else decoded(value)
