"""How do runs look to those who ask? What the facts of a run add up to, as the ops' replies (pure)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from knotwork.desk.moments import moment
from knotwork.desk.tasks.rows import error_of
from knotwork.flow import anew, briefly, effects, facts
from knotwork.flow.admission import RUN, holder, named
from knotwork.flow.ending import ERROR_MAX_BYTES
from knotwork.flow.looking import Outline
from knotwork.flow.run import OVER, decoded
from knotwork.ops import flow_replies
from knotwork.sdk.errors import Invalid

if TYPE_CHECKING:
    from collections.abc import Mapping

    import msgspec

    from knotwork.bus.reading import Stored
    from knotwork.flow.listing import Listed
    from knotwork.flow.run import Progress, Run
    from knotwork.flow.runs import Begun, Sight

    Books = Mapping[str, list[str]]
    """By the key of a limit who is in its book, as `admission.holder` names them."""

SHOWN_MAX = 3
"""How many of those who hold the places of a limit are named."""
TITLE_MAX = 300
"""Letters of what an approval asks that are shown in a line."""
OUTPUT_MAX_BYTES = 64 * 1024
"""What is shown of the output, and of the error, of one step; a larger one is had with the blob or from its task."""
TIMES = "--"
"""Between a step that is begun several times and which time it is (`decide`)."""


def info(sight: Sight | Outline) -> flow_replies.RunInfo:
    """Return a run whole; of one that this version cannot follow what its facts say."""
    finish = sight.finish
    parent = sight.start.parent
    seen = _seen(sight) if isinstance(sight, Outline) else _steps(sight)
    return flow_replies.RunInfo(
        **row(sight).model_dump(),
        digest=sight.start.digest,
        parent=f"{parent.run}/{parent.step}" if parent is not None else "",
        previous=anew.before(sight.start),
        number=sight.start.number,
        input=decoded(bytes(sight.start.input)),
        input_blob=sight.start.blob,
        output=decoded(bytes(finish.output)) if finish is not None else None,
        output_blob=finish.blob if finish is not None else "",
        error=error_of(_briefly(_failure(sight), ERROR_MAX_BYTES)),
        facts=len(sight.facts),
        progress=seen,
        children=[] if isinstance(sight, Outline) else [child(sight.run, token) for token in sight.run.spawned],
    )


def begun(one: Begun) -> flow_replies.RunInfo:
    """Return a run that was started this moment: all that is known of it already."""
    start, graph = one.start, one.graph
    return flow_replies.RunInfo(
        id=one.id, workflow=start.workflow, state="running", steps=len(graph.boxes) - len(graph.handlers), by=start.by,
        started_at=moment(start.started_ns), labels=start.labels, digest=start.digest,
        input=decoded(bytes(start.input)), input_blob=start.blob, facts=1, new=one.new,
    )  # fmt: skip


def problem(sight: Sight | Outline) -> str:
    """Return why this node cannot say everything about a run; an empty text when it can."""
    told = getattr(sight, "why", "")
    if sight.newer:
        told += f" It has facts of kinds that this version does not know: {', '.join(sight.newer)}."
    how = "Only what its facts say is shown" if isinstance(sight, Outline) else "It is shown without them"
    return f"{told.strip()} {how}: ask a node of the version that started it." if told else ""


def _seen(outline: Outline) -> list[flow_replies.StepInfo]:
    """Return the steps that facts name, and how they ended as far as those tell."""
    bodies = {fact.seq: fact.body for fact in outline.known if fact.what == "outcome"}
    found: dict[str, flow_replies.StepInfo] = {}
    for stored in outline.facts:
        _, _, _, what, *about = stored.subject.split(".")
        if what not in ("started", "outcome") or not about:
            continue
        end = bodies.get(stored.seq)
        before = found.get(about[0])
        if before is None or before.state == "open":
            begun = before.begun_at if before is not None else moment(stored.time_ns) if what == "started" else ""
            told = _ended(end, begun) if isinstance(end, facts.StepEnd) else {"state": "open", "begun_at": begun}
            found[about[0]] = flow_replies.StepInfo(id=about[0], kind="", **told)
    return list(found.values())


def _ended(end: facts.StepEnd, since: str) -> dict[str, Any]:
    """Return how a step ended, as it is told; `since` is when it began if it does not say so itself."""
    return {
        "state": end.state, "begun_at": moment(end.started_ns) or since, "ended_at": moment(end.ended_ns),
        "output": _shown(end.output), "error": error_of(_briefly(end.error)),
    }  # fmt: skip


def _shown(output: bytes | msgspec.Raw) -> Any:
    return decoded(bytes(output)) if len(output) <= OUTPUT_MAX_BYTES else None


def _briefly(error: dict[str, Any] | None, most_bytes: int = OUTPUT_MAX_BYTES) -> dict[str, Any] | None:
    return error and briefly.kept(error, most_bytes)


def _steps(sight: Sight) -> list[flow_replies.StepInfo]:
    """Return the steps as they are; of one that handles failures or undoes each time that it did."""
    run, found = sight.run, []
    times: dict[str, list[flow_replies.StepInfo]] = {}
    for one in _handled(sight):
        times.setdefault(one.id.partition(TIMES)[0], []).append(one)
    for name, step in run.steps.items():
        found += times.get(name) or [_step(run, step)]
    return found


def _handled(sight: Sight) -> list[flow_replies.StepInfo]:
    """Return each time that a step handled a failure, or undid another: those that end, in the order of their facts."""
    run = sight.run
    places = {str(step.box.place): name for name, step in run.steps.items()}
    begun: dict[str, str] = dict.fromkeys(run.handling, "")
    ends: dict[str, facts.StepEnd] = {}
    for stored in sight.facts:
        _, _, _, what, *about = stored.subject.split(".")
        if not about or about[0].partition(TIMES)[0] not in run.graph.handlers or what not in ("started", "outcome"):
            continue
        begun[about[0]] = begun.get(about[0]) or moment(stored.time_ns)
        fact = facts.read_stored(stored) if what == "outcome" else None
        if fact is not None and isinstance(fact.body, facts.StepEnd):
            ends[about[0]] = fact.body
    found = []
    for token, since in begun.items():
        name, _, place = token.partition(TIMES)
        told = {"id": token, "kind": run.steps[name].box.spec.kind, "handles": places.get(place.removesuffix("u"), "")}
        end = ends.get(token)
        if end is None or token in run.handling:
            found.append(flow_replies.StepInfo(**told, state="open", begun_at=since))
        else:
            found.append(flow_replies.StepInfo(**told, **_ended(end, since)))
    return found


def child(run: Run, token: str) -> flow_replies.Child:
    """Return what a worker started."""
    one = run.spawned[token]
    end = one.end
    return flow_replies.Child(
        step=token, what=one.what, run=facts.child_run(run.id, token) if one.is_run else "",
        state=end.state if end is not None else "open", error=error_of(_briefly(end.error)) if end is not None else None,
        output=_shown(end.output) if end is not None else None,
    )  # fmt: skip


def row(sight: Sight | Outline) -> flow_replies.RunRow:
    """Return a run in short."""
    start, finish = sight.start, sight.finish
    if isinstance(sight, Outline):
        over = [bool(one.ended_at) for one in _seen(sight)]
    else:
        run = sight.run
        over = [step.state in OVER for step in run.steps.values() if not _idle_handler(run, step)]
    return flow_replies.RunRow(
        id=sight.id, workflow=start.workflow, state=state_of(sight), done=sum(over), steps=len(over), by=start.by,
        trigger=start.trigger, started_at=moment(start.started_ns),
        ended_at=moment(finish.ended_ns) if finish is not None else "",
        code=str((_failure(sight) or {}).get("code", "")), labels=start.labels,
        next=finish.next if finish is not None else "", problem=problem(sight),
    )  # fmt: skip


def _failure(sight: Sight | Outline) -> dict[str, Any] | None:
    if sight.finish is not None:
        return sight.finish.error
    return None if isinstance(sight, Outline) else sight.run.error


def ended(one: Listed, steps: int) -> flow_replies.RunRow:
    """Return a run that is over in short."""
    assert one.finish is not None
    start, state = one.start, one.finish.state
    return flow_replies.RunRow(
        id=one.id, workflow=start.workflow, state=state if state != "dead" else "failed", done=steps, steps=steps,
        by=start.by, trigger=start.trigger, started_at=moment(start.started_ns), ended_at=moment(one.finish.ended_ns),
        code=str((one.finish.error or {}).get("code", "")), labels=start.labels, next=one.finish.next,
    )  # fmt: skip


def past(one: Mapping[str, Any], steps: int) -> flow_replies.RunRow:
    """Return a run that is over in short, as the view has it."""
    return flow_replies.RunRow(
        id=one["id"], workflow=one["workflow"], state=one["state"] if one["state"] != "dead" else "failed", done=steps,
        steps=steps, by=one["submitter"], trigger=one["trigger"], started_at=moment(one["started_ns"]),
        ended_at=moment(one["ended_ns"]), code=one["code"], labels=one["labels"], next=one["next"],
    )  # fmt: skip


def state_of(sight: Sight | Outline) -> flow_replies.RunState:
    """Return what a run is doing, in one word; of one that this version cannot follow as far as facts tell."""
    if sight.finish is not None:
        return sight.finish.state if sight.finish.state != "dead" else "failed"
    if isinstance(sight, Outline):
        wishes = [fact.what for fact in sight.known if fact.what in ("cancel", "pause", "resume")]
        if "cancel" in wishes:
            return "stopping"
        paused = wishes[-1] == "pause" if wishes else sight.start.paused
        return "paused" if paused else "running"
    if sight.run.phase != "running":
        return "stopping"
    return "paused" if sight.run.paused else "running"


def _step(run: Run, step: Progress) -> flow_replies.StepInfo:
    items = step.items
    return flow_replies.StepInfo(
        id=step.box.id, kind=step.box.spec.kind, state="handler" if _idle_handler(run, step) else step.state,
        title=step.title,
        items=f"{len(items.outputs) - items.left}/{len(items.outputs)}" if items is not None else "",
        begun_at=moment(step.begun_ns), ended_at=moment(step.ended_ns), output=_shown(step.output),
        error=error_of(_briefly(step.error)),
    )  # fmt: skip


def _idle_handler(run: Run, step: Progress) -> bool:
    return step.box.id in run.graph.handlers and step.state == "blocked"


def waiting(sight: Sight | Outline, books: Books | None = None) -> list[flow_replies.Wait]:
    """Return what a run that goes on waits for; of one that this version cannot follow as far as facts tell."""
    told = problem(sight)
    found = [flow_replies.Wait(step="", what=f"a node that can follow it. {told}")] if told else []
    if not isinstance(sight, Outline):
        return found + waits(sight.run, books)
    found += [
        flow_replies.Wait(step=one.id, what="its work, as far as facts tell", since=one.begun_at)
        for one in _seen(sight)
        if one.state == "open"
    ]
    return found + ([_TO_RESUME] if state_of(sight) == "paused" else [])


_TO_RESUME = flow_replies.Wait(step="", what="somebody to resume it")


def limits_of(sight: Sight | Outline) -> set[str]:
    """Return the keys of the limits that what a run waits for is subject to."""
    held = [] if isinstance(sight, Outline) else sight.run.open.values()
    return {limit.key for effect in held if (limit := getattr(effect, "limit", None)) is not None}


def tasks_of(sight: Sight | Outline) -> set[str]:
    """Return the steps of a run that wait for what an agent is to do."""
    held = [] if isinstance(sight, Outline) else sight.run.open.values()
    return {effect.token for effect in held if isinstance(effect, effects.Dispatch)}


def waits(run: Run, books: Books | None = None) -> list[flow_replies.Wait]:
    """Return everything that a run waits for; `books` are those of its limits (`limits_of`): who is in each."""
    found = [_held_up(run, effect, books or {}) or _wait(run, effect) for effect in run.open.values()]
    if run.paused:
        found.append(_TO_RESUME)
    return [one for one in found if one is not None]


def _held_up(run: Run, effect: effects.Effect, books: Books) -> flow_replies.Wait | None:
    """Return what a run, or a step, waits for that its limit has not admitted yet."""
    if (
        not isinstance(effect, effects.Admit | effects.Dispatch)
        or effect.limit is None
        or effect.limit.key not in books
    ):
        return None
    limit, inside = effect.limit, books[effect.limit.key]
    token = RUN if isinstance(effect, effects.Admit) else effect.token
    if holder(run.id, token) in inside:
        return None
    what = "its place among the runs of its workflow" if token == RUN else "its place in the limit"
    if limit.concurrency and len(inside) >= limit.concurrency:
        others = ", ".join(named(one) for one in inside[:SHOWN_MAX])
        more = f" and {len(inside) - SHOWN_MAX} more" if len(inside) > SHOWN_MAX else ""
        what += f": {len(inside)} of {limit.concurrency} are taken, by {others}{more}"
    elif limit.rate:
        what += f": {limit.rate:g} may begin in {limit.per_s:g} s"
    return flow_replies.Wait(step="" if token == RUN else token, what=what)


def _wait(run: Run, effect: effects.Effect) -> flow_replies.Wait | None:  # noqa: C901, PLR0911  one answer for each kind
    token = getattr(effect, "token", "")
    step = run.steps.get(token.partition("--")[0])
    since = moment(step.begun_ns) if step is not None else ""
    match effect:
        case effects.Dispatch(spec=spec, near=near):
            agent, capability = getattr(spec, "agent", None), getattr(spec, "capability", None)
            whom = f"agent {agent}" if agent else f"any agent with {capability}"
            if near is not None:
                whom += f" on {near.node}{'' if near.hard else ', or elsewhere when nobody there can do it'}"
            return flow_replies.Wait(step=token, what=f"its task: {whom}", since=since)
        case effects.Readmit():
            told = "the time of its next attempt, and its place in the limit"
            return flow_replies.Wait(step=token, what=told, since=since, until=moment(effect.due_ns))
        case effects.SetTimer():
            name = effect.timer.partition("-")[2]
            return flow_replies.Wait(step=name, what="a time", since=since, until=moment(effect.due_ns))
        case effects.StartChild():
            child = facts.child_run(run.id, token)
            return flow_replies.Wait(step=token, what=f"the run {child} of {effect.workflow}", since=since)
        case effects.WatchEvent():
            told = f"an event {effect.event}" + (f" where {effect.match}" if effect.match else "")
            return flow_replies.Wait(step=token, what=told, since=moment(effect.since_ns))
        case effects.Expect():
            return flow_replies.Wait(step=token, what=f"the signal {effect.signal}", since=moment(effect.since_ns))
        case effects.Ask():
            title = " ".join(step.title.split())[:TITLE_MAX] if step is not None else ""
            told = f"somebody to approve or reject{f': {title}' if title else ''}"
            return flow_replies.Wait(step=token, what=told, since=moment(effect.since_ns))
        case effects.Withdraw() | effects.CancelChild():
            return flow_replies.Wait(step=token, what="its work to stop", since=since)
        case effects.HoldChild():
            return None  # what it waits for is the run below, which is told already
        case effects.End():
            return flow_replies.Wait(step="", what="its end to be recorded")
        case _:
            return flow_replies.Wait(step=token, what="to be carried out", since=since)


def event(number: int, stored: Stored) -> flow_replies.RunEvent:
    """Return a fact as a line."""
    parts = stored.subject.split(".")
    what, about = parts[3], parts[4] if len(parts) > 4 else ""  # noqa: PLR2004  run.<shard>.<run>.<what>.<about>
    told: dict[str, Any] = {}
    try:
        body = decoded(stored.data) if stored.data else None
    except Invalid:  # whoever wrote it, the others can be told
        body = None
    if isinstance(body, dict):
        error = body.get("error") or {}
        told = {
            "state": str(body.get("state", "")), "by": str(body.get("by", "") or body.get("node", "")),
            "message": str(error.get("message", "") if isinstance(error, dict) else "")[:300] or str(body.get("why", "")),
        }  # fmt: skip
    return flow_replies.RunEvent(number=number, at=moment(stored.time_ns), what=what, step=about, **told)
