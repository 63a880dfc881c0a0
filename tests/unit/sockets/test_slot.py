"""A slot says what its plugin does, and keeps it to itself."""

import asyncio
import sys
from pathlib import Path

import pytest

from knotwork.sdk import PluginFailed, Unavailable
from knotwork.sockets import catalog
from knotwork.sockets.slot import Instance

sys.path.insert(0, str(Path(__file__).parent))
from slot_samples import ODD, Panic, World

sys.path.pop(0)


@pytest.fixture
def world(tmp_path):
    return World(tmp_path)


async def started(slots, *instances, **options):
    prepared = await slots.prepare(instances, **options)
    prepared.commit()
    return slots.get("executors", instances[0].id)


async def test_starts_runs_and_stops_in_one_task(world):
    async with world.slots() as slots:
        slot = await started(slots, world.instance(mark=7))
        assert slot.state == "running"
        assert (await slot.plugin.execute(None)).output == 7
        assert slot.starts == 1
        assert await slot.stop()
        assert (slot.state, world.open) == ("stopped", 0)
    assert [state for _, state in world.changes] == ["starting", "running", "stopping", "stopped"]


@pytest.mark.parametrize("how", ["raises", "unavailable", "exits", *ODD, "cancels itself", "hangs"])
async def test_a_start_that_fails_is_tried_again(world, how):
    async with world.slots() as slots:
        limit_s = 0.5 if how == "hangs" else 60.0
        slot = await started(slots, world.instance(how=how, times=2, start_timeout_s=limit_s), lenient=True)
        assert await slot.reached(("running",), 60) == "running"
        assert slot.starts == 3
        assert [state for _, state in world.changes if state == "waiting"] == ["waiting", "waiting"]


async def test_a_failing_start_says_why(world):
    async with world.slots() as slots:
        slot = await started(slots, world.instance(how="raises"), lenient=True)
        await slot.reached(("waiting",), 60)
        assert slot.why == "ValueError: no luck"
        with pytest.raises(Unavailable, match="ValueError: no luck") as raised:
            _ = slot.plugin
        assert raised.value.code == "plugin.not_running"


async def test_one_that_is_tried_again_says_why_meanwhile(world):
    async with world.slots() as slots:
        said = []
        slots.on_change = lambda slot: said.append((slot.state, slot.why))
        slot = await started(slots, world.instance(how="raises", times=1), lenient=True)
        slot.on_change = lambda slot: said.append((slot.state, slot.why))
        assert await slot.reached(("running",), 60) == "running"
    assert ("starting", "ValueError: no luck") in said
    assert ("running", "") in said


async def test_a_crash_in_the_background_is_contained_and_restarted(world):
    async with world.slots() as slots:
        slot = await started(slots, world.instance(), world.instance("neighbour"))
        neighbour = slots.get("executors", "neighbour").plugin
        slot.plugin.crash.set()
        assert await slot.reached(("waiting",), 60) == "waiting"
        assert slot.why == "RuntimeError: boom"
        assert await slot.reached(("running",), 60) == "running"
        assert slots.get("executors", "neighbour").plugin is neighbour


async def test_a_crash_loop_ends_in_quarantine_and_restart_leads_out(world):
    async with world.slots() as slots:
        slot = await started(slots, world.instance(how="crashes at once"), world.instance("neighbour"), lenient=True)
        assert await slot.reached(("quarantined",), 60) == "quarantined"
        assert slot.starts == 5
        assert "5 crashes in 600 s" in slot.why
        slot.restart()
        assert await slot.reached(("running", "waiting"), 60) != "quarantined"
        assert slots.get("executors", "neighbour").state == "running"


async def test_losing_a_link_is_no_crash(world):
    async with world.slots() as slots:
        slot = await started(slots, world.instance(how="loses its link"))
        for _ in range(8):
            assert await slot.reached(("running",), 60) == "running"
            slot.plugin.crash.set()
            assert await slot.reached(("waiting",), 60) == "waiting"


@pytest.mark.parametrize(("policy", "state"), [("ignore", "failed"), ("retry", "waiting")])
async def test_what_a_failed_start_leads_to_is_configured(world, policy, state):
    async with world.slots() as slots:
        slot = await started(slots, world.instance(how="raises", on_start_error=policy), lenient=True)
        assert await slot.reached((state,), 60) == state


@pytest.mark.parametrize("how", ["hangs at the end", "raises at the end"])
async def test_a_bad_end_does_not_keep_a_slot(world, how):
    async with world.slots() as slots:
        slot = await started(slots, world.instance(how=how))
        async with asyncio.timeout(30):
            assert await slot.stop()
        assert (slot.state, world.open) == ("stopped", 0)


async def test_restart_of_a_running_plugin(world):
    async with world.slots() as slots:
        slot = await started(slots, world.instance())
        before = slot.plugin
        assert await slot.restarted(60) == "running"
        assert slot.plugin is not before
        assert slot.starts == 2


async def test_a_broken_plugin_has_a_slot_that_says_why(world):
    entry = catalog.stand_in("executors", "./x.py", PluginFailed("no such module", code="plugin.import_failed"))
    instance = Instance("executors", "broken", entry, catalog.AnyConfig(anything=1))
    async with world.slots() as slots:
        slot = await started(slots, instance, lenient=True)
        assert (slot.state, slot.why, slot.failure.code) == ("waiting", "no such module", "plugin.import_failed")
        kept = await slots.prepare([instance])
        kept.commit()
        assert slots.get("executors", "broken") is slot


async def test_stopping_waits_for_leases(world):
    async with world.slots() as slots, asyncio.TaskGroup() as group:
        slot = await started(slots, world.instance())
        with slot.lease() as plugin:
            stop = group.create_task(slot.stop(drain_s=60))
            await asyncio.wait([stop], timeout=0.05)
            assert not stop.done()
            assert plugin is slot.plugin
        async with asyncio.timeout(30):
            assert await stop


async def test_leases_are_revoked_at_the_deadline(world):
    async with world.slots() as slots:
        slot = await started(slots, world.instance())
        revoked = asyncio.Event()
        lease = slot.lease(revoked.set)
        lease.__enter__()
        async with asyncio.timeout(30):
            assert await slot.stop(drain_s=0.05)
        assert revoked.is_set()
        lease.__exit__()


@pytest.mark.parametrize("error", [SystemExit(3), Panic(3), KeyboardInterrupt(3)])
async def test_a_plugin_that_would_end_the_process_has_failed(world, error):
    async with world.slots() as slots:
        slot = await started(slots, world.instance())
        with pytest.raises(PluginFailed) as failed, slot.lease():
            raise error
        assert (failed.value.code, slot.leases) == ("plugin.raised", set())
        assert f"{type(error).__name__}: 3" in failed.value.message
        slot.plugin.ails = error
        with pytest.raises(PluginFailed) as unwell:
            await slot.probe(30)
        assert unwell.value.code == "plugin.unwell"


async def test_a_lease_on_nothing_is_refused(world):
    async with world.slots() as slots:
        slot = await started(slots, world.instance(how="raises"), lenient=True)
        with pytest.raises(Unavailable), slot.lease():
            pytest.fail("leased a plugin that is not there")
        assert slot.leases == set()


async def test_cancelling_the_group_closes_the_plugin(world):
    async def node():
        async with world.slots() as slots:
            await started(slots, world.instance())
            await asyncio.Event().wait()

    async with asyncio.TaskGroup() as group:
        task = group.create_task(node())
        async with asyncio.timeout(30):
            while world.open == 0:
                await asyncio.sleep(0)
        task.cancel()
    assert world.open == 0
    assert world.changes[-1] == ("one", "stopped")
