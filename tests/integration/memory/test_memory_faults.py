"""What goes wrong: a hundred core memories and no more, nats-server killed, plugins exchanged, an index destroyed."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
from pathlib import Path
from typing import Any

import pytest
from tests.integration.memory.conftest import memory_node, until
from tests.integration.memory.test_memory_life import found, remember

from knotwork.bus import streams, subjects
from knotwork.memory import asking
from knotwork.memory.query import Query
from knotwork.memory.rules import Draft
from knotwork.sdk.errors import Conflict, KnotworkError, NotFound, PluginFailed, Unavailable, Unreachable
from knotwork.sdk.testing import host
from knotwork.sdk.testing.buckets import SystemClock
from knotwork.trust import keys


async def test_an_agent_has_a_hundred_core_memories_whoever_writes(bench: Any):
    one, two = await bench.node("one"), await bench.node("two")
    ann = one.agent("writer")
    numbers = iter(range(110))
    full: list[int] = []

    async def write(node: Any) -> None:
        for number in numbers:
            try:
                await remember(node, ann, f"core {number}", ("private", "personal")[number // 2 % 2], "core")
            except Conflict as error:
                assert error.code == "memory.core_full"
                full.append(number)

    async with asyncio.TaskGroup() as group:
        for writer in range(20):
            group.create_task(write((one, two)[writer % 2]))
    assert len(full) == 10
    for node in (one, two):
        counts, stats = (await node.desk.recall(Query(limit=200), ann)).counts, await node.desk.stats(ann)
        assert counts.private + counts.personal == stats.core_private + stats.core_personal == 100
        assert min(counts.private, counts.personal) > 10
    await remember(one, one.agent("sister"), "hers", category="core")  # a hundred for each
    await _is_full(one, ann)
    for gone_of, kept_in in (("private", "private"), ("private", "personal"), ("personal", "private")):
        gone = (await one.desk.page(Query(scopes=(gone_of,), categories=("core",), limit=1), ann)).memories[0].id
        await one.desk.forget(gone, ann, force=True, purge=False)
        made = await remember(two, ann, f"in the place of {gone}", kept_in, "core")
        await _is_full(one, ann)
        with pytest.raises(NotFound):  # its place is another's now: it does not come back beside it
            await one.desk.revert(gone, ann, None)
        assert (await one.desk.get(made, ann)).scope == kept_in


async def _is_full(node: Any, who: Any) -> None:
    for scope in ("private", "personal"):
        with pytest.raises(Conflict) as refused:
            await remember(node, who, f"one more in {scope}", scope, "core")
        assert refused.value.code == "memory.core_full"


async def test_of_two_who_take_the_last_place_in_two_scopes_one_gets_it_or_none(bench: Any):
    one, two = await bench.node("one"), await bench.node("two")
    ann = one.agent("writer")
    for number in range(99):
        await remember(one, ann, f"core {number}", category="core")
    for turn in range(10):
        async with asyncio.TaskGroup() as group:
            tries = [
                group.create_task(_tried(node, ann, f"{scope} {turn}", scope))
                for node, scope in ((one, "private"), (two, "personal"), (one, "personal"), (two, "private"))
            ]
        kept = [task.result() for task in tries if task.result()]
        stats = await two.desk.stats(ann)
        assert stats.core_private + stats.core_personal == 99 + len(kept)
        assert len(kept) <= 1
        for memory in kept:
            await one.desk.forget(memory, ann, force=True, purge=turn % 2 == 0)


async def _tried(node: Any, who: Any, content: str, scope: str) -> str:
    try:
        return await remember(node, who, content, scope, "core")
    except Conflict as error:
        assert error.code == "memory.core_full"
        return ""


async def test_nothing_acknowledged_is_lost_when_nats_is_killed(bench: Any):
    node = await bench.node("one")
    ann = node.agent("writer")
    kept: dict[str, str] = {}
    stop = asyncio.Event()

    async def write(writer: int) -> None:
        number = 0
        while not stop.is_set():
            content = f"from {writer}, number {number}"
            scope = ("private", "personal", "team", "public")[number % 4]
            try:
                kept[await remember(node, ann, content, scope, duplicates="allow")] = content
            except KnotworkError as error:
                assert isinstance(error, Unavailable) or error.code in ("bus.no_answer", "bus.lost"), error
                await asyncio.sleep(0.01)
            number += 1

    async with asyncio.TaskGroup() as group:
        for writer in range(16):
            group.create_task(write(writer))
        for _ in range(3):
            before = len(kept)
            await until(lambda before=before: len(kept) > before + 100)
            pid = bench.server.pid
            bench.kill_server()
            await until(lambda pid=pid: bench.server.pid not in (0, pid))
        before = len(kept)
        await until(lambda: len(kept) > before + 50)
        stop.set()
    fresh = await bench.node("fresh")  # reads what the server has, and nothing else

    async def all_there() -> bool:
        told = [(await fresh.desk.get(made, ann)).content == content for made, content in kept.items()]
        return all(told)

    assert await all_there()
    assert len(kept) > 300


async def test_reads_go_on_while_nats_is_away_and_say_so(bench: Any):
    node = await bench.node("one")
    ann = node.agent("writer")
    await remember(node, ann, "known before")
    assert (await node.desk.recall(Query(), ann)).current
    plugin = node.around.slots["kv"].found
    node.around.slots["kv"].found = None

    async def is_behind() -> bool:
        return not (await node.desk.recall(Query(), ann)).current

    await until(is_behind)
    told = await node.desk.recall(Query(), ann)
    assert [row.content for row in told.private] == ["known before"]
    nothing = await node.desk.recall(Query(scopes=("team",)), ann)
    assert "does not answer" in nothing.summary, "who reads that there is nothing believes it"
    for text in ("", "known"):
        assert ["does not answer" in note for note in (await node.desk.page(Query(text=text), ann)).notes] == [True]
    for write in (remember(node, ann, "not now"), node.desk.get(told.private[0].id, ann)):
        try:
            await write
        except Unavailable as error:
            assert error.code == "plugin.not_running"
        else:
            raise AssertionError("a store that is away took something")
    node.around.slots["kv"].found = plugin

    async def is_current() -> bool:
        return (await node.desk.recall(Query(), ann)).current

    await until(is_current)
    assert await found(node, ann) == ["known before"]


async def test_what_is_common_may_be_away_and_holds_nothing_else_up(bench: Any):
    """Credentials for COMMONS that are wrong: the project's own memory works, and the answers say what is missing."""
    seeds = {**bench.seeds, "COMMONS": keys.generate().seed}
    bench.seeds.clear()
    bench.seeds.update(seeds)
    node = await bench.node("one", wait_commons=False)
    ann = node.agent("writer")
    made = await remember(node, ann, "mine", category="longterm")

    async def is_told() -> bool:
        return "away" in (await node.desk.stats(ann)).index.values()

    await until(is_told)
    told = await node.desk.recall(Query(), ann)
    assert ([row.id for row in told.private], told.current) == ([made], False)
    assert (await node.desk.recall(Query(scopes=("private", "team")), ann)).current
    with pytest.raises(Unavailable) as lacking:  # a file that says nothing of what it lacks is no export
        await node.desk.export("all.jsonl", Query(), ann, overwrite=False)
    assert lacking.value.code == "memory.no_answer"
    assert (await node.desk.export("all.jsonl", Query(scopes=("private", "team")), ann, overwrite=False)).exported == 1
    try:
        await remember(node, ann, "not kept", "personal")
    except KnotworkError as error:
        assert error.retriable
    else:
        raise AssertionError("it was kept nowhere")


async def test_a_scope_is_kept_elsewhere_from_one_moment_to_the_next(bench: Any):
    node = await bench.node("one", configs={"kv": {}, "sqlite": {"look_every_s": 0.02}})
    ann = node.agent("writer")
    old = await remember(node, ann, "in kv", category="longterm")
    await remember(node, ann, "shared in kv", "team")
    node.around.now = dataclasses.replace(node.around.now, kept={**node.around.now.kept, "private": "sqlite"})

    async def is_there() -> bool:
        return set(await found(node, ann)) == {"shared in kv"}

    await until(is_there)
    made = await remember(node, ann, "in sqlite", category="longterm")
    assert (await node.desk.get(made, ann)).content == "in sqlite"
    assert set(await found(node, ann)) == {"in sqlite", "shared in kv"}
    node.around.now = dataclasses.replace(node.around.now, kept={**node.around.now.kept, "private": "kv"})

    async def is_back() -> bool:
        return set(await found(node, ann)) == {"in kv", "shared in kv"}

    await until(is_back)
    assert (await node.desk.get(old, ann)).content == "in kv"


async def test_sqlite_does_all_that_kv_does(bench: Any):
    from knotwork.memory.model import SCOPES

    node = await bench.node("one", configs={"sqlite": {"look_every_s": 0.02}})
    node.around.now = dataclasses.replace(node.around.now, kept=dict.fromkeys(SCOPES, "sqlite"))
    ann = node.agent("writer")
    made = await remember(node, ann, "first", category="tasks")
    await node.desk.commit(made, ann, "better", None)
    await node.desk.share(made, ann, scope="team", category="learnings", move=False, duplicates=None)
    gone = await remember(node, ann, "passes", ttl_s=1)
    await node.desk.forget(made, ann, force=False, purge=False)
    await node.desk.revert(made, ann, 1)

    async def is_over() -> bool:
        return set(await found(node, ann)) == {"first", "better"}

    await until(is_over)
    told = await node.desk.recall(Query(), ann)
    assert told.current
    assert gone not in {row.id for row in told.private}


async def test_a_destroyed_index_is_made_anew(bench: Any, tmp_path: Path):
    node = await bench.node("one")
    ann = node.agent("writer")
    await remember(node, ann, "still there", category="longterm")
    assert await found(node, ann) == ["still there"]

    def destroy(index: Any) -> None:
        index._db.execute("DROP TABLE items")

    await node.rooms.memory.shelf.ask(destroy)

    async def is_there() -> bool:
        try:
            return await found(node, ann) == ["still there"]
        except Unavailable as error:
            assert error.code == "memory.index"
            return False

    await until(is_there)


@pytest.mark.parametrize(("scope", "realm"), [("public", ""), ("team", "default")])
async def test_a_store_that_another_took_the_place_of_is_made_anew(bench: Any, scope: str, realm: str):
    node = await bench.node()
    ann = node.agent("writer")
    await remember(node, ann, "in the store before", scope)
    await streams.api(node.connections[realm], f"STREAM.DELETE.{subjects.bucket_stream(subjects.MEMORY)}")

    async def is_there() -> bool:
        with contextlib.suppress(Unreachable):
            await remember(node, ann, "in the new one", scope)
        return await found(node, ann) == ["in the new one"]

    await until(is_there)
    assert (await node.desk.recall(Query(), ann)).current


async def test_memory_is_read_anew_by_a_node_that_starts_again(bench: Any, tmp_path: Path):
    first = await bench.node("one")
    ann = first.agent("writer")
    for number in range(200):
        await first.desk.remember(Draft(f"thing {number}", category="longterm"), ann, replaces="", duplicates="allow")
    again = await bench.node("one")  # the same folder: its index is another's, and made anew
    assert (await again.desk.recall(Query(), ann)).counts.private == 200


async def test_a_sqlite_memory_outlives_its_process(tmp_path: Path):
    """Killed after an answer: what was answered is there. The sync is SQLite's, and asked for."""
    import os
    import signal
    import subprocess
    import sys

    program = tmp_path / "writer.py"
    program.write_text(
        "import asyncio, sys\n"
        "from knotwork.sdk.memory import Place\n"
        "from knotwork.sdk.testing import host\n"
        "from knotwork.sdk.testing.buckets import SystemClock\n"
        "from knotwork_plugins.memories.sqlite.plugin import FACTORY\n"
        "async def main():\n"
        "    async with host(FACTORY, {'path': sys.argv[1]}, clock=SystemClock()) as store:\n"
        "        number = 0\n"
        "        while True:\n"
        "            await store.store(Place('p', 'private', 'ann', f'm{number}'), b'{}')\n"
        "            print(number, flush=True)\n"
        "            number += 1\n"
        "asyncio.run(main())\n"
    )
    path = tmp_path / "memory.db"
    with subprocess.Popen([sys.executable, str(program), str(path)], stdout=subprocess.PIPE, text=True) as writer:
        acknowledged = [int(writer.stdout.readline()) for _ in range(50)]
        os.kill(writer.pid, signal.SIGKILL)
        acknowledged += [int(line) for line in writer.stdout.read().split()]
    factory = memory_node.TYPES["sqlite"]
    async with host(factory, {"path": str(path)}, clock=SystemClock()) as store:
        kept = {one.place.id for one in await store.list("p")}
    assert {f"m{number}" for number in acknowledged} <= kept


class Evil:
    """A store that does what it should, except for one thing that `does` says."""

    def __init__(self, real: Any) -> None:
        self.real, self.does = real, {}

    def __getattr__(self, name: str) -> Any:
        return self.does.get(name) or getattr(self.real, name)


def raising(error: BaseException) -> Any:
    async def raises(*_: Any, **__: Any) -> None:
        raise error

    return raises


def giving(answer: Any) -> Any:
    async def gives(*_: Any, **__: Any) -> Any:
        return answer

    return gives


async def never(*_: Any, **__: Any) -> None:
    await asyncio.Event().wait()


@pytest.mark.parametrize(
    ("does", "code"),
    [
        (raising(RuntimeError("evil")), "plugin.raised"),
        (raising(asyncio.CancelledError()), "plugin.raised"),
        (raising(KeyboardInterrupt()), "plugin.raised"),
        (lambda *_, **__: 1 / 0, "plugin.raised"),
        (giving("text"), "plugin.failed"),
        (never, "memory.no_answer"),
    ],
)
async def test_whatever_a_store_does_is_told_as_its_own_failure(bench: Any, monkeypatch: Any, does: Any, code: str):
    monkeypatch.setattr(asking, "ASK_S", 0.2)
    node = await bench.node("one")
    ann = node.agent("writer")
    kept = await remember(node, ann, "kept", "team")
    slot = node.around.slots["kv"]
    slot.found = evil = Evil(slot.found)
    for method, tried in (
        ("store", lambda: remember(node, ann, "new", "team")),
        ("get", lambda: node.desk.history(kept, ann)),
        ("delete", lambda: node.desk.forget(kept, ann, force=False, purge=True)),
    ):
        evil.does = {method: does}
        with pytest.raises((PluginFailed, Unavailable)) as told:
            await tried()
        assert told.value.code == code
        evil.does = {}
        assert await found(node, ann) == ["kept"]
    assert await remember(node, ann, "kept", "team") == kept


async def test_a_store_that_cancels_whoever_asks_how_far_it_is_is_away(bench: Any):
    node = await bench.node("one")
    ann = node.agent("writer")
    await remember(node, ann, "kept", "team")
    slot = node.around.slots["kv"]
    slot.found = evil = Evil(slot.found)
    evil.does = {"latest": raising(asyncio.CancelledError())}

    async def away() -> bool:  # once it is followed in its new guise
        page = await node.desk.page(Query(scopes=("team",)), ann)
        return not page.current and [row.content for row in page.memories] == ["kept"]

    await until(away)
