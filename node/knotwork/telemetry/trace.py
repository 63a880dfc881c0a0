"""Which trace does this piece of work belong to? W3C Trace Context, made and read in a microsecond.

A `traceparent` is `00-<trace id, 32 hex>-<span id, 16 hex>-<flags, 2 hex>`. Whatever comes from outside is checked
whole; what does not fit counts as absent, so that a bad header starts a new trace and never fails a call.
"""

from __future__ import annotations

import random
import re
from contextvars import ContextVar
from typing import NamedTuple

HEADER = "traceparent"
current: ContextVar[str] = ContextVar("knotwork_traceparent", default="")
"""The traceparent of the work this task is doing, "" outside of any; nested calls go on from it."""

_bits = random.getrandbits  # not a secret: ids must differ, nobody gains by guessing one; urandom costs ten times more
_NO_TRACE, _NO_SPAN = "0" * 32, "0" * 16
_LENGTH = 55
_SAMPLED = frozenset("13579bdf")  # the last bit of the flags
_shape = re.compile(r"(?!ff)([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})", re.ASCII).match


class Trace(NamedTuple):
    """A traceparent taken apart; ids are lower-case hex, `sampled` is the sender's wish that it be recorded."""

    trace_id: str
    span_id: str
    sampled: bool


class Child(NamedTuple):
    """A new span: `traceparent` goes to whoever is called from it, the ids go into its `Span`."""

    traceparent: str
    trace_id: str
    span_id: str
    parent_id: str


def child_of(traceparent: str) -> Child:
    """Return a new span below `traceparent`; of a new trace, with parent "", when that is absent or malformed."""
    found = _shape(traceparent) if traceparent else None
    span_id = _span_id()
    if found is not None:
        version, trace_id, parent_id, flags = found.groups()
        if _valid(traceparent, version, trace_id, parent_id):
            if version != "00":
                flags = _known(flags)
            return Child(f"00-{trace_id}-{span_id}-{flags}", trace_id, span_id, parent_id)
    trace_id = _trace_id()
    return Child(f"00-{trace_id}-{span_id}-01", trace_id, span_id, "")


def parse(traceparent: object) -> Trace | None:
    """Return the parts, None when it is not a valid traceparent; takes anything, raises nothing."""
    found = _shape(traceparent) if isinstance(traceparent, str) else None
    if found is None or not isinstance(traceparent, str):
        return None
    version, trace_id, span_id, flags = found.groups()
    if not _valid(traceparent, version, trace_id, span_id):
        return None
    return Trace(trace_id, span_id, bool(int(flags, 16) & 1))


def sampled(traceparent: str) -> bool:
    """Whether the sender of a valid `traceparent` wants it recorded; spans of other traces need not be built."""
    return traceparent[-1:] in _SAMPLED


def clean(traceparent: object) -> str:
    """Return it when it is valid, else ""; for a value that came from outside and is only handed on."""
    return traceparent if traceparent and isinstance(traceparent, str) and parse(traceparent) is not None else ""


def _trace_id() -> str:
    return (_bits(128) or 1).to_bytes(16, "big").hex()  # three times as fast as formatting the number


def _span_id() -> str:
    return (_bits(64) or 1).to_bytes(8, "big").hex()


def _valid(traceparent: str, version: str, trace_id: str, span_id: str) -> bool:
    if trace_id == _NO_TRACE or span_id == _NO_SPAN:
        return False
    if len(traceparent) == _LENGTH:
        return True
    # a later version of the standard may add fields after a dash; version 00 may not
    return version != "00" and traceparent[_LENGTH] == "-"


def _known(flags: str) -> str:
    """Keep of a later version's flags the only one we know: sampled."""
    return "01" if int(flags, 16) & 1 else "00"
