"""What the node answers over HTTP: what a call was just given is taken back when the client cancels it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from types import SimpleNamespace
from typing import Any

import pytest

from knotwork.mcp import calling, server
from knotwork.mcp.held import Held
from knotwork.ops.op import Caller


class OneGuest:
    """The agent behind each request, with a session that is open."""

    async def caller_of(self, _guest: Any) -> Caller:
        return Caller("http", may="write")


async def test_what_a_cancelled_call_was_given_is_taken_back(monkeypatch: pytest.MonkeyPatch):
    given, undone = asyncio.Event(), asyncio.Event()

    async def play(_name: str, _given: Any, caller: Caller, *_: Any) -> AsyncGenerator[calling.Outcome, None]:
        caller.undo.append(undone.set)
        given.set()
        await asyncio.Event().wait()
        yield calling.Outcome("never")

    monkeypatch.setattr(calling, "play", play)
    served = server.Served(None, Held(), OneGuest(), lambda *_: None)
    ctx = SimpleNamespace(meta={}, request=SimpleNamespace(headers={}))
    async with asyncio.TaskGroup() as group:
        call = group.create_task(served._outcome(ctx, None, "claim_work", {}))
        await given.wait()
        assert not undone.is_set()
        call.cancel()
    assert undone.is_set()
