"""What a handler did for a caller is taken back when the answer cannot be given."""

from __future__ import annotations

from dataclasses import replace

from knotwork.ops import claim_replies, serve, table

CLAIM = table.TABLE["work.claim"]


async def ask(node, handler):
    undone: list[str] = []
    caller = table.Caller("me", may="admin")

    async def claim(_request, _node, caller):
        caller.undo.append(lambda: undone.append("it"))
        return await handler()

    rows = {"work.claim": replace(CLAIM, handler=claim)}
    frames = [frame async for frame in serve.dispatch("work.claim", b'{"worker": "me"}', caller, node, rows)]
    return [frame.kind for frame in frames], undone, caller


async def test_an_answer_that_is_given_stands(node):
    async def fine():
        return claim_replies.ClaimedTasks(tasks=[])

    kinds, undone, caller = await ask(node, fine)
    assert (kinds, undone) == (["result"], [])
    caller.take_back()
    caller.take_back()
    assert undone == ["it"], "once, by a door that could not bring it"


async def test_an_answer_that_cannot_be_written_is_none(node):
    async def unspeakable():
        return claim_replies.ClaimedTasks.model_construct(tasks=[object()])

    kinds, undone, _ = await ask(node, unspeakable)
    assert (kinds, undone) == (["error"], ["it"])


async def test_an_error_takes_back(node):
    async def broken():
        raise ZeroDivisionError

    kinds, undone, _ = await ask(node, broken)
    assert (kinds, undone) == (["error"], ["it"])
