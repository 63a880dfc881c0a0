"""What the streams hold of some tasks that lived: written as `knotwork.work` writes it, in the order it happened."""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from typing import Any

import msgspec

from knotwork.view import archive
from knotwork.view.fold import Message
from knotwork.work import records

S = 1_000_000_000
BEGIN_NS = 1_790_000_000 * S
AGENTS, CAPABILITIES, BOUNDARIES = ("ann", "bob"), ("echo", "sum"), ("none", "personal")
FINAL = ("completed", "failed", "cancelled", "timed-out", "dead")


@dataclass
class Streams:
    """Messages of each stream by their place; `needed` are those without which nobody could know how things are."""

    facts: dict[int, Message] = field(default_factory=dict)
    tasks: dict[int, Message] = field(default_factory=dict)
    archive: dict[int, Message] = field(default_factory=dict)
    needed: set[tuple[str, int]] = field(default_factory=set)

    def add(self, stream: str, subject: str, data: bytes, *, needed: bool = True) -> int:
        kept: dict[int, Message] = getattr(self, stream)
        seq = len(kept) + 1
        kept[seq] = Message(subject, data, seq)
        if needed:
            self.needed.add((stream, seq))
        return seq

    def messages(self) -> list[Message]:
        return [*self.facts.values(), *self.tasks.values()]

    def segments(self) -> list[Message]:
        return list(self.archive.values())


def make(seed: int, count: int) -> Streams:
    """Return the streams of `count` tasks that live at the same time."""
    chance = random.Random(seed)
    streams = Streams()
    lives = [_live(streams, chance, number) for number in range(count)]
    while lives:
        life = chance.choice(lives)
        if next(life, None) is None:
            lives.remove(life)
    _pack(streams, chance)
    return streams


def new_task(chance: random.Random, number: int, **given: Any) -> records.Task:
    """Return a task as somebody could submit it."""
    now_ns = BEGIN_NS + chance.choice((number, number // 3)) * 1_000_000
    agent = chance.choice(("", *AGENTS))
    capability = "" if agent else chance.choice(CAPABILITIES)
    node = chance.choice(("", "here")) if agent else ""
    run = f"t{now_ns // 1_000_000:012x}{chance.getrandbits(64):016x}"
    fields: dict[str, Any] = {
        "run": run, "queue": f"{node}={agent}" if agent else capability, "capability": capability, "agent": agent,
        "node": node, "boundary": chance.choice(BOUNDARIES), "priority": chance.randint(1, 10),
        "input": msgspec.Raw(chance.choice((b"null", b'"a text"', b'{"deep":["w\\u00f6rds",1,true]}', b"[" + b"1," * 3000 + b"1]"))),
        "labels": chance.choice(({}, {"team": "red"}, {"team": "blue", "kind": "x"})), "submitted_ns": now_ns,
        "retry": records.Retry(max_attempts=5), "key": chance.choice(("", "invoice")), "by": "cli/me",
    }  # fmt: skip
    return records.Task(**{**fields, **given})


def outcome(task: records.Task, state: Any, **given: Any) -> records.Outcome:
    """Return how an attempt may have ended."""
    end_ns = task.submitted_ns + 5 * S + task.number
    error = None
    if state not in ("completed", "continued"):
        error = {"kind": "failed", "code": f"agent.{state}", "message": "it did not work", "detail": {"n": 1}}
    fields: dict[str, Any] = {
        "output": msgspec.Raw(b'"some output"'), "error": error, "node": "here", "agent": "ann",
        "started_ns": end_ns - S, "ended_ns": end_ns, "due_ns": end_ns + S if state == "waiting" else 0,
    }  # fmt: skip
    return records.Outcome(state, records.raw(task), **{**fields, **given})


def _live(streams: Streams, chance: random.Random, number: int) -> Any:
    """Let one task live, a step at a time: attempts, hands back, retries, further iterations, an end, redrives."""
    task = new_task(chance, number)
    while True:
        waits = streams.add("tasks", task.subject, records.encode(task))
        yield True
        yield from _trace(streams, chance, task)
        if chance.random() < 0.2:
            return  # it waits, or runs, still
        streams.needed.discard(("tasks", waits))  # its end tells what it was
        state = chance.choice(("waiting", "continued", *FINAL))
        ended = outcome(task, state)
        place = records.outcome_subject(task.run, task.step, task.iteration, task.number)
        streams.add("facts", place, records.encode(ended))
        yield True
        if state == "waiting":
            task = msgspec.structs.replace(task, number=task.number + 1)
            streams.add("facts", records.next_subject(task), records.encode(task), needed=False)
        elif state == "continued":
            task = msgspec.structs.replace(task, number=1, iteration=task.iteration + 1)
        elif state == "dead" and chance.random() < 0.5:
            task = msgspec.structs.replace(task, number=task.number + 1)
        else:
            return
        if chance.random() < 0.2:
            return  # the next attempt is not due yet


def _trace(streams: Streams, chance: random.Random, task: records.Task) -> Any:
    for delivery in range(1, chance.choice((1, 1, 2, 4))):
        begun = records.Started("there", "bob", task.submitted_ns + delivery * S, delivery)
        streams.add("facts", trace(task, "started", delivery), records.encode(begun))
        yield True
        if chance.random() < 0.5:
            back = records.Released("there", "bob", task.submitted_ns + delivery * S + 1, "node.draining")
            streams.add("facts", trace(task, "released", delivery), records.encode(back))
            yield True


def trace(task: records.Task, what: str, delivery: int) -> str:
    """Return where FACTS keeps that an attempt was begun or handed back."""
    return f"{records.facts_of(task.run)}.{what}.task.{task.iteration}.{task.number}.{delivery}"


def _pack(streams: Streams, chance: random.Random) -> None:
    """Pack the outcomes up to some place, as the archiver does; from then on FACTS need not hold them."""
    end = chance.randint(0, len(streams.facts))
    rows = [
        archive.Packed(one.subject, seq, "2026-09-01T00:00:00Z", msgspec.Raw(one.data))
        for seq, one in streams.facts.items()
        if ".outcome." in one.subject and seq <= end
    ]
    while rows:
        size = chance.randint(1, 5)
        streams.add("archive", f"ended.{rows[:size][-1].q}", msgspec.json.encode(rows[:size]))
        for row in rows[:size]:
            streams.needed.discard(("facts", row.q))
        rows = rows[size:]
