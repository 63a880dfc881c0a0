"""Can what an executor says be told on? Its outcome, its errors, and how it crashed: the same in the node and outside (pure)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from knotwork.sdk import Continue, Done, Failed

if TYPE_CHECKING:
    from knotwork.sdk import KnotworkError, Outcome

_TEXT_MAX = 500


def outcome(answer: Any) -> Outcome:
    """Return what an executor answered; raises TypeError for what is no outcome, which is a mistake like any other."""
    if not isinstance(answer, Done | Continue | Failed):
        raise TypeError(f"answered {type(answer).__name__}, not an outcome: return Done, Failed or Continue")
    return answer


def can_be_told(error: KnotworkError) -> bool:
    """Return whether an error that a plugin raised is made of what an error is made of."""
    words = isinstance(error.message, str) and isinstance(error.code, str) and isinstance(error.hint, str)
    return words and isinstance(error.detail, dict) and isinstance(error.retry_after_s, int | float | None)


def crash(error: BaseException) -> str:
    """Return how an executor crashed, in words."""
    try:
        text = str(error)[:_TEXT_MAX]
    except Exception:  # noqa: BLE001  even its text is the plugin's code
        text = "its text cannot be had"
    return f"{type(error).__name__}: {text}" if text else type(error).__name__
