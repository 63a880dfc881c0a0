"""Heartbeats of the Synadia Agent Protocol: at once for what is new, again after a loss, and then every 30 s."""

import asyncio
import json
import os
import signal
from types import SimpleNamespace

import psutil
from synadia_ai.agents import Agents
from synadia_ai.agents.heartbeat import HEARTBEAT_SUBJECT, HeartbeatPayload

from knotwork.mesh import agent_protocol
from knotwork.mesh.agent_protocol import AgentProtocol
from knotwork.sdk.errors import Unreachable

CONFIG = '[node]\nname = "n"\n[executors.{}]\ntype = "rehearsal"\n'


async def beat(subscription, timeout_s=60):
    message = await subscription.next_msg(timeout=timeout_s)
    return message.subject, HeartbeatPayload.model_validate_json(message.data)


async def test_a_new_agent_beats_at_once_and_one_that_is_gone_no_more(nodes, connect) -> None:
    node = nodes.node(CONFIG.format("first")).up()
    client = await connect(node)
    heard = await client.subscribe(HEARTBEAT_SUBJECT)
    await client.flush()
    node.write(CONFIG.format("second"))
    subject, payload = await beat(heard)
    assert subject == "agents.hb.rehearsal.n.second"
    assert (payload.agent, payload.owner, payload.session, payload.interval_s) == ("rehearsal", "n", "second", 30)
    agents = Agents(nc=client)
    everybody = []
    async with asyncio.timeout(60):
        while [one.session_name for one in everybody] != ["second"]:  # the first is there until its work is done
            everybody = await agents.discover(timeout=0.2)
    (found,) = everybody
    assert found.instance_id == payload.instance_id
    status = await found.status(timeout_s=30)
    assert status == payload.model_copy(update={"ts": status.ts})
    await agents.close()
    await client.close()


async def test_agents_beat_again_after_the_server_was_gone(nodes, connect) -> None:
    node = nodes.node(CONFIG.format("first")).up()
    children = psutil.Process(node.pid).children(recursive=True)
    server = next(child for child in children if "nats-server" in child.name())
    os.kill(server.pid, signal.SIGKILL)
    async with asyncio.timeout(60):
        while True:
            try:
                client = await connect(node)
                break
            except OSError:
                await asyncio.sleep(0.01)
    heard = await client.subscribe(HEARTBEAT_SUBJECT)
    await client.flush()
    # the node may have been back before us; a change makes it tell the new agent in any case, a loss all of them
    node.write(CONFIG.format("first") + "[executors.other]\ntype = 'rehearsal'\n")
    seen = set()
    async with asyncio.timeout(60):
        while "other" not in seen:
            seen.add((await beat(heard))[1].session)
    await client.close()


def test_the_rhythm() -> None:
    sent = []
    connection = SimpleNamespace(send=lambda subject, data: sent.append((subject, json.loads(data))), max_payload=1024)
    agents = [SimpleNamespace(record=SimpleNamespace(name=name, executor="./my_agent.py")) for name in ("a", "b")]
    hosting = SimpleNamespace(draining=False)
    protocol = AgentProtocol(connection, hosting, lambda: tuple(agents), project="p", node="n", instance="i")
    every_s = agent_protocol.INTERVAL_S
    assert protocol._beat(1000.0) == every_s
    assert [subject for subject, _ in sent] == ["agents.hb.my-agent.n.a", "agents.hb.my-agent.n.b"]
    assert sent[0][1]["endpoints"]["prompt"]["metadata"] == {"max_payload": "1KB", "attachments_ok": "true"}
    sent.clear()
    agents.append(SimpleNamespace(record=SimpleNamespace(name="c", executor="http")))
    assert protocol._beat(1010.0) == every_s - 10
    assert [subject for subject, _ in sent] == ["agents.hb.http.n.c"]
    sent.clear()
    del agents[0]
    assert protocol._beat(1000.0 + every_s) == 10
    assert [subject for subject, _ in sent] == ["agents.hb.my-agent.n.b"]
    sent.clear()
    protocol._reconnected()
    protocol._beat(1000.0 + every_s + 1)
    assert len(sent) == 2
    sent.clear()
    hosting.draining = True
    protocol._beat(2000.0)
    assert sent == []


def test_without_a_link_nothing_is_due_until_it_is_back() -> None:
    away = True

    def send(_subject, _data) -> None:
        if away:
            raise Unreachable("NATS is away.", code="bus.unreachable")

    agent = SimpleNamespace(record=SimpleNamespace(name="a", executor="http"))
    connection = SimpleNamespace(send=send, max_payload=1024)
    hosting = SimpleNamespace(draining=False)
    protocol = AgentProtocol(connection, hosting, lambda: (agent,), project="p", node="n", instance="i")
    every_s = agent_protocol.INTERVAL_S
    assert protocol._beat(1000.0) == every_s
    away = False
    protocol._reconnected()
    assert protocol._beat(1001.0) == every_s
    away = True
    assert protocol._beat(1001.0 + every_s) == every_s, "it is overdue, and must not be looked at all the time"
