"""A launch ends well only with an agent that is of use; and it ends, also when its target is not configured any more."""

from __future__ import annotations

from contextlib import nullcontext
from typing import Any

import msgspec
import pytest

from knotwork.sdk.errors import Invalid, KnotworkError, Unreachable
from knotwork.sdk.spinup import Condition
from knotwork.spinup.launcher import Launcher, Own
from knotwork.spinup.records import Launch

STARTED = Launch(
    "l1", "here", "one", "starting", capability="gpu", boundary="none", by="demand", ref={"pid": 1}, created_ns=1
)
LATE_NS = 1_000_000_000_000


class Kept:
    """What is on record of the launch."""

    async def change(self, launch: Launch, **fields: Any) -> Launch:
        return msgspec.structs.replace(launch, **fields)


class Plugin:
    """A spin-up of which all is well."""

    def __init__(self, problem: KnotworkError | None = None) -> None:
        self.stopped, self.problem = 0, problem

    async def condition(self, _ref: object) -> Condition:
        return Condition("running")

    async def stop(self, _ref: object, _grace_s: float) -> None:
        self.stopped += 1
        if self.problem is not None:
            raise self.problem


class Mesh:
    """Who registered for the launch; it leaves when it is told to, unless it cannot be told."""

    def __init__(self, agent: str = "", *, hears: bool = True, idle_s: float = 0.0) -> None:
        self.agent, self.hears, self.for_s = agent, hears, idle_s

    def is_busy(self, _name: str) -> bool:
        return False

    async def idle_s(self, _name: str) -> float:
        return self.for_s

    def of_launch(self, _launch: str) -> str:
        return self.agent

    async def goodbye(self, _name: str, _grace_s: float) -> None:
        if not self.hears:
            raise Unreachable("nobody answers")
        self.agent = ""


def launcher(mesh: Mesh) -> Launcher:
    nothing: Any = None
    return Launcher(Kept(), mesh, nothing, project="default", on_change=lambda _launch: None)  # type: ignore[arg-type]


def own(plugin: Plugin) -> Own:
    return Own(
        "here", "local", lambda: nullcontext(plugin), register_s=60.0, idle_s=4.0,  # type: ignore[arg-type,return-value]
    )  # fmt: skip


async def test_an_agent_that_takes_nothing_of_what_it_was_started_for_is_a_failure():
    mesh = Mesh("here-l1")
    plugin, made = Plugin(), launcher(mesh)
    soon = await made.look(own(plugin), STARTED, 2, missing=True)
    assert soon.state == "starting", "what it offers may come a moment later than its node"
    assert (await made.look(own(plugin), STARTED, 2)).state == "up"
    late = await made.look(own(plugin), STARTED, LATE_NS, missing=True)
    assert (late.state, plugin.stopped) == ("failed", 1)
    assert not mesh.agent, "it is asked to leave first: it gives back what else it has begun"
    assert "here-l1 registered, and takes no work for gpu in the boundary none" in late.why


@pytest.mark.parametrize(
    ("mesh", "state"), [(Mesh("here-l1"), "stopped"), (Mesh("here-l1", hears=False), "failed"), (Mesh(), "failed")],
    ids=["leaves", "deaf", "never came"],
)  # fmt: skip
async def test_a_launch_ends_when_neither_its_target_nor_its_plugin_is_there_any_more(mesh, state):
    over = await launcher(mesh).left(STARTED)
    assert (over.state, over.ended_ns > 0) == (state, True)
    assert "its target is not configured any more" in over.why.lower()


@pytest.mark.parametrize(
    ("mesh", "state"), [(Mesh("here-l1"), "stopped"), (Mesh("here-l1", hears=False), "failed")], ids=["leaves", "deaf"],
)  # fmt: skip
async def test_what_a_target_can_never_end_is_over_when_its_agent_has_left(mesh, state):
    plugin = Plugin(Invalid("there is no stop_url"))
    up = msgspec.structs.replace(STARTED, state="up", agent="here-l1")
    over = await launcher(mesh).stop(own(plugin), up, "idle")
    assert (over.state, over.ended_ns > 0) == (state, True), "else its target would start nothing ever again"
    assert over.why == ("idle" if state == "stopped" else "there is no stop_url")


async def test_what_could_not_be_ended_is_tried_again_after_a_while_and_told_once(caplog):
    plugin, made = Plugin(Unreachable("nobody answers")), launcher(Mesh())
    launch = await made.stop(own(plugin), STARTED, "by hand")
    for _ in range(5):
        launch = await made.look(own(plugin), launch, LATE_NS)
    assert (launch.state, plugin.stopped, made.is_due(launch)) == ("stopping", 1, False)
    launch = await made.stop(own(plugin), launch, "by hand")
    assert (plugin.stopped, caplog.text.count("does not end")) == (2, 1), "by hand it is tried at once"
    plugin.problem = None
    assert (await made.stop(own(plugin), launch, "by hand")).state == "stopped"
    assert made.is_due(launch)


@pytest.mark.parametrize(
    ("idle_s", "since_s", "waited_s", "state"),
    [
        (10.0, 9.0, 12.0, "idle"),  # it comes to it in a moment
        (70.0, 65.0, 3.0, "idle"),  # what waits came just now
        (70.0, 65.0, 68.0, "failed"),  # it never will
        (10.0, 9.0, 0.0, "stopped"),
        (10.0, 65.0, 68.0, "stopped"),  # it had work
    ],
)
async def test_an_agent_without_work_is_not_idle_while_what_it_was_started_for_waits(idle_s, since_s, waited_s, state):
    registered_ns = LATE_NS - int(since_s * 1e9)
    idle = msgspec.structs.replace(
        STARTED, state="idle", agent="here-l1", registered_ns=registered_ns, idle_since_ns=registered_ns
    )
    made = launcher(Mesh("here-l1", idle_s=idle_s))
    seen = await made.look(own(Plugin()), idle, LATE_NS, waited_s=waited_s)
    assert seen.state == state
    assert ("takes no work for gpu" in seen.why) == (state == "failed")
