"""How does a map go through its items? So many at a time, their outputs in their order, some failures allowed (pure)."""

from __future__ import annotations

from fractions import Fraction
from typing import TYPE_CHECKING, Any

from knotwork.flow import calls, ending, outputs
from knotwork.flow.effects import NULL
from knotwork.flow.facts import StepEnd
from knotwork.flow.run import Items, context, decoded
from knotwork.sdk.errors import Failed

if TYPE_CHECKING:
    from knotwork.flow.admission import Limit
    from knotwork.flow.model import MapStep
    from knotwork.flow.run import Progress, Run


def begin(run: Run, step: Progress, spec: MapStep, value: bytes) -> None:
    """Begin a map over a JSON list; raises `Invalid` when it is none, or too long."""
    found = outputs.listed(value, spec.max_items)
    sights = _sights(run, step, spec, found)
    limits = _limits(run, step, spec, len(found), sights)
    if spec.input is not None:
        found = [outputs.shaped(spec.input, seen) for seen in sights]
    before = _taken_over(run, step)
    done = [before.get(index, b"") for index in range(len(found))]
    step.items = Items(found, done, _allowed(spec, len(found)), left=done.count(b""), limits=limits)
    go_on(run, step)


def _taken_over(run: Run, step: Progress) -> dict[int, bytes]:
    """Return the outputs of items that were done in the run that this one does again."""
    left = run.start.left.get(step.box.id)
    return outputs.numbered(bytes(left.items)) if left is not None else {}


def ended(run: Run, step: Progress, index: int, end: StepEnd) -> None:
    """Take note of the end of one item."""
    items = step.items
    if items is None or index not in items.running:
        return
    items.running.discard(index)
    items.left -= 1
    if end.state == "completed":
        items.outputs[index] = bytes(end.output)
    elif end.state == "cancelled" and run.phase != "running":
        items.left += 1  # it was recalled: it is neither done nor did it fail
    else:
        items.failed += 1
        if items.failed > items.allowed and step.error is None:
            error = end.error or {}
            step.error = {**error, "message": f"Item {index}: {error.get('message', end.state)}"}
            recall(run, step)
    go_on(run, step)


def recall(run: Run, step: Progress) -> None:
    """End the items that are worked on."""
    for index in sorted(step.items.running) if step.items is not None else ():
        calls.recall(run, f"{step.box.id}--{index}")


def go_on(run: Run, step: Progress) -> None:
    """Begin as many items as may run at a time; end the step when none is left, or when too many failed."""
    items, spec = step.items, step.box.spec
    if items is None or spec.kind != "map":
        return
    if step.error is None and run.phase == "running" and not run.paused:
        while items.next < len(items.inputs) and len(items.running) < spec.parallelism:
            index, items.next = items.next, items.next + 1
            if items.outputs[index]:
                continue
            items.running.add(index)
            limit = items.limits[index] if items.limits else None
            calls.dispatch(run, step, f"{step.box.id}--{index}", items.inputs[index], limit=limit)
            items.inputs[index] = NULL
    if items.running:
        return
    if step.error is not None:
        ending.finish(run, step, StepEnd("failed", error=step.error))
    elif items.left == 0:
        ending.finish(run, step, ending.done(outputs.array(output or NULL for output in items.outputs)))
    elif run.phase != "running":
        error = Failed("It was stopped.", code="flow.step_cancelled").to_wire()
        ending.finish(run, step, StepEnd("cancelled", error=error))


def _sights(run: Run, step: Progress, spec: MapStep, found: list[bytes]) -> list[dict[str, Any]]:
    """Return what the expressions of each item see: its input, and the key of its limit; [] when there are none."""
    if spec.input is None and (spec.limit is None or spec.limit.key is None):
        return []
    seen = context(run, step.box.reads)
    return [{**seen, "item": decoded(item), "index": index} for index, item in enumerate(found)]


def _limits(run: Run, step: Progress, spec: MapStep, count: int, sights: list[dict[str, Any]]) -> list[Limit]:
    """Return what must admit each item, all of them before the first begins: a key that is wrong fails the whole step."""
    if spec.limit is None:
        return []
    if spec.limit.key is None:
        return [calls.limit_in(run, step, spec.limit, {})] * count
    return [calls.limit_in(run, step, spec.limit, seen) for seen in sights]


def _allowed(spec: MapStep, count: int) -> int:
    """Return how many items may fail; of a share that is no whole number, what is over does not count."""
    if isinstance(spec.allowed_failures, int):
        return spec.allowed_failures
    return int(count * Fraction(spec.allowed_failures.rstrip("%")) / 100)
