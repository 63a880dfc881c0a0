"""Is a task over, tried again, or dead? What the end of an attempt means for it (pure).

Whoever ends an attempt decides here and records the answer, the pause included, as one fact; chance (`spread`, the
jitter) comes in as a number, time as nanoseconds since 1970.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from knotwork.sdk.errors import Failed, TimedOut
from knotwork.work.records import ATTEMPTS_MAX, Ended, Loop, Outcome, Past, Retry, Task, raw

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from knotwork.work.records import Started

S = 1_000_000_000
HANDED_BACK = frozenset(
    {
        "node.stopping", "node.draining", "agent.stopped", "agent.not_found", "plugin.not_running", "agent.busy",
        "call.cancelled", "policy.forbidden",
    }
)  # fmt: skip
"""Errors that say nothing about the work: it goes back to the queue, and no attempt is used up."""
PROCESS_ENDED = "plugin.crashed"
"""The error of an attempt whose agent has a process of its own, which ended under it: it counts as a worker that died."""
NOT_BEGUN = "work.not_begun"
"""The error of an attempt that nobody began in time: it counts, though it has no beginning."""
LEFT_OUT = "Its input and its past are left out: they were too large to be recorded."
"""Why a task in an outcome tells nothing of its attempts."""
CRASHED = "crashed"
"""The state of a past attempt whose worker died while it ran."""
WHOLE_PASTS = 20
SHORT_CHARS = 200
"""Of attempts before the last `WHOLE_PASTS` a task carries only the beginning of what went wrong."""


def pause_s(retry: Retry, failures: int, spread: float) -> float:
    """Return the pause after the `failures`-th failure in seconds; `spread` (0 to 1) is where full jitter falls."""
    if retry.backoff == "fixed":
        pause = retry.delay_s
    elif retry.backoff == "linear":
        pause = retry.delay_s * failures
    else:
        try:
            pause = retry.delay_s * retry.multiplier ** (failures - 1)
        except OverflowError:
            pause = retry.max_delay_s
    pause = min(pause, retry.max_delay_s)
    return pause * spread if retry.jitter else pause


def may_retry(retry: Retry, error: Mapping[str, Any]) -> bool:
    """Return whether an error is worth another attempt: its code is listed, or it says itself that it may pass."""
    if retry.on:
        return error.get("code") in retry.on
    detail = error.get("detail")
    said = detail.get("retriable") if isinstance(detail, dict) else None
    if isinstance(said, bool):
        return said
    return error.get("kind") in ("unavailable", "busy", "unreachable", "timed_out")


def after_failure(task: Task, error: dict[str, Any], now_ns: int, spread: float) -> tuple[Ended, int]:
    """Return how a failed attempt ends its task, and when the next one is due (`waiting`), else 0."""
    failures = _failures(task) + 1
    late = error.get("kind") == "timed_out"
    if task.deadline_ns and now_ns >= task.deadline_ns:
        return "timed-out", 0
    if _is_poison(task, error):
        return "dead", 0
    most = task.retry.max_attempts
    if task.number >= ATTEMPTS_MAX or not may_retry(task.retry, error) or failures >= most == 1:
        return ("timed-out" if late else "failed"), 0
    if failures >= most:
        return "dead", 0
    asked_s = error.get("retry_after_s")
    wait_s = pause_s(task.retry, failures, spread)
    if isinstance(asked_s, int | float) and asked_s > 0:
        wait_s = max(wait_s, min(float(asked_s), 30 * 86400.0))
    due_ns = now_ns + int(wait_s * S)
    if task.deadline_ns and due_ns >= task.deadline_ns:
        return "timed-out", 0
    return "waiting", due_ns


def told_of(task: Task, error: dict[str, Any], state: Ended, now_ns: int) -> dict[str, Any]:
    """Return the error of a failed attempt as it goes on record: its own, or why no other may follow."""
    if state == "dead" and _is_poison(task, error):
        return poison(killed(task) + 1, error).to_wire()
    if state != "timed-out" or not task.deadline_ns or error.get("code") == "work.deadline":
        return error
    left = now_ns < task.deadline_ns
    if left and (not may_retry(task.retry, error) or _failures(task) + 1 >= task.retry.max_attempts):
        return error  # it took too long itself, and that was its last attempt
    why = "its next attempt would begin after its deadline" if left else "its deadline has passed"
    late = TimedOut(
        f"It failed, and {why}. {str(error.get('message', ''))[:2000]}", code="work.deadline",
        hint="Give it more time, or shorter pauses.", detail={"error": error},
    )  # fmt: skip
    return late.to_wire()


def judged(task: Task, error: dict[str, Any], now_ns: int, spread: float) -> tuple[Ended, int, dict[str, Any]]:
    """Return how a failed attempt ends its task, when the next one is due, and its error as it goes on record."""
    state, due_ns = after_failure(task, error, now_ns, spread)
    return state, due_ns, told_of(task, error, state, now_ns)


def poison(crashes: int, last: dict[str, Any] | None = None) -> Failed:
    """Return the error of a task that ended its workers so often; `last` is how the last one said that it went."""
    told = f" {str(last.get('message', ''))[:2000]}" if last else ""
    return Failed(
        f"Its worker died {crashes} times while it ran.{told}", code="work.poison",
        hint="Mend the agent, then `knotwork dead redrive`.", detail={"error": last} if last else None,
    )  # fmt: skip


def killed(task: Task) -> int:
    """Return how many processes of hosted agents went down with earlier attempts, since the task was redriven last."""
    return sum(past.code == PROCESS_ENDED for past in _failed(task))


def _is_poison(task: Task, error: Mapping[str, Any]) -> bool:
    return error.get("code") == PROCESS_ENDED and killed(task) + 1 >= task.retry.max_crashes


def bounded(task: Task, outcome: Outcome) -> Outcome:
    """Return how an attempt ends that wants to go on: with the pause that is asked for, or failed when it may not."""
    if outcome.state != "continued":
        return outcome
    loop = task.loop or Loop()
    due_ns = outcome.ended_ns + int(loop.delay_s * S) if loop.delay_s else 0
    if task.iteration + 1 >= loop.max_iterations:
        error = Failed(f"It was not done after {loop.max_iterations} iterations.", code="work.loop_exhausted")
        return msgspec.structs.replace(outcome, state="failed", error=error.to_wire())
    if loop.until_ns and max(due_ns, outcome.ended_ns) >= loop.until_ns:
        late = TimedOut("It was not done in the time that its loop may take.", code="work.loop_too_long")
        return msgspec.structs.replace(outcome, state="timed-out", error=late.to_wire())
    return msgspec.structs.replace(outcome, due_ns=due_ns)


def following(task: Task, outcome: Outcome) -> Task | None:
    """Return the attempt that follows an outcome that is not final: the next try, or the next iteration."""
    if outcome.state == "waiting":
        return msgspec.structs.replace(
            task, number=task.number + 1, past=_with_past(task, outcome), start_by_ns=_start_by_ns(task, outcome)
        )
    if outcome.state == "continued":
        return msgspec.structs.replace(
            task, number=1, iteration=task.iteration + 1, input=outcome.output, blob=outcome.blob,
            past=(*task.past, _past(task, outcome))[-50:], start_by_ns=_start_by_ns(task, outcome),
        )  # fmt: skip
    return None


def _start_by_ns(task: Task, outcome: Outcome) -> int:
    """Return until when the attempt that follows may wait in its queue; 0: for ever."""
    begins_ns = outcome.due_ns or outcome.ended_ns
    return begins_ns + int(task.start_within_s * S) if task.start_within_s is not None else 0


def not_begun(task: Task) -> TimedOut:
    """Return the error of an attempt that nobody began in time."""
    return TimedOut(
        f"Nobody began it within {task.start_within_s or 0:g} s.", code=NOT_BEGUN,
        hint="See `knotwork task why`; start an agent for it, or let it wait longer (`schedule_to_start`).",
    )  # fmt: skip


def unbegun(task: Task, node: str, now_ns: int, spread: float) -> Outcome:
    """Return the outcome of an attempt that nobody began in time: it counts as one that failed."""
    state, due_ns, error = judged(task, not_begun(task).to_wire(), now_ns, spread)
    return Outcome(state, raw(task), error=error, node=node, ended_ns=now_ns, due_ns=due_ns)


def silent(who: str, heartbeat_s: float) -> TimedOut:
    """Return the error of an attempt whose worker gave no sign of life."""
    return TimedOut(
        f"{who} gave no sign of life for {heartbeat_s:g} s.", code="work.silent",
        hint="Progress, a checkpoint, output or a longer lease is one; else raise `heartbeat_timeout`.",
    )  # fmt: skip


def revived(task: Task, outcome: Outcome, now_ns: int, by: str = "") -> Task | None:
    """Return the attempt that a redrive `by` somebody calls for, None when the task had all that there can be.

    Its history is kept, its failures count anew, and a deadline that has passed is taken off.
    """
    if task.number >= ATTEMPTS_MAX:
        return None
    *past, died = _with_past(task, outcome)[-ATTEMPTS_MAX:]
    died = msgspec.structs.replace(died, redriven_ns=now_ns, redriven_by=by[:256])
    deadline_ns = task.deadline_ns if task.deadline_ns > now_ns else 0
    start_by_ns = now_ns + int(task.start_within_s * S) if task.start_within_s is not None else 0
    return msgspec.structs.replace(
        task, number=task.number + 1, past=(*past, died), deadline_ns=deadline_ns, start_by_ns=start_by_ns
    )


def _failures(task: Task) -> int:
    """Return how many attempts of this iteration have failed since it began, or since it was redriven."""
    return sum(1 for _ in _failed(task))


def _failed(task: Task) -> Iterator[Past]:
    """Yield those attempts, the last one first."""
    for past in reversed(task.past):
        if past.iteration != task.iteration or past.state != "waiting":
            break
        yield past


def crash(task: Task, begun: Started | None, known_ns: int = 0) -> Past:
    """Return an attempt that was begun and took its worker along, as a dead task carries it; `known_ns`: when it was known.

    When it died nobody can tell; and of one that was short, or whose trace is gone, not even who had begun it.
    """
    if begun is None:
        return Past(
            number=task.number, state=CRASHED, message="Its worker died soon.", ended_ns=known_ns,
            iteration=task.iteration,
        )  # fmt: skip
    return Past(
        number=task.number, state=CRASHED, message="Its worker died.", node=begun.node, agent=begun.agent,
        started_ns=begun.started_ns, ended_ns=known_ns, iteration=task.iteration,
    )  # fmt: skip


def crashed(task: Task, begun: Sequence[Started | None], now_ns: int) -> tuple[Past, ...]:
    """Return the attempts that took their workers along, in order: each was known to when the next one was begun."""
    found: list[Past] = []
    known_ns = now_ns
    for one in reversed(begun):
        found.append(crash(task, one, known_ns))
        known_ns = one.started_ns if one is not None else known_ns
    return tuple(reversed(found))


def told(task: Task, outcome: Outcome | None) -> tuple[Past, ...]:
    """Return every attempt of a task that ended; with its final outcome also the last one, when that was begun."""
    if outcome is None or ended_by_crashes(task):
        return task.past
    last = _past(task, outcome)
    return (*task.past, last) if last.started_ns or last.code == NOT_BEGUN else task.past


def ended_by_crashes(task: Task) -> bool:
    """Return whether the last attempt of a dead task is told by its crashes."""
    return bool(task.past) and task.past[-1].state == CRASHED


def crashes(deliveries: int, begun: frozenset[int], released: frozenset[int]) -> list[int]:
    """Return which earlier deliveries of an attempt were begun and never ended, before delivery `deliveries`.

    A first delivery leaves no trace when it is short, so it counts as begun; each later one is recorded before it
    begins. What was handed back on purpose does not count.
    """
    if deliveries <= 1:
        return []
    return sorted(({1} | {one for one in begun if one < deliveries}) - released)


def unstorable(task: Task, outcome: Outcome, error: dict[str, Any]) -> list[Outcome]:
    """Return what is recorded in the place of an outcome that the store refuses for good with `error`: the first it takes.

    The attempt has failed with that error then, unless it had been ended. The last one leaves out all but what names
    the task.
    """
    if outcome.state in ("cancelled", "timed-out"):
        whole = outcome
    else:
        nothing = msgspec.Raw(b"null")
        whole = msgspec.structs.replace(outcome, state="failed", output=nothing, blob="", error=error, due_ns=0)
    bare = msgspec.structs.replace(task, input=msgspec.Raw(b"null"), blob="", past=(), labels={}, why=LEFT_OUT)
    return [
        whole,
        msgspec.structs.replace(whole, task=raw(msgspec.structs.replace(task, past=task.past[-1:]))),
        msgspec.structs.replace(whole, task=raw(bare)),
    ]


def _with_past(task: Task, outcome: Outcome) -> tuple[Past, ...]:
    """Return the past of the attempt that follows; only as much of it as a message can hold a thousand times."""
    past = (*task.past, _past(task, outcome))
    if len(past) > WHOLE_PASTS and len(past[-WHOLE_PASTS - 1].message) > SHORT_CHARS:
        old = past[-WHOLE_PASTS - 1]
        short = msgspec.structs.replace(old, message=old.message[:SHORT_CHARS])
        past = (*past[: -WHOLE_PASTS - 1], short, *past[-WHOLE_PASTS:])
    return past


def _past(task: Task, outcome: Outcome) -> Past:
    error = outcome.error or {}
    return Past(
        number=task.number, state=outcome.state, code=str(error.get("code", ""))[:256],
        message=str(error.get("message", ""))[:4096], node=outcome.node, agent=outcome.agent,
        started_ns=outcome.started_ns, ended_ns=outcome.ended_ns, iteration=task.iteration,
    )  # fmt: skip
