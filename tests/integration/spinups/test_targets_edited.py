"""What becomes of a launch when its target is edited beneath it, or when several want something at the same moment?

Asked is the plugin that started it, and no other one; nobody gets a place that another has, and no wish is lost.

The plugins stand in for places; the records are kept by a real nats-server.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import msgspec
import pytest
from tests.integration.bus import raw_server

from knotwork.bus import kv, subjects
from knotwork.bus.background import together
from knotwork.bus.connection import open_connection
from knotwork.bus.endpoint import Endpoint
from knotwork.sdk.errors import Conflict, Unavailable
from knotwork.sdk.spinup import Condition, Launched
from knotwork.spinup import room as rooms
from knotwork.spinup.demand import Demand, Waiting
from knotwork.spinup.launcher import Own

PATIENCE_S = 60.0


class Place:
    """A spin-up plugin and its slot: what runs there, and who asked it for what it does not know."""

    def __init__(self, name: str) -> None:
        self.name, self.things, self.strangers = name, set[str](), list[str]()
        self.why, self.users, self.runs = "", 0, True

    @contextlib.contextmanager
    def lease(self) -> Any:
        if not self.runs:
            raise Unavailable(f"{self.name} does not run", code="plugin.not_running")
        self.users += 1
        try:
            yield self
        finally:
            self.users -= 1

    async def launch(self, request: Any) -> Launched:
        self.things.add(request.id)
        return Launched({"launch": request.id})

    async def condition(self, ref: Any) -> Condition:
        return Condition("running" if self._knows(ref) else "gone")

    async def stop(self, ref: Any, _grace_s: float) -> None:
        if self._knows(ref):
            self.things.remove(ref["launch"])

    async def probe(self) -> None:
        if self.why:
            raise Unavailable(self.why)

    def _knows(self, ref: Any) -> bool:
        if ref["launch"] not in self.things:
            self.strangers.append(ref["launch"])
        return ref["launch"] in self.things


class World:
    """A node whose targets are edited; what was launched is online as long as it runs somewhere."""

    def __init__(self) -> None:
        self.places: list[Place] = []
        self.table: dict[str, Own] = {}
        self.told: list[str] = []
        self.registers = True
        self.waits: list[Waiting] = []

    def write(self, place: Place | None, name: str = "here", mark: str = "", **more: Any) -> Place | None:
        """Let the configuration say this target alone, or none; old plugins are stopped when nobody uses them."""
        if place is not None and place not in self.places:
            self.places.append(place)
        lease: Callable[[], AbstractContextManager[Any]] | None = place.lease if place is not None else None
        self.table = {} if lease is None else {name: Own(name, "some", lease, place=mark, health_s=3600.0, **more)}
        return place

    def of_launch(self, launch: str) -> str:
        return f"n-{launch}" if self.registers and any(launch in place.things for place in self.places) else ""

    def is_busy(self, _name: str) -> bool:
        return True

    async def idle_s(self, _name: str) -> float:
        return 0.0

    async def goodbye(self, name: str, _grace_s: float) -> None:
        self.told.append(name)


@pytest.fixture
async def connection(tmp_path):
    async with (
        raw_server.running(tmp_path / "nats") as server,
        open_connection(Endpoint((server.url,), pause_min_s=0.02, pause_max_s=0.1)) as made,
    ):
        yield made


@pytest.fixture(autouse=True)
def _soon(monkeypatch):
    monkeypatch.setattr(rooms, "LOOK_S", 0.02)


def opened(connection: Any, world: World, *waiting: Waiting, task: str = "t1") -> Any:
    """Let capacity follow work that is `waiting` and that nobody takes; `task` is one of them, "" when all have ended."""

    async def nothing(*_: Any) -> Any:
        return {}

    async def task_of(_demand: Any) -> str:
        return task

    def make(group: asyncio.TaskGroup) -> rooms.SpinUps:
        return rooms.SpinUps(
            group, connection, world, project="default", node="here", own=lambda: world.table,
            waiting=lambda: (*waiting, *world.waits), task_of=task_of, waited_s=nothing,
            is_online=lambda _node: True, can_take=lambda *_: False, may_spin_up=lambda _boundary: True,
            env=nothing, on_change=lambda _launch: None,
        )  # fmt: skip

    return rooms.open_spinups(make)


async def until(found: Callable[[], Any]) -> Any:
    async with asyncio.timeout(PATIENCE_S):
        while not (value := found()):
            await asyncio.sleep(0.01)
    return value


async def looked(room: Any) -> None:
    """Return when the room has looked at its targets and launches twice more."""
    looks, original = [], room._declare

    async def counted(own: Any) -> None:
        looks.append(own)
        await original(own)

    room._declare = counted
    await until(lambda: len(looks) > 2)
    room._declare = original


async def noted(room: Any, target: Any, **fields: Any) -> None:
    await room._change(target, lambda now: msgspec.structs.replace(now, **fields))


async def up(room: Any) -> Any:
    launch = await room.launch("here", by="me")
    return await until(lambda: (one := room.registry.launches[launch.id]).state == "up" and one)


def same_place(world: World, first: Place) -> Place:
    """Other settings of the same place: a plugin of its own that knows what is there."""
    second = Place("second")
    second.things = first.things
    world.write(second, mark="A")
    return second


EDITS: dict[str, tuple[Callable[[World, Place], Any], str, str]] = {
    "removed": (lambda world, _: world.write(None), "stopped", "not configured any more"),
    "renamed": (lambda world, first: world.write(first, "there", "A"), "stopped", "not configured any more"),
    "leads elsewhere": (lambda world, _: world.write(Place("second"), mark="B"), "stopped", "leads elsewhere now"),
    "elsewhere and broken": (lambda world, _: world.write(_broken(), mark="B"), "stopped", "leads elsewhere now"),
    "broken": (lambda world, _: world.write(_broken(), mark=""), "up", ""),
    "other settings": (same_place, "up", ""),
    "other costs": (lambda world, first: world.write(first, mark="A", cost=3.0), "up", ""),
}


def _broken() -> Place:
    place = Place("broken")
    place.runs = False
    return place


@pytest.mark.parametrize(("owner", "served"), [("here", True), ("there", False)])
async def test_a_demand_that_a_node_claimed_is_its_own_also_when_it_died_before_it_came_to_it(
    connection, owner, served
):
    leases = await kv.open_bucket(connection, subjects.LEASES, allow_atomic=True)
    await leases.create(Demand("none", "gpu", 1).key, owner.encode(), ttl_s=600)
    world = World()
    world.write(Place("first"), mark="A")
    async with opened(connection, world, Waiting("none", "gpu", 1)) as room:
        await looked(room)
        if served:
            await until(lambda: room.registry.launches)
        assert bool(room.registry.launches) == served


@pytest.mark.parametrize(("edit", "state", "why"), list(EDITS.values()), ids=list(EDITS))
async def test_a_launch_is_with_the_plugin_that_started_it(connection, edit, state, why):
    world, first = World(), Place("first")
    world.write(first, mark="A")
    async with opened(connection, world) as room:
        launch = await up(room)
        edit(world, first)
        await looked(room)
        after = await until(lambda: (one := room.registry.launches[launch.id]).state == state and one)
        assert why in after.why
        assert world.told == ([f"n-{launch.id}"] if state == "stopped" else [])
        assert bool(first.things) == (state == "up")
        assert not any(place.strangers for place in world.places), "it was asked for what another one started"
        if state == "stopped":
            await until(lambda: not first.users)  # a reload that waits for it may go on
            world.write(first, mark="A")  # the name again leads where it led, and is as new
            await until(
                lambda: "target.here.here" in room.registry.targets and room.registry.target("here").health == "healthy"
            )
            assert (await up(room)).state == "up"


async def test_edited_while_nobody_looked_it_is_asked_to_leave_and_nobody_else_is_asked(connection):
    world, first = World(), Place("first")
    world.write(first, mark="A")
    async with opened(connection, world) as room:
        launch = await up(room)
    second = world.write(Place("second"), mark="B")
    async with opened(connection, world) as room:
        over = await until(lambda: (one := room.registry.launches.get(launch.id)) and one.ended_ns and one)
    assert (over.state, world.told, second.strangers) == ("failed", [f"n-{launch.id}"], [])
    assert "leads elsewhere now" in over.why
    assert "look there" in over.why


async def test_by_hand_it_is_ended_where_it_was_started(connection, monkeypatch):
    world, first = World(), Place("first")
    world.write(first, mark="A")
    async with opened(connection, world) as room:
        launch = await up(room)
        monkeypatch.setattr(rooms, "LOOK_S", 3600.0)
        await looked_away(room)
        second = world.write(Place("second"), mark="B")
        over = await room.stop(launch.id)
    assert (over.state, first.things, second.strangers) == ("stopped", set(), [])


async def looked_away(room: Any) -> None:
    """Return when no look is under way: the next one is an hour away."""
    await until(lambda: room._turns.idle)


async def test_a_target_that_was_mended_is_taken_at_once(connection):
    world, bad = World(), Place("bad")
    bad.why = "no such command"
    world.write(bad, mark="A")
    async with opened(connection, world) as room:
        await until(lambda: room.registry.target("here").health == "unhealthy")
        world.write(Place("good"), mark="A")
        await until(lambda: room.registry.target("here").health == "healthy")
        now = room.registry.target("here")
        await noted(room, now, failures=5, last_failure_ns=2**62, failed_why="no agent registered")
        world.write(world.places[-1], mark="A", register_s=300.0)
        await until(lambda: not room.registry.target("here").failures)
        place = world.places[-1]
        place.runs = False  # its plugin crashed
        await until(lambda: room.registry.target("here").health == "unhealthy")
        place.runs = True
        await until(lambda: room.registry.target("here").health == "healthy")


# -- several at the same moment ------------------------------------------------------------------------------------------


async def test_of_two_who_want_the_last_place_at_once_one_gets_it(connection):
    world, place = World(), Place("one")
    world.write(place)
    async with opened(connection, world) as room:

        async def asked() -> str:
            try:
                return (await room.launch("here", by="me")).state
            except Conflict as refused:
                return refused.code

        assert sorted(await together(asked(), asked())) == ["spinup.not_now", "starting"]
    assert len(place.things) == 1


async def test_two_demands_that_are_found_by_one_look_share_the_places_of_a_target(connection):
    world, place = World(), Place("one")
    world.write(place)
    wanted = [Waiting("none", capability, 1) for capability in ("gpu", "cpu", "tpu")]
    async with opened(connection, world, *wanted) as room:
        await until(lambda: place.things)
        await until(lambda: room.registry.target("here").running)
        await looked(room)
        await until(lambda: all(room._turns.taken(name) is False for name in room.why))
        assert len(place.things) == 1
        assert all("1 of 1 launches run" in told["here/here"] for told in room.why.values())


class Slow(Place):
    """Starts something when it is told to go on."""

    def __init__(self) -> None:
        super().__init__("slow")
        self.go_on = asyncio.Event()

    async def launch(self, request: Any) -> Launched:
        await self.go_on.wait()
        return await super().launch(request)


@pytest.mark.parametrize("waits", [True, False], ids=["to its end", "and leaves"])
async def test_what_is_stopped_while_it_starts_ends_when_it_is_there(connection, waits):
    world, place = World(), Slow()
    world.write(place)
    async with opened(connection, world) as room, asyncio.TaskGroup() as group:
        group.create_task(room.launch("here", by="me"))
        launch = (await until(lambda: list(room.registry.launches)))[0]
        stopping = group.create_task(room.stop(launch))
        await until(lambda: room.registry.launches[launch].state == "stopping")
        if not waits:
            stopping.cancel()
        place.go_on.set()
        await until(lambda: room.registry.launches[launch].state == "stopped")
        assert (place.things, place.strangers) == (set(), [])
        assert not waits or (await stopping).state == "stopped"


class Odd(Place):
    """Gives what cannot be written down."""

    async def launch(self, _request: Any) -> Launched:
        return Launched({"socket": object()})


async def test_a_plugin_that_gives_what_is_no_json_fails_alone(connection):
    world = World()
    world.write(Odd("odd"))
    async with opened(connection, world) as room:
        failed = await room.launch("here", by="me")
        assert (failed.state, "no JSON" in failed.why) == ("failed", True)
        await looked(room)  # it goes on all the same


async def test_what_two_write_into_the_record_of_a_target_stands_there_both(connection):
    world = World()
    world.write(Place("one"))
    async with opened(connection, world) as room:
        target = room.registry.target("here")
        await together(noted(room, target, failed_why="once"), room.switch("here", disabled=True))
        await until(lambda: (one := room.registry.target("here")).disabled and one.failed_why == "once")


# -- what a demand is held by --------------------------------------------------------------------------------------------


async def by_hand(room: Any, _world: World, launch: str) -> None:
    await room.stop(launch)


async def by_reload(_room: Any, world: World, _launch: str) -> None:
    world.write(Place("second"), mark="B", register_s=3600.0)


@pytest.mark.parametrize("ended", [by_hand, by_reload])
async def test_what_a_launch_was_started_for_is_served_again_when_that_ends_before_it_registered(connection, ended):
    world = World()
    world.registers = False
    world.write(Place("first"), mark="A", register_s=3600.0)
    async with opened(connection, world, Waiting("none", "gpu", 1)) as room:
        first = (await until(lambda: [one.id for one in room.registry.launches.values() if one.ref]))[0]
        await ended(room, world, first)
        second = await until(lambda: [one for one in room.registry.launches.values() if one.id != first and one.ref])
        assert [one.capability for one in second] == ["gpu"]


async def test_nothing_is_started_for_work_that_has_ended_meanwhile(connection):
    world, place = World(), Place("one")
    world.write(place)
    async with opened(connection, world, Waiting("none", "gpu", 1), task="") as room:
        await until(lambda: room.why)
        await looked(room)
        await looked(room)
        assert not room.registry.launches


async def test_a_node_that_stops_starts_nothing_more(connection):
    world, place = World(), Place("one")
    world.write(place)
    asked, go = asyncio.Event(), asyncio.Event()

    async def task_of(_demand: Any) -> str:
        asked.set()
        await go.wait()
        return "t1"

    async with opened(connection, world) as room:
        room._task_of = task_of
        world.waits.append(Waiting("none", "gpu", 1))
        await asked.wait()
        await room.leave(1.0)
        with pytest.raises(Conflict, match="its node stops"):
            await room.launch("here", by="me")
        go.set()
        await until(lambda: room._turns.idle)
        assert not room.registry.launches


class Taker(Place):
    """Starts agents that have taken what waits when they are there."""

    def __init__(self, world: World) -> None:
        super().__init__("taker")
        self.world = world

    async def launch(self, request: Any) -> Launched:
        self.world.waits.clear()
        return await super().launch(request)


@pytest.mark.parametrize("other", ["==private-0123456789abcdef01234567=gpu", "=gpu"], ids=["private", "by name"])
async def test_an_agent_is_well_whatever_other_work_waits(connection, other):
    world = World()
    world.waits.append(Waiting("none", "gpu", 9))
    world.write(Taker(world), register_s=0.0)
    async with opened(connection, world, Waiting("none", other, 1)) as room:
        launch = (await until(lambda: list(room.registry.launches)))[0]
        await until(lambda: room.registry.launches[launch].state in ("up", "failed"))
        await looked(room)
        assert [one.state for one in room.registry.launches.values()] == ["up"]
