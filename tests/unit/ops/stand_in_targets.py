"""Targets for the doors' tests: one that does what it is told, on paper."""

from __future__ import annotations

from typing import Any

from knotwork.ops import target_replies as replies
from knotwork.ops.op import Caller


class StandInTargets:
    """One target, one launch."""

    def rows(self) -> list[replies.TargetRow]:
        return [self.row("gpu-box")]

    def missing(self) -> list[dict[str, Any]]:
        return []

    def row(self, name: str) -> replies.TargetRow:
        return replies.TargetRow(name=f"here/{name}", target=name, node="here", type="local", state="available")

    def launches(self, *, ended: bool) -> list[replies.LaunchRow]:
        return [
            replies.LaunchRow(id="0123456789abcdef", target="gpu-box", node="here", state="stopped" if ended else "up")
        ]

    async def test(self, name: str) -> replies.TargetRow:
        return self.row(name)

    async def switch(self, name: str, *, disabled: bool) -> replies.TargetRow:
        return self.row(name)

    async def spin_up(self, name: str, capability: str, boundary: str, caller: Caller) -> replies.LaunchRow:
        return self.launches(ended=False)[0]

    async def stop(self, launch: str) -> replies.LaunchRow:
        return self.launches(ended=True)[0]
