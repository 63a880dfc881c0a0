"""What the node answers over HTTP: what a call was just given is taken back when the client cancels it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from types import SimpleNamespace
from typing import Any

import pytest

from knotwork.bus import codec
from knotwork.mcp import answers, calling, server
from knotwork.mcp.held import Held
from knotwork.ops.op import Caller
from knotwork.sdk.errors import Conflict, Denied, Internal, Invalid, KnotworkError, NotFound, TooLarge, Unavailable


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


def test_an_answer_that_is_nested_deeper_than_pydantic_can_write_is_written():
    value = codec.decode(b"[" * 880 + b"1" + b"]" * 880)
    told = {"work": [{"input": value, "id": "t1"}], "flat": {"a": [1]}}
    written = codec.decode(server._result(calling.Outcome("x", told)).model_dump_json(by_alias=True).encode())
    found, deep = written["structuredContent"], 0
    assert (found["work"][0]["id"], found["flat"]) == ("t1", {"a": [1]})
    inner = found["work"][0]["input"]
    while isinstance(inner, list):
        inner, deep = inner[0], deep + 1
    assert inner == "[" * (880 - deep) + "1" + "]" * (880 - deep)
    assert told["work"][0]["input"] is value


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (Invalid("x"), -32602), (NotFound("x"), -32602), (Conflict("x"), -32602), (Denied("x"), -32602),
        (TooLarge("x"), -32602), (Unavailable("x"), -32603), (Internal("x"), -32603),
    ],
)  # fmt: skip
def test_what_is_wrong_with_a_request_is_no_internal_error_over_both_ways_in(error: KnotworkError, code: int):
    assert answers.as_refusal(error, 1).code == server._error(error).error.code == code
