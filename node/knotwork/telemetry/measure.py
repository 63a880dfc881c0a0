"""How much, how often, how long? Counting in memory on the hot path, told to the sinks at an interval.

A call costs an addition; `Meter.flush` turns what was added since the last time into `Metric` records, a histogram as
one record with its buckets. Count in the node's loop only: additions are not atomic between threads.
"""

from __future__ import annotations

import asyncio
import logging
from bisect import bisect_left
from typing import TYPE_CHECKING, Protocol, TypeVar

from knotwork.sdk import Metric

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from knotwork.telemetry.emitter import Emitter

SECONDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0)
"""Upper bounds in seconds: from a bare invoke to an agent that thinks for minutes."""

_Key = tuple[str, tuple[tuple[str, str], ...]]
_log = logging.getLogger("knotwork.telemetry")


class _Series(Protocol):
    def take(self) -> Metric | None: ...


S = TypeVar("S", bound=_Series)


class Counter:
    """Something that only grows."""

    __slots__ = ("_fresh", "_help", "_labels", "_name", "value")

    def __init__(self, name: str, help_: str, labels: Mapping[str, str]) -> None:
        """Use `Meter.counter`."""
        self._name, self._help, self._labels = name, help_, labels
        self._fresh = True
        self.value = 0.0

    def add(self, amount: float = 1) -> None:
        """Add; `amount` must not be negative."""
        self.value += amount

    def take(self) -> Metric | None:
        """Return what was added since the last time; the first time also when that is nothing."""
        if not self.value and not self._fresh:
            return None
        added, self.value, self._fresh = self.value, 0.0, False
        return Metric(self._name, added, "counter", self._labels, self._help)


class Gauge:
    """Something that is so much now: a value that is set, or `read` when it is asked for."""

    __slots__ = ("_help", "_labels", "_name", "_read", "value")

    def __init__(self, name: str, help_: str, labels: Mapping[str, str], read: Callable[[], float] | None) -> None:
        """Use `Meter.gauge` or `Meter.watch`."""
        self._name, self._help, self._labels, self._read = name, help_, labels, read
        self.value = 0.0

    def add(self, amount: float = 1) -> None:
        """Add, or take away with a negative amount."""
        self.value += amount

    def take(self) -> Metric | None:
        """Return what it is now."""
        if self._read is not None:
            self.value = float(self._read())
        return Metric(self._name, self.value, "gauge", self._labels, self._help)


class Histogram:
    """How samples spread over buckets."""

    __slots__ = ("_bounds", "_counts", "_help", "_labels", "_name", "_sum")

    def __init__(self, name: str, help_: str, labels: Mapping[str, str], bounds: tuple[float, ...]) -> None:
        """Use `Meter.histogram`; `bounds` are the buckets' upper bounds, ascending."""
        self._name, self._help, self._labels, self._bounds = name, help_, labels, bounds
        self._counts = [0] * (len(bounds) + 1)
        self._sum = 0.0

    def observe(self, value: float) -> None:
        """Take one sample, in the unit the name ends in."""
        self._counts[bisect_left(self._bounds, value)] += 1
        self._sum += value

    def take(self) -> Metric | None:
        """Return the samples since the last time, None when there were none."""
        if not any(self._counts):
            return None
        counts, self._counts = tuple(self._counts), [0] * len(self._counts)
        total, self._sum = self._sum, 0.0
        return Metric(self._name, total, "histogram", self._labels, self._help, self._bounds, counts)


class Meter:
    """Every series that the node itself measures.

    Asking twice for the same name and labels gives the same object: ask once and keep it where it is hot. Beyond
    `series_max` series, new ones share one whose label values are all "other".
    """

    def __init__(self, emitter: Emitter, interval_s: float = 5.0, series_max: int = 5000) -> None:
        """Make a meter that flushes into `emitter` every `interval_s` seconds while `run` runs."""
        self._emitter = emitter
        self._interval_s = interval_s
        self._series_max = series_max
        self._series: dict[_Key, _Series] = {}
        self._told: dict[tuple[str, str], int] = {}

    def counter(self, name: str, help_: str = "", /, **labels: str) -> Counter:
        """Return the counter; `name` ends in `_total`."""
        key, labels = self._key(name, labels)
        found = self._series.get(key)
        return found if isinstance(found, Counter) else self._keep(key, Counter(name, help_, labels))

    def gauge(self, name: str, help_: str = "", /, **labels: str) -> Gauge:
        """Return the gauge; assign its `value` or `add` to it."""
        key, labels = self._key(name, labels)
        found = self._series.get(key)
        return found if isinstance(found, Gauge) else self._keep(key, Gauge(name, help_, labels, None))

    def watch(self, name: str, read: Callable[[], float], help_: str = "", /, **labels: str) -> None:
        """Have a gauge that calls `read` at every flush; it must be quick. A second one of the same series replaces it."""
        key, labels = self._key(name, labels)
        self._keep(key, Gauge(name, help_, labels, read))

    def histogram(self, name: str, help_: str = "", bounds: tuple[float, ...] = SECONDS, /, **labels: str) -> Histogram:
        """Return the histogram; `bounds` count when it is new."""
        key, labels = self._key(name, labels)
        found = self._series.get(key)
        return found if isinstance(found, Histogram) else self._keep(key, Histogram(name, help_, labels, bounds))

    def forget(self, name: str = "", /, **labels: str) -> None:
        """Drop every series that has all of these labels, for an agent or project that is gone; tells its rest first.

        With `name` only series of this name.
        """
        named = [key for key in self._series if name in ("", key[0])] if labels else []
        gone = [key for key in named if labels.items() <= dict(key[1]).items()]
        for key in gone:
            self._tell(key, self._series.pop(key))

    def flush(self) -> None:
        """Tell the sinks what was added since the last time; keeps it while no sink wants metrics."""
        if not self._emitter.wants_metrics:
            return
        for key, series in tuple(self._series.items()):
            self._tell(key, series)
        self._tell_about_sinks()

    async def run(self) -> None:
        """Flush every interval, until cancelled, and once more then."""
        try:
            while True:
                await asyncio.sleep(self._interval_s)
                self.flush()
        finally:
            self.flush()

    def _key(self, name: str, labels: dict[str, str]) -> tuple[_Key, dict[str, str]]:
        key = (name, tuple(sorted(labels.items())))
        if key not in self._series and len(self._series) >= self._series_max:
            labels = dict.fromkeys(labels, "other")
            key = (name, tuple(sorted(labels.items())))
        return key, labels

    def _keep(self, key: _Key, series: S) -> S:
        self._series[key] = series
        return series

    def _tell(self, key: _Key, series: _Series) -> None:
        try:
            metric = series.take()
        except Exception:  # noqa: BLE001 - a gauge that can not be read is left out; the others must still be told
            _log.exception("the gauge %s can not be read", key[0])
            return
        if metric is not None:
            self._emitter.emit(metric)

    def _tell_about_sinks(self) -> None:
        """Tell how many records each sink got or lost since the last time."""
        for id_, stats in self._emitter.stats().items():
            for result, count in (("sent", stats.sent), ("dropped", stats.dropped), ("failed", stats.failed)):
                added = count - self._told.get((id_, result), 0)
                self._told[id_, result] = count
                if added:
                    labels = {"sink": id_, "result": result}
                    self._emitter.emit(
                        Metric("knotwork_telemetry_records_total", max(added, 0), "counter", labels, _SINKS)
                    )


_SINKS = "Records handed to telemetry sinks, by what became of them."


class AgentMeter:
    """What is measured of one agent: keep it beside the agent, call `began` and `ended` per invocation."""

    __slots__ = ("_meter", "_outcomes", "agent", "in_flight", "project", "seconds")

    def __init__(self, meter: Meter, agent: str, project: str = "default") -> None:
        """Find or make the series of this agent of this project."""
        self._meter, self.agent, self.project = meter, agent, project
        self._outcomes: dict[str, Counter] = {}
        self.in_flight = meter.gauge(
            "knotwork_invocations_in_flight", "Invocations that run now.", agent=agent, project=project
        )
        self.seconds = meter.histogram(
            "knotwork_invocation_seconds", "How long invocations took.", agent=agent, project=project
        )

    def began(self) -> None:
        """Count one invocation that was admitted."""
        self.in_flight.value += 1

    def ended(self, outcome: str, seconds: float) -> None:
        """Count its end; `outcome` is one of few words: done, failed, timed_out, cancelled, …; `seconds` it took."""
        self.in_flight.value -= 1
        self.seconds.observe(seconds)
        self.count(outcome)

    def count(self, outcome: str) -> None:
        """Count an invocation that never began: busy, invalid and the like."""
        counter = self._outcomes.get(outcome)
        if counter is None:
            counter = self._outcomes[outcome] = self._meter.counter(
                "knotwork_invocations_total",
                "Invocations by how they ended.",
                agent=self.agent,
                project=self.project,
                outcome=outcome,
            )
        counter.value += 1

    def forget(self) -> None:
        """Drop the agent's series: it is gone."""
        self._meter.forget(agent=self.agent, project=self.project)
