"""As much as memory may hold, over a real nats-server: pages and bulks of the largest memories that there can be."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import pytest

from knotwork.bus.fitting import ANSWER_MAX_BYTES
from knotwork.memory import carrying, scanning
from knotwork.memory.query import LIMIT_MAX, Query
from knotwork.memory.rules import CONTENT_MAX_BYTES, Draft

COUNT = 30
"""Of the largest, so many are more than one answer takes: each of their characters is told as six."""


async def kept(node: Any, who: Any) -> set[str]:
    """Remember the largest memories and return their ids."""
    drafts = [Draft(f"apple {number:02} ".ljust(CONTENT_MAX_BYTES, "\x01")) for number in range(COUNT)]
    told = await node.desk.remember_all(drafts, who, duplicates=None, stop_on_error=False)
    assert told.stored == COUNT
    return {*told.ids}


async def test_pages_of_the_largest_fit_into_answers_and_miss_none(node: Any):
    ann = node.agent("writer")
    ids = await kept(node, ann)
    for wish in ({}, {"newest": True}, {"text": "apple"}):
        seen: list[str] = []
        cursor = None
        while cursor != "":
            page = await node.desk.page(Query(limit=LIMIT_MAX, cursor=cursor or "", **wish), ann)
            assert page.memories, wish
            assert len(page.model_dump_json()) < 2 * ANSWER_MAX_BYTES
            seen += [row.id for row in page.memories]
            cursor = page.next
        assert len(seen) == COUNT, wish
        assert {*seen} == ids, wish


async def test_recall_of_the_largest_fits_into_an_answer_and_goes_on(node: Any):
    ann = node.agent("writer")
    ids = await kept(node, ann)
    first = await node.desk.recall(Query(limit=LIMIT_MAX), ann)
    assert len(first.model_dump_json()) < 2 * ANSWER_MAX_BYTES
    assert first.counts.total == COUNT
    second = await node.desk.recall(Query(limit=LIMIT_MAX, cursor=first.next), ann)
    assert {row.id for row in [*first.private, *second.private]} == ids
    assert second.next == ""


def beside_the_loop(monkeypatch: pytest.MonkeyPatch, where: Any, name: str) -> list[bool]:
    """Return whether each call of a function was made in another thread than the loop's; filled as it is called."""
    do: Callable[..., Any] = getattr(where, name)
    seen: list[bool] = []

    def noted(*args: Any, **named: Any) -> Any:
        seen.append(threading.current_thread() is not threading.main_thread())
        return do(*args, **named)

    monkeypatch.setattr(where, name, noted)
    return seen


async def test_many_of_the_largest_do_not_hold_up_the_node(node: Any, monkeypatch: pytest.MonkeyPatch):
    scanned = beside_the_loop(monkeypatch, scanning, "cleared")
    await kept(node, node.agent("writer"))
    assert len(scanned) >= COUNT
    assert all(scanned)


async def test_a_file_is_read_and_written_beside_the_loop(node: Any, monkeypatch: pytest.MonkeyPatch):
    """A hundred thousand lines may stand in it."""
    ann = node.agent("writer")
    await kept(node, ann)
    work = [beside_the_loop(monkeypatch, carrying, name) for name in ("_line", "_asked", "waves")]
    told = await node.desk.export("all.jsonl", Query(), ann, overwrite=False)
    assert told.exported == COUNT
    again = await node.desk.load("all.jsonl", ann, skip_invalid=False, duplicates=None, scope="team")
    assert again.imported == COUNT
    assert all(seen and all(seen) for seen in work)
