"""Claims for the doors' tests: they keep `ops.claim_ports.Claims`, and remember what was asked of them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from typing import Any

from knotwork.ops import claim_replies, replies
from knotwork.ops.claim_ports import Shown, Worker
from knotwork.ops.op import Caller
from knotwork.sdk.errors import Conflict

RUN = "t0198c0ffee00d15ea5e0ddba11"


class StandInClaims:
    """A line tells two things, and ends unless it `stays`; the claim `late` is superseded."""

    def __init__(self) -> None:
        self.asked: list[Any] = []
        self.gone = asyncio.Event()
        self.stays = False

    async def connect(self, worker: Worker, _caller: Caller) -> AsyncGenerator[replies.Chunk, None]:
        try:
            yield replies.Chunk(data={"event": "connected", "worker": worker.name})
            yield replies.Chunk(data={"event": "lost", "id": RUN, "why": "ended"})
            while self.stays:
                await asyncio.Event().wait()
        finally:
            self.gone.set()

    async def claim(
        self, worker: Worker, caller: Caller, *, count: int, wait_s: float, lease_s: float
    ) -> claim_replies.ClaimedTasks:
        caller.undo.append(lambda: self.asked.append("taken back"))
        self.asked.append((worker.name, worker.capabilities, count, wait_s, lease_s))
        return claim_replies.ClaimedTasks(
            tasks=[claim_replies.ClaimedTask(id=RUN, claim="c", input=1, lease_s=lease_s)]
        )

    async def claimed(
        self, worker: str, _caller: Caller, *, run: str, limit: int, cursor: str
    ) -> claim_replies.ClaimedPage:
        self.asked.append((worker, run, limit, cursor))
        return claim_replies.ClaimedPage(tasks=[claim_replies.ClaimedTask(id=RUN, claim="c", input=1, lease_s=60.0)])

    async def extend(self, shown: Shown, lease_s: float | None) -> claim_replies.Held:
        return self._held("extend", shown, lease_s)

    async def progress(self, shown: Shown, percent: float | None, text: str) -> claim_replies.Held:
        return self._held("progress", shown, percent, text)

    async def stream(self, shown: Shown, data: Any) -> claim_replies.Held:
        return self._held("stream", shown, data)

    def _held(self, *asked: Any) -> claim_replies.Held:
        self.asked.append(asked)
        return claim_replies.Held(id=RUN)

    async def save(self, shown: Shown, data: Any) -> claim_replies.Checkpoint:
        self.asked.append(("save", shown, data))
        return claim_replies.Checkpoint(id=RUN, data=data)

    async def saved(self, shown: Shown) -> claim_replies.Checkpoint:
        self.asked.append(("saved", shown))
        return claim_replies.Checkpoint(id=RUN)

    async def complete(self, shown: Shown, output: Any) -> claim_replies.Settled:
        return self._settled("complete", shown, output)

    async def go_on(self, shown: Shown, output: Any) -> claim_replies.Settled:
        return self._settled("go_on", shown, output)

    async def fail(
        self, shown: Shown, message: str, *, code: str, retriable: bool, retry_after_s: float | None
    ) -> claim_replies.Settled:
        return self._settled("fail", shown, message, code, retriable, retry_after_s)

    def _settled(self, *asked: Any) -> claim_replies.Settled:
        self.asked.append(asked)
        if asked[1].claim == "late":
            raise Conflict("Too late.", code="claim.superseded")
        return claim_replies.Settled(id=RUN, state="completed")

    async def release(self, shown: Shown, why: str) -> claim_replies.Released:
        self.asked.append(("release", shown, why))
        return claim_replies.Released(id=RUN)

    async def signal(self, run: str, name: str, data: Any, _caller: Caller) -> claim_replies.Signalled:
        self.asked.append(("signal", run, name, data))
        return claim_replies.Signalled(id=run, name=name)

    async def wait_signal(self, run: str, name: str, wait_s: float) -> claim_replies.SignalRow:
        self.asked.append(("wait_signal", run, name, wait_s))
        return claim_replies.SignalRow(id=run, name=name, sent=False)
