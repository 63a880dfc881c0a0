"""How is what the streams say written into the database of a project? A batch at a time, each with the places it was read up to."""

from __future__ import annotations

import json
import logging
import sqlite3
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

import msgspec

from knotwork.bus import subjects
from knotwork.view import evidence, fold, runs, schema
from knotwork.view.database import Database, Place
from knotwork.view.evidence import Entry, Garbage, Trace
from knotwork.view.fold import Changes, Known, Message

log = logging.getLogger(__name__)
FORGET_BATCH = 2000
GARBAGE_TOLD = 5
"""How many garbage messages of a batch are logged, each with its reason."""

_KNOWN = "id, ord, rank, seq, state, capability, boundary, agent, target, labels, submitted_ns, archived"
_SELECT = f"SELECT {_KNOWN} FROM tasks WHERE id IN (SELECT value FROM json_each(?))"  # noqa: S608  names of ours
_ORDS = "SELECT ord FROM tasks WHERE ord IN (SELECT value FROM json_each(?))"
_TRACES = "SELECT * FROM traces WHERE id IN (SELECT value FROM json_each(?))"
_INSERT = f"INSERT INTO tasks VALUES (?{', ?' * len(schema.COLUMNS)})"  # noqa: S608
_UPDATE = f"UPDATE tasks SET {', '.join(f'{name} = ?' for name in schema.COLUMNS[1:])} WHERE ord = ?"  # noqa: S608
_END = """INSERT INTO ends VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT DO UPDATE SET
  state = excluded.state, agent = excluded.agent, node = excluded.node, started_ns = excluded.started_ns,
  ended_ns = excluded.ended_ns, due_ns = excluded.due_ns, code = excluded.code, message = excluded.message,
  seq = excluded.seq WHERE excluded.seq > ends.seq"""
_COUNT = """INSERT INTO counters VALUES (?, ?, ?, ?, ?)
  ON CONFLICT DO UPDATE SET count = count + excluded.count"""
_RUNNING = "UPDATE tasks SET state = ?, started_ns = ?, node = ?, agent = ?, worker = ? WHERE ord = ?"
_OVER = (
    "DELETE FROM words WHERE rowid = ?",
    "DELETE FROM labels WHERE ord = ?",
    "DELETE FROM ends WHERE id = (SELECT id FROM tasks WHERE ord = ?)",
    "DELETE FROM traces WHERE id = (SELECT id FROM tasks WHERE ord = ?)",
    "DELETE FROM tasks WHERE ord = ?",
)


class Writer(Database):
    """The database of one project, as what is read of the streams is folded into it."""

    def __init__(self, path: Path) -> None:
        """Open the file, or make it anew when it cannot be used as it is; raises `OSError`, `sqlite3.Error`."""
        super().__init__(path)
        self.folded = self.garbage = 0
        """Messages read, and those of them that were not ours."""

    # -- writing -----------------------------------------------------------------------------------------------------

    def apply(
        self,
        messages: Sequence[Message],
        segments: Sequence[Message],
        places: Mapping[str, Place],
        histories: Sequence[Message] = (),
    ) -> None:
        """Fold messages of FACTS and TASKS, segments of ARCHIVE and runs of HISTORY, and note the places.

        It is all of it or nothing, but for runs, which are written first: twice is as good as once.
        """
        packed, garbage = _unpack(segments)
        self._write_runs(messages, histories)
        try:
            self._apply(messages, packed, places)
        except (sqlite3.Error, OSError):
            raise
        except Exception as error:  # noqa: BLE001  one message must not keep all others from being read, for ever
            log.warning("a batch is read in parts, because of a message in it: %r", error)
            for part in ([(one, False) for one in messages], [(one, True) for one in packed]):
                garbage += self._apply_parts(part)
            self._apply((), (), places)
        self._tell_garbage(garbage)

    def _write_runs(self, messages: Sequence[Message], histories: Sequence[Message]) -> None:
        facts = [one for one in messages if one.subject.startswith(f"run.{subjects.WORKFLOW}")]
        if not (facts or histories):
            return
        with self.whole() as db:
            runs.write(db, facts, histories)

    def forget_runs(self, history_first: int) -> int:
        """Remove runs that HISTORY has forgotten; returns how many: call it again then."""
        if (
            self.db.execute("SELECT 1 FROM runs WHERE kept > 0 AND kept < ? LIMIT 1", (history_first,)).fetchone()
            is None
        ):
            return 0
        with self.whole() as db:
            return runs.forget(db, history_first)

    def _apply_parts(self, part: Sequence[tuple[Message, bool]]) -> list[tuple[str, str]]:
        """Fold messages of which one breaks something, in smaller and smaller parts, and return that one as garbage."""
        try:
            self._apply(
                [one for one, is_packed in part if not is_packed], [one for one, is_packed in part if is_packed], {}
            )
        except (sqlite3.Error, OSError):
            raise
        except Exception as error:  # noqa: BLE001  as above
            if len(part) == 1:
                return [(part[0][0].subject, repr(error))]
            middle = len(part) // 2
            return [*self._apply_parts(part[:middle]), *self._apply_parts(part[middle:])]
        return []

    def _apply(self, messages: Sequence[Message], packed: Sequence[Message], places: Mapping[str, Place]) -> None:
        with self.whole() as db:
            found = fold.gather([*self._new(packed), *messages])
            runs = json.dumps([*found.entries, *(run for run in found.traces if run not in found.entries)])
            known = {row[0]: Known(*row) for row in db.execute(_SELECT, (runs,))}
            traces = {row[0]: Trace(*row) for row in db.execute(_TRACES, (runs,))}
            self._write(fold.plan(found, known, traces, self._taken(found, known)))
            db.executemany(_END, [_end(entry) for entry in found.ends.values()])
            db.executemany(
                "INSERT OR REPLACE INTO places VALUES (?, ?, ?)", [(name, *place) for name, place in places.items()]
            )
        self.places.update(places)
        self.folded += len(messages) + len(packed)
        self._tell_garbage(found.garbage)

    def _new(self, packed: Sequence[Message]) -> list[Message]:
        """Return the packed outcomes that the database has not; one that it has only gets its new place."""
        if not packed:
            return []
        runs = {one.subject: fold.run_of(one.subject) for one in packed}
        asked = json.dumps(list(set(runs.values())))
        known = {row[0]: Known(*row) for row in self.db.execute(_SELECT, (asked,))}
        new, moved = [], []
        for one in packed:
            old = known.get(runs[one.subject])
            if old is None or not fold.is_same(one, old):
                new.append(one)
            elif one.archived > old.archived:
                moved.append((one.archived, old.ord))
        self.db.executemany("UPDATE tasks SET archived = ? WHERE ord = ?", moved)
        return new

    def _taken(self, found: fold.Evidence, known: Mapping[str, Known]) -> Callable[[int], bool]:
        """Return what says whether an `ord` is in use; the likely ones are looked up together."""
        likely = {fold.first_place(entry) for run, entry in found.entries.items() if run not in known}
        taken = {row[0] for row in self.db.execute(_ORDS, (json.dumps(list(likely)),))}

        def is_taken(place: int) -> bool:
            if place in likely:
                return place in taken
            return self.db.execute("SELECT 1 FROM tasks WHERE ord = ?", (place,)).fetchone() is not None

        return is_taken

    def _write(self, changes: Changes) -> None:
        many = self.db.executemany
        for statement in _OVER[:2] if changes.gone else ():
            many(statement, [(place,) for place in changes.gone])
        if changes.gone:
            many(_OVER[-1], [(place,) for place in changes.gone])
        many(_INSERT, [(place, *msgspec.structs.astuple(entry)[:-2]) for place, entry in changes.fresh])
        many(_UPDATE, [(*msgspec.structs.astuple(entry)[1:-2], place) for place, entry in changes.again])
        many(
            "INSERT INTO words (rowid, text) VALUES (?, ?)", [(n, evidence.words(entry)) for n, entry in changes.fresh]
        )
        many("UPDATE words SET text = ? WHERE rowid = ?", [(evidence.words(entry), n) for n, entry in changes.again])
        many("INSERT OR IGNORE INTO labels VALUES (?, ?, ?)", _labels(changes.fresh))
        many(
            "INSERT OR REPLACE INTO traces VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
            [msgspec.structs.astuple(trace) for trace in changes.traces],
        )
        many("DELETE FROM traces WHERE id = ? AND attempt < ?", changes.traced_to)
        many(_RUNNING, changes.running)
        self._count({key: count for key, count in changes.counts.items() if count})

    def _count(self, counts: Mapping[tuple[str, str, str, str], int]) -> None:
        self.db.executemany(_COUNT, [(*key, count) for key, count in counts.items()])
        if any(count < 0 for count in counts.values()):
            self.db.execute("DELETE FROM counters WHERE count <= 0")

    def _tell_garbage(self, garbage: Sequence[tuple[str, str]]) -> None:
        self.garbage += len(garbage)
        for subject, why in garbage[:GARBAGE_TOLD]:
            log.warning("a message on %.200r is passed over: %.300s", subject, why)
        if len(garbage) > GARBAGE_TOLD:
            log.warning("%d more messages are passed over", len(garbage) - GARBAGE_TOLD)

    # -- forgetting --------------------------------------------------------------------------------------------------

    def forget(self, archive_first: int, ended_before_ns: int, tasks_first: int) -> int:
        """Remove tasks that the streams have forgotten; returns how many: there may be more, call it again then.

        Those whose segment is below `archive_first` or that ended before `ended_before_ns`, and attempts that were
        removed from TASKS (below `tasks_first`) without an end. Only when everything else was read.
        """
        ended_before = ended_before_ns // 1000 + 1 << fold.ORD_BITS
        rows = [
            *self._some("archived > 0 AND archived < ?", archive_first),
            *self._some("ord < ? AND ended_ns > 0 AND ended_ns < ?", ended_before, ended_before_ns),
            *self._some("state IN ('pending', 'running') AND rank & 1 = 0 AND seq < ?", tasks_first),
        ]
        if not rows:
            return 0
        with self.whole() as db:
            for statement in _OVER:
                db.executemany(statement, [(row[0],) for row in set(rows)])
            self._count({key: -count for key, count in Counter(row[1:] for row in set(rows)).items()})
        return len(rows)

    def _some(self, condition: str, *values: int) -> list[tuple[int, str, str, str, str]]:
        query = f"SELECT ord, state, capability, boundary, agent FROM tasks WHERE {condition} LIMIT {FORGET_BATCH}"  # noqa: S608
        return self.db.execute(query, values).fetchall()


def _unpack(segments: Iterable[Message]) -> tuple[list[Message], list[tuple[str, str]]]:
    packed: list[Message] = []
    garbage: list[tuple[str, str]] = []
    for segment in segments:
        try:
            rows = evidence.unpack(segment.data)
        except Garbage as error:
            garbage.append((segment.subject, str(error)))
        else:
            packed += [Message(row.s, bytes(row.d), row.q, segment.seq) for row in rows]
    return packed, garbage


def _labels(fresh: Iterable[tuple[int, Entry]]) -> list[tuple[str, str, int]]:
    return [
        (name, value, place)
        for place, entry in fresh
        if entry.labels != "{}"
        for name, value in msgspec.json.decode(entry.labels).items()
    ]


def _end(entry: Entry) -> tuple[object, ...]:
    return (
        entry.id, entry.iteration, entry.attempts, entry.state, entry.agent, entry.node, entry.started_ns,
        entry.ended_ns, entry.due_ns, entry.code, entry.message, entry.seq,
    )  # fmt: skip
