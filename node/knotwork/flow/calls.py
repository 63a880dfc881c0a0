"""Which effect carries a step out? An agent's task, or a run of another workflow (pure)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from knotwork.flow import expressions, outputs
from knotwork.flow.effects import NULL, CancelChild, Dispatch, StartChild, Withdraw
from knotwork.flow.run import context, decoded

if TYPE_CHECKING:
    from knotwork.flow.run import Progress, Run


def call(run: Run, step: Progress, token: str, value: bytes = NULL, blob: str = "", /, **told: Any) -> None:
    """Have a step carried out under a name on the wire, with this input; raises `Invalid` for a prompt that fails.

    `told` is what a prompt sees beside what all see.
    """
    spec = step.box.spec
    match spec.kind:
        case "workflow":
            run.emit(StartChild(token, spec.workflow, value, blob, spec.detach))
        case "agent":
            prompt = expressions.filled(spec.prompt, context(run, step.box.reads, **told))
            work = {"prompt": prompt, "tools": list(spec.tools), "input": decoded(value)}
            run.emit(Dispatch(token, step.box.id, spec, outputs.encoded(work)))
        case _:
            run.emit(Dispatch(token, step.box.id, spec, value, blob))


def recall(run: Run, token: str) -> None:
    """End what carries a step out; its end is still to come, as a fact."""
    effect = run.open.get(f"do.{token}")
    if isinstance(effect, Dispatch) and f"withdraw.{token}" not in run.open:
        run.emit(Withdraw(token, effect.spec))
    child = run.open.get(f"child.{token}")
    if isinstance(child, StartChild) and not child.detach and f"cancel-child.{token}" not in run.open:
        run.emit(CancelChild(token))
