"""Which effect carries a step out? An agent's task, or a run of another workflow (pure)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from knotwork.flow import admission, expressions, outputs
from knotwork.flow.admission import Limit
from knotwork.flow.effects import NULL, Admit, CancelChild, Dispatch, HoldChild, Near, Readmit, StartChild, Withdraw
from knotwork.flow.facts import CHILD
from knotwork.flow.run import Spawned, context, decoded

if TYPE_CHECKING:
    from knotwork.flow.facts import Spawn, StepEnd
    from knotwork.flow.model import StepLimit, Sticky
    from knotwork.flow.run import Progress, Run


def call(run: Run, step: Progress, token: str, value: bytes = NULL, blob: str = "", /, **told: Any) -> None:
    """Have a step carried out under a name on the wire, with this input; raises `Invalid` for a prompt that fails.

    `told` is what a prompt, and the key of a limit, sees beside what all see.
    """
    spec = step.box.spec
    match spec.kind:
        case "workflow":
            run.emit(StartChild(token, spec.workflow, value, blob, spec.detach))
        case "agent":
            prompt = expressions.filled(spec.prompt, context(run, step.box.reads, **told))
            work = {"prompt": prompt, "tools": list(spec.tools), "input": decoded(value)}
            dispatch(run, step, token, outputs.encoded(work), limit=limit_of(run, step, **told))
        case _:
            dispatch(run, step, token, value, blob, limit=limit_of(run, step, **told))


def dispatch(run: Run, step: Progress, token: str, value: bytes, blob: str = "", *, limit: Limit | None) -> None:
    """Have an agent carry out a step, or one item of it, when its limit admits it."""
    run.emit(Dispatch(token, step.box.id, step.box.spec, value, blob, limit, near(run, step)))


def spawn(run: Run, token: str, wish: Spawn) -> None:
    """Start what the worker of a step wants started, while it holds the step."""
    held = token.rpartition(CHILD)[0]
    asked = run.open.get(f"do.{held}")
    if wish.below or run.phase != "running" or token in run.spawned or not isinstance(asked, Dispatch):
        return
    run.spawned[token] = Spawned(wish.workflow or wish.capability, bool(wish.workflow))
    value = bytes(wish.input)
    if wish.workflow:
        paused = run.paused and held not in run.handling
        run.emit(StartChild(token, wish.workflow, value, wish.blob, spawned=True, paused=paused))
    else:
        from knotwork.flow.model import TaskStep  # loaded already by whoever has workflows

        boundary = getattr(asked.spec, "boundary", None)
        run.emit(Dispatch(token, asked.step, TaskStep(capability=wish.capability, boundary=boundary), value, wish.blob))


def recall_spawned(run: Run, step: Progress) -> None:
    """End what the worker of a step started."""
    for token, one in run.spawned.items():
        if one.end is None and token.partition("--")[0] == step.box.id:
            recall(run, token)


def hold_children(run: Run) -> None:
    """Have the attached runs that steps started pause, or go on, as this one does; failures are handled all the same."""
    for effect in list(run.open.values()):
        if not isinstance(effect, StartChild) or effect.detach or f"cancel-child.{effect.token}" in run.open:
            continue
        if effect.token.rpartition(CHILD)[0] not in run.handling and effect.token not in run.handling:
            run.emit(HoldChild(effect.token, run.paused, run.place))


def again(run: Run, token: str, end: StepEnd) -> None:
    """Have another attempt of a limited step wait for its time and its place; the place of the last one is free."""
    asked = run.open.get(f"do.{token}")
    if isinstance(asked, Dispatch) and asked.limit is not None and f"withdraw.{token}" not in run.open:
        run.emit(Readmit(token, asked.limit, end.due_ns, tries(run, token) + 1))


def tries(run: Run, token: str) -> int:
    """Return how many attempts of a step had to be admitted again."""
    before = run.open.get(f"again.{token}")
    return before.count if isinstance(before, Readmit) else 0


def is_over(run: Run, attempt: str) -> bool:
    """Return whether an attempt that was admitted (`<token>`, or `<token>.<count>`) has ended."""
    token, _, count = attempt.partition(".")
    return f"do.{token}" not in run.open or int(count if count.isdigit() else 0) < tries(run, token)


def near(run: Run, step: Progress) -> Near | None:
    """Return where a step is to be done; None: anywhere."""
    sticky: Sticky | None = getattr(step.box.spec, "sticky", None)
    if sticky is None:
        return None
    other = run.steps[sticky.step]
    return Near(other.node, other.agent, sticky.mode == "hard") if other.node else None


def limit_of(run: Run, step: Progress, /, **told: Any) -> Limit | None:
    """Return what must admit a step before it begins; raises `Invalid` for a key that cannot be worked out.

    `told` is what the key sees beside what all see: in a handler what it handles.
    """
    limit: StepLimit | None = getattr(step.box.spec, "limit", None)
    if limit is None:
        return None
    return limit_in(run, step, limit, context(run, step.box.reads, **told) if limit.key is not None else {})


def limit_in(run: Run, step: Progress, limit: StepLimit, seen: dict[str, Any]) -> Limit:
    """Return the same with what its key sees; raises `Invalid`."""
    spec = step.box.spec
    value = expressions.as_key(expressions.evaluate(limit.key, seen)) if limit.key is not None else b""
    what = getattr(spec, "capability", None) or getattr(spec, "agent", None) or ""
    scope, name = (
        ("cap", what.replace("/", "="))
        if limit.scope == "capability"
        else ("step", f"{run.graph.workflow.name}.{step.box.id}")
    )
    return Limit(admission.key_of(scope, name, value), limit.concurrency, limit.rate, limit.per, limit.units)


def admit(run: Run) -> None:
    """Have a run admitted among those of its workflow; raises `Invalid` for a bad key."""
    limit = run.graph.workflow.concurrency
    if limit is not None:
        value = b""
        if limit.key is not None:
            value = expressions.as_key(expressions.evaluate(limit.key, context(run, frozenset())))
        key = admission.key_of("run", run.graph.workflow.name, value)
        run.held, run.admitted = True, Limit(key, limit.max_runs)
        run.emit(Admit(run.admitted, limit.when_full))


def recall(run: Run, token: str) -> None:
    """End what carries a step out; its end is still to come, as a fact."""
    effect = run.open.get(f"do.{token}")
    if isinstance(effect, Dispatch) and f"withdraw.{token}" not in run.open:
        run.emit(Withdraw(token, effect.spec))
    child = run.open.get(f"child.{token}")
    if isinstance(child, StartChild) and not child.detach and f"cancel-child.{token}" not in run.open:
        run.emit(CancelChild(token))
