"""What is the value of every metric now? Records add up to series here, bounded and never inconsistent.

A record that does not fit (another kind under the same name, a counter that shrinks, one series too many, nonsense)
is refused and counted, and changes nothing.
"""

from __future__ import annotations

import itertools
import math
import re
import threading
from bisect import bisect_left
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

    from knotwork.sdk import Metric

DEFAULT_BOUNDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0)
LABELS_MAX, TEXT_MAX, NAME_MAX, BUCKETS_MAX = 16, 256, 200, 200
Labels = tuple[tuple[str, str], ...]
_odd = re.compile(r"[^a-zA-Z0-9_]").sub
_SUFFIXES = {"counter": ("", "_total", "_created"), "gauge": ("",), "histogram": ("", "_bucket", "_sum", "_count")}


@dataclass(slots=True)
class Spread:
    """The samples of one histogram series: `counts` has one more than `bounds`, for those above all of them."""

    bounds: tuple[float, ...]
    counts: list[int]
    total: float = 0.0


@dataclass(slots=True)
class Family:
    """All series of one name; `name` is without the `_total` of a counter."""

    name: str
    kind: str
    help: str
    rows: dict[Labels, float | Spread] = field(default_factory=dict)


class Series:
    """The sum of all records so far; used from several threads."""

    def __init__(self, series_max: int) -> None:
        """Keep at most `series_max` series, over all names."""
        self.refused = 0
        self._max = series_max
        self._families: dict[str, Family] = {}
        self._claimed: dict[str, str] = {}
        self._size = 0
        self._changed: set[str] = set()
        self._lock = threading.Lock()

    def add(self, metric: Metric) -> bool:
        """Add one record; False when it was refused."""
        with self._lock:
            try:
                added = self._add(metric)
            except Exception:  # noqa: BLE001 - a plugin may put anything into a record
                added = False
            self.refused += not added
            return added

    def snapshot(self, *, changed_only: bool = False) -> list[Family]:
        """Return copies of all families, or of those changed since the last call that asked for changes."""
        with self._lock:
            names = self._changed if changed_only else self._families.keys()
            copies = [_copy(self._families[name]) for name in names]
            if changed_only:
                self._changed = set()
            return copies

    def _add(self, metric: Metric) -> bool:
        value = float(metric.value)
        if metric.kind != "gauge" and not math.isfinite(value):
            return False
        if metric.kind == "counter" and value < 0:
            return False
        labels = clean_labels(metric.labels)
        family = self._family(metric)
        if family is None:
            return False
        row = family.rows.get(labels)
        if row is None and self._size >= self._max:
            return False
        if metric.kind == "histogram":
            new: float | Spread | None = _spread(row if isinstance(row, Spread) else None, metric, value)
        elif metric.kind == "counter":
            new = value + (row if isinstance(row, float) else 0.0)
        else:
            new = value
        if new is None:
            return False
        self._size += row is None
        self._claim(family)
        family.rows[labels] = new
        self._changed.add(family.name)
        return True

    def _family(self, metric: Metric) -> Family | None:
        """Return the family, a new one not yet kept if need be, or None when the name means something else already."""
        name = _clean_name(metric.name)
        if metric.kind == "counter":
            name = name.removesuffix("_total")
        found = self._families.get(name)
        if found is not None:
            return found if found.kind == metric.kind else None
        if metric.kind not in _SUFFIXES or any(name + suffix in self._claimed for suffix in _SUFFIXES[metric.kind]):
            return None
        return Family(name, metric.kind, clean_text(metric.help))

    def _claim(self, family: Family) -> None:
        if family.name not in self._families:
            self._families[family.name] = family
            for suffix in _SUFFIXES[family.kind]:
                self._claimed[family.name + suffix] = family.name


def clean_labels(labels: Mapping[str, str]) -> Labels:
    """Return labels as Prometheus takes them, sorted; raises `ValueError` when there are too many."""
    if len(labels) > LABELS_MAX:
        raise ValueError("too many labels")
    clean: dict[str, str] = {}
    for name, value in labels.items():
        key = _clean_name(name).lstrip("_") or "label"
        clean[f"{key}_" if key in {"le", "quantile"} else key] = clean_text(value)
    return tuple(sorted(clean.items()))


def clean_text(value: object) -> str:
    """Return a bounded text that can be written as UTF-8."""
    return str(value)[:TEXT_MAX].encode("utf-8", "replace").decode()


def _clean_name(name: str) -> str:
    clean = _odd("_", name[:NAME_MAX])
    if not clean:
        raise ValueError("a metric needs a name")
    return f"_{clean}" if clean[0].isdigit() else clean


def _spread(row: Spread | None, metric: Metric, value: float) -> Spread | None:
    """Return the histogram with the record added; buckets that differ from the first ones are poured into those."""
    bounds, counts = tuple(map(float, metric.bounds)), metric.counts
    if bounds or counts:
        ascending = all(low < high for low, high in itertools.pairwise(bounds))
        whole = all(type(count) is int and count >= 0 for count in counts)
        if len(counts) != len(bounds) + 1 or len(bounds) > BUCKETS_MAX or not (ascending and whole):
            return None
    if row is None:
        row = Spread(bounds or DEFAULT_BOUNDS, [0] * (len(bounds or DEFAULT_BOUNDS) + 1))
    if not counts:
        row.counts[bisect_left(row.bounds, value)] += 1
    elif bounds == row.bounds:
        row.counts = [old + new for old, new in zip(row.counts, counts, strict=True)]
    else:
        for bound, count in zip((*bounds, math.inf), counts, strict=True):
            row.counts[bisect_left(row.bounds, bound)] += count
    row.total += value
    return row


def _copy(family: Family) -> Family:
    rows = {
        labels: Spread(row.bounds, list(row.counts), row.total) if isinstance(row, Spread) else row
        for labels, row in family.rows.items()
    }
    return Family(family.name, family.kind, family.help, rows)
