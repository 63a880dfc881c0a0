"""How does a record look as one line of JSON? Its fields, after `record`: "event", "span" or "metric"."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from knotwork.sdk import Event, Metric, Span

if TYPE_CHECKING:
    from collections.abc import Callable

    from knotwork.sdk import Record

_TEXT_MAX = 2000
_PREFIX = {Event: b'{"record":"event",', Span: b'{"record":"span",', Metric: b'{"record":"metric",'}
_KINDS = {Event: "events", Span: "spans", Metric: "metrics"}


def encoder() -> Callable[[Record], bytes]:
    """Return a function from a record to its line, without the line end; it never raises.

    Values that JSON does not know are written as text; a record that can not be encoded at all is written with its
    name and the reason.
    """
    import msgspec  # here, so that a sink costs nothing until it is opened

    encode = msgspec.json.Encoder(enc_hook=_as_text).encode

    def line(record: Record) -> bytes:
        prefix = _PREFIX.get(type(record), b'{"record":"unknown",')
        try:
            return prefix + encode(record)[1:]
        except Exception as error:  # noqa: BLE001 - a plugin may put anything into a record; the others must be written
            reason = {"name": _clean(getattr(record, "name", "")), "unencodable": _clean(error)}
            return prefix + encode(reason)[1:]

    return line


def kind(record: Record) -> str:
    """Return "events", "spans" or "metrics"."""
    return _KINDS.get(type(record), "events")


def _as_text(value: Any) -> Any:
    if isinstance(value, set | frozenset):
        return list(value)
    return _clean(value)


def _clean(value: object) -> str:
    try:
        text = str(value)
    except Exception:  # noqa: BLE001 - a plugin may put anything into a record, also what can not say what it is
        text = f"<{type(value).__name__}>"
    return text[:_TEXT_MAX].encode("utf-8", "replace").decode()
