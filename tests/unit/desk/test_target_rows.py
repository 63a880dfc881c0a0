"""Targets and launches as those who ask see them."""

from __future__ import annotations

from types import SimpleNamespace

from knotwork.desk.targets import TargetDesk
from knotwork.mesh.policy import READY
from knotwork.ops.op import Caller
from knotwork.spinup.records import Launch, Target
from knotwork.trust.who import Who


async def test_a_launch_by_hand_says_which_agent_asked_for_it():
    async def launch(target: str, *, by: str, **_more: str) -> Launch:
        return Launch("l1", target, "here", "starting", by=by)

    spinups = SimpleNamespace(registry=SimpleNamespace(target=lambda name: Target("here", name)), launch=launch)
    desk = TargetDesk(spinups, SimpleNamespace(connection=None, here="here", policy=lambda: READY))  # type: ignore[arg-type]
    ann = Caller("local", door="mcp", who=Who("a1", "ann", "default", "me"))
    assert (await desk.spin_up("gpu", "", "", ann)).by == "mcp/ann"
