"""Nothing that was acknowledged is lost, or said twice, when nats-server is killed under it."""

from __future__ import annotations

import asyncio
import contextlib

from tests.integration.talk.conftest import ANN, BOB
from tests.integration.work.conftest import PATIENCE_S

from knotwork.sdk.errors import KnotworkError
from knotwork.talk.inbox_state import Wish as InboxWish
from knotwork.talk.index_rows import Wish
from knotwork.talk.message import Draft

COUNT = 600


async def insist(send, draft: Draft) -> str:
    """Send it until it is acknowledged; the key sees to it that it counts once."""
    while True:
        try:
            return (await send(draft)).id
        except KnotworkError as error:
            assert error.retriable or error.code == "bus.lost", error
            await asyncio.sleep(0.02)


async def test_what_was_acknowledged_is_there_after_kill_9(nodes):
    talk = await nodes.here()
    acked: dict[str, str] = {}
    letters: dict[str, str] = {}

    async def say(number: int) -> None:
        with contextlib.suppress(KnotworkError):  # not acknowledged: it may be there or not
            acked[str(number)] = (await talk.sending.to_channel(ANN, "roadmap", Draft(text=str(number)))).id

    async def write(number: int) -> None:
        with contextlib.suppress(KnotworkError):
            letters[str(number)] = (await talk.sending.to_agent(ANN, "bob", Draft(text=str(number)))).id

    async with asyncio.timeout(PATIENCE_S), asyncio.TaskGroup() as group:
        for number in range(COUNT):
            group.create_task(say(number))
            group.create_task(write(number))
            if number == COUNT // 2:
                while len(acked) < 50 or len(letters) < 50:
                    await asyncio.sleep(0.01)
                await nodes.bench.kill_server()
            if number % 20 == 0:
                await asyncio.sleep(0)
    async with asyncio.timeout(PATIENCE_S):
        page = await read(talk, Wish(channel="roadmap", limit=1000))
        inbox = (await talk.inboxes.read(BOB.id, InboxWish(limit=1000))).messages
    there = {one.envelope.text: one.id for one in page}
    assert len(page) == len(there)
    assert acked.items() <= there.items()
    assert letters.items() <= {one.envelope.text: one.id for one in inbox}.items()
    assert len(acked) >= 50
    assert len(letters) >= 50


async def read(talk, wish: Wish):
    while True:
        try:
            return (await talk.history.page(BOB, wish)).messages
        except KnotworkError as error:
            assert error.retriable, error
            await asyncio.sleep(0.05)


async def test_a_key_counts_once_over_kill_9(nodes):
    talk = await nodes.here()
    ids: dict[int, str] = {}

    async def send(number: int) -> None:
        draft = Draft(text=str(number), key=f"k{number}")
        ids[number] = await insist(lambda one: talk.sending.to_channel(ANN, "errors", one), draft)

    async with asyncio.timeout(PATIENCE_S), asyncio.TaskGroup() as group:
        for number in range(200):
            group.create_task(send(number))
            if number == 100:
                while len(ids) < 20:
                    await asyncio.sleep(0.01)
                await nodes.bench.kill_server()
    async with asyncio.timeout(PATIENCE_S):
        page = await read(talk, Wish(channel="errors", limit=1000))
    assert sorted(int(one.envelope.text) for one in page) == list(range(200))
    assert {int(one.envelope.text): one.id for one in page} == ids
    again = await talk.sending.to_channel(ANN, "errors", Draft(text="7", key="k7"))
    assert (again.id, again.already) == (ids[7], True)


async def test_who_waits_over_a_restart_gets_his_message(nodes):
    talk = await nodes.here()
    async with asyncio.timeout(PATIENCE_S), asyncio.TaskGroup() as group:
        waiting = group.create_task(talk.inboxes.wait(BOB.id, InboxWish(), PATIENCE_S))
        await asyncio.sleep(0)
        await nodes.bench.kill_server()
        sent = await insist(lambda one: talk.sending.to_agent(ANN, "bob", one), Draft(text="there?", key="once"))
        (got,) = (await waiting).messages
    assert got.id == sent


async def test_every_message_is_shown_though_the_server_dies_while_they_are_read(nodes):
    talk = await nodes.here()
    for number in range(0, 200, 20):
        async with asyncio.TaskGroup() as group:
            for one in range(number, number + 20):
                group.create_task(talk.sending.to_agent(ANN, "bob", Draft(text=str(one))))
    shown: list[str] = []
    async with asyncio.timeout(PATIENCE_S):
        for kill_at in (40, 120, 1000):
            while len(set(shown)) < min(kill_at, 200):
                with contextlib.suppress(KnotworkError):
                    answer = await talk.inboxes.read(BOB.id, InboxWish(limit=3))
                    shown += [one.envelope.text for one in answer.messages]
                await asyncio.sleep(0.01)
                if kill_at < 200 and len(set(shown)) >= kill_at - 3:
                    await nodes.bench.kill_server()
                    break
    assert sorted(set(shown), key=int) == [str(number) for number in range(200)]
