"""Many plugins are exchanged in one step, or not at all."""

import asyncio
import sys
from pathlib import Path

import pytest

from knotwork.sdk import Conflict, PluginFailed, Unavailable
from knotwork.sockets import slot as slot_module
from knotwork.sockets import slots as slots_module

sys.path.insert(0, str(Path(__file__).parent))
from slot_samples import World

sys.path.pop(0)


@pytest.fixture
def world(tmp_path):
    return World(tmp_path)


async def apply(slots, *instances, drain_s=0.0, **options):
    prepared = await slots.prepare(instances, **options)
    prepared.commit()
    assert await prepared.retire(drain_s) == []


def marks(slots):
    return {slot.id: slot.plugin.config.mark for slot in slots.all("executors")}


async def test_only_what_changed_is_restarted(world):
    async with world.slots() as slots:
        await apply(slots, world.instance("a", mark=1), world.instance("b", mark=1))
        kept = slots.get("executors", "b")
        await apply(slots, world.instance("a", mark=2), world.instance("b", mark=1), world.instance("c", mark=3))
        assert marks(slots) == {"a": 2, "b": 1, "c": 3}
        assert slots.get("executors", "b") is kept
        await apply(slots, world.instance("c", mark=3))
        assert marks(slots) == {"c": 3}
        assert world.open == 1


async def test_readers_see_the_old_world_until_commit(world):
    async with world.slots() as slots:
        await apply(slots, world.instance("a", mark=1))
        prepared = await slots.prepare([world.instance("a", mark=2), world.instance("b", mark=2)])
        assert marks(slots) == {"a": 1}
        assert world.open == 3
        prepared.commit()
        assert marks(slots) == {"a": 2, "b": 2}
        await prepared.retire(0)
        assert world.open == 2


async def test_one_bad_start_leaves_everything_as_it_was(world):
    async with world.slots() as slots:
        await apply(slots, world.instance("a", mark=1))
        before = slots.get("executors", "a")
        with pytest.raises(PluginFailed) as raised:
            await slots.prepare(
                [
                    world.instance("a", mark=2),
                    world.instance("bad", how="raises"),
                    world.instance("worse", how="hangs", start_timeout_s=0.1),
                ]
            )
        problems = raised.value.detail["problems"]
        assert [(one["id"], one["code"]) for one in problems] == [
            ("bad", "plugin.raised"),
            ("worse", "plugin.start_timeout"),
        ]
        assert slots.get("executors", "a") is before
        assert before.state == "running"
        assert world.open == 1


async def test_asking_for_patience_is_no_bad_start(world):
    async with world.slots() as slots:
        await apply(slots, world.instance("a", how="unavailable", times=1))
        slot = slots.get("executors", "a")
        assert await slot.reached(("running",), 60) == "running"


async def test_fail_means_fail_also_at_boot(world):
    async with world.slots() as slots:
        with pytest.raises(PluginFailed, match="no luck"):
            await slots.prepare([world.instance(how="raises", on_start_error="fail")], lenient=True)


async def test_at_boot_nothing_else_stops_the_node(world):
    async with world.slots() as slots:
        instances = [
            world.instance("raises", how="raises"),
            world.instance("hangs", how="hangs", start_timeout_s=0.1),
            world.instance("exits", how="exits", on_start_error="ignore"),
            world.instance("fine", mark=1),
        ]
        await apply(slots, *instances, lenient=True)
        assert slots.get("executors", "fine").state == "running"
        assert slots.get("executors", "exits").state == "failed"


async def test_at_boot_nobody_waits_long_for_a_slow_one(world, monkeypatch):
    monkeypatch.setattr(slots_module, "PATIENCE_S", 0.05)
    async with world.slots() as slots:
        await apply(slots, world.instance("hangs", how="hangs"), world.instance("fine", mark=1), lenient=True)
        assert slots.get("executors", "fine").state == "running"
        assert slots.get("executors", "hangs").state == "starting"


async def test_one_that_must_start_is_waited_for_also_at_boot(world, monkeypatch):
    monkeypatch.setattr(slots_module, "PATIENCE_S", 0.0)
    async with world.slots() as slots:
        with pytest.raises(PluginFailed, match="not started after"):
            await slots.prepare(
                [world.instance("hangs", how="hangs", start_timeout_s=0.2, on_start_error="fail")], lenient=True
            )


async def test_exclusive_ones_are_stopped_first(world):
    async with world.slots() as slots:
        await apply(slots, world.instance("a", exclusive=True, mark=1))
        prepared = await slots.prepare([world.instance("a", exclusive=True, mark=2)])
        assert world.open == 1
        prepared.commit()
        assert await prepared.retire(0) == []
        assert marks(slots) == {"a": 2}


async def test_exclusive_ones_come_back_when_the_change_is_abandoned(world):
    async with world.slots() as slots:
        await apply(slots, world.instance("a", exclusive=True, mark=1))
        with pytest.raises(PluginFailed):
            await slots.prepare([world.instance("a", exclusive=True, mark=2, how="raises")])
        slot = slots.get("executors", "a")
        assert await slot.reached(("running",), 60) == "running"
        assert marks(slots) == {"a": 1}
        assert world.open == 1


async def test_an_exclusive_one_is_not_touched_when_another_fails_before(world):
    async with world.slots() as slots:
        await apply(slots, world.instance("a", exclusive=True, mark=1))
        before = slots.get("executors", "a").plugin
        with pytest.raises(PluginFailed):
            await slots.prepare([world.instance("a", exclusive=True, mark=2), world.instance("b", how="raises")])
        assert slots.get("executors", "a").plugin is before


async def test_work_in_flight_ends_on_the_old_plugin(world):
    async with world.slots() as slots, asyncio.TaskGroup() as group:
        await apply(slots, world.instance("a", mark=1))
        with slots.get("executors", "a").lease() as old:
            prepared = await slots.prepare([world.instance("a", mark=2)])
            prepared.commit()
            retire = group.create_task(prepared.retire(60))
            await asyncio.wait([retire], timeout=0.05)
            assert (await old.execute(None)).output == 1
            assert marks(slots) == {"a": 2}
            assert world.open == 2
        async with asyncio.timeout(30):
            assert await retire == []
        assert world.open == 1


async def test_one_change_at_a_time(world):
    async with world.slots() as slots:
        prepared = await slots.prepare([world.instance("a")])
        with pytest.raises(Conflict):
            await slots.prepare([world.instance("b")])
        await prepared.abandon()
        assert world.open == 0
        await apply(slots, world.instance("b"))


async def test_a_cancelled_prepare_undoes_itself(world):
    async with world.slots() as slots, asyncio.TaskGroup() as group:
        await apply(slots, world.instance("a", mark=1))
        changing = group.create_task(slots.prepare([world.instance("a", mark=2), world.instance("b", how="hangs")]))
        async with asyncio.timeout(30):
            while world.open < 2:
                await asyncio.sleep(0)
        changing.cancel()
        await asyncio.wait([changing], timeout=30)
        assert changing.cancelled()
        assert marks(slots) == {"a": 1}
        assert world.open == 1
        await apply(slots, world.instance("a", mark=3))


async def test_a_context_that_cannot_be_made_is_a_problem_of_that_plugin(world):
    async with world.slots() as slots:
        make = world.context_for

        def context_for(instance):
            if instance.id == "bad":
                raise PermissionError(13, "no folder for you")
            return make(instance)

        slots._context_for = context_for
        with pytest.raises(PluginFailed, match="no folder for you"):
            await slots.prepare([world.instance("bad"), world.instance("good")])
        assert world.open == 0


async def test_a_plugin_that_ignores_cancellation_is_given_up_on(world, monkeypatch):
    monkeypatch.setattr(slots_module, "GRACE_S", 0.1)
    monkeypatch.setattr(slot_module, "GRACE_S", 0.1)
    async with world.slots() as slots:
        with pytest.raises(PluginFailed, match="not even to be cancelled"):
            await slots.prepare([world.instance("a", how="stubborn start", start_timeout_s=0.05)])
        assert not world.stubborn_over  # nobody waited for it


async def test_a_closing_node_starts_nothing(world):
    async with world.slots() as slots:
        await apply(slots, world.instance())
    with pytest.raises((PluginFailed, Unavailable), match="stopping"):
        await slots.prepare([world.instance("late")])
