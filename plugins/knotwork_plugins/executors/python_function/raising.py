"""What did a function raise, in words and as an outcome? What a task group gathered counts by its members (pure)."""

from __future__ import annotations

from collections.abc import Collection

from knotwork.sdk import Failed, KnotworkError
from knotwork.sdk.errors import leaves

_TOLD_MAX = 2000  # characters of a message, in the outcome and in the log
_MEMBERS_MAX = 5


def outcome(error: BaseException, retriable: Collection[str]) -> Failed:
    """Return what an error means.

    `retriable` are names of classes; of a group every member must be of one of them. One of ours keeps its own code.
    """
    members = list(leaves(error))
    if len(members) == 1 and isinstance(ours := members[0], KnotworkError):
        return Failed(str(ours), ours.code, ours.retriable, ours.retry_after_s, ours.detail)
    return Failed(
        "; ".join(_told(one) for one in members[:_MEMBERS_MAX])[:_TOLD_MAX],
        code="agent.exception",
        retriable=all(_is_one_of(one, retriable) for one in members),
        detail={"where": where(members[0]) or where(error)},  # a member may never have been raised by itself
    )


def where(error: BaseException) -> str:
    """Return `file:line` of the innermost frame of the error's traceback, empty without one."""
    trace = error.__traceback__
    if trace is None:
        return ""
    while trace.tb_next is not None:
        trace = trace.tb_next
    return f"{trace.tb_frame.f_code.co_filename}:{trace.tb_lineno}"


def _told(error: BaseException) -> str:
    try:
        text = str(error)[:_TOLD_MAX]
    except Exception:  # noqa: BLE001 - even its text is foreign code
        text = "its text cannot be had"
    return f"{type(error).__name__}: {text}"


def _is_one_of(error: BaseException, names: Collection[str]) -> bool:
    return any(kind.__name__ in names for kind in type(error).__mro__)
