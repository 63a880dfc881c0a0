"""A view follows the streams, remembers its place, and answers from ARCHIVE what FACTS has forgotten."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
from tests.integration.view import past

from knotwork.bus.connection import Connection
from knotwork.sdk.errors import Invalid, Unavailable
from knotwork.view import lately, room
from knotwork.view.keeper import open_keeper
from knotwork.view.lists import Filter
from knotwork.view.room import View, open_view
from knotwork.work import ids, records


async def test_a_task_is_followed_through_its_states(view: View, write: Any):
    task = await write.submit(labels={"team": "red"}, priority=9, key="k", by="cli/me", parent="t0123456789ab")
    row = await view.task(task.run, fresh_s=past.FRESH_S)
    assert row == {
        "id": task.run, "state": "pending", "capability": "echo", "agent": "", "node": "", "boundary": "none",
        "priority": 9, "labels": {"team": "red"}, "submitted_ns": task.submitted_ns, "started_ns": 0, "ended_ns": 0,
        "due_ns": 0, "deadline_ns": 0, "attempts": 1, "iteration": 0, "code": "", "message": "", "worker": "",
        "target": "echo", "parent": "t0123456789ab", "key": "k", "submitter": "cli/me",
    }  # fmt: skip
    await write.started(task)
    row = await view.task(task.run, fresh_s=past.FRESH_S)
    assert (row["state"], row["worker"], row["agent"]) == ("running", "there/bob", "bob")
    assert await view.counts(("state", "agent")) == {("running", "bob"): 1}
    await write.released(task)
    row = await view.task(task.run, fresh_s=past.FRESH_S)
    assert (row["state"], row["worker"], row["agent"]) == ("pending", "", "")
    await write.started(task, 2)
    await write.end(task, "waiting", due_ns=task.submitted_ns + 10)
    row = await view.task(task.run, fresh_s=past.FRESH_S)
    assert (row["state"], row["code"], row["due_ns"]) == ("waiting", "test.waiting", task.submitted_ns + 10)
    again = records.Task(**{**{name: getattr(task, name) for name in task.__struct_fields__}, "number": 2})
    await write.put(again.subject, records.encode(again))
    assert (await view.task(task.run, fresh_s=past.FRESH_S))["state"] == "pending"
    await write.end(again)
    row = await view.task(task.run, fresh_s=past.FRESH_S)
    assert (row["state"], row["attempts"], row["worker"], row["due_ns"]) == ("completed", 2, "here/ann", 0)
    history = await view.attempts(task.run)
    assert [(one["number"], one["state"]) for one in history] == [(1, "waiting"), (2, "completed")]
    assert await view.counts(("state", "capability", "agent")) == {("completed", "echo", "ann"): 1}


async def test_an_outcome_is_found_in_facts_and_later_in_the_archive(view: View, write: Any):
    tasks = [await write.submit() for _ in range(3)]
    ends = [await write.end(task) for task in tasks]
    assert await view.outcome(tasks[1].run) == records.encode(ends[1])
    await write.pack()
    for task, end in zip(tasks, ends, strict=True):
        assert await view.outcome(task.run) == records.encode(end)
    assert await view.outcome("t00000000000000") is None
    assert await view.outcome("not an id") is None
    assert set((await past.states(view)).values()) == {"completed"}


async def test_whether_an_attempt_has_ended_is_known_after_facts_forgot_it(view: View, write: Any):
    first, second, third = [await write.submit() for _ in range(3)]
    await write.end(first)
    await write.end(second, "waiting")
    await write.pack()
    await view.catch_up(past.FRESH_S)
    later = records.Task(**{**{name: getattr(second, name) for name in second.__struct_fields__}, "number": 2})
    assert await view.has_ended(first)
    assert await view.has_ended(second)
    assert not await view.has_ended(later)
    assert not await view.has_ended(third)
    assert not await view.has_ended(write.task())


async def test_a_view_that_has_the_past_to_read_yet_knows_what_came_lately(
    connection: Connection, write: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(room, "CERTAIN_S", 0.05)
    monkeypatch.setattr(lately, "PAGE", 1)
    first, second, third = [await write.submit() for _ in range(3)]
    for ended in (first, write.task()):
        await write.end(ended)
        await write.pack(forget=False)
    keyed = write.task(run="k" + "a" * 31)
    async with open_keeper() as keeper, open_view(keeper, tmp_path / "view", "default", connection) as view:
        assert await view.has_ended(first), "nobody has begun to write its database"
        assert not await view.has_ended(third)
        await write.end(second, "waiting")
        await write.pack()
        assert await view.has_ended(second), "also what was packed since"
        assert not await view.has_ended(msgspec.structs.replace(second, number=2))
        with pytest.raises(Unavailable):
            await view.has_ended(keyed)  # nobody knows when it came
        monkeypatch.setattr(lately, "BYTES_MAX", 10)
        view._lately.forget()
        with pytest.raises(Unavailable):
            await view.has_ended(third)
        assert not await view.has_ended(task_of_tomorrow(write)), "one that is too old does not hold up the others"


def task_of_tomorrow(write: past.Past) -> records.Task:
    return write.task(run=ids.new_run(time.time_ns() + 86400 * 10**9))


async def test_what_calls_for_an_attempt_is_known_after_facts_forgot_it(view: View, write: Any):
    ended, retried, looped, died, waits = [await write.submit() for _ in range(5)]
    await write.end(ended)
    await write.end(retried, "waiting")
    await write.end(looped, "continued")
    await write.end(died, "dead")
    await write.pack(forget=False)
    await past.states(view)
    assert await view.leads_to(ended.run, 0, 2) is False
    assert await view.leads_to(ended.run, 1, 1) is False
    assert await view.leads_to(waits.run, 0, 2) is False
    assert await view.leads_to(retried.run, 0, 2) is True
    assert await view.leads_to(retried.run, 0, 3) is None
    assert await view.leads_to(retried.run, 1, 1) is None
    assert await view.leads_to(looped.run, 1, 1) is True
    assert await view.leads_to(died.run, 0, 2) is True
    assert await view.leads_to("t000000000000", 0, 2) is None


async def test_an_outcome_behind_the_end_is_none(view: View, write: Any):
    task = await write.submit()
    end = await write.end(task)
    await past.states(view)
    again = records.Task(**{**{name: getattr(task, name) for name in task.__struct_fields__}, "number": 2})
    await write.end(again, "failed")
    assert (await past.states(view))[task.run] == "completed"
    assert await view.outcome(task.run) is None  # its place in FACTS is known to whoever asks for it
    await write.pack()
    assert (await past.states(view))[task.run] == "completed"
    assert await view.outcome(task.run) == records.encode(end)


async def test_a_view_that_was_closed_goes_on_where_it_stopped(
    open_one: Callable[..., Any], write: Any, until: Callable[..., Any]
):
    for _ in range(20):
        await write.end(await write.submit())
    async with contextlib.AsyncExitStack() as stack:
        view, _ = await open_one(stack)
        assert len(await past.states(view)) == 20
    missed = await write.submit()
    view, _ = await open_one()
    found = await past.states(view)
    assert len(found) == 21
    assert found[missed.run] == "pending"
    await until(lambda: view.told().state == "live")
    assert view.told().made == 0
    assert view.told().folded < 40  # one, and what was packed meanwhile; from the beginning it would be more


async def test_what_is_stored_while_it_runs_appears_by_itself(view: View, write: Any, until: Callable[..., Any]):
    task = await write.submit()
    await until(lambda: _is_there(view, task.run))
    await until(lambda: view.behind().state in ("live", "reading"))  # it says so a moment after it is so


async def _is_there(view: View, run: str) -> bool:
    with contextlib.suppress(Exception):  # not made yet
        return await view.task(run, fresh_s=0) is not None
    return False


@pytest.mark.parametrize("project", ["one", "two"])
async def test_each_project_has_a_file_of_its_own(open_one: Callable[..., Any], write: Any, project: str):
    view, keeper = await open_one(project=project)
    await write.submit()
    assert len(await past.states(view)) == 1
    assert view.path.name == f"{project}.db"
    assert view.path.stat().st_mode & 0o077 == 0
    assert keeper.starts == 1


# -- lists -----------------------------------------------------------------------------------------------------------------


async def test_lists_are_filtered_by_everything(view: View, write: Any):
    mine = await write.submit(labels={"team": "red", "kind": "x"}, boundary="personal", input=b"null", priority=9)
    other = await write.submit(queue="here=ann", capability="", agent="ann", node="here", labels={"team": "blue"})
    failed = await write.submit(queue="sum", capability="sum")
    await write.end(failed, "failed")
    both = {mine.run, other.run}

    async def ids(**fields: Any) -> set[str]:
        return {row["id"] for row in (await view.list(Filter(**fields), fresh_s=past.FRESH_S)).rows}

    assert await ids() == {*both, failed.run}
    assert await ids(states=frozenset({"pending"})) == both
    assert await ids(states=frozenset({"pending", "failed"})) == {*both, failed.run}
    assert await ids(capability="sum") == {failed.run}
    assert await ids(boundary="personal") == {mine.run}
    assert await ids(agent="ann") == {other.run, failed.run}
    assert await ids(node="here", states=frozenset({"pending"})) == {other.run}
    assert await ids(labels={"team": "red"}) == {mine.run}
    assert await ids(labels={"team": "red", "kind": "x"}) == {mine.run}
    assert await ids(labels={"team": "red", "kind": "y"}) == set()
    assert await ids(since_ns=other.submitted_ns) == {other.run, failed.run}
    assert await ids(until_ns=other.submitted_ns) == {mine.run}
    assert await ids(since_ns=other.submitted_ns, until_ns=failed.submitted_ns) == {other.run}
    assert await ids(priority_min=6) == {mine.run}
    assert await ids(priority_max=8) == {other.run, failed.run}
    assert await ids(priority_min=6, priority_max=8) == set()
    assert await ids(text="purpose") == {failed.run}
    assert await ids(text="blue") == {other.run}
    assert await ids(text="pur* sum") == {failed.run}
    assert await ids(text="red", boundary="personal", labels={"kind": "x"}) == {mine.run}
    assert await ids(text=mine.run) == {mine.run}
    for text in ('"', "a OR b", "NEAR(", "x AND", "text:a", "*", "a-b", "'; --", "\x00a", "{", "^a"):
        assert await ids(text=text) == set(), text
    with pytest.raises(Invalid):
        await ids(text="  ")


async def test_pages_neither_repeat_nor_lose_tasks_while_others_come_and_end(view: View, write: Any):
    tasks = [await write.submit(labels={"n": str(number % 2)}) for number in range(25)]
    wanted = Filter(labels={"n": "1"})
    seen: list[str] = []
    cursor = ""
    while True:
        page = await view.list(wanted, cursor=cursor, limit=5, fresh_s=past.FRESH_S)
        seen += [row["id"] for row in page.rows]
        await write.submit(labels={"n": "1"})  # newer than what is still to come
        await write.end(tasks[len(seen)])
        cursor = page.cursor
        if not cursor:
            break
    assert seen == [task.run for task in reversed(tasks) if task.labels["n"] == "1"]


async def test_a_cursor_of_other_filters_is_refused(view: View, write: Any):
    for _ in range(3):
        await write.submit()
    page = await view.list(Filter(capability="echo"), limit=1, fresh_s=past.FRESH_S)
    assert page.cursor
    with pytest.raises(Invalid) as caught:
        await view.list(Filter(capability="sum"), cursor=page.cursor)
    assert caught.value.code == "view.other_filter"
    for bad in ("x", "ä", page.cursor[:-3], "=" * 50, "A" * 5000):
        with pytest.raises(Invalid) as caught:
            await view.list(Filter(capability="echo"), cursor=bad)
        assert caught.value.code in ("view.bad_cursor", "view.other_filter")


async def test_bounds_that_count_from_now_stay_where_they_were_on_the_first_page(view: View, write: Any):
    runs = [(await write.submit()).run for _ in range(5)]

    def since(seconds: float, given: str = "2h") -> Filter:
        return Filter(since_ns=time.time_ns() - int(seconds * 1e9), moving=(given, ""))

    first = await view.list(since(7200), limit=2, fresh_s=past.FRESH_S)
    rest = await view.list(since(-60), cursor=first.cursor, limit=10)  # by now it would mean nothing of that
    assert [row["id"] for row in (*first.rows, *rest.rows)] == runs[::-1]
    with pytest.raises(Invalid) as caught:
        await view.list(since(7200, "3h"), cursor=first.cursor)
    assert caught.value.code == "view.other_filter"


async def test_what_nobody_has_any_more_waits_in_every_list_and_count(view: View, write: Any):
    tasks = [await write.submit(queue="=bob" if number == 4 else "echo") for number in range(6)]
    for task in tasks[1:5]:
        await write.started(task)
    await write.end(tasks[1])
    claimed = records.Started("there", "bob", tasks[5].submitted_ns + 1, 1, claimed=True)
    await write.put(write._trace(tasks[5], "started", 1), records.encode(claimed))
    gone = {"", tasks[1].run, tasks[3].run, tasks[4].run}
    asked: list[Any] = []
    view.holds = lambda: lambda one: asked.append(one) or one.id not in gone

    async def of(*states: str) -> set[int]:
        page = await view.list(Filter(states=frozenset(states)), fresh_s=past.FRESH_S)
        return {next(at for at, task in enumerate(tasks) if task.run == row["id"]) for row in page.rows}

    assert await of("running") == {2, 5}
    assert (asked[0].id, asked[0].started_ns) == ("", tasks[2].submitted_ns + 1), "first the oldest of each node"
    assert {(one.id, one.node, bool(one.claimed)) for one in asked[1:]} == {
        (tasks[2].run, "there", False), (tasks[3].run, "there", False), (tasks[4].run, "there", False),
        (tasks[5].run, "there", True),
    }  # fmt: skip
    assert await of("pending") == {0, 3, 4}
    assert await of("pending", "completed") == {0, 1, 3, 4}
    assert await of("pending", "running") == {0, 2, 3, 4, 5}
    assert await of() == {0, 1, 2, 3, 4, 5}
    rows = {row["id"]: row for row in (await view.list()).rows}
    shown = [tuple(rows[task.run][name] for name in ("state", "agent", "worker", "started_ns")) for task in tasks[2:5]]
    assert shown == [
        ("running", "bob", "there/bob", tasks[2].submitted_ns + 1), ("pending", "", "", 0), ("pending", "bob", "", 0),
    ]  # fmt: skip
    assert await view.counts() == {("completed",): 1, ("pending",): 3, ("running",): 2}
    assert await view.counts(("agent", "state"), Filter(states=frozenset({"pending"}))) == {
        ("", "pending"): 2, ("bob", "pending"): 1,
    }  # fmt: skip
    assert await view.counts((), Filter(states=frozenset({"running"}), agent="bob")) == {(): 2}
    first = await view.list(Filter(states=frozenset({"pending"})), limit=2)
    second = await view.list(Filter(states=frozenset({"pending"})), limit=2, cursor=first.cursor)
    assert [row["id"] for row in (*first.rows, *second.rows)] == [tasks[4].run, tasks[3].run, tasks[0].run]


async def test_counts_are_those_of_the_rows(view: View, write: Any):
    for number in range(12):
        task = await write.submit(boundary="personal" if number % 2 else "none")
        if number % 3 == 0:
            await write.end(task, "failed")
    await view.catch_up(past.FRESH_S)
    assert await view.counts() == {("failed",): 4, ("pending",): 8}
    assert await view.counts(()) == {(): 12}
    assert await view.counts(("boundary", "state"), Filter(states=frozenset({"failed"}))) == {
        ("none", "failed"): 2, ("personal", "failed"): 2,
    }  # fmt: skip
