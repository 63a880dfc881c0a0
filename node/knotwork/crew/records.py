"""What is stored of an orchestration? One record, changed by compare-and-set, and checkpoints beside it, as JSON.

What its parts do is not here: that is on record in the facts of its runs, and read from there (`sight`). Both buckets
are read back from the bus, where others may write too: what comes from there is bounded and checked.
"""

from __future__ import annotations

import secrets
from typing import Annotated, Literal

import msgspec

from knotwork.crew.plan import Complexity, Part, Short, Text
from knotwork.sdk.errors import Invalid
from knotwork.trust.scopes import Scope
from knotwork.work import records

NOTES_MAX, NOTE_MAX = 100, 1_024
ROUNDS_MAX = 50
TOKENS_MAX = 10**15
CONFLICTS_MAX_BYTES = 256 * 1024
DATA_MAX_BYTES = 64 * 1024
"""What one checkpoint may hold: all that were said of an orchestration are read together."""
KIND = "o"
"""What the ids of orchestrations begin with."""

Phase = Literal[
    "assessment", "spawning", "execution", "collection", "synthesis", "complete", "failed", "cancelled"
]  # fmt: skip
OVER: frozenset[str] = frozenset({"complete", "failed", "cancelled"})
How = Literal["concatenate", "merge", "agent", "none"]
Held = Literal["", "asked", "budget"]
Stopped = Literal["failed", "cancelled"]
Name = records.Name
Whole = records.Whole
Money = Annotated[float, msgspec.Meta(ge=0, le=1e12)]


class Asker(msgspec.Struct, frozen=True, omit_defaults=True):
    """Who wanted it, as the node knows them."""

    id: Name = ""
    name: Name = ""
    owner: Name = ""


class Budget(msgspec.Struct, frozen=True, omit_defaults=True):
    """What an orchestration and all below it may use. Seconds, tokens and cost: 0 means any amount.

    `depth`: how many levels of orchestrations may follow below; `children`: sub-agents, those of them included.
    """

    depth: Annotated[int, msgspec.Meta(ge=0, le=8)] = 3
    children: Annotated[int, msgspec.Meta(ge=1, le=10_000)] = 200
    time_s: records.Seconds = 0.0
    tokens: Whole = 0
    cost: Money = 0.0


class Synthesis(msgspec.Struct, frozen=True, omit_defaults=True):
    """How its results become one: by rules, by an agent, or not by itself."""

    how: How = "concatenate"
    capability: Name = ""
    agent: Name = ""
    partial: bool = False
    """Also when parts failed: of those that are done."""


class Round(msgspec.Struct, frozen=True, omit_defaults=True):
    """One run of some of its parts; of parts in several rounds the last counts. `taken` are results it takes over."""

    run: Name
    parts: tuple[Name, ...]
    taken: tuple[Name, ...] = ()
    begun_ns: Whole = 0


class Note(msgspec.Struct, frozen=True, omit_defaults=True):
    """What somebody said on the way."""

    at_ns: Whole
    by: Name = ""
    text: Annotated[str, msgspec.Meta(max_length=NOTE_MAX)] = ""
    part: Name = ""
    phase: Name = ""


class Stop(msgspec.Struct, frozen=True, omit_defaults=True):
    """That somebody ended it before it was done."""

    phase: Stopped
    by: Name = ""
    why: Short = ""


class Record(msgspec.Struct, frozen=True, omit_defaults=True):
    """One orchestration. Times are nanoseconds since 1970.

    `subs` are all orchestrations below it, with the number of their sub-agents: each is charged once, however often.
    """

    id: Name
    task: Annotated[str, msgspec.Meta(max_length=131_072)]
    by: Asker
    phase: Phase = "assessment"
    parts: tuple[Part, ...] = ()
    revision: Whole = 1
    planned_by: Name = "rules"
    complexity: Complexity = Complexity("simple", 0)
    remarks: tuple[Annotated[str, msgspec.Meta(max_length=2048)], ...] = ()
    parent: Name = ""
    scope: Scope = "team"
    """Who may see and steer it; below another it is that one's."""
    spawner: Asker = Asker()
    """Who had it carried out: whoever wanted it, or a person."""
    asked: Budget = Budget()
    """What it was to have; `budget` is what is left of that below another, or what was given later."""
    budget: Budget = Budget()
    subs: dict[Name, Whole] = {}
    rounds: tuple[Round, ...] = ()
    begun: tuple[Name, ...] = ()
    """Runs of rounds that were seen: one that is not there any more is over and not kept, and does not begin again."""
    synthesis: Synthesis = Synthesis()
    boundary: Name = ""
    priority: Annotated[int, msgspec.Meta(ge=1, le=10)] = 5
    parallel: Whole = 0
    held: Held = ""
    stop: Stop | None = None
    error: dict[str, str] | None = None
    done: tuple[Name, ...] = ()
    """Parts that were completed when it was over: lists need not look at its runs then."""
    notes: tuple[Note, ...] = ()
    node: Name = ""
    """Where it was spawned: this node mirrors it as files."""
    created_ns: Whole = 0
    spawned_ns: Whole = 0
    ended_ns: Whole = 0
    traceparent: Name = ""

    @property
    def live(self) -> bool:
        """Return whether it was spawned and is not over."""
        return self.phase not in OVER and self.phase != "assessment"

    @property
    def ends_ns(self) -> int:
        """Return when its time is over, 0 for never."""
        return self.spawned_ns + int(self.budget.time_s * 1e9) if self.budget.time_s and self.spawned_ns else 0

    @property
    def charged(self) -> int:
        """Return how many sub-agents it has, those below included."""
        return (len(self.parts) if self.rounds else 0) + sum(self.subs.values())


class Checkpoint(msgspec.Struct, frozen=True, omit_defaults=True):
    """How far one agent is with one part, or with the whole (`part` empty); `tokens` and `cost` are totals so far."""

    part: Name
    by: Name
    at_ns: Whole
    percent: Annotated[float, msgspec.Meta(ge=0, le=100)] | None = None
    text: Text = ""
    tokens: Whole = 0
    cost: Money = 0.0
    data: msgspec.Raw = msgspec.Raw(b"null")


class Result(msgspec.Struct, frozen=True, omit_defaults=True):
    """What came of it: JSON, or the digest of a large one; conflicts, and parts that it lacks."""

    how: Name
    output: msgspec.Raw = msgspec.Raw(b"null")
    blob: Name = ""
    conflicts: tuple[msgspec.Raw, ...] = ()
    missing: tuple[Name, ...] = ()
    by: Name = ""
    at_ns: Whole = 0


encode = msgspec.json.Encoder().encode
_BROKEN = (msgspec.DecodeError, UnicodeDecodeError, RecursionError, ValueError)
_record, _checkpoint, _result = (
    msgspec.json.Decoder(Record), msgspec.json.Decoder(Checkpoint), msgspec.json.Decoder(Result),
)  # fmt: skip


def record(data: bytes) -> Record:
    """Return a stored orchestration; raises `Invalid` (`crew.bad_record`)."""
    try:
        found: Record = _record.decode(data)
    except _BROKEN as error:
        raise Invalid(f"This is no orchestration: {error}.", code="crew.bad_record") from error
    return found


def checkpoint(data: bytes) -> Checkpoint | None:
    """Return a stored checkpoint, None for what is none."""
    try:
        found: Checkpoint = _checkpoint.decode(data)
    except _BROKEN:
        return None
    return found


def result(data: bytes) -> Result | None:
    """Return a stored result, None for what is none."""
    try:
        found: Result = _result.decode(data)
    except _BROKEN:
        return None
    return found


def new_id(now_ns: int) -> str:
    """Return an id that sorts by time."""
    return f"{KIND}{now_ns // 1_000_000:012x}{secrets.token_hex(5)}"


def keyed_id(by: str, key: str) -> str:
    """Return the id of the orchestration for which somebody used this key."""
    return records.derived(KIND, f"{by}\0{key}", 22)


def check_id(text: str) -> str:
    """Return the id of an orchestration; raises `Invalid` (`crew.bad_id`)."""
    if not (records.is_run(text) and text.startswith(KIND)):
        raise Invalid(
            f"{text[:80]!r} is not the id of an orchestration.", code="crew.bad_id", hint="See `knotwork crew list`."
        )
    return text


def with_note(of: Record, note: Note) -> Record:
    """Return an orchestration with one more note; the oldest go."""
    return msgspec.structs.replace(of, notes=(*of.notes, note)[-NOTES_MAX:])
