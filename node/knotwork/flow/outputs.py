"""What goes into a step, and what comes out of a run? Explicit mapping, or the sensible default (pure).

Values are JSON as bytes and pass through unread wherever nothing looks into them; a large one is a digest of BLOBS.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from knotwork.flow import expressions, schemas
from knotwork.flow.run import context
from knotwork.sdk.errors import Invalid

if TYPE_CHECKING:
    from collections.abc import Iterable

    from knotwork.flow.run import Progress, Run

_list = msgspec.json.Decoder(list[msgspec.Raw])
_numbered = msgspec.json.Decoder(dict[int, msgspec.Raw])
encoded = expressions.as_json
must_fit = schemas.must_fit
Value = tuple[bytes, str]
"""JSON, and the digest of a large value that stands for it."""


def input_of(run: Run, step: Progress) -> Value:
    """Return what a step is given; raises `Invalid` when its mapping cannot be worked out."""
    if (handed := run.start.handed.get(step.box.id)) is not None:
        return bytes(handed.input), handed.blob
    if step.box.spec.input is not None:
        return shaped(step.box.spec.input, context(run, step.box.reads)), ""
    return input_by_default(run, step)


def shaped(shape: Any, seen: dict[str, Any]) -> bytes:
    """Return a table or list as JSON, with every text in it replaced by what that gives as an expression.

    Raises `Invalid` (`flow.too_large`) when it becomes larger than what can be kept, and what `evaluate` raises.
    """
    parts: list[bytes] = []
    _shape(shape, seen, parts, [0])
    return b"".join(parts)


def _shape(shape: Any, seen: dict[str, Any], parts: list[bytes], size: list[int]) -> None:
    match shape:
        case str():
            parts.append(encoded(expressions.evaluate(shape, seen)))
            size[0] += len(parts[-1])
            if size[0] > expressions.SIZE_MAX_BYTES:
                raise Invalid("What is put together becomes too large.", code="flow.too_large")
        case dict():
            for place, (key, value) in enumerate(shape.items()):
                parts.append(b"%s%b:" % (b"," if place else b"{", encoded(key)))
                _shape(value, seen, parts, size)
            parts.append(b"}" if shape else b"{}")
        case list() | tuple():
            for place, value in enumerate(shape):
                parts.append(b"," if place else b"[")
                _shape(value, seen, parts, size)
            parts.append(b"]" if shape else b"[]")
        case _:
            parts.append(encoded(shape))


def input_by_default(run: Run, step: Progress) -> Value:
    """Return what a step is given that says nothing of it: the run's input, its parent's output, or its parents'."""
    box = step.box
    if not box.parents:
        return bytes(run.start.input), run.start.blob
    if len(box.parents) == 1:
        parent = run.steps[box.parents[0]]
        return parent.output, parent.blob
    return together(run, box.parents), ""


def of_run(run: Run) -> Value:
    """Return the output of a run whose steps have all ended.

    Raises `Invalid` when it cannot be worked out, does not fit, or is larger than what can be kept: nothing could end the
    run with it.
    """
    workflow = run.graph.workflow
    if workflow.output is not None:
        value: Value = shaped(workflow.output, context(run, run.graph.output_reads)), ""
    elif len(run.graph.ends) == 1:
        last = run.steps[run.graph.ends[0]]
        value = last.output, last.blob
    else:
        value = together(run, run.graph.ends), ""
    must_be_kept(value[0], "The output of the run", "Write an `output` that gives what matters of it.")
    if workflow.output_schema is not None and not value[1]:
        must_fit(workflow.output_schema, value[0], "The output of the run")
    return value


def must_be_kept(value: bytes, what: str, hint: str) -> None:
    """Raise `Invalid` (`flow.too_large`) for a value that is larger than what can be kept."""
    if len(value) > expressions.SIZE_MAX_BYTES:
        told = f"{what} has {len(value)} bytes; {expressions.SIZE_MAX_BYTES} can be kept."
        raise Invalid(told, code="flow.too_large", hint=hint)


def together(run: Run, names: Iterable[str]) -> bytes:
    """Return the outputs of several steps as one object by their ids; null for one that was skipped."""
    return b"{" + b",".join(b'"%b":%b' % (name.encode(), run.steps[name].output) for name in names) + b"}"


def listed(value: bytes, most: int) -> list[bytes]:
    """Return the items of a list; raises `Invalid` (`flow.not_a_list`, `flow.too_many_items`)."""
    try:
        items = _list.decode(value)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise Invalid("A map needs a list.", code="flow.not_a_list", hint="Name it by `items`.") from error
    if len(items) > most:
        raise Invalid(
            f"It is a list of {len(items)} items, {most} at most.",
            code="flow.too_many_items",
            hint="Raise `max_items`.",
        )
    return [bytes(item) for item in items]


def numbered(value: bytes) -> dict[int, bytes]:
    """Return the items of an object whose keys are their numbers; raises `Invalid` (`flow.bad_value`)."""
    try:
        return {index: bytes(item) for index, item in _numbered.decode(value).items()}
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise Invalid(f"What was taken over cannot be read: {error}", code="flow.bad_value") from error


def array(values: Iterable[bytes]) -> bytes:
    """Return a JSON list of JSON values."""
    return b"[" + b",".join(values) + b"]"


def as_json(body: bytes) -> bytes:
    """Return what came from outside as JSON: as it is, or as a text."""
    try:
        msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return expressions.as_json(body.decode("utf-8", "replace"))
    return body
