"""Agents from outside in the directory: everybody sees them, and no call is sent to them."""

from __future__ import annotations

from knotwork.mesh import records
from knotwork.mesh.directory import Directory
from knotwork.mesh.records import AgentRecord, NodeRecord


def directory(*agents: AgentRecord) -> Directory:
    made = Directory(lambda: 0.0, "here")
    record = NodeRecord("there", "u", "i", 1, 10.0, agents=agents)
    made.heard("there", records.encode(record))
    return made


def test_they_are_listed_and_are_meant_only_for_tasks():
    ours = AgentRecord("ours", ("paint",))
    guest = AgentRecord("guest", ("paint", "dance"), attached=True, executor="attached")
    found = directory(ours, guest)
    assert [agent.name for _, agent, _ in found.agents()] == ["guest", "ours"]
    assert [one.agent for one in found.candidates(capability="paint")] == ["ours"]
    assert found.candidates(capability="dance") == found.candidates(agent="guest") == []
    assert [one.agent for one in found.candidates(capability="paint", attached=True)] == ["ours", "guest"]
    assert [one.agent for one in found.candidates(agent="guest", node="there", attached=True)] == ["guest"]


def test_records_of_nodes_that_know_nothing_of_them_are_read():
    plain = b'{"node":"there","uid":"u","instance":"i","started_ns":1,"heartbeat_s":5,"agents":[{"name":"a","capabilities":[]}]}'
    assert not records.decode("there", plain).agents[0].attached
