"""Agents behind HTTP: what is told while their session cannot be opened."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from typing import Any

import pytest

from knotwork.bus.background import background
from knotwork.mcp import guests
from knotwork.mcp.held import Held
from knotwork.ops.serve import Frame
from knotwork.sdk.errors import Unavailable
from knotwork.trust.who import person


class SilentNode:
    """A node that knows who asks, and never answers."""

    def who(self, project: str, _session: str) -> Any:
        return person("ann", project)


async def never(*_: Any) -> AsyncGenerator[Frame, None]:
    await asyncio.Event().wait()
    yield Frame("result", b"{}")


async def test_a_session_that_does_not_open_in_time_is_told_as_that(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(guests.serve, "dispatch", never)
    monkeypatch.setattr(guests, "OPEN_S", 0.05)
    async with background() as group:
        made = guests.Guests(SilentNode(), Held(), group)
        guest = made.of(guests.Door("default", "tester", "k1"))
        with pytest.raises(Unavailable) as refused:
            await made.caller_of(guest)
    assert refused.value.code == "mcp.no_session"
