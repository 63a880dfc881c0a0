"""Which names on the wire are meant together? What a stream keeps, what is listened to, and what is read at once (pure).

The place of a single thing is built in `subjects`. `*` stands for one token, `>` for all that follow.
"""

from __future__ import annotations

from knotwork.bus import subjects
from knotwork.bus.subjects import STEP, token

FACTS, TRIGGER_FACTS, TOLD = "run.>", "trigger.>", "told.>"
"""All facts of runs, all of triggers, and what listeners are told of those of runs."""
TASKS, HINTS, DEAD = "task.>", "hint.task.>", "dead.>"
TIMERS, FIRED = "timer.>", "fired.>"
SEGMENTS = "ended.>"
"""All segments of ended tasks, in ARCHIVE."""
HISTORIES, WHOLE_HISTORIES = "history.>", "history.*"
"""All that HISTORY keeps; and of each run what says the rest, without the pieces of large ones."""
CHANNELS, INBOXES, POST = "channel.*", "inbox.*", "post.*.*"
SAID, SAID_HEARD = "channel.>", "heard.channel.>"
SENT, SENT_HEARD = "inbox.>", "heard.inbox.>"
"""What TALK and INBOXES tell listeners of, and where."""
EVENTS, FIRINGS, COUNTS, TELEMETRY = "event.>", "firing.>", "count.>", "telemetry.>"
CANCELLED_TASKS, WITHDRAWN = "cancel.*", "withdraw.*"
"""Where workers are told to stop, and where they are asked to."""
OUTCOMES, REDRIVEN = f"run.*.*.outcome.{STEP}.*.*", f"run.*.*.redriven.{STEP}.>"
"""How attempts of tasks ended, and dead ones that were given another, in FACTS."""
NEXT = f"run.*.*.next.{STEP}.>"
"""Attempts of tasks that wait for their time, in FACTS."""
OUTCOMES_TOLD, ENDS_TOLD = "told.*.*.outcome.>", "told.*.*.ended"
"""Where listeners are told how attempts, and how runs of workflows ended."""
STARTS, ENDS = "run.*.*.start", "run.*.*.ended"
"""Where each run of a workflow began, and where it ended, in FACTS."""
OPS, OP_CANCELS, OP_CREDITS = "op.*.*", "op.cancel.*", "op.credit.*"
"""Where ops are asked of any node; where whoever carries one out is told to stop, and how much of its answer was used."""

ANY_OP, ANY_PROMPT, ANY_STATUS, ANY_BEAT = "op.>", "agents.prompt.>", "agents.status.>", "agents.hb.>"
"""What local doors may ask for, and hear: ops, and agents by the Synadia Agent Protocol."""


def ops_of(node: str) -> str:
    """Return the pattern of all ops asked of one node."""
    return f"{OPS}.{token(node, 'node')}"


def agents_of(node: str) -> str:
    """Return the pattern of all agents of one node."""
    return f"agent.{token(node, 'node')}.*"


def cancels_of(node: str) -> str:
    """Return the pattern of all cancellations meant for one node."""
    return f"cancel.{token(node, 'node')}.*"


def prompts_of(node: str, verb: str) -> str:
    """Return the pattern of one verb of the Synadia Agent Protocol for all agents of a node."""
    return f"agents.{token(verb, 'verb')}.*.{token(node, 'node')}.*"


def facts_of(run: str) -> str:
    """Return the pattern of all facts of a run, in FACTS."""
    return f"{subjects.facts_of(run)}.>"


def told_of(run: str) -> str:
    """Return the pattern of what listeners are told of a run."""
    return subjects.told(facts_of(run))


def shard_facts(shard: str) -> str:
    """Return the pattern of all facts of the runs of a shard, in FACTS."""
    return f"run.{token(shard, 'shard')}.>"


def shard_starts(shard: str) -> str:
    """Return the pattern of the starts of the runs of a shard, in FACTS."""
    return f"run.{token(shard, 'shard')}.*.start"


def shard_told(shard: str) -> str:
    """Return the pattern of what listeners are told of the runs of a shard."""
    return f"told.{token(shard, 'shard')}.>"


def tasks_for(boundary: str = "", capability: str = "") -> str:
    """Return the pattern of all tasks, or of those of a boundary, or for a capability, in TASKS."""
    within = token(boundary, "boundary") if boundary else "*"
    meant = token(capability, "capability") if capability else "*"
    return f"task.{within}.{meant}.>"


def tasks_to_purge(boundary: str, routed: str, lane: str) -> str:
    """Return the pattern of the tasks of one queue, in TASKS, as they are purged: other words than its consumer's filter.

    Where either of a purge's pattern and a consumer's filter holds all of the other, nats-server 2.15 forgets which
    messages were handed back to that consumer, and gives them again only after its `ack_wait`. All subjects in TASKS
    begin with `task` and go on behind the queue, so this names the same tasks, and neither pattern holds the other.
    """
    return f"*{subjects.task_queue(boundary, routed, lane).removeprefix('task')}.*.>"


def tasks_of(run: str, step: str = "") -> str:
    """Return the pattern of every attempt of a run, or of one of its steps, that waits, in TASKS."""
    only = f"{token(step, 'step')}." if step else ""
    return f"task.*.*.*.{token(run, 'run')}.{only}>"


def timers_of(run: str) -> str:
    """Return the pattern of all timers of a run that are set, in TIMERS."""
    return f"timer.{subjects.shard(run)}.{token(run, 'run')}.>"


def dead_of(run: str, step: str = "") -> str:
    """Return the pattern of the dead letters of a run, or of one step of it, whatever they were routed by."""
    return f"dead.*.{token(run, 'run')}.{token(step, 'step') if step else '*'}"


def live_of(run: str) -> str:
    """Return the pattern of progress and live output of all steps of a run."""
    return f"stream.{token(run, 'run')}.*"


def history_pieces(run: str, tag: str) -> str:
    """Return the pattern of the pieces of a run that one message cannot hold, in HISTORY."""
    return f"history.{token(run, 'run')}.{token(tag, 'tag')}.*"
