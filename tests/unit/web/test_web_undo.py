"""What was done for a caller stands when he has its answer, however soon he leaves; else it is taken back."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from knotwork.ops.listed import LISTED
from knotwork.ops.serve import Frame
from knotwork.web import routes

TOOL = b'{"name": "claim_work", "arguments": {}}'


@pytest.fixture(params=["text/event-stream", "application/json"])
def ask(request, node, monkeypatch):
    """Ask over HTTP; `frames` answers, and the caller leaves when `left` is set. Returns what was taken back."""

    async def asked(frames: Any, left: asyncio.Event, *, on_answer: bool) -> list[str]:
        undone: list[str] = []
        parts = [{"type": "http.request", "body": TOOL, "more_body": False}]

        async def dispatch(_name, _raw, caller, _node):
            caller.undo.append(lambda: undone.append("it"))
            async for frame in frames():
                yield frame

        async def receive() -> dict[str, Any]:
            if parts:
                return parts.pop()
            await left.wait()
            return {"type": "http.disconnect"}

        async def send(message: dict[str, Any]) -> None:
            if on_answer and b"answer" in message.get("body", b""):
                left.set()

        monkeypatch.setattr(routes.serve, "dispatch", dispatch)
        headers = [(b"accept", request.param.encode()), (b"host", b"localhost")]
        scope = {
            "type": "http", "method": "POST", "path": "/api/tool/call", "headers": headers, "query_string": b"",
        }  # fmt: skip
        async with asyncio.timeout(30):
            await routes.OpEndpoint(LISTED["tool.call"], node, lambda: "default")(scope, receive, send)
        return undone

    return asked


async def test_who_leaves_as_soon_as_he_has_the_answer_keeps_it(ask):
    async def frames():
        yield Frame("result", b'{"answer": 1}')

    assert await ask(frames, asyncio.Event(), on_answer=True) == []


async def test_who_left_before_the_answer_keeps_nothing(ask):
    left = asyncio.Event()

    async def frames():
        left.set()  # in the same turn of the loop in which the answer is ready
        yield Frame("result", b'{"answer": 1}')

    assert await ask(frames, left, on_answer=False) == ["it"]


async def test_who_leaves_while_it_is_done_keeps_nothing(ask):
    left = asyncio.Event()

    async def frames():
        left.set()
        await asyncio.Event().wait()
        yield Frame("result", b'{"answer": 1}')

    assert await ask(frames, left, on_answer=False) == ["it"]
