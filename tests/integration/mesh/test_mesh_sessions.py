"""Agents with sessions: each is known by what it is, has a name nobody else gets, is told things, and is missed."""

from __future__ import annotations

import asyncio
import contextlib

import msgspec
import pytest

from knotwork.mesh import records, session_records
from knotwork.mesh import sessions as mesh_sessions
from knotwork.mesh.sessions import open_sessions
from knotwork.sdk.errors import Conflict, Denied, KnotworkError, NotFound, Unavailable

WAIT_S = 30.0


def newcomer(label: str = "1", *, path: str = "/srv/app", parent: str = "", **more):
    agent = session_records.identity("default", "ann", "laptop", path, label, parent)
    given = {"type": "claude-code", "capabilities": ("code",), "registered": True, **more}
    return session_records.AgentSession(
        agent, "claude-code", "default", "ann", "", "", host="laptop", path=path, label=label, parent=parent, **given
    )


async def until(condition) -> None:
    async with asyncio.timeout(WAIT_S):
        while not condition():
            await asyncio.sleep(0.01)


@pytest.fixture
async def at(node):
    """Open the sessions of a node of that name."""
    async with contextlib.AsyncExitStack() as stack:

        async def make(name: str, instance: str = ""):
            member = await node(name)
            return await stack.enter_async_context(
                open_sessions(
                    member.connection, member.directory, project="default", node=name,
                    instance=instance or member.instance,
                )
            )  # fmt: skip

        yield make


async def test_two_in_one_folder_are_two_agents_and_each_comes_back_as_itself(at):
    sessions = await at("n1")
    async with sessions.open(newcomer("1")) as first, sessions.open(newcomer("2")) as second:
        assert first.record.id != second.record.id
        assert (first.record.handle, second.record.handle) == ("claude-code", "claude-code-2")
        await sessions.update(second.record.who, "ann-two", {"status": "busy"})
        assert sessions.find("ann-two").id == second.record.id
        assert sessions.asking(first.secret).id == first.record.id
        ids = first.record.id, second.record.id
    assert {presence for _, presence in sessions.all()} == {"stale"}
    with pytest.raises(Denied) as denied:
        sessions.asking(first.secret)
    assert denied.value.code == "session.unknown"
    async with sessions.open(newcomer("2")) as second, sessions.open(newcomer("1")) as first:
        assert (first.record.id, second.record.id) == ids
        assert (first.record.handle, second.record.handle) == ("claude-code", "ann-two")


async def test_who_comes_before_the_agents_are_known_is_told_to_come_again(at, monkeypatch):
    sessions = await at("n1")
    monkeypatch.setattr(mesh_sessions, "READ_S", 0.0)
    monkeypatch.setattr(sessions, "current", asyncio.Event())
    with pytest.raises(Unavailable) as early:
        async with sessions.open(newcomer()):
            pass
    assert early.value.code == "session.not_ready"


async def test_an_agent_has_one_session_unless_it_takes_over(at):
    here, there = await at("n1"), await at("n2")
    async with here.open(newcomer()) as first:
        await until(lambda: any(True for _ in there.all()))
        for sessions in (here, there):
            with pytest.raises(Conflict) as refused:
                async with sessions.open(newcomer()):
                    pass
            assert refused.value.code == "session.open"
        assert not first.over
        async with there.open(newcomer(), take_over=True) as second:
            async with asyncio.timeout(WAIT_S):
                assert (await first.notices.get())["event"] == "closed"
            assert "taken over" in first.over
            await until(lambda: here.find(second.record.id).node == "n2")
            assert here.presence(here.find(second.record.id)) == "online"


async def test_of_many_who_want_a_handle_at_once_one_gets_it(at):
    nodes = [await at("n1"), await at("n2")]
    got: list[str] = []
    stop = asyncio.Event()

    async def want(number: int) -> None:
        try:
            async with nodes[number % 2].open(newcomer(str(number)), handle="chief") as line:
                got.append(line.record.id)
                await stop.wait()
        except Conflict as error:
            assert error.code == "session.handle_taken"
            got.append("")
        if len(got) == 20:
            stop.set()

    async with asyncio.timeout(WAIT_S), asyncio.TaskGroup() as group:
        for number in range(20):
            group.create_task(want(number))
    assert len([agent for agent in got if agent]) == 1


async def test_an_agent_is_told_wherever_it_is(at):
    here, there = await at("n1"), await at("n2")
    async with there.open(newcomer()) as line:
        await until(lambda: any(True for _ in here.all()))
        assert here.tell(line.record.id, {"event": "message", "id": "m1"})
        assert there.tell(line.record.id, {"event": "message", "id": "m2"})
        async with asyncio.timeout(WAIT_S):
            told = {(await line.notices.get())["id"] for _ in range(2)}
        assert told == {"m1", "m2"}
        agent = line.record.id
    await until(lambda: here.find(agent).gone_ns)
    assert not here.tell(agent, {"event": "message", "id": "m3"})


async def test_agents_of_a_node_that_dies_are_missed_everywhere(at, process):
    sessions = await at("n1")
    assert sessions._directory.state("nowhere") == "offline"
    lost = msgspec.structs.replace(newcomer(), node="nowhere", instance="i1", seen_ns=1)
    await sessions._write(lost)
    assert sessions.presence(lost) == "offline"
    with pytest.raises(NotFound):
        sessions.find("nobody")


async def test_a_restarted_node_does_not_pretend_that_its_agents_are_there(at):
    here, there = await at("n1"), await at("n2", instance="before its restart")
    async with there.open(newcomer()) as line:
        await until(lambda: any(True for _ in here.all()))
        assert here.presence(here.find(line.record.id)) == "stale"


async def test_a_parent_must_be_there_and_be_of_the_same_owner(at):
    sessions = await at("n1")
    with pytest.raises(NotFound):
        async with sessions.open(newcomer(parent="nobody")):
            pass
    async with sessions.open(newcomer()) as parent:
        async with sessions.open(newcomer("sub", parent=parent.record.id)) as child:
            assert child.record.who.parent == parent.record.id
        stranger = msgspec.structs.replace(newcomer("x", parent=parent.record.id), owner="bob")
        with pytest.raises(Denied) as denied:
            async with sessions.open(stranger):
                pass
        assert denied.value.code == "session.bad_parent"
        await sessions.update(parent.record.who, "", {"scope": "private"})
        with pytest.raises(NotFound):  # who is hidden is not told of by another error
            async with sessions.open(stranger):
                pass


async def test_an_agent_answers_to_the_names_it_had_that_nobody_else_has(at):
    sessions = await at("n1")
    async with sessions.open(newcomer("1"), handle="one") as first, sessions.open(newcomer("2")) as second:
        for name in ("two", "three", "one", "four", "five", "six"):
            await sessions.update(first.record.who, name, {})
        assert sessions.names(first.record) == ("six", "five", "four", "one", "three")
        await sessions.update(second.record.who, "four", {})
        assert sessions.names(first.record) == ("six", "five", "one", "three")
        assert sessions.names(second.record)[0] == "four"
    async with sessions.open(newcomer("1")) as again:  # it is so after a restart, too
        assert sessions.names(again.record) == ("six", "five", "one", "three")


async def test_an_agent_that_changes_its_name_twice_at_once_keeps_the_one_it_ends_up_with(at):
    sessions = await at("n1")
    async with sessions.open(newcomer("1"), handle="one") as first, sessions.open(newcomer("2")) as second:
        for number in range(10):
            async with asyncio.TaskGroup() as group:
                for name in ("other", "one", "other", f"name-{number}", "one"):
                    group.create_task(sessions.update(first.record.who, name, {}))
            with pytest.raises(Conflict) as refused:
                await sessions.update(second.record.who, first.record.handle, {})
            assert refused.value.code == "session.handle_taken"


async def test_a_session_that_is_taken_over_while_it_is_named_changes_nothing_more(at, monkeypatch):
    sessions = await at("n1")
    async with sessions.open(newcomer(), handle="one") as first:
        taking, go_on, take = asyncio.Event(), asyncio.Event(), sessions._take

        async def slowly(handle: str, agent: str) -> None:
            await take(handle, agent)
            if handle == "two":
                taking.set()
                await go_on.wait()

        monkeypatch.setattr(sessions, "_take", slowly)
        async with asyncio.TaskGroup() as group:
            naming = group.create_task(_refused(sessions.update(first.record.who, "two", {})))
            await taking.wait()
            async with sessions.open(newcomer(), take_over=True) as again, sessions.open(newcomer("2")) as other:
                go_on.set()
                assert await naming == "session.unknown"
                assert sessions.find(again.record.id).handle == again.record.handle == "one"
                assert await _refused(sessions.update(other.record.who, "one", {})) == "session.handle_taken"


async def _refused(asked) -> str:
    """Return the code of the error that something ends with."""
    with pytest.raises(KnotworkError) as refused:
        await asked
    return refused.value.code


async def test_a_name_that_an_agent_had_and_a_node_runs_another_by_is_no_more_its_own(node):
    member = await node("n1")
    opened = open_sessions(member.connection, member.directory, project="default", node="n1", instance=member.instance)
    async with opened as sessions, sessions.open(newcomer(), handle="before") as line:
        record = await sessions.update(line.record.who, "after", {})
        assert sessions.names(record) == ("after", "before")
        runs = records.NodeRecord("n2", "uid-n2", "b", 1, 10.0, agents=(records.AgentRecord("before", ("code",)),))
        member.directory.heard("n2", records.encode(runs))
        assert sessions.names(record) == ("after",)


async def test_what_is_no_record_changes_nothing(at):
    sessions = await at("n1")
    for value in (b"", b"{", b"[]", b'{"id": "a"}', b"\xff", b'{"id":' * 2000):
        await sessions._bucket.put("agent.a", value)
    async with sessions.open(newcomer()) as line:
        assert [record.id for record, _ in sessions.all()] == [line.record.id]


@pytest.mark.parametrize(
    "handle", ["person-ann", "person-bob", "ann", "n1", "echo", "system", "knotwork", "all", "me", newcomer("9").id]
)
async def test_nobody_takes_the_name_of_a_person_a_node_its_agent_the_system_or_the_id_of_an_agent(at, handle):
    sessions = await at("n1")
    async with sessions.open(newcomer("1")) as line:
        with pytest.raises(Conflict) as refused:
            await sessions.update(line.record.who, handle, {})
        assert refused.value.code == "session.handle_taken"
        with pytest.raises(Conflict):
            async with sessions.open(newcomer("2"), handle=handle):
                pass
