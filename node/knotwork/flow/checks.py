"""Do the steps of a workflow make sense together? Everything wrong is told at once (pure)."""

from __future__ import annotations

import contextlib
import math
from typing import TYPE_CHECKING, Any

from knotwork.flow import expressions, model, schemas
from knotwork.flow import order as ordering
from knotwork.flow.durations import next_due
from knotwork.flow.order import Path, Problem, unknown
from knotwork.sdk.errors import Invalid

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator

    from knotwork.flow.model import AnyStep, Workflow

HANDLERS = ("task", "agent", "agent_loop", "workflow")
"""Kinds of steps that may handle a failure or undo a step."""
ONE_AGENT = ("task", "agent", "agent_loop")
"""Kinds of steps that one agent carries out."""
NESTED_MAX = 64
TOO_DEEP = "it is nested too deeply"
_ALWAYS = frozenset({"input", "run", "steps"})
_HANDLER = _ALWAYS | {"step", "error", "output"}
_NONE: frozenset[str] = frozenset()


def check(workflow: Workflow) -> list[Problem]:
    """Return everything that is wrong; what only follows from something else that is wrong is not told beside it."""
    wrong = [*_values(workflow)]
    told = {one.path for one in wrong}
    workflow = _readable(workflow, wrong)
    above, cycles = ordering.above(workflow)
    more = [*ordering.names(workflow), *cycles, *_consequences(workflow, above)]
    return [*wrong, *(one for one in more if one.path not in told)]


def _consequences(workflow: Workflow, above: dict[str, int]) -> list[Problem]:
    """Return what is wrong with steps that see those `above` them, and with what holds for all of them."""
    handlers = handlers_of(workflow) & workflow.steps.keys()
    problems = [*_handler_problems(workflow, handlers), *_anew_problems(workflow)]
    place = {name: number for number, name in enumerate(workflow.steps)}
    plain = sum(1 << number for name, number in place.items() if name not in handlers)
    for name, spec in workflow.steps.items():
        mask = plain if name in handlers else above[name]  # a handler may run at any time: any step may have ended
        problems += _step(workflow, name, spec, _sees(place, mask), handler=name in handlers)
    for path, text in expressions.texts(workflow.output, ("output",)):
        problems += _expression(path, text, _sees(place, plain), _ALWAYS, place)
    for key in ("input_schema", "output_schema"):
        problems += _schema((key,), getattr(workflow, key))
    if workflow.concurrency is not None and workflow.concurrency.key is not None:
        path, seen = ("concurrency", "key"), frozenset({"input", "run"})
        problems += _expression(path, workflow.concurrency.key, _nothing, seen, place)
    return problems


def _nothing(_: str) -> bool:
    return False


def _sees(place: dict[str, int], mask: int) -> Callable[[str], bool]:
    return lambda name: name in place and bool(mask >> place[name] & 1)


def _readable(workflow: Workflow, wrong: list[Problem]) -> Workflow:
    """Return a workflow without values that are nested too deeply to be looked into."""
    deep = {one.path[:3] for one in wrong if one.message == TOO_DEEP}
    if not deep:
        return workflow
    steps = {
        name: spec.model_copy(
            update={key: None for key in ("input", "timeout_value", "output_schema") if ("steps", name, key) in deep}
        )
        for name, spec in workflow.steps.items()
    }
    whole = {path[0]: None for path in deep if path[0] != "steps"}
    return workflow.model_copy(update={"steps": steps, **whole})  # type: ignore[dict-item]  # keys are fields


# -- values that may be anything -----------------------------------------------------------------------------------------


def _values(workflow: Workflow) -> Iterator[Problem]:
    """Return what is no JSON, such as a date of TOML: it could not be kept."""
    for key in ("output", "input_schema", "output_schema"):
        yield from _plain(getattr(workflow, key), (key,))
    for name, spec in workflow.steps.items():
        for key in ("input", "timeout_value", "output_schema"):
            yield from _plain(getattr(spec, key, None), ("steps", name, key))


def _plain(shape: Any, path: Path, depth: int = 0) -> Iterator[Problem]:
    if depth > NESTED_MAX:
        yield Problem(path[: NESTED_MAX // 8], TOO_DEEP, f"At most {NESTED_MAX} tables deep.")
        return
    match shape:
        case None | bool() | int():
            pass
        case str() if _is_text(shape):
            pass
        case float() if math.isfinite(shape):
            pass
        case dict():
            for key, value in shape.items():
                if isinstance(key, str) and _is_text(key):
                    yield from _plain(value, (*path, key), depth + 1)
                else:
                    yield Problem(path, f"the key {key!r} is no text")
        case list() | tuple():
            for place, value in enumerate(shape):
                yield from _plain(value, (*path, place), depth + 1)
        case _:
            yield Problem(path, f"{str(shape)[:80]!a} is no JSON value", "Write it as a text or a number.")


def _is_text(value: str) -> bool:
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True


# -- one step ------------------------------------------------------------------------------------------------------------


def _step(
    workflow: Workflow, name: str, spec: AnyStep, sees: Callable[[str], bool], *, handler: bool
) -> Iterator[Problem]:
    at: Path = ("steps", name)
    roots = _HANDLER if handler else _ALWAYS
    for path, text, more in expressions_of(spec):
        yield from _expression((*at, *path), text, sees, roots | more, workflow.steps)
        if path[-1] == "when" and _is_constant(text):
            hint = "Leave it out, or look at `input` or `steps`."
            yield Problem((*at, *path), "it is always the same: it looks at nothing", hint)
    match spec.kind:
        case "choice":
            yield from _choice(workflow, at, name)
        case "join":
            if not spec.depends_on:
                yield Problem((*at, "depends_on"), "a join needs steps to wait for")
            elif isinstance(spec.need, int) and spec.need > len(set(spec.depends_on)):
                yield Problem((*at, "need"), f"it can never have {spec.need} of {len(set(spec.depends_on))} steps")
        case "sleep" if spec.cron is not None:
            yield from _cron(at, spec.cron, spec.timezone)
        case "wait_for_event" | "wait_for_signal" | "approval":
            yield from _wait(at, spec)
    yield from _schema((*at, "output_schema"), getattr(spec, "output_schema", None))
    yield from _sticky(at, workflow, spec, sees)


def _cron(at: Path, cron: str, zone: str) -> Iterator[Problem]:
    """Return what is wrong with a time, and what with the zone that it is meant in: neither hides the other."""
    known = "UTC"
    try:
        next_due("* * * * *", zone, 0)
        known = zone
    except Invalid:
        yield Problem((*at, "timezone"), f"there is no time zone {zone!r}", "Name one such as Europe/Berlin.")
    try:
        next_due(cron, known, 0)
    except Invalid as error:
        yield Problem((*at, "cron"), error.message)


def _wait(at: Path, spec: model.Waiting) -> Iterator[Problem]:
    if spec.on_timeout == "value" and spec.timeout is None:
        yield Problem((*at, "on_timeout"), "it never times out", "Say after how long, by `timeout`.")
    if spec.on_timeout != "value" and spec.timeout_value is not None:
        yield Problem((*at, "timeout_value"), "it is never used", 'Write on_timeout = "value".')


def _is_constant(text: str) -> bool:
    try:
        return not expressions.names(text)[0]
    except Invalid:
        return False  # told elsewhere


def _choice(workflow: Workflow, at: Path, name: str) -> Iterator[Problem]:
    spec = workflow.steps[name]
    assert spec.kind == "choice"
    for place, case in enumerate(spec.cases):
        for inner, target in enumerate(case.then):
            if target in workflow.steps and name not in workflow.steps[target].depends_on:
                hint = f'Add "{name}" to its depends_on.'
                yield Problem((*at, "cases", place, "then", inner), f"{target!r} does not depend on this choice", hint)
        if case.when is None and place < len(spec.cases) - 1:
            yield Problem((*at, "cases", place + 1), "it can never be reached: the case before it always holds")


def expressions_of(spec: AnyStep) -> Iterator[tuple[Path, str, frozenset[str]]]:  # noqa: C901  one rule for each kind
    """Return every expression of a step: where it stands, its text, and what it sees beside what all see."""
    if spec.when is not None:
        yield ("when",), spec.when, _NONE
    items = frozenset({"item", "index"}) if spec.kind == "map" else _NONE
    for path, text in expressions.texts(spec.input, ("input",)):
        yield path, text, items
    if (limit := getattr(spec, "limit", None)) is not None and limit.key is not None:
        yield ("limit", "key"), limit.key, items
    match spec.kind:
        case "agent":
            yield from ((("prompt",), text, _NONE) for text in expressions.holes(spec.prompt))
        case "map" if spec.items is not None:
            yield ("items",), spec.items, _NONE
        case "sleep" if spec.until is not None:
            yield ("until",), spec.until, _NONE
        case "wait_for_event" if spec.match is not None:
            yield ("match",), spec.match, frozenset({"event"})
        case "signal":
            yield ("run",), spec.run, _NONE
        case "choice":
            for place, case in enumerate(spec.cases):
                if case.when is not None:
                    yield ("cases", place, "when"), case.when, _NONE


def _expression(
    path: Path, text: str, sees: Callable[[str], bool], roots: frozenset[str], known: Collection[str]
) -> Iterator[Problem]:
    try:
        expressions.compiled(text)
    except Invalid as error:
        yield Problem(path, error.message, error.hint)
    try:
        begins, steps = expressions.spoken_of(text)
    except Invalid:
        return  # it cannot even be read
    for word in sorted(begins - roots):
        hint = f"It sees {', '.join(sorted(roots))}; a fixed text is written '{word[:80]}' with its quotes."
        yield Problem(path, f"{word[:80]!r} is not there to be looked at", hint)
    for step in sorted(steps):
        if step == "*":
            yield Problem(path, "it must name the step that it looks at", "Write steps.<id>.output.")
        elif step not in known:
            yield unknown(path, step[:80], known)
        elif not sees(step):
            yield Problem(path, f"the step {step[:80]!r} may not have ended before this one", "Add it to depends_on.")


def _schema(path: Path, schema: dict[str, Any] | None) -> Iterator[Problem]:
    if schema is not None and (wrong := schemas.wrong(schema)):
        yield Problem(path, wrong)


def reads_of(spec: AnyStep) -> frozenset[str]:
    """Return the steps that the expressions of a step look at; raises `Invalid` for one that was not checked."""
    return frozenset(step for _, text, _ in expressions_of(spec) for step in expressions.names(text)[1])


def titled_by(spec: AnyStep) -> frozenset[str]:
    """Return the steps that the title of an approval looks at; those of one that makes no sense are left out.

    Such a title is told to whoever writes a workflow (`titles`); one that was kept before still runs.
    """
    found: set[str] = set()
    for text in expressions.holes(spec.title) if spec.kind == "approval" else ():
        with contextlib.suppress(Invalid):
            found |= expressions.names(text)[1]
    return frozenset(found)


def titles(workflow: Workflow) -> Iterator[Problem]:
    """Yield what is wrong with the expressions in titles of approvals."""
    asking = {name: spec.title for name, spec in workflow.steps.items() if spec.kind == "approval"}
    if not any(expressions.holes(title) for title in asking.values()):
        return
    above, _ = ordering.above(workflow)
    place = {name: number for number, name in enumerate(workflow.steps)}
    for name, title in asking.items():
        for text in expressions.holes(title):
            yield from _expression(("steps", name, "title"), text, _sees(place, above[name]), _ALWAYS, workflow.steps)


def _anew_problems(workflow: Workflow) -> Iterator[Problem]:
    """Return what is wrong with steps that start the run anew."""
    last = {name for name, spec in workflow.steps.items() if spec.kind == "continue_as_new"}
    for name, spec in workflow.steps.items():
        at: Path = ("steps", name)
        if name in last and not spec.depends_on and spec.when is None:
            yield Problem(
                at, "the run would do nothing but start itself anew", "Let it depend on a step, or on `when`."
            )
        for place, parent in enumerate(spec.depends_on):
            if parent in last:
                yield Problem((*at, "depends_on", place), f"nothing follows {parent!r}: the run is over then")


def _sticky(at: Path, workflow: Workflow, spec: AnyStep, sees: Callable[[str], bool]) -> Iterator[Problem]:
    """Return what is wrong with where a step is to be done."""
    sticky = getattr(spec, "sticky", None)
    if sticky is None:
        return
    at = (*at, "sticky")
    if sticky.step not in workflow.steps:
        yield unknown((*at, "step"), sticky.step, workflow.steps)
    elif not sees(sticky.step):
        yield Problem(
            (*at, "step"), f"the step {sticky.step!r} may not have ended before this one", "Add it to depends_on."
        )
    elif workflow.steps[sticky.step].kind not in ONE_AGENT:
        hint = f"Name one of the kinds {', '.join(ONE_AGENT)}."
        yield Problem((*at, "step"), f"{sticky.step!r} is not done by one agent on one node", hint)
    if "/" in (getattr(spec, "agent", None) or ""):
        yield Problem(at, "its agent names a node already", "Leave out one of the two.")


# -- handlers ------------------------------------------------------------------------------------------------------------


def handlers_of(workflow: Workflow) -> set[str]:
    """Return the steps that only failures start."""
    named = {getattr(spec, key) for spec in workflow.steps.values() for key in ("on_failure", "compensate")}
    return {name for name in (*named, workflow.on_failure) if name is not None}


def _handler_problems(workflow: Workflow, handlers: set[str]) -> Iterator[Problem]:
    if workflow.steps and len(handlers) == len(workflow.steps):
        yield Problem(("steps",), "no step begins: all of them handle failures")
    for name in sorted(handlers):
        spec = workflow.steps[name]
        at: Path = ("steps", name)
        if spec.kind not in HANDLERS:
            yield Problem(
                (*at, "kind"),
                f"a step of the kind {spec.kind} cannot handle a failure",
                f"Use one of {', '.join(HANDLERS)}.",
            )
        for key in ("depends_on", "when", "on_failure", "compensate", "allow_failure"):
            if getattr(spec, key):
                yield Problem((*at, key), "a step that handles failures stands alone: only a failure starts it")
        if getattr(spec, "detach", False):
            yield Problem((*at, "detach"), "a step that handles failures must be waited for")
    for name, spec in workflow.steps.items():
        for place, parent in enumerate(spec.depends_on):
            if parent in handlers:
                yield Problem(("steps", name, "depends_on", place), f"{parent!r} only runs when something failed")
