"""What are the names on the wire? Every subject, stream and bucket name is built here, from validated tokens (pure).

No user text reaches a subject unescaped: each function takes tokens and refuses anything else, so a name with a dot,
a wildcard or a space can never widen what a subject means.
"""

from __future__ import annotations

import re
import zlib
from functools import lru_cache
from typing import Literal

from knotwork.bus import digits
from knotwork.sdk.errors import Invalid

_TOKEN = re.compile(r"[a-z0-9][a-z0-9_-]{0,63}")
_OP = re.compile(r"[a-z]{1,32}\.[a-z_]{1,32}")
_TOPIC = re.compile(r"[a-z0-9_-]{1,64}(\.[a-z0-9_-]{1,64}){0,7}")
_RUN = re.compile(r"[a-z0-9]{8,40}")

ARCHIVE, BLOBS, COUNTS, DEAD, EVENTS, FACTS = "ARCHIVE", "BLOBS", "COUNTS", "DEAD", "EVENTS", "FACTS"
FIRINGS, HISTORY, TASKS, TIMERS = "FIRINGS", "HISTORY", "TASKS", "TIMERS"
TALK, INBOXES, POST, TELEMETRY = "TALK", "INBOXES", "POST", "TELEMETRY"
AGENTS, CHANNELS, CHECKPOINTS, CREW, CREW_CHECKPOINTS = "AGENTS", "CHANNELS", "CHECKPOINTS", "CREW", "CREW_CHECKPOINTS"
DEFS, DELIVERIES, ENGINES, LEASES, LIMITS = "DEFS", "DELIVERIES", "ENGINES", "LEASES", "LIMITS"
MEMORY, NODES, READS, SETTINGS, TARGETS, TRIGGERS = "MEMORY", "NODES", "READS", "SETTINGS", "TARGETS", "TRIGGERS"


def bucket_stream(bucket: str) -> str:
    """Return the stream that keeps a bucket of keys and values."""
    return f"KV_{bucket}"


def bucket_key(bucket: str, key: str) -> str:
    """Return where a key of a bucket stands in its stream; with `*` and `>` the pattern of several."""
    return f"$KV.{bucket}.{key}"


@lru_cache(maxsize=4096)  # most names come again and again
def _is_token(text: str) -> bool:
    return _TOKEN.fullmatch(text) is not None


def is_token(text: object) -> bool:
    """Return whether `text` may be a name of a node, agent, capability, project and the like."""
    return isinstance(text, str) and len(text) <= 64 and _is_token(text)  # noqa: PLR2004


def token(text: object, what: str) -> str:
    """Return `text` when it is a token; raises `Invalid` naming `what` it should have been."""
    if is_token(text):
        return str(text)
    shown = repr(text if not isinstance(text, str) else text[:80])
    raise Invalid(
        f"{what} {shown} is not a valid name.",
        code="request.bad_token",
        hint="Use 1 to 64 of a-z, 0-9, '-' and '_', beginning with a letter or digit.",
        detail={"field": what},
    )


def agent(node: str, name: str) -> str:
    """Return where an agent of a node is invoked."""
    return f"agent.{token(node, 'node')}.{token(name, 'agent')}"


def cancel(node: str, call: str) -> str:
    """Return where a node is told to stop one call; `call` is its id."""
    return f"cancel.{token(node, 'node')}.{token(call, 'call id')}"


def op(name: str, node: str = "") -> str:
    """Return where an op is asked of any node, or of the one named; `name` is `room.verb`."""
    if _OP.fullmatch(name) is None:
        raise Invalid(f"{name[:80]!r} is not the name of an op.", code="request.bad_op", hint="Write room.verb.")
    return f"op.{name}.{token(node, 'node')}" if node else f"op.{name}"


def op_cancel(call: str) -> str:
    """Return where whoever carries out an op is told to stop it; `call` is its id."""
    return f"op.cancel.{token(call, 'call id')}"


def op_credit(call: str) -> str:
    """Return where whoever carries out an op is told how much of its answer was used; `call` is its id."""
    return f"op.credit.{token(call, 'call id')}"


def prompt(verb: str, kind: str, node: str, name: str) -> str:
    """Return a subject of the Synadia Agent Protocol; `verb` is prompt, status or hb, `kind` the agent's executor type."""
    return f"agents.{token(verb, 'verb')}.{token(kind, 'executor type')}.{token(node, 'node')}.{token(name, 'agent')}"


def may_answer(reply: str) -> bool:
    """Return whether an answer may go to `reply`: to an inbox, whose name begins with an underscore, and nowhere else.

    Whoever asks chooses where the answer goes, and we send it with our own rights; an answer sent to `$JS.API.…` would
    let somebody who may only ask questions work on streams.
    """
    return reply.startswith("_")


STEP = "task"
"""The step of a run that is a task."""
WORKFLOW, KEYED = "w", "k"
"""What the ids of runs of workflows begin with, and those of tasks that have a key; those of other tasks begin with `t`."""
SHARDS = 16


def is_run(text: object) -> bool:
    """Return whether `text` may be the id of a run."""
    return isinstance(text, str) and _RUN.fullmatch(text) is not None


def shard(run: str) -> str:
    """Return the shard of a run: the same everywhere and always, and never the same for tasks and for workflows.

    So whoever follows the runs of workflows is not told of every task there is.
    """
    place = zlib.crc32(run.encode()) % SHARDS
    return f"{WORKFLOW}{place:x}" if run.startswith(WORKFLOW) else f"{place:02x}"


def fact(shard: str, run: str, *what: str) -> str:
    """Return the one place of a fact of a run, in FACTS."""
    return ".".join(("run", token(shard, "shard"), token(run, "run"), *(token(one, "fact") for one in what)))


@lru_cache(maxsize=8192)  # several facts of a run come close together
def facts_of(run: str) -> str:
    """Return the beginning of the subjects of all facts of a run."""
    return fact(shard(run), run)


def outcome(run: str, step: str, iteration: int, number: int) -> str:
    """Return the one place of the outcome of an attempt, in FACTS."""
    return attempt(run, "outcome", step, iteration, number)


def attempt(run: str, what: str, step: str, iteration: int, number: int, *, delivery: int = 0) -> str:
    """Return the one place of a fact about an attempt, in FACTS; of one about each delivery where it stands, or begins."""
    place = f"{facts_of(run)}.{token(what, 'fact')}.{token(step, 'fact')}.{iteration:d}.{number:d}"
    return f"{place}.{delivery:d}" if delivery else place


def keyed(run: str) -> str:
    """Return where FACTS remembers for a day what was asked for with the key that a run comes from."""
    return f"{facts_of(run)}.keyed"


def told(of: str) -> str:
    """Return where FACTS tells listeners about a fact that was just stored; `of` is its subject."""
    return f"told{of.removeprefix('run')}"


def told_by(told: str) -> str:
    """Return the subject of the fact that listeners are told about on a subject."""
    return f"run{told.removeprefix('told')}"


_OWN = r"==(?:private|personal)-[0-9a-f]{24}=" + _TOKEN.pattern
_QUEUE = re.compile(rf"({_TOKEN.pattern})?=({_TOKEN.pattern})?|={_TOKEN.pattern}=|{_TOKEN.pattern}|{_OWN}")


def queue(text: object) -> str:
    """Return `text` when it may be what a task is routed by: a capability, `=agent`, `node=agent`, `node=`, `seen` or `own`.

    Names cannot hold '=', so an agent never receives what was meant for a capability of the same name.
    """
    if isinstance(text, str) and text != "=" and _QUEUE.fullmatch(text):
        return text
    return token(text, "queue")


def addressee(routed: str) -> tuple[str, str] | None:
    """Return the node and the agent that work routed so is for, "" for any; None when it is for a capability."""
    if routed.startswith("=="):
        return None
    node, named, agent = routed.partition("=")
    return (node, agent.removesuffix("=")) if named else None


def seen(agent: str) -> str:
    """Return what work for any agent of this name is routed by whom the whole project may see."""
    return queue(f"={token(agent, 'agent')}=")


def shown(routed: str) -> str:
    """Return what work is routed by as it is told: that an agent of the name may not be seen by somebody is not."""
    return routed[:-1] if routed.startswith("=") and routed.endswith("=") else routed


def own(circle: str, capability: str) -> str:
    """Return what work is routed by that one circle alone does (`trust.scopes.circle`): no name can be written like it."""
    return queue(f"=={circle}={token(capability, 'capability')}")


def circle_of(routed: str) -> str:
    """Return the circle that alone may see and take what is routed so, "" for what is the project's."""
    return routed[2:].partition("=")[0] if routed.startswith("==") else ""


def capability_of(routed: str) -> str:
    """Return the capability that what is routed so is for, "" when it is for an agent or a node."""
    if routed.startswith("=="):
        return routed[2:].partition("=")[2]
    return "" if "=" in routed else routed


Lane = Literal["high", "normal", "low"]
LANES: tuple[Lane, ...] = ("high", "normal", "low")


def lane(priority: int) -> Lane:
    """Return the lane of a priority: 8 to 10 high, 4 to 7 normal, 1 to 3 low."""
    return "high" if priority >= 8 else "normal" if priority >= 4 else "low"  # noqa: PLR2004


def task(place: str, run: str, step: str, iteration: int, number: int) -> str:
    """Return where one attempt of one step waits, in TASKS; `place` is what `task_queue` returns."""
    return f"{place}.{token(run, 'run')}.{token(step, 'step')}.{iteration:d}.{number:d}"


@lru_cache(maxsize=4096)
def task_queue(boundary: str, routed: str, lane: str) -> str:
    """Return the beginning of the subjects of one queue, in TASKS."""
    return f"task.{token(boundary, 'boundary')}.{queue(routed)}.{token(lane, 'lane')}"


def outcome_of(task: str) -> str:
    """Return the place of the outcome of the attempt that waits at a place in TASKS, "" for what is no such place."""
    parts = task.split(".")
    if len(parts) != 8 or not (is_run(parts[4]) and is_token(parts[5])):  # noqa: PLR2004
        return ""
    iteration, number = digits.read(parts[6]), digits.read(parts[7])
    return "" if iteration is None or number is None else outcome(parts[4], parts[5], iteration, number)


def hint(boundary: str, routed: str, lane: str) -> str:
    """Return where workers are told that a queue has work."""
    return f"hint.{task_queue(boundary, routed, lane)}"


def cancel_task(run: str) -> str:
    """Return where whoever works on a task is told to stop."""
    return f"cancel.{token(run, 'run')}"


def withdraw(run: str) -> str:
    """Return where whoever works on a step is asked to stop, to say that it has it, and to record its end then."""
    return f"withdraw.{token(run, 'run')}"


def notice(agent: str) -> str:
    """Return where an agent with an open session is told that there is something for it; `agent` is its id."""
    return f"notice.{token(agent, 'agent id')}"


@lru_cache(maxsize=4096)
def channel(name: str) -> str:
    """Return where is kept what is said in a channel, in TALK."""
    return f"channel.{token(name, 'channel')}"


def inbox(agent: str) -> str:
    """Return where is kept what is sent to an agent, in INBOXES; `agent` is its id."""
    return f"inbox.{token(agent, 'agent id')}"


def post(project: str, agent: str = "") -> str:
    """Return where a message waits in COMMONS, in POST, for an agent of a project; without one, for any of them."""
    to = token(agent, "agent id") if agent else "*"
    return f"post.{token(project, 'project')}.{to}"


def postman(project: str) -> str:
    """Return the consumer by which the nodes of a project fetch its messages from POST."""
    return f"post-{token(project, 'project')}"


def heard(of: str) -> str:
    """Return where TALK and INBOXES tell listeners about a message that was just stored; `of` is its subject."""
    return f"heard.{of}"


def still(node: str) -> str:
    """Return where a node is asked whether it still works on an attempt."""
    return f"still.{token(node, 'node')}"


def live(run: str, step: str) -> str:
    """Return where progress and live output of a step go."""
    return f"stream.{token(run, 'run')}.{token(step, 'step')}"


def dead(routed: str, run: str, step: str) -> str:
    """Return the place of a dead letter, in DEAD; each step of a run has its own."""
    return f"dead.{queue(routed)}.{token(run, 'run')}.{token(step, 'step')}"


def archived(place: int) -> str:
    """Return where a segment of ended tasks is kept, in ARCHIVE; `place` is where in FACTS it ends."""
    return f"ended.{place:d}"


def history(run: str) -> str:
    """Return where the facts of a run that is over are kept together, in HISTORY."""
    return f"history.{token(run, 'run')}"


def history_piece(run: str, tag: str, number: int) -> str:
    """Return where a piece of a run is kept that one message cannot hold, in HISTORY."""
    return f"history.{token(run, 'run')}.{token(tag, 'tag')}.{number:d}"


def leads(stream: str) -> str:
    """Return where a server of a cluster says that it leads a stream from now on."""
    return f"$JS.EVENT.ADVISORY.STREAM.LEADER_ELECTED.{stream}"


def fired_count(trigger: str) -> str:
    """Return where it is counted how often a trigger fired, in COUNTS."""
    return f"count.trigger.{token(trigger, 'trigger')}"


def firing(trigger: str) -> str:
    """Return where it is kept when a trigger fired, in FIRINGS."""
    return f"firing.{token(trigger, 'trigger')}"


def event(kind: str) -> str:
    """Return where an event is published, in EVENTS; its kind has up to eight parts."""
    if _TOPIC.fullmatch(kind) is None:
        raise Invalid(
            f"{kind[:80]!r} is not a kind of event.", code="request.bad_topic", hint="Write a.b of a-z, 0-9, '-', '_'."
        )
    return f"event.{kind}"


def timer(shard: str, run: str, name: str) -> str:
    """Return where a timer of a run is set, in TIMERS."""
    return f"timer.{token(shard, 'shard')}.{token(run, 'run')}.{token(name, 'timer')}"


def fired(shard: str, run: str, name: str) -> str:
    """Return where a timer of a run arrives, in TIMERS."""
    return f"fired.{token(shard, 'shard')}.{token(run, 'run')}.{token(name, 'timer')}"


def telemetry(topic: str) -> str:
    """Return where telemetry of a topic goes; a topic has up to eight parts."""
    if _TOPIC.fullmatch(topic) is None:
        raise Invalid(
            f"{topic[:80]!r} is not a telemetry topic.", code="request.bad_topic", hint="Write a.b of a-z, 0-9."
        )
    return f"telemetry.{topic}"
