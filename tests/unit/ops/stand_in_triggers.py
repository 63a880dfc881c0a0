"""Triggers for the doors' tests: one that is always the same, and what is served under two paths."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from knotwork.ops import flow_replies
from knotwork.ops import trigger_replies as replies
from knotwork.ops.flow_ports import NewRun
from knotwork.ops.op import Caller
from knotwork.ops.trigger_ports import HookAnswer, HookRequest
from knotwork.sdk.errors import Denied, TimedOut

RUN = "w0198c0ffee0012345678ab"


class StandInTriggers:
    """One trigger, one firing."""

    async def create(self, definition: Any, fields: dict[str, Any], caller: Caller, *, replace: bool) -> replies.Kept:
        return replies.Kept(id="nightly", kind="cron", new=not replace)

    async def all(self) -> list[replies.TriggerRow]:
        return [await self.switch("nightly", Caller("ann"), enabled=True)]

    async def show(self, name: str) -> replies.TriggerInfo:
        return replies.TriggerInfo(id=name, kind="cron", workflow="hello", definition={"id": name})

    async def switch(self, name: str, _caller: Caller, *, enabled: bool) -> replies.TriggerRow:
        return replies.TriggerRow(id=name, kind="cron", workflow="hello", enabled=enabled)

    async def trial(self, name: str, definition: Any, fields: dict[str, Any], count: int, body: Any) -> replies.Trial:
        return replies.Trial(times=["2026-01-01T03:00:00Z"] * count, input=body)

    async def fire(self, name: str, body: Any, key: str) -> replies.FiredRun:
        return replies.FiredRun(run=RUN)

    async def history(self, name: str, limit: int) -> replies.Firings:
        return replies.Firings(id=name, firings=[replies.FiringRow(at="2026-01-01T03:00:00Z", what="started", run=RUN)])

    async def backfill(self, name: str, since: str, until: str, cap: int, *, dry_run: bool) -> replies.Backfilled:
        return replies.Backfilled(id=name, dry_run=dry_run, runs=[replies.FiredRun(run=RUN)])

    async def remove(self, name: str, _caller: Caller) -> bool:
        return True

    async def later(self, wanted: NewRun, when: str, caller: Caller) -> flow_replies.RunInfo:
        return flow_replies.RunInfo(id=RUN, workflow=wanted.workflow, state="scheduled", started_at=when)


@dataclass
class StandInHook:
    """Says what came; refuses whoever says that he is not who he is, is late for who says so, and has the status that is wanted."""

    max_body: int = 100

    async def answer(self, request: HookRequest) -> HookAnswer:
        if "x-wrong" in request.headers:
            raise Denied("The signature does not fit.", code="trigger.bad_signature")
        if "x-late" in request.headers:
            late = TimedOut("It has not answered.", code="trigger.timeout", detail={"id": RUN})
            return HookAnswer(504, b"", RUN, late)
        return HookAnswer(int(request.headers.get("x-status", 202)), request.body or b"null", RUN)


class StandInHooks:
    """`/hooks/in` takes POST, `/run/a/b` takes GET and POST."""

    def methods(self, kind: str, path: str) -> Mapping[str, StandInHook]:
        if (kind, path) == ("webhook", "in"):
            return {"POST": StandInHook()}
        return {"GET": StandInHook(), "POST": StandInHook()} if (kind, path) == ("http", "a/b") else {}
