"""What is said of targets and launches follows from what every node heard of them, whoever wrote it last."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from knotwork.bus import clock
from knotwork.bus.kv import Entry
from knotwork.spinup import records
from knotwork.spinup.demand import Demand
from knotwork.spinup.records import Launch, Target
from knotwork.spinup.registry import Registry
from knotwork.spinup.room import SpinUps

DEMAND = Demand("none", "shout", 1)


@pytest.fixture
def spinups() -> SpinUps:
    """A room that heard of one target of another node; it has no connection and writes nothing."""
    nothing: Any = None
    made = SpinUps(
        nothing, nothing, nothing, project="default", node="here", own=dict, waiting=list, task_of=nothing,
        waited_s=nothing, is_online=lambda _node: True, can_take=nothing, may_spin_up=lambda boundary: boundary != "lab", env=nothing,
        on_change=nothing,
    )  # fmt: skip
    hear(made, records.target_key("other", "there"), Target("other", "there", running=1))
    made.registry._complete()
    return made


def hear(spinups: SpinUps, key: str, told: Target | Launch | None) -> None:
    spinups.registry._heard(Entry(key, None if told is None else records.encode(told), 1))


def launch(state: Any) -> Launch:
    return Launch("l1", "there", "other", state, capability="shout", boundary="none", created_ns=clock.now_ns())


def running(spinups: SpinUps) -> int:
    return spinups.registry.target("there").running


def test_how_many_launches_run_is_counted_and_not_believed(spinups):
    assert running(spinups) == 0, "whoever wrote that one runs did so before it ended"
    hear(spinups, records.launch_key("l1"), launch("up"))
    assert running(spinups) == 1
    hear(spinups, records.target_key("other", "there"), Target("other", "there"))
    assert running(spinups) == 1
    hear(spinups, records.launch_key("l1"), launch("stopped"))
    assert running(spinups) == 0
    hear(spinups, records.launch_key("l1"), launch("idle"))
    hear(spinups, records.launch_key("l1"), None)
    assert running(spinups) == 0


def test_what_becomes_of_starting_an_agent_is_told_in_a_sentence(spinups):
    assert spinups.told("none", "shout") == ""
    spinups.missing = [DEMAND]
    assert spinups.told("none", "shout") == "A target is about to start one."
    hear(spinups, records.launch_key("l1"), launch("starting"))
    assert spinups.told("none", "shout") == "Target other/there is starting an agent for it."
    hear(spinups, records.launch_key("l1"), launch("failed"))
    hear(spinups, records.target_key("other", "there"), Target("other", "there", disabled=True))
    assert spinups.told("none", "shout") == "No target starts one: other/there: it is disabled."


def test_nothing_is_promised_that_no_target_will_do(spinups):
    hear(spinups, records.target_key("other", "there"), Target("other", "there", capabilities=("sing",)))
    said = "No target starts one: other/there: it starts agents for sing."
    assert spinups.told("none", "shout", missing=True) == said, "also of what this node has not counted yet"
    assert spinups.told("none", "sing", missing=True) == "A target is about to start one."
    assert spinups.told("none", "alpha=sing", missing=True) == "", "only that node can do it"
    told = spinups.told("lab", "sing", missing=True)
    assert told == "For the boundary lab none is started: its `spin_up` is false."


async def test_what_is_told_of_a_time_before_undoes_nothing():
    async def put(*_what: object, **_more: object) -> int:
        return 7

    registry = Registry(None)  # type: ignore[arg-type]
    registry._bucket = SimpleNamespace(put=put)  # type: ignore[assignment]
    up = await registry.put_launch(Launch("l1", "gpu", "here", "up", agent="n-l1"))
    registry._heard(Entry("launch.l1", records.encode(Launch("l1", "gpu", "here", "starting")), 5))
    assert registry.launches["l1"] == up
    registry._heard(Entry("launch.l1", records.encode(Launch("l1", "gpu", "here", "stopping")), 9))
    assert registry.launches["l1"].state == "stopping"
    registry._heard(Entry("launch.l1", None, 0))
    assert registry.launches == {}
