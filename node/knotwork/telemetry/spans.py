"""How is a piece of work timed as a span? `with spans.working(emitter, "reload"): …`, also when it fails."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, Self

from knotwork.bus import clock
from knotwork.sdk import KnotworkError, Span
from knotwork.telemetry import trace

if TYPE_CHECKING:
    from contextvars import Token
    from types import TracebackType

    from knotwork.telemetry.emitter import Emitter

SpanKind = Literal["internal", "client", "server", "producer", "consumer"]
_ERROR_MAX = 500


class working:  # noqa: N801 - used like a function, as the standard library's `suppress`
    """Time the body of a `with`. Inside, `trace.current` is this span, so what is called or emitted there belongs to it.

    The span is a child of `parent`, by default of the current one. It is emitted at the end if a sink wants spans and
    the trace is sampled; an exception marks it as not ok and goes on. Enter and leave in the same task.
    """

    __slots__ = ("_emitter", "_error", "_start_ns", "_token", "attributes", "child", "kind", "name", "project")

    def __init__(
        self,
        emitter: Emitter,
        name: str,
        *,
        kind: SpanKind = "internal",
        project: str = "",
        parent: str | None = None,
        attributes: dict[str, str | int | float | bool] | None = None,
    ) -> None:
        """Prepare it; `attributes` may be added to while it runs."""
        self.name, self.kind, self.project = name, kind, project
        self.attributes = {} if attributes is None else attributes
        self.child = trace.child_of(trace.current.get() if parent is None else parent)
        self._emitter = emitter
        self._error = ""
        self._start_ns = 0
        self._token: Token[str] | None = None

    @property
    def traceparent(self) -> str:
        """What goes into the header of a call made from here."""
        return self.child.traceparent

    def fail(self, why: str) -> None:
        """Mark it as not ok, for work that ends badly without an exception."""
        self._error = why[:_ERROR_MAX] or "failed"

    def __enter__(self) -> Self:
        self._token = trace.current.set(self.child.traceparent)
        self._start_ns = clock.now_ns()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        if self._token is not None:
            trace.current.reset(self._token)
        if kind is not None:
            self.fail(error.code if isinstance(error, KnotworkError) else kind.__name__)
        if self._emitter.wants_spans and trace.sampled(self.child.traceparent):
            self._emitter.emit(self._span())

    def _span(self) -> Span:
        return Span(
            self.name,
            self.child.trace_id,
            self.child.span_id,
            self.child.parent_id,
            self._start_ns,
            max(self._start_ns, clock.now_ns()),
            self.kind,
            not self._error,
            self._error,
            self._emitter.node,
            self.project,
            self.attributes,
        )
