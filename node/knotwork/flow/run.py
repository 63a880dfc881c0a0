"""What is known of a run that is not over? What the facts of it, in their order, add up to (pure)."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

import msgspec

from knotwork.flow.effects import NULL, is_awaited
from knotwork.sdk.errors import Invalid

if TYPE_CHECKING:
    from knotwork.flow.admission import Limit
    from knotwork.flow.effects import Anew, Effect
    from knotwork.flow.facts import Start, StepEnd
    from knotwork.flow.graph import Box, Graph
    from knotwork.work.records import Final

StepState = Literal["blocked", "ready", "open", "completed", "failed", "skipped", "cancelled"]
OVER: frozenset[str] = frozenset({"completed", "failed", "skipped", "cancelled"})
Phase = Literal["running", "stopping", "undoing", "handling", "over"]


@dataclass(slots=True)
class Items:
    """The items of a map: what they are, and what became of them; `next` is the first that was not begun.

    The output of one that is not done, or failed, is nothing at all.
    """

    inputs: list[bytes]
    outputs: list[bytes]
    allowed: int
    next: int = 0
    left: int = 0
    failed: int = 0
    running: set[int] = field(default_factory=set)
    limits: list[Limit] = field(default_factory=list)
    """What must admit each of them; nothing when nothing must."""

    def done(self) -> dict[int, bytes]:
        """Return the outputs of those that are done, by their numbers."""
        return {index: output for index, output in enumerate(self.outputs) if output}


@dataclass(slots=True)
class Spawned:
    """A run, or a task, that the worker of a step started; `end` is how it ended."""

    what: str
    is_run: bool
    end: StepEnd | None = None


@dataclass(slots=True)
class Progress:
    """One step of a run. `left` counts its parents that have not ended; `output` is JSON, `blob` where a large one is."""

    box: Box
    left: int
    state: StepState = "blocked"
    input: bytes = NULL
    input_blob: str = ""
    output: bytes = NULL
    blob: str = ""
    error: dict[str, Any] | None = None
    node: str = ""
    agent: str = ""
    """Who completed it, when one agent did."""
    begun_ns: int = 0
    ended_ns: int = 0
    items: Items | None = None
    kept: dict[int, bytes] = field(default_factory=dict)
    """Of a map that did not complete the outputs of the items that did, by their numbers."""
    done: int = 0
    """Its parents that are completed."""
    undone: bool = False
    """It was completed, and then undone."""
    barred: bool = False
    """A choice went another way."""
    chosen: tuple[str, ...] = ()
    """What a choice chose: nothing, when it was skipped or failed."""
    title: str = ""
    """What an approval asks, with what its expressions gave."""


@dataclass(slots=True)
class Run:
    """One run. `open` are the effects whose end is not on record: what it waits for, and what a new owner does again."""

    id: str
    graph: Graph
    start: Start
    steps: dict[str, Progress]
    phase: Phase = "running"
    now_ns: int = 0
    place: int = 0
    """That of the last fact."""
    open: dict[str, Effect] = field(default_factory=dict)
    new: list[Effect] = field(default_factory=list)
    ready: deque[str] = field(default_factory=deque)
    at_once: deque[str] = field(default_factory=deque)
    """Ready steps that nobody works on: they need no place among those that run at a time."""
    awaited: int = 0
    """Open effects that somebody works on: a run ends when none is left."""
    left: int = 0
    """Steps that have not ended, those that only failures start not counted."""
    working: int = 0
    """Steps that are open."""
    paused: bool = False
    heard: int = 0
    """The order of the last wish of its parent."""
    held: bool = False
    """It waits to be admitted among the runs of its workflow."""
    admitted: Limit | None = None
    """By what it was, or is to be, admitted."""
    done: list[str] = field(default_factory=list)
    """Completed steps that can be undone, in the order of their completion."""
    final: Final = "completed"
    error: dict[str, Any] | None = None
    signals: dict[str, deque[tuple[int, bytes]]] = field(default_factory=dict)
    """Those that nobody waited for, by their names: their places and what was sent along."""
    expecting: dict[str, deque[str]] = field(default_factory=dict)
    """The steps that began to wait for a signal, in their order; some may have given up."""
    handling: dict[str, tuple[str, str]] = field(default_factory=dict)
    """By the name on the wire of a handler that runs: for which step, and as what (`on_failure`, `compensate`, `run`)."""
    spawned: dict[str, Spawned] = field(default_factory=dict)
    """What workers started, by the names on the wire."""
    anew: Anew | None = None
    """With what it is to start itself anew when its steps have ended."""
    cut: dict[str, Any] | None = None
    """Somebody cancelled it while it was being undone, with this error: nothing more is begun."""
    seen: dict[str, Any] | None = None
    """The run's input as expressions see it, once one has looked."""
    undone: list[dict[str, Any]] = field(default_factory=list)
    """What could not be undone."""

    def emit(self, effect: Effect) -> None:
        """Call for an effect."""
        self.close(effect.name)
        self.open[effect.name] = effect
        self.new.append(effect)
        self.awaited += is_awaited(effect)

    def close(self, name: str) -> None:
        """Take note that an effect is over, or not wanted any more."""
        effect = self.open.pop(name, None)
        if effect is not None:
            self.awaited -= is_awaited(effect)

    def close_all(self) -> None:
        """Take note that nothing is wanted any more."""
        self.open.clear()
        self.awaited = 0

    def enqueue(self, step: Progress) -> None:
        """Take note that a step can begin."""
        step.state = "ready"
        (self.at_once if step.box.spec.kind in ("choice", "join") else self.ready).append(step.box.id)


def begin(run: str, graph: Graph, start: Start, now_ns: int) -> Run:
    """Return a run of which nothing is known but its start."""
    steps = {box.id: Progress(box, len(box.parents)) for box in graph.boxes.values()}
    made = Run(run, graph, start, steps, now_ns=now_ns, left=len(steps) - len(graph.handlers))
    made.paused, made.heard = start.paused, start.heard
    for name in graph.roots:
        made.enqueue(steps[name])
    return made


def context(run: Run, reads: frozenset[str], /, **more: Any) -> dict[str, Any]:
    """Return what an expression sees that looks at these steps; raises `Invalid` for a value that cannot be read."""
    if run.seen is None:
        run.seen = {"input": decoded(bytes(run.start.input))}
    steps = {}
    for name in reads:
        step = run.steps[name]
        steps[name] = {"output": decoded(step.output), "state": step.state, "error": step.error}
    return {
        **run.seen,
        "steps": steps,
        "run": {"id": run.id, "workflow": run.start.workflow, "by": run.start.by, "started_ns": run.start.started_ns},
        **more,
    }


def decoded(value: bytes) -> Any:
    """Return a JSON value; raises `Invalid` (`flow.bad_value`)."""
    if value == NULL:
        return None
    try:
        return _decode(value)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise Invalid(f"A value cannot be read: {error}", code="flow.bad_value") from error


_decode = msgspec.json.Decoder().decode
