"""A launch ends well only with an agent that is of use; and it ends, also when its target is not configured any more."""

from __future__ import annotations

from contextlib import nullcontext
from typing import Any

import msgspec
import pytest

from knotwork.sdk.errors import Unreachable
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

    stopped = 0

    async def condition(self, _ref: object) -> Condition:
        return Condition("running")

    async def stop(self, _ref: object, _grace_s: float) -> None:
        self.stopped += 1


class Mesh:
    """Who registered for the launch; it leaves when it is told to, unless it cannot be told."""

    def __init__(self, agent: str = "", *, hears: bool = True) -> None:
        self.agent, self.hears = agent, hears

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
    return Own("here", "local", lambda: nullcontext(plugin), register_s=60.0)  # type: ignore[arg-type,return-value]


async def test_an_agent_that_takes_nothing_of_what_it_was_started_for_is_a_failure():
    plugin, made = Plugin(), launcher(Mesh("here-l1"))
    soon = await made.look(own(plugin), STARTED, 2, missing=True)
    assert soon.state == "starting", "what it offers may come a moment later than its node"
    assert (await made.look(own(plugin), STARTED, 2)).state == "up"
    late = await made.look(own(plugin), STARTED, LATE_NS, missing=True)
    assert (late.state, plugin.stopped) == ("failed", 1)
    assert "here-l1 registered, and takes no work for gpu in the boundary none" in late.why


@pytest.mark.parametrize(
    ("mesh", "state"), [(Mesh("here-l1"), "stopped"), (Mesh("here-l1", hears=False), "failed"), (Mesh(), "failed")],
    ids=["leaves", "deaf", "never came"],
)  # fmt: skip
async def test_a_launch_ends_when_neither_its_target_nor_its_plugin_is_there_any_more(mesh, state):
    over = await launcher(mesh).left(STARTED)
    assert (over.state, over.ended_ns > 0) == (state, True)
    assert "its target is not configured any more" in over.why.lower()
