"""How do attempts, outcomes, questions and records look as plain JSON on their way to a hosted plugin and back?"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal

import msgspec

from knotwork.sdk import (
    Ask,
    Attempt,
    Candidate,
    Continue,
    Done,
    Event,
    Failed,
    Metric,
    Outcome,
    PluginFailed,
    Record,
    Reporter,
    Route,
    Span,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

_ATTEMPT = tuple(name for name in Attempt.__dataclass_fields__ if name != "report")
_NAMES: dict[type[Record], str] = {Event: "event", Span: "span", Metric: "metric"}


class _Failure(msgspec.Struct):
    message: str
    code: str = "agent.failed"
    retriable: bool = False
    retry_after_s: float | None = None
    detail: dict[str, Any] = {}

    def outcome(self) -> Failed:
        return Failed(self.message, self.code, self.retriable, self.retry_after_s, self.detail)


def from_attempt(attempt: Attempt) -> dict[str, Any]:
    """Return an attempt without its reporter."""
    parts = {name: getattr(attempt, name) for name in _ATTEMPT}
    return {name: dict(part) if isinstance(part, Mapping) else part for name, part in parts.items()}


def to_attempt(data: dict[str, Any], report: Reporter) -> Attempt:
    """Return the attempt, reporting to `report`."""
    return Attempt(**data, report=report)


def from_outcome(outcome: Outcome) -> list[Any]:
    """Return the outcome as a word and its content."""
    match outcome:
        case Done(output):
            return ["done", output]
        case Continue(output):
            return ["continue", output]
        case Failed():
            return ["failed", msgspec.to_builtins(outcome)]


def to_outcome(data: Any) -> Outcome:
    """Return the outcome; raises `PluginFailed` for what is none."""
    match data:
        case ["done", output]:
            return Done(output)
        case ["continue", output]:
            return Continue(output)
        case ["failed", dict(fields)]:
            try:
                return msgspec.convert(fields, _Failure).outcome()
            except msgspec.ValidationError as error:
                raise PluginFailed(f"malformed outcome: {error}", code="plugin.protocol") from error
    raise PluginFailed("malformed outcome", code="plugin.protocol")


def from_question(ask: Ask, candidates: Sequence[Candidate]) -> list[Any]:
    """Return what a router is asked."""
    return [msgspec.to_builtins(ask), msgspec.to_builtins(list(candidates))]


def to_question(data: Any) -> tuple[Ask, list[Candidate]]:
    """Return what a router is asked."""
    return msgspec.convert(data, tuple[Ask, list[Candidate]])


def from_route(route: Route | None) -> dict[str, Any] | None:
    """Return a route by the names of its candidates."""
    if route is None:
        return None
    names = [candidate.name for candidate in route.candidates]
    return {"candidates": names, "refused": dict(route.refused), "reason": route.reason, "pin": route.pin}


def to_route(data: Any, candidates: Sequence[Candidate]) -> Route | None:
    """Return the route among `candidates`; names that are not among them are left out."""
    if data is None:
        return None
    by_name = {candidate.name: candidate for candidate in candidates}
    try:
        chosen = [by_name[name] for name in data["candidates"] if name in by_name]
        refused = {str(name): str(why) for name, why in data["refused"].items()}
        return Route(chosen, refused, str(data["reason"]), data.get("pin") is True)
    except (TypeError, KeyError, AttributeError) as error:
        raise PluginFailed(f"malformed route: {error!r}", code="plugin.protocol") from error


def from_record(record: Record) -> list[Any]:
    """Return a record as its kind and its fields."""
    return [_NAMES[type(record)], msgspec.to_builtins(record)]


def to_record(data: Any) -> Record | None:
    """Return the record, None for what is none: a child may send anything."""
    match data:
        case [str(name), dict(fields)] if name in _FIELDS:
            try:
                return msgspec.convert(fields, _FIELDS[name]).record()
            except msgspec.ValidationError:
                return None
    return None


class _Event(msgspec.Struct):
    name: str
    time_ns: int
    node: str = ""
    project: str = ""
    level: Literal["debug", "info", "warning", "error"] = "info"
    data: dict[str, Any] = {}
    traceparent: str = ""

    def record(self) -> Record:
        return Event(self.name, self.time_ns, self.node, self.project, self.level, self.data, self.traceparent)


class _Span(msgspec.Struct):
    name: str
    trace_id: str
    span_id: str
    parent_id: str
    start_ns: int
    end_ns: int
    kind: Literal["internal", "client", "server", "producer", "consumer"] = "internal"
    ok: bool = True
    error: str = ""
    node: str = ""
    project: str = ""
    attributes: dict[str, str | int | float | bool] = {}

    def record(self) -> Record:
        return Span(**{name: getattr(self, name) for name in self.__struct_fields__})


class _Metric(msgspec.Struct):
    name: str
    value: float
    kind: Literal["counter", "gauge", "histogram"]
    labels: dict[str, str] = {}
    help: str = ""
    bounds: tuple[float, ...] = ()
    counts: tuple[int, ...] = ()

    def record(self) -> Record:
        return Metric(self.name, self.value, self.kind, self.labels, self.help, self.bounds, self.counts)


_FIELDS: dict[str, type[_Event | _Span | _Metric]] = {"event": _Event, "span": _Span, "metric": _Metric}
