"""A call over a moment without NATS: made again with the same key when that does no harm, else told."""

from __future__ import annotations

from typing import Any

import pytest

from knotwork.mcp import calling
from knotwork.mcp.held import Held
from knotwork.ops.op import Caller
from knotwork.sdk.errors import Unavailable


class Asked:
    """What the ops are asked: the first times NATS is just away, and nobody knows what was done."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, reply: dict[str, Any], *, fails: int) -> None:
        self.fields: list[dict[str, Any]] = []

        async def ask(_: Any, _op: str, **fields: Any) -> dict[str, Any]:
            self.fields.append(fields)
            if len(self.fields) <= fails:
                raise Unavailable("The connection was lost.", code="bus.lost", retry_after_s=1.0)
            return reply

        monkeypatch.setattr(calling.OpSession, "ask", ask)


async def outcome(name: str, **arguments: Any) -> calling.Outcome:
    (found,) = [piece async for piece in calling.play(name, arguments, Caller("http"), None, Held())]
    return found


async def test_what_has_a_key_is_said_again_with_it_and_counts_once(monkeypatch: pytest.MonkeyPatch):
    asked = Asked(monkeypatch, {"id": "m1", "channel": "roadmap", "thread": ""}, fails=2)
    found = await outcome("send_message", channel="roadmap", message="once")
    assert (found.is_error, found.structured["id"], len(asked.fields)) == (False, "m1", 3)
    (key,) = {fields["key"] for fields in asked.fields}
    assert len(key) >= 16
    await outcome("send_message", channel="roadmap", message="once")
    assert asked.fields[-1]["key"] != key  # another call is another message


async def test_what_might_be_done_twice_is_told(monkeypatch: pytest.MonkeyPatch):
    asked = Asked(monkeypatch, {"tasks": []}, fails=1)
    found = await outcome("claim_work", capability="review")
    assert (found.is_error, found.structured["error"]["code"], len(asked.fields)) == (True, "bus.lost", 1)


async def test_who_waits_in_vain_is_told_in_the_end(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(calling, "AWAY_S", 0.3)
    asked = Asked(monkeypatch, {}, fails=1000)
    found = await outcome("list_channels")
    assert (found.is_error, found.structured["error"]["code"]) == (True, "bus.lost")
    assert len(asked.fields) > 1
