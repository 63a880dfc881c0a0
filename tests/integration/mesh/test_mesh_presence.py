"""Who is there is known soon and rightly, whatever dies."""

from __future__ import annotations

import asyncio
import random
import time

import msgspec
import pytest
from tests.integration.mesh import mesh_member

from knotwork.bus import kv, patterns, publisher, streams, subjects
from knotwork.bus.connection import open_connection
from knotwork.mesh import records
from knotwork.mesh.directory import Directory
from knotwork.mesh.records import AgentRecord, NodeRecord
from knotwork.sdk.errors import Conflict, KnotworkError, NotFound, TimedOut, Unavailable


def members():
    return mesh_member


async def messages(connection) -> int:
    """Return how many records were ever written."""
    return int((await streams.api(connection, "STREAM.INFO.KV_NODES"))["state"]["last_seq"])


async def test_a_name_belongs_to_one_node(node, server):
    first = await node("n1")
    for _ in range(2):
        with pytest.raises(Conflict) as caught:
            await node("n1", uid="another")
        assert caught.value.code == "mesh.name_taken"
    assert "n1" in first.directory.node_names()
    again = await node("n1", uid="uid-n1")  # the same node, started again after a crash
    assert again.here == "n1"


async def test_of_many_that_claim_a_name_at_once_one_gets_it(server):
    got: list[str] = []
    stop = asyncio.Event()

    async def claim(uid: str) -> None:
        try:
            async with members().open_node(members().endpoint(server.url), "same", uid=uid):
                got.append(uid)
                await stop.wait()
        except Conflict as error:
            assert error.code == "mesh.name_taken"
            got.append("")
        if len(got) == 8:
            stop.set()

    async with asyncio.timeout(60), asyncio.TaskGroup() as group:
        for number in range(8):
            group.create_task(claim(f"u{number}"))
        while len(got) < 8:
            await asyncio.sleep(0.01)
        stop.set()
    assert len([uid for uid in got if uid]) == 1


async def test_a_goodbye_is_seen_at_once_and_the_name_is_free(node, server, until):
    near = await node("near")
    slow = {"heartbeat_s": 60.0}  # nothing but the goodbye can tell within the wait
    async with members().open_node(members().endpoint(server.url), "far", members().fill, **slow):
        await until(lambda: near.directory.state("far") == "online")
    await until(lambda: near.directory.state("far") == "offline")
    assert near.directory.candidates(agent="echo", node="far") == []
    await node("far", uid="somebody-else")


async def test_a_dead_node_fades_away(node, process, until):
    near = await node("near", heartbeat_s=1.0)
    far = await process("far")
    await until(lambda: near.directory.state("far") == "online")
    seen: list[str] = []
    near.directory.on_gone(seen.append)
    far.kill()
    await until(lambda: near.directory.state("far") in ("stale", "offline"))
    await until(lambda: near.directory.state("far") == "offline")
    await until(lambda: seen == ["far"])
    back = await process("far")
    assert back.returncode is None
    await until(lambda: near.directory.state("far") == "online")


async def test_changes_are_told_soon_and_together(node, until):
    near = await node("near", heartbeat_s=600.0)  # no beat comes between
    far = await node("far", heartbeat_s=600.0)
    await until(lambda: near.directory.state("far") == "online")
    await far.connection.round_trip()
    before = await messages(far.connection)
    far.node.state = "draining"
    for _ in range(50):
        far.changed()
    await until(lambda: near.directory.state("far") == "draining")
    far.node.agent("new", members().echo)
    far.changed()
    await until(lambda: near.directory.candidates(agent="new"))
    assert await messages(far.connection) - before <= 4


async def test_one_write_for_each_node_and_beat(node, until):
    nodes = [await node(f"n{number}", heartbeat_s=0.2) for number in range(4)]
    await until(lambda: all(len(one.directory.node_names()) == 4 for one in nodes))

    def beats() -> int:
        return sum(one.presence.beats for one in nodes)

    outer, begun_s = beats(), time.monotonic()
    first = await messages(nodes[0].connection)
    inner = beats()
    await until(lambda: beats() >= inner + 20)
    within = beats() - inner
    written = await messages(nodes[0].connection) - first
    around, took_s = beats() - outer, time.monotonic() - begun_s
    assert within - len(nodes) <= written <= around + len(nodes)  # one of each may be on its way
    assert written <= 4 * (took_s / 0.2 + 2)


async def test_a_server_that_lost_its_store_loses_nobody(node, server, until, invoke):
    import shutil

    near, far = await node("near"), await node("far")
    await until(lambda: near.directory.state("far") == "online")
    await server.kill()
    shutil.rmtree(server.folder / "store")
    await server.start()

    async def all_there() -> bool:
        try:
            return len(await kv.Bucket(near.connection, subjects.NODES).all()) == 2
        except KnotworkError:
            return False

    async with asyncio.timeout(60):
        while not await all_there():
            await asyncio.sleep(0.02)
        await until(lambda: {"near", "far"} <= set(near.directory.node_names()) & set(far.directory.node_names()))
    assert await invoke(near, "echo", 1, node="far") == 1


async def test_hostile_records_hurt_no_reader(node, until, invoke):
    near, far = await node("near"), await node("far")
    bucket = kv.Bucket(near.connection, subjects.NODES)
    for number, data in enumerate(
        [
            b"",
            b"{",
            b"\xff",
            b"[]",
            b'{"node":"far"}',
            b"[" * 50_000,
            records.encode(far.node.record("default")).replace(b'"far"', b'">"'),
        ]
    ):
        await bucket.put(f"evil{number}", data)
        await bucket.put("far.sub", data)
    evil = NodeRecord("evil", "u", "i", 0, 10.0, agents=(AgentRecord("echo", ("echo",)),))
    await bucket.put("evil", records.encode(evil).replace(b'"offline_beats":3', b'"offline_beats":' + b"9" * 400))
    await bucket.put("last", records.encode(NodeRecord("last", "u", "i", 0, 10.0)))
    await until(lambda: "last" in near.directory.node_names() and "last" in far.directory.node_names())
    assert set(near.directory.node_names()) == {"near", "far", "last"}
    near.directory.sweep()
    assert await invoke(near, "echo", 1) == 1
    assert near.connection.reconnects == 0


async def test_a_half_open_link_heals_without_anybody_doing_anything(node, proxy, until, invoke):
    far = await node("far", heartbeat_s=1.0)
    near = await node("near", url=proxy.url, link={"ping_s": 0.5}, heartbeat_s=1.0)
    await until(lambda: far.directory.state("near") == "online" and near.directory.state("far") == "online")
    proxy.stall()
    await until(lambda: near.connection.reconnects >= 1)
    await until(lambda: far.directory.state("near") == "online" and near.directory.state("far") == "online")
    assert await invoke(near, "echo", 1, node="far") == 1
    assert await invoke(far, "echo", 1, node="near") == 1


async def _killed_under_load(node, server, until, invoke, rounds: int) -> None:
    near = await node("near", lambda _node: None, keepalive_s=0.3)
    far = await node("far", keepalive_s=0.3)
    await until(lambda: near.directory.state("far") == "online")
    stop = asyncio.Event()
    ends: dict[str, int] = {}
    chance = random.Random(5)

    async def load() -> None:
        while not stop.is_set():
            async with asyncio.timeout(60):
                try:
                    value = chance.random()
                    assert await invoke(near, "echo", value, timeout_s=5) == value
                    end = "ok"
                except (Unavailable, TimedOut, NotFound) as error:
                    end = error.code
                    await asyncio.sleep(0.01)
            ends[end] = ends.get(end, 0) + 1

    async with asyncio.TaskGroup() as group:
        for _ in range(20):
            group.create_task(load())
        for _ in range(rounds):
            before = ends.get("ok", 0)
            await until(lambda before=before: ends.get("ok", 0) > before + 50)
            await asyncio.sleep(chance.random() * 0.05)
            links = [one.connection.reconnects for one in (near, far)]  # a slow machine misses a sign of life, too
            await server.kill()
            await asyncio.sleep(chance.random() * 0.05)
            await server.start()
            await until(
                lambda links=links: all(
                    one.connection.reconnects > known for one, known in zip((near, far), links, strict=True)
                )
            )
        await until(lambda: near.directory.state("far") == "online")
        stop.set()
    assert await invoke(near, "echo", "well") == "well"
    assert set(near.directory.node_names()) == set(far.directory.node_names()) == {"near", "far"}
    assert not near.calls._waiting
    await until(lambda: not far.node.hosting.running())
    assert near.directory.place("far", "echo").ours.now == 0
    assert ends["ok"] > 50 * rounds


async def test_every_call_ends_while_the_server_is_killed(node, server, until, invoke):
    await _killed_under_load(node, server, until, invoke, rounds=4)


@pytest.mark.slow
@pytest.mark.timeout(180)
async def test_every_call_ends_while_the_server_is_killed_twenty_times(node, server, until, invoke):
    await _killed_under_load(node, server, until, invoke, rounds=20)


async def _many_nodes(server, until, nodes: int, agents: int, beats: int) -> None:
    """Nodes that are only records, beating over a few connections, read by a directory through a real watch."""
    endpoint = members().endpoint(server.url)
    async with open_connection(endpoint) as writer, open_connection(endpoint) as reader, asyncio.TaskGroup() as group:
        bucket = await kv.open_bucket(writer, subjects.NODES)
        directory = Directory(time.monotonic, "here")
        watch = group.create_task(
            kv.Bucket(reader, subjects.NODES).watch(
                lambda entry: (
                    directory.left(entry.key) if entry.value is None else directory.heard(entry.key, entry.value)
                ),
                lambda: None,
            )
        )

        def record(number: int, beat: int) -> NodeRecord:
            made = tuple(
                AgentRecord(f"a{one}", (f"c{one % 10}", "all"), "words " * 5, running=(beat + one) % 3)
                for one in range(agents)
            )
            return NodeRecord(f"n{number}", f"u{number}", "i", 0, 10.0, agents=made)

        before = await messages(writer)
        for beat in range(beats):
            written = await publisher.publish_many(
                writer,
                [
                    (f"$KV.NODES.n{n}", records.encode(record(n, beat)), publisher.head(publisher.ttl(600)))
                    for n in range(nodes)
                ],
            )
            assert all(isinstance(one, publisher.Ack) for one in written)
        assert await messages(writer) - before == nodes * beats
        await until(lambda: len(directory.node_names()) == nodes)
        last = f"n{nodes - 1}"
        await until(lambda: directory.place(last, "a0").record.running == (beats - 1) % 3)
        assert len(directory.candidates(capability="all")) == nodes * agents
        assert len(directory.candidates(capability="c3")) == nodes * len(
            [one for one in range(agents) if one % 10 == 3]
        )
        truth = {one.node: one for one in (record(number, beats - 1) for number in range(nodes))}
        assert {one.node: one.agents for one, _, _ in directory.nodes()} == {
            name: one.agents for name, one in truth.items()
        }
        assert await messages(writer) - before == nodes * beats
        await bucket.delete("n0")
        await until(lambda: directory.state("n0") == "offline")
        watch.cancel()


async def test_a_directory_of_forty_nodes(server, until):
    await _many_nodes(server, until, nodes=40, agents=20, beats=3)


async def test_a_directory_of_two_hundred_nodes_and_ten_thousand_agents(server, until):
    await _many_nodes(server, until, nodes=200, agents=50, beats=3)


async def test_a_copy_of_a_node_is_refused_while_the_other_lives(node, server, until):
    """As the data folder of a machine that was cloned."""
    first = await node("n1", instance="a", host="here")
    with pytest.raises(Conflict) as caught:
        await node("n1", instance="b")
    assert caught.value.code == "mesh.same_identity"
    assert "identity.json" in caught.value.hint
    assert "here" in caught.value.message
    await first.connection.round_trip()
    bucket = await kv.open_bucket(first.connection, subjects.NODES)
    assert records.decode("n1", (await bucket.get("n1")).value).instance == "a"
    await until(lambda: first.directory.state("n1") == "online")


async def test_who_was_killed_comes_up_again_at_once(node, process, server):
    """Its record is there for its whole life time, and nobody listens where it did."""
    watcher = await node("watcher")
    far = await process("far")
    far.kill()
    await far.wait()
    bucket = await kv.open_bucket(watcher.connection, subjects.NODES)
    record = records.decode("far", (await bucket.get("far")).value)
    await bucket.put("far", records.encode(msgspec.structs.replace(record, heartbeat_s=300.0)), ttl_s=3600)
    async with asyncio.timeout(60):  # its next beat would have been after five minutes
        again = await node("far", uid="uid-far", instance="again", heartbeat_s=10.0)
    assert again.here == "far"


async def test_who_listens_and_is_silent_is_given_a_beat(node, server):
    """A process that is frozen, or behind a link that was cut, keeps nobody out for good."""
    watcher = await node("watcher")
    bucket = await kv.open_bucket(watcher.connection, subjects.NODES)
    frozen = NodeRecord("n1", "uid-n1", "frozen", time.time_ns(), 0.5)
    await bucket.put("n1", records.encode(frozen), ttl_s=3600)
    await watcher.connection.listen(patterns.cancels_of("n1"), lambda _message: None)
    again = await node("n1", instance="again")
    assert again.here == "n1"


async def test_two_of_one_identity_see_each_other_and_do_no_harm(node, server, until):
    """A race, or a link that was cut, lets both in: then both say so, and neither takes the other away."""
    first = await node("n1", instance="a", heartbeat_s=0.2)
    bucket = await kv.open_bucket(first.connection, subjects.NODES)
    assert first.presence.twin == ""
    other = NodeRecord("n1", "uid-n1", "b", time.time_ns(), 0.2, host="clone")
    async with asyncio.timeout(60):
        while "clone" not in first.presence.twin:  # it writes again and again, as we do
            await bucket.put("n1", records.encode(other), ttl_s=3600)
            await asyncio.sleep(0.02)
    assert first.directory.candidates(agent="echo", node="n1")  # it knows itself
    await bucket.delete("n1")
    before = first.presence.beats
    await until(lambda: first.presence.beats > before)
    await until(lambda: first.presence.twin == "")


async def test_a_goodbye_leaves_the_record_of_another(node, server):
    first = await node("n1", instance="a", heartbeat_s=600.0)
    bucket = await kv.open_bucket(first.connection, subjects.NODES)
    other = NodeRecord("n1", "uid-n1", "b", time.time_ns(), 600.0)
    await bucket.put("n1", records.encode(other), ttl_s=3600)
    await first.presence.goodbye()
    assert (await bucket.get("n1")).value == records.encode(other)


async def test_a_name_that_is_taken_says_when_it_is_free(node, server):
    await node("n1", heartbeat_s=10.0)
    with pytest.raises(Conflict) as caught:
        await node("n1", uid="another", instance="other")
    assert caught.value.code == "mesh.name_taken"
    assert 0 <= caught.value.detail["silent_s"] < 30
    assert 0 < caught.value.detail["free_in_s"] <= 30
    assert "last heard" in caught.value.message
    assert "free in" in caught.value.hint
