"""However the streams are read, the rows are the same: in any order, any batches, twice, or what is left of them."""

from __future__ import annotations

import random
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from tests.unit.view import view_lives as made

from knotwork.view import evidence, fold
from knotwork.view.database import Place
from knotwork.view.fold import Message
from knotwork.view.writer import Writer
from knotwork.work import records

seeds = st.integers(0, 2**32)
many = settings(deadline=None, max_examples=60)


def dump(writer: Writer) -> dict[str, Any]:
    """Return everything the database says, without the places that rows happen to have in it."""
    ask = lambda query: sorted(writer.db.execute(query).fetchall())  # noqa: E731
    columns = ", ".join(row[1] for row in writer.db.execute("PRAGMA table_info(tasks)") if row[1] != "ord")
    return {
        "tasks": ask(f"SELECT {columns} FROM tasks"),
        "order": ask("SELECT submitted_ns / 1000, ord >> 11 FROM tasks"),
        "labels": ask("SELECT id, name, value FROM labels JOIN tasks USING (ord)"),
        "words": ask("SELECT id, text FROM words JOIN tasks ON ord = words.rowid"),
        "sizes": ask(
            "SELECT (SELECT count(*) FROM labels), (SELECT count(*) FROM words), (SELECT count(*) FROM tasks)"
        ),
        "ends": ask("SELECT * FROM ends"),
        "traces": ask("SELECT * FROM traces"),
        "counters": ask("SELECT * FROM counters WHERE count <> 0"),
    }


def rows(batches: Sequence[tuple[Sequence[Message], Sequence[Message]]]) -> dict[str, Any]:
    """Return what the database says after these batches of messages and segments."""
    with tempfile.TemporaryDirectory() as folder:
        writer = Writer(Path(folder) / "x.db")
        for messages, segments in batches:
            writer.apply(messages, segments, {})
        found = dump(writer)
        counted = writer.db.execute(
            "SELECT state, capability, boundary, agent, count(*) FROM tasks GROUP BY 1, 2, 3, 4"
        )
        assert found["counters"] == sorted(counted.fetchall())
        writer.close()
    return found


def split(chance: random.Random, messages: list[Any]) -> list[list[Any]]:
    """Cut a list into batches."""
    batches: list[list[Any]] = [[]]
    for one in messages:
        if chance.random() < 0.3:
            batches.append([])
        batches[-1].append(one)
    return batches


def mixed(chance: random.Random, messages: list[Message], segments: list[Message]) -> Any:
    both: list[Any] = [(one, False) for one in messages] + [(one, True) for one in segments]
    chance.shuffle(both)
    return [
        ([one for one, packed in batch if not packed], [one for one, packed in batch if packed])
        for batch in split(chance, both)
    ]


@many
@example(170, 9)  # two of one microsecond whose places are the same
@given(seeds, st.integers(1, 12))
def test_the_order_and_the_batches_make_no_difference(seed: int, count: int):
    streams = made.make(seed, count)
    expected = rows([(streams.messages(), streams.segments())])
    assert rows(mixed(random.Random(seed), streams.messages(), streams.segments())) == expected


@many
@given(seeds, st.integers(1, 8))
def test_reading_everything_again_changes_nothing(seed: int, count: int):
    streams = made.make(seed, count)
    once = [(streams.messages(), streams.segments())]
    again = mixed(random.Random(seed), streams.messages(), streams.segments())
    assert rows([*once, *again, *once]) == rows(once)


@many
@given(seeds, st.integers(1, 12))
def test_what_the_streams_still_hold_makes_the_same_rows(seed: int, count: int):
    """TASKS forgets what ended, FACTS what is packed: a database made anew must not differ from one that saw it all."""
    streams, chance = made.make(seed, count), random.Random(seed)
    saw_all = rows([(streams.messages(), streams.segments())])
    for name in ("facts", "tasks"):
        kept = getattr(streams, name)
        for seq in list(kept):
            if (name, seq) not in streams.needed and chance.random() < 0.7:
                del kept[seq]
    assert rows([(streams.messages(), streams.segments())]) == saw_all


@many
@given(seeds, st.lists(st.binary(max_size=60) | st.sampled_from((b"", b"{}", b"[]", b"null", b"[" * 5000)), max_size=8))
def test_garbage_is_passed_over_and_counted(seed: int, junk: list[bytes]):
    streams, chance = made.make(seed, 4), random.Random(seed)
    clean = rows([(streams.messages(), streams.segments())])
    places = [one.subject for one in streams.messages()] or ["task.none.echo.normal.t0000.task.0.1"]
    bad = [Message(chance.choice(places), data, 10_000 + n) for n, data in enumerate(junk)]
    bad_segments = [Message("ended.7", data, 5_000 + n) for n, data in enumerate(junk)]
    assert rows([(bad, bad_segments), (streams.messages(), streams.segments()), (bad, bad_segments)]) == clean


@many
@given(seeds, st.integers(1, 6))
def test_an_end_behind_the_end_changes_nothing_in_whatever_order(seed: int, count: int):
    streams, chance = made.make(seed, count), random.Random(seed)
    clean = rows([(streams.messages(), streams.segments())])
    ended = {row[0]: row for row in clean["tasks"] if row[1] in ("completed", "failed", "cancelled", "timed-out")}
    forged = []
    for one in streams.facts.values():
        if ".outcome." not in one.subject:
            continue
        end = records.decode_outcome(one.data)
        task = records.decode_task(bytes(end.task))
        if task.run not in ended or end.state not in records.FINAL - {"dead"}:
            continue
        later = msgspec.structs.replace(task, iteration=task.iteration + 90)
        place = records.outcome_subject(later.run, later.step, later.iteration, later.number)
        forged.append(Message(place, records.encode(made.outcome(later, "completed", agent="evil")), 10_000))
        forged.append(Message(one.subject, records.encode(made.outcome(task, "failed", agent="evil")), 10_001))
    messages = [*streams.messages(), *forged]
    keep = rows([(streams.messages(), streams.segments()), (forged, [])])
    mixed_up = rows(mixed(chance, messages, streams.segments()))
    assert keep["tasks"] == mixed_up["tasks"] == clean["tasks"]
    assert keep["counters"] == clean["counters"]


def test_it_counts_what_it_passes_over(tmp_path: Path):
    writer = Writer(tmp_path / "x.db")
    task = made.new_task(random.Random(1), 1)
    bad = [
        Message("run.00.x.outcome.task.0.1", b"{}", 1),
        Message("nonsense", b"{}", 2),
        Message(task.subject, b"{}", 3),
        Message("run.00.aaaaaaaa.keyed", b"{}", 4),  # of no interest, and no garbage
        Message(task.subject.replace(".task.", ".other."), b"{}", 5),  # a step of a workflow: the same
    ]
    writer.apply(bad, [Message("ended.1", b"not json", 1)], {})
    assert writer.garbage == 3
    assert writer.db.execute("SELECT count(*) FROM tasks").fetchone() == (0,)
    writer.close()


@pytest.mark.parametrize(
    "change",
    [
        {"run": "t000000000000ffffffffffffffff"}, {"number": 2}, {"iteration": 1}, {"boundary": "personal"},
        {"queue": "other"}, {"priority": 10}, {"step": "other"},
    ],
)  # fmt: skip
def test_a_task_that_stands_elsewhere_than_it_says_is_garbage(change: dict[str, Any]):
    task = made.new_task(random.Random(3), 3, boundary="none", priority=5, queue="echo", capability="echo", agent="")
    liar = records.Task(**{**{name: getattr(task, name) for name in task.__struct_fields__}, **change})
    with pytest.raises(evidence.Garbage):
        evidence.read_task(task.subject, records.encode(liar), 1)


def test_a_fact_in_the_shard_of_others_is_garbage():
    task = made.new_task(random.Random(3), 3)
    right = records.outcome_subject(task.run, "task", 0, 1)
    parts = right.split(".")
    parts[1] = f"{(int(parts[1], 16) + 1) % 16:02x}"
    data = records.encode(made.outcome(task, "completed"))
    assert evidence.read_fact(right, data, 1) is not None
    with pytest.raises(evidence.Garbage):
        evidence.read_fact(".".join(parts), data, 1)


def test_an_attempt_has_the_numbers_that_the_work_room_gives():
    assert evidence.NUMBER_MAX == records.ATTEMPTS_MAX


def test_a_final_end_stands_whatever_comes_later(tmp_path: Path):
    writer = Writer(tmp_path / "x.db")
    task = made.new_task(random.Random(5), 5)
    later = records.Task(**{**{name: getattr(task, name) for name in task.__struct_fields__}, "number": 7})
    end = Message(records.outcome_subject(task.run, "task", 0, 1), records.encode(made.outcome(task, "cancelled")), 1)
    writer.apply([end, Message(later.subject, records.encode(later), 2)], [], {})
    assert writer.db.execute("SELECT state, attempts FROM tasks").fetchall() == [("cancelled", 1)]
    writer.close()


def test_a_dead_task_comes_back_when_it_is_redriven(tmp_path: Path):
    writer = Writer(tmp_path / "x.db")
    task = made.new_task(random.Random(5), 5)
    later = records.Task(**{**{name: getattr(task, name) for name in task.__struct_fields__}, "number": 2})
    dead = Message(records.outcome_subject(task.run, "task", 0, 1), records.encode(made.outcome(task, "dead")), 1)
    writer.apply([dead], [], {})
    assert writer.db.execute("SELECT state, code FROM tasks").fetchall() == [("dead", "agent.dead")]
    writer.apply([Message(later.subject, records.encode(later), 2)], [], {})
    assert writer.db.execute("SELECT state, attempts FROM tasks").fetchall() == [("pending", 2)]
    history = writer.db.execute("SELECT number, state FROM attempts ORDER BY number").fetchall()
    assert history == [(1, "dead"), (2, "pending")]
    writer.close()


def test_tasks_of_one_moment_all_get_a_place(tmp_path: Path):
    writer, chance = Writer(tmp_path / "x.db"), random.Random(9)
    tasks = [made.new_task(chance, 1, submitted_ns=made.BEGIN_NS) for _ in range(5000)]
    for begin in range(0, 5000, 1000):
        batch = [
            Message(task.subject, records.encode(task), begin + n) for n, task in enumerate(tasks[begin:][:1000], 1)
        ]
        writer.apply(batch, [], {})
    assert writer.db.execute("SELECT count(*) FROM tasks").fetchone() == (5000,)
    writer.close()


@pytest.mark.parametrize("moment", [0, 1, 999, evidence.TIME_MAX_NS])
def test_any_time_of_submission_fits(moment: int, tmp_path: Path):
    writer = Writer(tmp_path / "x.db")
    task = made.new_task(random.Random(2), 2, submitted_ns=moment, run="kaaaaaaaaaaaaaaa")
    writer.apply([Message(task.subject, records.encode(task), 1)], [], {})
    assert writer.db.execute("SELECT submitted_ns, ord >> 11 FROM tasks").fetchall() == [(moment, moment // 1000)]
    writer.close()


def test_words_of_inputs_are_found_and_long_ones_left_out():
    task = made.new_task(random.Random(2), 2, labels={"team": "red"})
    entry = evidence.read_task(task.subject, records.encode(task), 1)
    assert entry is not None
    assert "red" in evidence.words(entry)
    import msgspec  # only here

    deep = msgspec.structs.replace(entry, input=msgspec.Raw(b'{"a":["w\\u00f6rd",{"b":"c\\nd"},null,4]}'))
    assert "w\u00f6rd b c\nd 4" in evidence.words(deep)
    long = msgspec.structs.replace(entry, input=msgspec.Raw(b'"' + b"needle " * 1000 + b'"'))
    assert "needle" not in evidence.words(long)


def test_joining_is_one_of_a_semilattice():
    """What makes the order irrelevant: joining is associative, commutative and idempotent."""
    chance = random.Random(11)
    traces = [
        evidence.Trace("aaaaaaaa", chance.randint(1, 3), chance.randint(0, 3), chance.randint(0, 3), "n", "a",
                       chance.randint(0, 3), chance.random() < 0.5)
        for _ in range(30)
    ]  # fmt: skip
    for one in traces[:10]:
        assert fold.both(one, one) == one
        for other in traces[10:20]:
            assert fold.both(one, other) == fold.both(other, one)
            for third in traces[20:]:
                assert fold.both(fold.both(one, other), third) == fold.both(one, fold.both(other, third))


def test_a_message_that_breaks_the_fold_is_the_only_one_passed_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """No message that does so is known; should there be one, the view must go on."""
    streams, real = made.make(7, 9), evidence.words
    bad = next(one.subject.split(".")[4] for one in streams.tasks.values())

    def words(entry: evidence.Entry) -> str:
        if entry.id == bad:
            raise OverflowError("too much")
        return real(entry)

    monkeypatch.setattr(evidence, "words", words)
    writer = Writer(tmp_path / "x.db")
    writer.apply(streams.messages(), streams.segments(), {"FACTS": Place(7, "then")})
    monkeypatch.undo()
    found = {row[0] for row in writer.db.execute("SELECT id FROM tasks")}
    everything = rows([(streams.messages(), streams.segments())])["tasks"]
    assert found == {row[0] for row in everything} - {bad}
    assert writer.garbage > 0
    assert writer.place("FACTS") == 7
    writer.close()


def test_a_task_with_too_many_labels_keeps_some():
    task = made.new_task(random.Random(2), 2, labels={f"l{n:04}": "x" for n in range(5000)})
    entry = evidence.read_task(task.subject, records.encode(task), 1)
    assert entry is not None
    assert entry.labels.count(":") == evidence.LABELS_MAX


def show(writer: Writer) -> list[Any]:
    return writer.db.execute("SELECT state, agent, worker, attempts FROM tasks").fetchall()


def test_a_task_that_was_handed_back_waits_again_as_it_was_asked_for(tmp_path: Path):
    writer = Writer(tmp_path / "x.db")
    task = made.new_task(random.Random(5), 5, agent="ann", node="here", queue="here=ann", capability="")
    begun = Message(made.trace(task, "started", 2), records.encode(records.Started("there", "bob", 1, 2)), 2)
    back = Message(made.trace(task, "released", 2), records.encode(records.Released("there", "bob", 1)), 3)
    writer.apply([begun], [], {})  # nothing is shown of a task of which nothing else is known
    assert show(writer) == []
    writer.apply([Message(task.subject, records.encode(task), 1)], [], {})
    assert show(writer) == [("running", "bob", "there/bob", 1)]
    writer.apply([back], [], {})
    assert show(writer) == [("pending", "ann", "", 1)]
    writer.close()


def test_traces_of_a_task_that_is_over_change_nothing(tmp_path: Path):
    writer = Writer(tmp_path / "x.db")
    task = made.new_task(random.Random(5), 5)
    later = records.Task(**{**{name: getattr(task, name) for name in task.__struct_fields__}, "number": 2})
    end = Message(records.outcome_subject(task.run, "task", 0, 1), records.encode(made.outcome(task, "failed")), 1)
    writer.apply([end], [], {})
    writer.apply(
        [Message(made.trace(one, "started", 1), records.encode(records.Started("x", "y", 1)), 2) for one in (task, later)],
        [], {},
    )  # fmt: skip
    assert show(writer) == [("failed", "ann", "here/ann", 1)]
    assert writer.db.execute("SELECT count(*) FROM traces").fetchone() == (0,)
    writer.close()


@pytest.mark.parametrize("turn", [1, -1])
def test_of_two_ends_of_one_attempt_the_one_recorded_last_stands(turn: int, tmp_path: Path):
    """The first one was removed by somebody, else the server would have refused the second."""
    writer = Writer(tmp_path / "x.db")
    task = made.new_task(random.Random(5), 5)
    place = records.outcome_subject(task.run, "task", 0, 1)
    ends = [
        Message(place, records.encode(made.outcome(task, "dead", agent="first")), 4),
        Message(place, records.encode(made.outcome(task, "dead", agent="second")), 5),
    ]
    for one in ends[::turn]:
        writer.apply([one], [], {})
    assert show(writer) == [("dead", "second", "here/second", 1)]
    assert writer.db.execute("SELECT agent, seq FROM ends").fetchall() == [("second", 5)]
    writer.close()
