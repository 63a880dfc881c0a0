"""Which strings may stand in requests about tasks: ids, labels, moments."""

from __future__ import annotations

import re
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, Field, StringConstraints

from knotwork.bus import clock
from knotwork.ops.words import NAMED
from knotwork.sdk.errors import Invalid

_UNITS = {"": 1.0, "ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_duration = re.compile(r"(\d{1,9}(?:\.\d{1,9})?)(ms|s|m|h|d)?").fullmatch
NS = 1_000_000_000
LAST_NS = 2**63 - 1
"""What is kept of a time: none lies before 1970, or later than can be counted."""
FAR_NS = 3650 * 86400 * NS
"""A deadline further away than ten years is a mistake."""


def _pairs(value: Any) -> Any:
    """Return labels as `key=value` texts, however they were written; what is neither is left for the check."""
    if isinstance(value, dict):
        if odd := [key for key in value if "=" in key]:
            raise ValueError(f"the name of a label holds no =: {odd[0][:64]!r}")
        return [f"{key}={text}" for key, text in value.items()]
    return value


def _as_text(value: Any) -> Any:
    """Return a number of seconds as text: both may be written."""
    return f"{value:g}" if isinstance(value, int | float) and not isinstance(value, bool) else value


_RUN, _TASK, _LABEL, _DIGEST, _CODE, _KEY = (
    r"[a-z0-9]{8,40}",
    r"[a-vx-z0-9][a-z0-9]{7,39}",
    r"[A-Za-z0-9][A-Za-z0-9_./-]{0,63}=[^\x00-\x1f]{0,256}",
    r"sha256-[0-9a-f]{64}",
    r"[a-zA-Z0-9_.:-]{1,128}",
    r"[^\x00-\x1f]*",
)
NAMED |= {
    f"^{_RUN}$": ("not the id of a task", "Ids are what `knotwork task submit` prints; see `knotwork task list`."),
    f"^{_TASK}$": (
        "not the id of a task",
        "See `knotwork task list`. What begins with w is a run: see `knotwork run show`.",
    ),
    f"^{_LABEL}$": (
        "not a label",
        "Write key=value: up to 64 characters (A-Z a-z 0-9 . _ - /), =, and up to 256 of any kind.",
    ),
    f"^{_DIGEST}$": ("not a digest", "Give what `knotwork blob put` answered: sha256- and 64 hex digits."),
    f"^{_CODE}$": ("not an error code", "Codes are letters, digits and . _ : -, 128 at most, such as agent.timed_out."),
    f"^{_KEY}$": ("not a key", "Keys have no line breaks, tabs or other control characters."),
}
Run = Annotated[str, StringConstraints(pattern=f"^{_RUN}$", max_length=40)]
TaskId = Annotated[str, StringConstraints(pattern=f"^{_TASK}$", max_length=40)]
"""Not that of a run: whoever asks for that by mistake would be told of whichever step was last."""
Label = Annotated[str, StringConstraints(pattern=f"^{_LABEL}$")]
Labels = Annotated[list[Label], Field(max_length=64), BeforeValidator(_pairs)]
Moment = Annotated[str, StringConstraints(max_length=64), BeforeValidator(_as_text)]
Digest = Annotated[str, StringConstraints(pattern=f"^{_DIGEST}$")]
Code = Annotated[str, StringConstraints(pattern=f"^{_CODE}$")]
Key = Annotated[str, StringConstraints(max_length=256, pattern=f"^{_KEY}$")]
Cursor = Annotated[str, StringConstraints(max_length=256)]


def labels(pairs: list[str]) -> dict[str, str]:
    """Return labels by key; of a key given twice the last counts."""
    return {key: value for key, _, value in (pair.partition("=") for pair in pairs)}


def moment_ns(text: str, *, past: bool, now_ns: int | None = None) -> int:
    """Return the moment meant by `90`, `30m` or an RFC 3339 time in nanoseconds since 1970, 0 for no text.

    A duration counts from now: forward, or backward when the `past` is meant. Raises `ValueError` for what is neither.
    """
    if not text:
        return 0
    now_ns = clock.now_ns() if now_ns is None else now_ns
    found = _duration(text.strip())
    if found is not None:
        away_ns = int(float(found[1]) * _UNITS[found[2] or ""] * NS)
        return max(1, now_ns - away_ns) if past else min(now_ns + away_ns, LAST_NS)
    try:
        when = datetime.fromisoformat(text.strip())
    except ValueError:
        raise ValueError("neither a duration such as 30m nor a time such as 2026-05-01T12:00:00Z") from None
    when = when if when.tzinfo is not None else when.replace(tzinfo=UTC)
    return max(1, min(int(when.timestamp() * 1e6) * 1000, LAST_NS))


def moving(text: str) -> str:
    """Return a text that means another moment whenever it is read, such as `2h`; "" for one that does not."""
    return text.strip() if _duration(text.strip()) is not None else ""


def deadline(text: str) -> str:
    """Return a deadline that makes sense; raises `ValueError` for one that is past or ten years away."""
    if text:
        now_ns = clock.now_ns()
        at_ns = moment_ns(text, past=False, now_ns=now_ns)
        if at_ns <= now_ns:
            raise ValueError("it is over already")
        if at_ns - now_ns > FAR_NS:
            raise ValueError("it is more than ten years away")
    return text


def bound(text: str) -> str:
    """Return a bound of a search that makes sense; raises `ValueError`."""
    moment_ns(text, past=True)
    return text


def either_ids_or_filter(request: BaseModel, filters: Iterable[str]) -> None:
    """Raise `ValueError` when a request names ids and narrows them, too: then the filter would be passed over."""
    usual = {name: field.default for name, field in type(request).model_fields.items()}
    if getattr(request, "ids", None) and (both := [name for name in filters if getattr(request, name) != usual[name]]):
        raise ValueError(f"give either ids or a filter, not both: ids and {', '.join(both)}")


def filter_needed() -> Invalid:
    """Return the error of a batch that would mean everything there is."""
    return Invalid(
        "Neither tasks nor a filter is given.", code="work.filter_needed",
        hint="Name ids, give a filter such as a capability or a label, or say all.",
    )  # fmt: skip
