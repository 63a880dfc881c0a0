"""Whoever may ask may ask in SQL, and can neither change anything, nor reach another file, nor take the node with it."""

from __future__ import annotations

import random
import sqlite3
import threading
import time
from pathlib import Path

import psutil
import pytest
from tests.unit.view import view_lives as made

from knotwork.sdk.errors import Invalid, TimedOut, Unavailable
from knotwork.view import sql
from knotwork.view.fold import Message
from knotwork.view.writer import Writer
from knotwork.work import records


@pytest.fixture
def file(tmp_path: Path):
    writer, chance = Writer(tmp_path / "p.db"), random.Random(1)
    tasks = [
        made.new_task(chance, n, capability="echo", queue="echo", agent="", labels={"team": "red"}) for n in range(50)
    ]
    writer.apply([Message(task.subject, records.encode(task), n) for n, task in enumerate(tasks, 1)], [], {})
    yield tmp_path / "p.db"
    writer.close()


def run(path: Path, query: str, rows_max: int = 1000, timeout_s: float = 10.0) -> sql.Found:
    return sql.run(path, query, rows_max=rows_max, timeout_s=timeout_s)


GOOD = {
    "select count(*) as n from tasks": [{"n": 50}],
    "select state, capability, count(*) as n from tasks group by 1, 2": [
        {"state": "pending", "capability": "echo", "n": 50}
    ],
    "with a as (select 1 as x union all select 2) select sum(x) as s from a": [{"s": 3}],
    "select count(*) as n from words where words match 'red'": [{"n": 50}],
    "select count(*) as n from labels where name = 'team' and value = 'red'": [{"n": 50}],
    "select count(*) as n from attempts": [{"n": 50}],
    "values (1, 2)": [{"column1": 1, "column2": 2}],
    "select 1 as a, 2 as a, null as a": [{"a": 1, "a_2": 2, "a_3": None}],
    "select x'00ff' as b, 1.5 as f, 9e999 as i, -9e999 as j": [{"b": "00ff", "f": 1.5, "i": "inf", "j": "-inf"}],
    "select json_extract(labels, '$.team') as t from tasks limit 1": [{"t": "red"}],
    "select 1 as a -- a comment": [{"a": 1}],
    " /* a comment */ select 1 as a ; ": [{"a": 1}],
    "explain query plan select 1": None,
}


@pytest.mark.parametrize("query", GOOD)
def test_what_may_be_asked(file: Path, query: str):
    if GOOD[query] is None:
        assert run(file, query).truncated is False
    else:
        assert run(file, query).rows == GOOD[query]


BAD = [
    "insert into tasks (id) values ('x')", "update tasks set state = 'failed'", "delete from tasks", "drop table tasks",
    "create table x (a)", "create temp table x (a)", "create view v as select 1", "alter table tasks rename to t",
    "attach database 'other.db' as o", "attach database ':memory:' as o", "detach database main",
    "pragma writable_schema = 1", "pragma query_only = 0", "pragma journal_mode = delete", "pragma user_version",
    "pragma table_info(tasks)", "select * from pragma_database_list", "select * from pragma_table_info('tasks')",
    "pragma hard_heap_limit = 0", "vacuum", "vacuum into 'copy.db'", "reindex", "analyze", "begin", "begin immediate",
    "commit", "rollback", "savepoint x", "release x", "select load_extension('x')", "select fts3_tokenizer('simple')",
    "insert into words (words) values ('optimize')", "insert into words (words, rank) values ('pgsz', 1)",
    "select 1; delete from tasks", "select 1; select 2", "", ";", "-- nothing", "nonsense", "select * from nowhere",
    "select \x00 1", "select '\ud800'", "replace into counters values ('a', 'b', 'c', 'd', 1)",
    "with x as (select 1) delete from tasks", "create trigger t after insert on tasks begin select 1; end",
    "select writefile('x', 'y')", "select readfile('/etc/passwd')", "select edit('x')",
    "create virtual table x using fts5 (a)", "select * from sqlite_dbpage", "select * from dbstat",
    "insert into tasks select * from tasks returning id", "select zeroblob(100000000)", "select randomblob(1000000000)",
    "select " + "(" * 5000 + "1" + ")" * 5000, "select 1 " + "union all select 1 " * 5000, "select '" + "x" * 30_000 + "'", "select replace(hex(zeroblob(1000000)), '0', '00000000000')",
]  # fmt: skip


@pytest.mark.parametrize("query", BAD, ids=lambda query: ascii(query[:40]))
def test_what_may_not_be_asked_is_refused_and_changes_nothing(file: Path, query: str):
    before, folder = _everything(file), {one.name for one in file.parent.iterdir()}
    with pytest.raises(Invalid) as caught:
        run(file, query)
    assert caught.value.code == "view.bad_sql"
    assert _everything(file) == before
    assert {one.name for one in file.parent.iterdir()} == folder


def _everything(path: Path) -> list[object]:
    db = sqlite3.connect(path)
    try:
        return list(db.iterdump())
    finally:
        db.close()


ENDLESS = [
    "with recursive a (n) as (select 1 union all select n + 1 from a) select count(*) from a",
    "with recursive a (n) as (select 1 union all select n + 1 from a) select max(n) from a where n < 0",
    "select count(*) from tasks a, tasks b, tasks c, tasks d, tasks e, tasks f",
    "select count(*) from words a, words b, words c, words d, words e, words f",
]


@pytest.mark.parametrize("query", ENDLESS)
def test_what_does_not_end_is_stopped(file: Path, query: str):
    begin_s = time.monotonic()
    with pytest.raises(TimedOut) as caught:
        run(file, query, timeout_s=0.2)
    assert caught.value.code == "view.slow"
    assert time.monotonic() - begin_s < 20  # not for ever: a busy machine may take its time


def test_it_can_be_stopped_while_it_gives_rows(file: Path):
    found = run(file, "with recursive a (n) as (select 1 union all select n + 1 from a) select n from a", rows_max=7)
    assert [row["n"] for row in found.rows] == [1, 2, 3, 4, 5, 6, 7]
    assert found.truncated


def test_the_answer_is_bounded_in_bytes_too(file: Path):
    found = run(file, "select hex(zeroblob(10000)) as x, a.ord from tasks a, tasks b", rows_max=10_000)
    assert found.truncated
    assert 10 < len(found.rows) < 60
    wide = run(file, "select " + ", ".join(f"1 as {'n' * 200}{n}" for n in range(90)) + " from tasks", rows_max=10_000)
    assert wide.truncated


def test_a_query_that_wants_memory_does_not_get_the_nodes(file: Path):
    """A sort of gigabytes in memory: refused when the bound is reached, and the process is as small as before."""
    big = (
        "with recursive a (n) as (select 1 union all select n + 1 from a) "
        "select n, hex(randomblob(50000)) as x from a order by 2 limit 20000"  # of one row it would keep one
    )
    before = psutil.Process().memory_info().rss
    peak = [before]
    done = threading.Event()

    def watch() -> None:
        while not done.wait(0.02):
            peak[0] = max(peak[0], psutil.Process().memory_info().rss)

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        with pytest.raises(Invalid, match="more memory"):
            run(file, big, timeout_s=60.0)
    finally:
        done.set()
        watcher.join()
    assert peak[0] - before < sql.HEAP_MAX_BYTES + 150 * 1024 * 1024
    assert run(file, "select count(*) as n from tasks").rows == [{"n": 50}]


def test_a_file_that_is_not_there_is_said_to_be_not_ready(tmp_path: Path):
    with pytest.raises(Unavailable) as caught:
        run(tmp_path / "none.db", "select 1")
    assert caught.value.code == "view.not_ready"
    assert list(tmp_path.iterdir()) == []


def test_no_database_is_said_to_be_not_ready(tmp_path: Path):
    (tmp_path / "x.db").write_bytes(b"no database at all" * 1000)
    with pytest.raises((Unavailable, Invalid)):
        run(tmp_path / "x.db", "select count(*) from tasks")
