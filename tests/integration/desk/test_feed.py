"""What happens in a project, told to those who look on: slow ones, too many of them, hostile messages, a node that leaves."""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from pathlib import Path
from typing import Any

import pytest
from tests.integration.bus import raw_server
from tests.unit.ops import stand_in

from knotwork.bus.connection import open_connection
from knotwork.bus.endpoint import Endpoint
from knotwork.desk import feed as feeds
from knotwork.desk.backlog import BACKLOG_MAX
from knotwork.ops import project, table
from knotwork.ops.op import Caller
from knotwork.sdk.errors import Busy, NotFound, Unavailable

TESTS = Path(__file__).parents[2]
WAIT_S = 30.0
RUN = "t0198c0ffee00d15ea5e0ddba11"
EVERYTHING = frozenset({"work", "agents", "targets", "spinups", "stats"})


@pytest.fixture
async def connection(tmp_path):
    async with (
        raw_server.running(tmp_path / "nats") as server,
        open_connection(Endpoint((server.url,), pause_min_s=0.02, pause_max_s=0.1)) as made,
    ):
        yield made


@pytest.fixture
def node():
    """Stands in for directory, targets and queues: what they say is theirs to test."""
    return stand_in.StandInNode()


@pytest.fixture
async def feed(connection, node):
    async with feeds.open_feed("default", connection, node) as made:
        yield made


def queued(connection, number: int) -> None:
    connection.send(f"task.none.review.normal.{RUN}.task.0.{number}", b"{}")


async def within(waited):
    async with asyncio.timeout(WAIT_S):
        return await waited


async def take(rows, count: int) -> list[Any]:
    return [await within(anext(rows)) for _ in range(count)]


async def test_a_slow_reader_loses_the_oldest_and_is_told_how_many(feed, connection):
    async with aclosing(feed.watch(frozenset({"work"}), "")) as rows:
        assert (await within(anext(rows))).what == "opened"
        for number in range(1, BACKLOG_MAX + 501):
            queued(connection, number)
        await connection.round_trip()  # all of them have arrived, and nobody has read
        missed, *kept = await take(rows, 1 + BACKLOG_MAX)
        assert (missed.topic, missed.what, missed.data) == ("feed", "missed", {"count": 500})
        assert [row.data["attempt"] for row in kept] == list(range(501, BACKLOG_MAX + 501))
        assert len({row.id for row in [missed, *kept]}) == 1 + BACKLOG_MAX
        queued(connection, 7)
        assert (await within(anext(rows))).data["attempt"] == 7


async def test_one_who_is_slow_costs_the_others_nothing(feed, connection):
    async with (
        aclosing(feed.watch(frozenset({"work"}), "")) as slow,
        aclosing(feed.watch(frozenset({"work"}), "")) as quick,
    ):
        await take(slow, 1)
        await take(quick, 1)
        for number in range(1, 2 * BACKLOG_MAX + 1):
            queued(connection, number)
            if number % 100 == 0:
                await connection.round_trip()
                assert [row.what for row in await take(quick, 100)] == ["queued"] * 100
        assert (await within(anext(slow))).data == {"count": BACKLOG_MAX}


async def test_what_none_of_ours_wrote_is_not_told(feed, connection):
    async with aclosing(feed.watch(frozenset({"work"}), "")) as rows:
        await take(rows, 1)
        facts = f"told.00.{RUN}"
        for subject in (
            "told.x", "told.00.A.outcome.task.0.1", f"{facts}.outcome.task.0.1", f"{facts}.outcome.task.x.y",
            f"{facts}.started.task.0.1.1", f"{facts}.redriven.task.0.2", f"{facts}.keyed", "task.x", "task.a.b.c.d.e.f.g",
        ):  # fmt: skip
            for data in (b"", b"{", b"\xff" * 100, b"null", b'{"run": 1}', b"[" * 10_000):
                connection.send(subject, data)
        queued(connection, 3)
        assert (await within(anext(rows))).data["attempt"] == 3


async def test_nobody_is_listened_for_when_nobody_looks_on(feed, connection):
    before = len(connection._listening)
    for _ in range(3):
        async with aclosing(feed.watch(EVERYTHING, "")) as rows, aclosing(feed.watch(EVERYTHING, "")) as more:
            await take(rows, 1)
            await take(more, 1)
            assert len(connection._listening) == before + 2
    assert len(connection._listening) == before
    assert not feed._before
    assert not feed._watchers


async def test_what_appears_changes_and_goes(feed, node, monkeypatch):
    monkeypatch.setattr(feeds, "LOOK_S", 0.01)
    mesh = node.one_mesh
    async with aclosing(feed.watch(frozenset({"agents"}), "")) as rows:
        await take(rows, 1)
        mesh.known.append(stand_in.agent("newcomer"))
        assert [(row.what, row.data["agent"]) for row in await take(rows, 1)] == [("appeared", "newcomer")]
        mesh.known[-1] = stand_in.agent("newcomer", running=1)
        assert [(row.what, row.data["running"]) for row in await take(rows, 1)] == [("changed", 1)]
        mesh.known.pop()
        assert [(row.what, row.data["agent"]) for row in await take(rows, 1)] == [("gone", "newcomer")]


def test_the_seconds_for_which_a_target_cools_down_are_no_change():
    cooling = {"state": "cooling-down", "failures": 1, "why": "it cools down for 9 s more"}
    later = {"a": {**cooling, "why": "it cools down for 8 s more"}}
    assert feeds.changes({"a": cooling}, later) == []
    for now in ({**cooling, "failures": 2}, {**cooling, "state": "available"}):
        assert feeds.changes({"a": cooling}, {"a": now}) == [("changed", now)]
    assert feeds.changes({"a": {"state": "unhealthy", "why": "x"}}, {"a": {"state": "unhealthy", "why": "y"}})


async def test_figures_are_told_to_whoever_comes(feed, monkeypatch):
    monkeypatch.setattr(feeds, "LOOK_S", 0.01)
    for _ in range(2):
        async with aclosing(feed.watch(frozenset({"stats"}), "")) as rows:
            assert [row.what for row in await take(rows, 2)] == ["opened", "figures"]


async def test_a_look_that_fails_is_taken_again(feed, node, monkeypatch):
    monkeypatch.setattr(feeds, "LOOK_S", 0.01)
    failures = [ZeroDivisionError("a bug"), Unavailable("away")]
    agents = node.one_mesh.agents

    async def failing(wanted):
        if failures:
            raise failures.pop()
        return await agents(wanted)

    async with aclosing(feed.watch(frozenset({"agents"}), "")) as rows:
        await take(rows, 1)
        monkeypatch.setattr(node.one_mesh, "agents", failing)
        node.one_mesh.known.append(stand_in.agent("newcomer"))
        assert (await within(anext(rows))).data["agent"] == "newcomer"
        assert not failures


async def test_only_so_many_may_look_on(feed, monkeypatch):
    monkeypatch.setattr(feeds, "WATCHERS_MAX", 1)
    async with aclosing(feed.watch(frozenset({"agents"}), "")) as rows:
        await take(rows, 1)
        async with aclosing(feed.watch(frozenset({"agents"}), "")) as more:
            with pytest.raises(Busy, match="look on") as caught:
                await within(anext(more))
        assert caught.value.code == "project.too_many_watchers"
    async with aclosing(feed.watch(frozenset({"agents"}), "")) as rows:
        assert (await take(rows, 1))[0].what == "opened"


async def test_those_who_look_on_are_told_when_the_node_leaves(connection, node):
    async with feeds.open_feed("default", connection, node) as feed:
        rows = feed.watch(frozenset({"work"}), "")
        await take(rows, 1)
    with pytest.raises(Unavailable, match="leaves default"):
        await within(anext(rows))
    with pytest.raises(Unavailable):  # and nobody new is let in to wait for nothing
        await within(anext(feed.watch(frozenset({"work"}), "")))


# -- the ops -------------------------------------------------------------------------------------------------------------


async def test_a_project_that_cannot_be_looked_into_hides_no_other(node, monkeypatch):
    status = await node.status()

    async def two() -> Any:
        return status.model_copy(update={"projects": ["other", "default"]})

    monkeypatch.setattr(node, "status", two)
    listed = await project.list_projects(project.Nothing(), node, Caller("me", door="http"))
    assert [(row.project, bool(row.why)) for row in listed.projects] == [("other", True), ("default", False)]
    assert listed.totals.agents == {"online": 3}
    assert listed.totals.waiting == 1
    seen = await project.list_projects(project.Nothing(), node, Caller("me", project="default", door="nats"))
    assert [row.project for row in seen.projects] == ["default"]
    with pytest.raises(NotFound):
        await project.stats(project.Nothing(), node, Caller("me", project="other"))


def test_totals_add_up():
    rows = [
        project.found.ProjectStats(project="a", tasks={"pending": 1}, waiting=2),
        project.found.ProjectStats(project="b", tasks={"pending": 2, "dead": 1}, waiting=3),
        project.found.ProjectStats(project="c", why="away"),
    ]
    assert project.total(rows) == project.found.Figures(tasks={"pending": 3, "dead": 1}, waiting=5)
    assert project.total([]) == project.found.Figures()
    assert {"project.stats", "project.list", "project.watch"} <= set(table.TABLE)
