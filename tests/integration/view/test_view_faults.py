"""Whatever happens to its file, its process, the streams or the server: a view comes back by itself, and is right."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import random
import shutil
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from tests.integration.view import past

from knotwork.bus import child, publisher, reading, streams, subjects
from knotwork.sdk.errors import Unavailable
from knotwork.view import database, follow, schema, writer
from knotwork.view.keeper import open_keeper
from knotwork.view.room import View, open_view
from knotwork.work import records, stores


async def ten(write: Any) -> set[str]:
    """Store ten tasks of which five have ended; return their ids."""
    tasks = [await write.submit() for _ in range(10)]
    for task in tasks[::2]:
        await write.end(task)
    return {task.run for task in tasks}


async def is_whole(view: View, runs: set[str]) -> bool:
    """Return whether the view shows exactly these, half of them ended."""
    with contextlib.suppress(Unavailable):
        found = await past.states(view)
        counts = await view.counts()
        return set(found) == runs and sum(counts.values()) == len(runs) and counts[("completed",)] == len(runs) // 2
    return False


# -- the file ------------------------------------------------------------------------------------------------------------


def remove(path: Path) -> None:
    path.unlink()


def remove_folder(path: Path) -> None:
    for one in path.parent.iterdir():
        one.unlink()
    path.parent.rmdir()


def remove_log(path: Path) -> None:
    path.with_name(f"{path.name}-wal").unlink()


def cut(path: Path) -> None:
    os.truncate(path, 0)


def overwrite(path: Path) -> None:
    path.write_bytes(random.Random(1).randbytes(64 * 1024))


def overwrite_middle(path: Path) -> None:
    with path.open("r+b") as file:
        file.seek(4096)
        file.write(random.Random(1).randbytes(128 * 1024))


def replace_by_text(path: Path) -> None:
    fresh = path.with_suffix(".new")
    fresh.write_text("this is no database\n" * 1000)
    fresh.replace(path)


def older(path: Path) -> None:
    with contextlib.closing(sqlite3.connect(path)) as db:
        db.execute(f"PRAGMA user_version = {schema.VERSION + 1}")


def without_a_table(path: Path) -> None:
    with contextlib.closing(sqlite3.connect(path)) as db, db:
        db.execute("DROP TABLE counters")


HARM = [remove, remove_folder, remove_log, cut, overwrite, overwrite_middle, replace_by_text, without_a_table]


@pytest.mark.parametrize("harm", HARM)
async def test_a_file_that_is_harmed_while_it_is_used_is_made_anew(
    view: View, write: Any, until: Callable[..., Any], harm: Callable[[Path], None]
):
    runs = await ten(write)
    await until(lambda: is_whole(view, runs))
    harm(view.path)
    runs |= await ten(write)  # what is read now has to be written into something
    await until(lambda: is_whole(view, runs))
    await until(view.path.exists)
    fresh = await asyncio.to_thread(_count, view.path)  # somebody who opens the file sees the same
    assert fresh == len(runs)


def _count(path: Path) -> int:
    with contextlib.closing(sqlite3.connect(path)) as db:
        assert db.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        return int(db.execute("SELECT count(*) FROM tasks").fetchone()[0])


@pytest.mark.parametrize("harm", [*HARM, older])
async def test_a_file_that_was_harmed_before_is_made_anew(
    open_one: Callable[..., Any], write: Any, until: Callable[..., Any], harm: Callable[[Path], None]
):
    runs = await ten(write)
    async with contextlib.AsyncExitStack() as stack:
        view, _ = await open_one(stack)
        await until(lambda: is_whole(view, runs))
    path = view.path
    path.with_name(f"{path.name}-wal").touch()
    harm(path)
    view, _ = await open_one()
    runs |= await ten(write)
    await until(lambda: is_whole(view, runs))


async def test_an_orphaned_log_is_not_played_into_a_new_file(
    open_one: Callable[..., Any], write: Any, until: Callable[..., Any]
):
    runs = await ten(write)
    async with contextlib.AsyncExitStack() as stack:
        view, keeper = await open_one(stack)
        await until(lambda: is_whole(view, runs))
        os.kill(keeper.pid, signal.SIGSTOP)
        log = view.path.with_name(f"{view.path.name}-wal").read_bytes()
        os.kill(keeper.pid, signal.SIGKILL)
    for one in view.path.parent.iterdir():
        one.unlink()
    view.path.with_name(f"{view.path.name}-wal").write_bytes(log)
    await streams.api(write.connection, f"STREAM.PURGE.{subjects.TASKS}")
    await streams.api(write.connection, f"STREAM.PURGE.{subjects.FACTS}")
    only = await write.submit()
    view, _ = await open_one()
    assert await past.states(view) == {only.run: "pending"}


async def test_it_is_made_anew_when_asked(view: View, write: Any, until: Callable[..., Any]):
    runs = await ten(write)
    await until(lambda: is_whole(view, runs))
    before = view.told().made
    view.rebuild()
    await until(lambda: view.told().made > before)
    await until(lambda: is_whole(view, runs))


async def test_it_is_made_anew_when_that_was_asked_before_it_began(
    open_one: Callable[..., Any], write: Any, until: Callable[..., Any]
):
    runs = await ten(write)
    async with contextlib.AsyncExitStack() as stack:
        view, _ = await open_one(stack)
        await until(lambda: is_whole(view, runs))
    view, _ = await open_one()
    view.rebuild()
    await until(lambda: view.told().made == 1)
    await until(lambda: is_whole(view, runs))


async def test_it_is_made_anew_when_its_process_died_before_it_did_so(
    open_one: Callable[..., Any], write: Any, until: Callable[..., Any]
):
    view, keeper = await open_one()
    runs = await ten(write)
    await until(lambda: is_whole(view, runs))
    pid = keeper.pid
    os.kill(pid, signal.SIGSTOP)
    view.rebuild()
    os.kill(pid, signal.SIGKILL)
    await until(lambda: keeper.pid not in (0, pid) and view.told().made == 1)
    await until(lambda: is_whole(view, runs))
    assert view.told().made == 1, "it was made anew more than once"


async def test_it_is_made_anew_when_asked_although_nothing_can_be_written_beside_it(
    view: View, write: Any, until: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
):
    runs = await ten(write)
    await until(lambda: is_whole(view, runs))
    before = view.told().made

    def full(_path: Path) -> None:
        raise OSError(errno.ENOSPC, "no space left")

    monkeypatch.setattr(database, "mark", full)
    view.rebuild()
    await until(lambda: view.told().made > before)
    await until(lambda: is_whole(view, runs))


# -- the streams ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [subjects.FACTS, subjects.TASKS, subjects.ARCHIVE])
async def test_streams_that_are_made_anew_are_read_from_the_beginning(
    view: View, write: Any, until: Callable[..., Any], name: str
):
    runs = await ten(write)
    await write.pack(forget=False)
    await until(lambda: is_whole(view, runs))
    await streams.api(write.connection, f"STREAM.DELETE.{name}")
    await until(lambda: view.told().state == "waiting")
    assert "not found" in view.told().why
    await stores.open_stores(write.connection)
    if name == subjects.TASKS:
        runs = {run for run, state in (await past.states(view)).items() if state == "completed"}
    fresh = {(await write.submit()).run for _ in range(20)}  # more than there were: places alone would not tell

    async def is_right() -> bool:
        with contextlib.suppress(Unavailable):
            return set(await past.states(view)) == runs | fresh
        return False

    await until(is_right)
    assert view.told().made > 0


async def test_everything_made_anew_leaves_nothing_of_before(view: View, write: Any, until: Callable[..., Any]):
    runs = await ten(write)
    await until(lambda: is_whole(view, runs))
    for name in (subjects.FACTS, subjects.TASKS, subjects.ARCHIVE):
        await streams.api(write.connection, f"STREAM.DELETE.{name}")
    await stores.open_stores(write.connection)
    runs = await ten(write)
    await until(lambda: is_whole(view, runs))


async def test_garbage_in_the_streams_is_passed_over_and_told(view: View, write: Any, until: Callable[..., Any]):
    runs = await ten(write)
    run, shard = "t0123456789abcdef", records.shard("t0123456789abcdef")
    good = await write.submit()
    runs.add(good.run)
    bad = [
        (f"run.{shard}.{run}.outcome.task.0.1", b"\xff\xfe"),
        (f"run.{shard}.{run}.outcome.task.0.2", b'{"state":"completed","task":{"run":"other","queue":"x"}}'),
        (f"run.{shard}.{run}.outcome.task.99999999999.1", b"{}"),
        (f"run.{shard}.{run}.started.task.0.1.x", b"{}"),
        (f"run.{shard}.{run}.started.task.0.1.1", b'{"node":1}'),
        (f"run.zz.{good.run}.outcome.task.0.1", records.encode(records.Outcome("failed", records.raw(good)))),
        ("task.none.echo.normal.t0123456789abcdef.task.0.1", b"[" * 100_000),
        ("task.none.echo.normal.t0123456789abcdef.task.0.2", records.encode(good)),
        ("task.a.b.c", b"null"),
        ("ended.1", b'[{"s":"run.x","q":1,"t":"","d":{}}]'),
        ("ended.2", b'{"s":'),
        ("ended.3", b'[{"s":"run.00.t0123456789abcdef.outcome.task.0.1","q":1,"t":"","d":{"state":"dead"}}]'),
    ]
    for subject, data in bad:
        await write.put(subject, data)
    assert len(await past.states(view)) == 11
    await until(lambda: view.told().garbage >= 10)
    assert (await past.states(view))[good.run] == "pending"
    assert view.told().state == "live"


# -- its process, and the server -----------------------------------------------------------------------------------------


async def test_a_process_that_is_killed_comes_back(open_one: Callable[..., Any], write: Any, until: Callable[..., Any]):
    view, keeper = await open_one()
    runs = await ten(write)
    for _ in range(3):
        await until(lambda runs=frozenset(runs): is_whole(view, set(runs)))
        before = keeper.starts
        os.kill(keeper.pid, signal.SIGKILL)
        runs |= await ten(write)
        await until(lambda before=before: keeper.starts > before)
    await until(lambda: is_whole(view, runs))


async def test_a_promise_is_kept_over_a_killed_process(open_one: Callable[..., Any], write: Any, until: Any):
    view, keeper = await open_one()
    await until(lambda: keeper.pid)
    os.kill(keeper.pid, signal.SIGSTOP)
    task = await write.submit()
    async with asyncio.TaskGroup() as group:
        asked = group.create_task(view.task(task.run, fresh_s=past.FRESH_S))
        await until(lambda: keeper._followed["default"].sent is not None)
        os.kill(keeper.pid, signal.SIGKILL)
    assert asked.result()["state"] == "pending"


async def test_a_frozen_process_is_said_to_be_behind(
    open_one: Callable[..., Any], write: Any, until: Callable[..., Any]
):
    view, keeper = await open_one()
    task = await write.submit()
    assert await view.task(task.run, fresh_s=past.FRESH_S) is not None
    os.kill(keeper.pid, signal.SIGSTOP)
    try:
        await write.end(task)
        assert (await view.task(task.run, fresh_s=0.1))["state"] == "pending"  # as far as it is known
        with pytest.raises(Unavailable) as caught:
            await keeper.sync(keeper._followed["default"], 0.1)
        assert caught.value.code == "view.behind"
        await until(lambda: view.behind().seconds > 0.5)
    finally:
        os.kill(keeper.pid, signal.SIGCONT)
    await until(lambda: is_state(view, task.run, "completed"))


async def is_state(view: View, run: str, state: str) -> bool:
    row = await view.task(run, fresh_s=0)
    return row is not None and row["state"] == state


async def test_it_goes_on_after_the_server_was_killed(view: View, write: Any, server: Any, until: Callable[..., Any]):
    runs = await ten(write)
    await until(lambda: is_whole(view, runs))
    await server.kill()
    await until(lambda: view.told().state == "waiting")
    assert await view.counts(fresh_s=0) == {("completed",): 5, ("pending",): 5}  # it still answers
    await server.start()
    await write.connection.wait_connected()
    runs |= await ten(write)
    await until(lambda: is_whole(view, runs))
    assert view.told().made == 1


OWNER = """
import asyncio, sys
from pathlib import Path
from knotwork.bus import child
from knotwork.bus.connection import open_connection
from knotwork.bus.endpoint import Endpoint
from knotwork.view.keeper import open_keeper
from knotwork.view.room import open_view

async def main(url, folder):
    async with (child.guard(), open_connection(Endpoint((url,))) as connection, open_keeper() as keeper,
                open_view(keeper, Path(folder), "default", connection) as view):
        keeper.begin()
        await view.catch_up(30)
        print(keeper.pid, flush=True)
        await asyncio.sleep(3600)

asyncio.run(main(*sys.argv[1:]))
"""


async def test_it_ends_with_the_node_that_is_killed(
    connection: Any, server: Any, tmp_path: Path, until: Callable[..., Any]
):
    owner = await child.spawn(sys.executable, "-c", OWNER, server.url, tmp_path, stdout=asyncio.subprocess.PIPE)
    assert owner.stdout is not None
    async with asyncio.timeout(60):
        pid = int(await owner.stdout.readline())
    process = psutil.Process(pid)
    assert process.nice() > 0
    assert "KNOTWORK" not in "".join(name for name in process.environ() if name != child.WARD)
    assert server.url not in " ".join(process.cmdline())
    owner.kill()
    await owner.wait()
    await until(lambda: not process.is_running() or process.status() == psutil.STATUS_ZOMBIE)


async def test_it_ends_by_itself_when_nobody_speaks_to_it_any_more():
    alone = await child.spawn(sys.executable, "-m", "knotwork.view.child", stdin=asyncio.subprocess.PIPE)
    assert alone.stdin is not None
    alone.stdin.close()
    async with asyncio.timeout(30):
        assert await alone.wait() == 0


# -- forgetting ----------------------------------------------------------------------------------------------------------


async def test_the_process_hears_how_full_the_store_of_all_projects_is_and_makes_room(
    connection: Any, open_one: Callable[..., Any], until: Callable[..., Any]
):
    """Only the node knows what other projects use; what may be lost goes when there is next to no room."""
    await streams.ensure(connection, streams.telemetry_stream())
    for number in range(10):
        await publisher.publish(connection, f"telemetry.{number}", b"x")
    view, keeper = await open_one()
    await until(lambda: view.told().state == "live")
    assert await reading.count_from(connection, "TELEMETRY", ">", 1) == 10
    keeper.room = lambda: (1000, 1000)

    async def less() -> bool:
        return await reading.count_from(connection, "TELEMETRY", ">", 1) < 10

    await until(less)


async def test_what_the_archive_has_forgotten_is_forgotten(
    connection: Any, write: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, until: Callable[..., Any]
):
    """In this process, since no test can wait half a minute: the same `Follower`, without its process."""
    monkeypatch.setattr(follow, "FORGET_EVERY_S", 0.0)
    told: list[dict[str, Any]] = []
    follower = follow.Follower("default", tmp_path / "x.db", told.append)
    old = [await write.submit(labels={"n": "1"}) for _ in range(5)]
    for task in old[:4]:
        await write.end(task)
    await write.end(old[4], "waiting", due_ns=1)
    await write.pack()
    segment = await reading.last_seq(connection, subjects.ARCHIVE)
    kept = await write.submit()
    ghost = await write.submit()
    await write.end(kept)
    async with asyncio.TaskGroup() as group:
        following = group.create_task(follower.run(connection))
        await until(lambda: told and told[-1]["places"].get(subjects.TASKS) == 7)
        await reading.purge(connection, subjects.ARCHIVE, "ended.>", segment + 1)
        await reading.purge(connection, subjects.TASKS, "task.>", 0)
        await until(lambda: _ids(tmp_path / "x.db") == {kept.run})
        following.cancel()
    made = writer.Writer(tmp_path / "x.db")
    ask = lambda query: made.db.execute(query).fetchall()  # noqa: E731
    assert ask("SELECT state, count FROM counters") == [("completed", 1)]
    assert ask("SELECT count(*) FROM labels") == [(0,)]
    assert ask("SELECT count(*) FROM words") == [(1,)]
    assert ghost.run not in str(ask("SELECT * FROM tasks"))
    made.close()


def _ids(path: Path) -> set[str]:
    with contextlib.closing(sqlite3.connect(path)) as db:
        return {row[0] for row in db.execute("SELECT id FROM tasks")}


async def test_the_age_of_the_archive_counts_for_what_it_never_held(tmp_path: Path, write: Any):
    made = writer.Writer(tmp_path / "x.db")
    task = write.task()
    outcome = records.Outcome("completed", records.raw(task), node="n", agent="a", ended_ns=task.submitted_ns + 1)
    place = records.outcome_subject(task.run, "task", 0, 1)
    made.apply([follow.Message(place, records.encode(outcome), 1)], [], {})
    assert made.forget(1, task.submitted_ns, 1) == 0
    assert made.forget(1, task.submitted_ns + 2, 1) == 1
    made.close()


# -- no room -------------------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def small_disk(folder: Path, size: str) -> Iterator[Path]:
    """Mount a tmpfs that is full soon, where that is allowed."""
    folder.mkdir()
    try:
        done = subprocess.run(
            ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", folder],
            capture_output=True,
            check=False,
            timeout=20,
        )
        said = done.stderr.decode(errors="replace")
        mounted = done.returncode == 0
    except OSError as error:
        said, mounted = str(error), False
    if not mounted:
        pytest.skip(f"a tmpfs cannot be mounted here: {said.strip()}")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", folder], check=True, timeout=20)


async def test_on_a_full_disk_it_waits_answers_and_goes_on_when_there_is_room(
    connection: Any, write: Any, tmp_path: Path, until: Callable[..., Any]
):
    with small_disk(tmp_path / "disk", "3m") as folder:
        async with open_keeper() as keeper, open_view(keeper, folder, "default", connection) as view:
            keeper.begin()
            runs = await ten(write)
            await until(lambda: is_whole(view, runs))
            filler = folder / "filler"
            filler.write_bytes(b"x" * (shutil.disk_usage(folder).free - 16 * 1024))
            runs |= {(await write.submit(input=b'"' + b"y" * 4000 + b'"')).run for _ in range(200)}
            await until(lambda: view.told().state == "waiting" and "full" in view.told().why)
            assert await view.counts(fresh_s=0) == {("completed",): 5, ("pending",): 5}
            assert view.told().stuck
            os.kill(view.pid, signal.SIGKILL)  # the next one finds a file that it cannot write, and leaves it
            await until(lambda: view.starts == 2 and view.told().stuck)
            with pytest.raises(Unavailable) as caught:
                await view.list()
            assert caught.value.code == "view.stuck"
            with pytest.raises(Unavailable):
                await view.counts()
            filler.unlink()
            await until(lambda: _has_all(view, runs))
            assert (view.told().made, view.told().stuck) == (0, False)


async def _has_all(view: View, runs: set[str]) -> bool:
    with contextlib.suppress(Unavailable):
        return set(await past.states(view)) == runs
    return False


async def test_a_database_that_may_not_grow_is_kept_and_goes_on_later(
    connection: Any, write: Any, tmp_path: Path, until: Callable[..., Any]
):
    """The same for everybody: SQLite itself says that it is full, in this process."""
    told: list[dict[str, Any]] = []
    follower = follow.Follower("default", tmp_path / "x.db", told.append)
    first = await write.submit()
    async with asyncio.TaskGroup() as group:
        following = group.create_task(follower.run(connection))
        await until(lambda: told and told[-1]["state"] == "live" and _ids(tmp_path / "x.db") == {first.run})
        assert follower._writer is not None
        pages = follower._writer.db.execute("PRAGMA page_count").fetchone()[0]
        follower._writer.db.execute(f"PRAGMA max_page_count = {pages}")
        runs = {(await write.submit(input=b'"' + b"y" * 4000 + b'"')).run for _ in range(100)}
        await until(lambda: told[-1]["state"] == "waiting" and "full" in told[-1]["why"])
        assert first.run in _ids(tmp_path / "x.db") < {first.run, *runs}
        follower._writer.db.execute("PRAGMA max_page_count = 1000000")
        await until(lambda: _ids(tmp_path / "x.db") == {first.run, *runs})
        assert told[-1]["made"] == 1
        following.cancel()
