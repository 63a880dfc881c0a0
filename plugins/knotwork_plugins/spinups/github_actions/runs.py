"""What does GitHub say of a run, and when does it want to be left in peace? Pure."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Literal

from knotwork_plugins.over_http import retry_after_s

if TYPE_CHECKING:
    from collections.abc import Mapping

PAUSE_S = 60.0
PAUSE_MAX_S = 3700.0
_LIMITED = frozenset({403, 429})
_WORD = r"[A-Za-z0-9_-]"


def number(value: Any) -> int:
    """Return the id of a run, 0 for anything that is none."""
    return value if isinstance(value, int) and not isinstance(value, bool) and 0 < value < 2**63 else 0


def named(found: Mapping[str, Any], launch: str) -> int | None:
    """Return the oldest run in a list whose name holds the launch as a word of its own."""
    whole = re.compile(rf"(?<!{_WORD}){re.escape(launch)}(?!{_WORD})")
    runs = found.get("workflow_runs")
    ids = [
        number(run.get("id"))
        for run in (runs if isinstance(runs, list) else [])
        if isinstance(run, dict) and any(whole.search(str(run.get(key) or "")) for key in ("display_title", "name"))
    ]
    return min((one for one in ids if one), default=None)


def state_of(run: Mapping[str, Any]) -> tuple[Literal["starting", "running", "gone", "failed"], str]:
    """Return how a run is and why."""
    status, conclusion = run.get("status"), run.get("conclusion")
    if status == "in_progress":
        return "running", ""
    if status != "completed":
        return "starting", f"the run is {status}"
    if conclusion in ("success", "neutral", "skipped", "cancelled"):
        return "gone", f"the run ended: {conclusion}"
    return "failed", f"the run ended: {conclusion}"


def failed_step(found: Mapping[str, Any]) -> str:
    """Return in words which job and step failed, from the list of the jobs of a run; empty when none did."""
    jobs = found.get("jobs")
    for job in jobs if isinstance(jobs, list) else []:
        if isinstance(job, dict) and job.get("conclusion") not in (None, "success", "skipped", "neutral"):
            steps = job.get("steps")
            bad = [
                step.get("name")
                for step in (steps if isinstance(steps, list) else [])
                if isinstance(step, dict) and step.get("conclusion") in ("failure", "cancelled", "timed_out")
            ]
            return f" in job {job.get('name')!r}" + (f", step {bad[0]!r}" if bad else "")
    return ""


def pause(status: int, headers: Mapping[str, str], said: str, now_s: float) -> float | None:
    """Return for how many seconds GitHub wants no more requests; None when it did not answer so."""
    if status not in _LIMITED:
        return None
    if (asked := retry_after_s(headers.get("retry-after", ""), now_s)) is not None:
        return asked
    if headers.get("x-ratelimit-remaining") == "0":
        reset = headers.get("x-ratelimit-reset", "")
        left_s = float(reset) - now_s if reset.isascii() and reset.isdigit() else PAUSE_S
        return min(max(left_s, 1.0), PAUSE_MAX_S)
    return PAUSE_S if status == 429 or "rate limit" in said.lower() else None  # noqa: PLR2004  too many requests
