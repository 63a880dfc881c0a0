"""Every op through `dispatch`: what comes back, and what bad input does."""

from __future__ import annotations

import asyncio
import json
from contextlib import aclosing

import pytest

from knotwork.bus import codec, request_size
from knotwork.ops import replies, serve, table
from knotwork.ops.claim_ports import Claims
from knotwork.ops.ports import Mesh, NodeControl
from knotwork.ops.talk_ports import Talk
from knotwork.ops.target_replies import Targets
from knotwork.ops.task_ports import Tasks
from knotwork.ops.view_replies import PastView
from knotwork.sdk.errors import Unavailable, Unreachable, from_wire

DEAD = "t0198c0ffee00d15ea5e0000dead"
ANYONE = table.Caller("tester", may="admin")


async def ask(node, name, request=None, caller=ANYONE):
    raw = request if isinstance(request, bytes) else json.dumps(request or {}).encode()
    return [(frame.kind, json.loads(frame.data)) async for frame in serve.dispatch(name, raw, caller, node)]


async def answer(node, name, request=None):
    kind, data = (await ask(node, name, request))[-1]
    assert kind == "result", data
    return data


async def refusal(node, name, request=None, caller=ANYONE):
    frames = await ask(node, name, request, caller)
    assert [kind for kind, _ in frames] == ["error"]
    return frames[0][1]


@pytest.mark.parametrize(
    ("code", "kind"),
    [("bus.disconnected", "unavailable"), ("bus.lost", "unavailable"), ("agent.away", "unreachable")],
    ids=["disconnected", "lost", "away"],
)
def test_a_node_whose_nats_is_away_is_there(code: str, kind: str):
    away = Unreachable("It is away.", code=code, hint="Wait.", detail={"a": 1}, retry_after_s=1.0)
    assert serve.told(away).to_wire() == {**away.to_wire(), "kind": kind}


async def test_who_asks_a_node_whose_nats_is_away_is_told_to_try_again(node, monkeypatch):
    def away(*_: object) -> None:
        raise Unreachable("NATS cannot be reached.", code="bus.disconnected", retry_after_s=1.0)

    monkeypatch.setattr(node, "tasks", away)
    error = from_wire(await refusal(node, "task.list"))
    assert (type(error), error.code, error.retry_after_s, error.exit_code) == (Unavailable, "bus.disconnected", 1.0, 75)


def test_the_stand_in_keeps_the_protocols(node):
    control: NodeControl = node
    mesh: Mesh = node.mesh("default")
    for protocol, thing in (
        (NodeControl, control),
        (Mesh, mesh),
        (Tasks, node.tasks("default")),
        (Claims, node.claims("default")),
        (PastView, node.past("default")),
        (Targets, node.targets("default")),
        (Talk, node.talk("default")),
    ):
        names = [name for name in vars(protocol) if not name.startswith("_")]
        assert names
        assert [name for name in names if not callable(getattr(thing, name, None))] == []


async def test_what_is_no_dead_letter_is_not_shown_as_one(node):
    _, error = (await ask(node, "task.dead_show", {"id": "t0198c0ffee00d15ea5e0ddba11"}))[-1]
    assert (error["kind"], error["code"]) == ("not_found", "work.not_dead")


async def test_every_op_answers_its_first_example(node):
    for op in table.TABLE.values():
        assert op.examples, f"{op.name} has no example"
        assert op.summary.endswith("."), op.name
        assert op.help, op.name
        for example in op.examples:
            request = dict(example.request)
            if op.live and "limit" in op.request.model_fields:
                request["limit"] = 1
            if request.get("target") == "reviewer":
                request["target"] = "echo"
            if op.name == "config.rollback":
                request["number"] = 1
            if op.name == "task.dead_show":
                request["id"] = DEAD
            frames = await ask(node, op.name, request)
            assert frames[-1][0] == "result", (op.name, frames)
            op.reply.model_validate(frames[-1][1])


async def test_a_stream_ends_with_one_result(node):
    frames = await ask(node, "agents.invoke", {"target": "echo", "input": [1], "stream": True})
    assert [kind for kind, _ in frames] == ["progress", "chunk", "result"]
    assert frames[1][1] == {"data": {"n": 1}}
    assert frames[2][1]["output"] == [1]


async def test_pieces_come_only_when_asked_for(node):
    assert [kind for kind, _ in await ask(node, "agents.invoke", {"target": "echo"})] == ["result"]


async def test_the_call_reaches_the_mesh_whole(node):
    await answer(
        node,
        "agents.invoke",
        {"capability": "talk", "require": ["a"], "prefer": ["b"], "exclude": ["n/x"], "retries": 3, "timeout_s": 5},
    )
    call, caller = node.one_mesh.calls[0]
    assert (call.target, call.capability, call.retries, call.timeout_s) == ("", "talk", 3, 5.0)
    assert (call.require, call.prefer, call.exclude) == (frozenset("a"), frozenset("b"), frozenset({"n/x"}))
    assert caller is ANYONE


async def test_closing_early_cancels_the_work(node):
    frames = serve.dispatch("agents.invoke", b'{"target":"slow","stream":true}', ANYONE, node)
    async with aclosing(frames):
        assert (await anext(frames)).kind == "progress"
    assert node.one_mesh.cancelled.is_set() is False  # it had not begun to wait
    frames = serve.dispatch("agents.invoke", b'{"target":"slow"}', ANYONE, node)
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.05), aclosing(frames):
            await anext(frames)
    assert node.one_mesh.cancelled.is_set()


async def test_errors_keep_their_class_and_code(node):
    wire = await refusal(node, "agents.invoke", {"target": "full"})
    assert (wire["kind"], wire["code"], wire["retry_after_s"]) == ("busy", "agent.busy", 1.5)
    assert (await refusal(node, "agents.show", {"target": "nobody"}))["code"] == "agent.not_found"


async def test_our_own_bugs_become_answers(node):
    wire = await refusal(node, "agents.invoke", {"target": "broken"})
    assert (wire["kind"], wire["message"]) == ("internal", "ZeroDivisionError: inside")
    assert (await refusal(node, "agents.invoke", {"target": "mute"}))["code"] == "ops.no_answer"


async def test_an_unknown_op_names_the_nearest(node):
    wire = await refusal(node, "agents.lst")
    assert (wire["code"], wire["hint"]) == ("ops.unknown", "Did you mean agents.list?")


@pytest.mark.parametrize("name", ["node.stp", "node.stopp", "node.top", "trigger.remov", "config.rolback", "task.drp"])
async def test_what_ends_or_takes_away_is_never_suggested(node, name):
    wire = await refusal(node, name)
    meant = wire["hint"].removeprefix("Did you mean ").removesuffix("?")
    assert meant not in ("node.stop", "trigger.remove", "config.rollback", "task.drop")
    assert meant in serve.table.TABLE or wire["hint"].startswith("There are: ")


async def test_all_problems_are_told_at_once(node):
    wire = await refusal(node, "agents.invoke", {"target": "a.b", "timeout_s": -1, "retires": 2, "input": 1})
    fields = {problem["field"]: problem for problem in wire["detail"]["problems"]}
    assert set(fields) == {"target", "timeout_s", "retires"}
    assert fields["retires"]["hint"] == "Did you mean retries?"
    assert all(name in wire["message"] for name in fields)


BAD_TOKENS = ["", "a.b", ">", "*", "a b", "A", "a\n", "ä", "x" * 65, "x" * 10_000, "../x", "a/b/c", None, 7, {}]


@pytest.mark.parametrize("token", BAD_TOKENS, ids=lambda token: repr(token)[:12])
async def test_a_bad_capability_is_refused(node, token):
    wire = await refusal(node, "agents.invoke", {"capability": token, "input": 1})
    assert wire["kind"] == "invalid"
    assert len(json.dumps(wire)) < 2000
    assert node.one_mesh.calls == []


@pytest.mark.parametrize("request_", [{}, {"target": "a", "capability": "b"}])
async def test_target_or_capability_exactly_one(node, request_):
    assert "either target or capability" in (await refusal(node, "agents.invoke", request_))["message"]


BAD_BODIES = [
    b"{",
    b"[1]",
    b"null",
    b'"x"',
    b"\xff\xfe{\x00}\x00",
    b'{"a":NaN}',
    b"[" * 100_000,
    b'{"target":"\\ud800"}',
    b"\x00",
]


@pytest.mark.parametrize("body", BAD_BODIES, ids=lambda body: repr(body[:10]))
async def test_a_body_that_is_no_request_is_refused(node, body):
    assert (await refusal(node, "agents.invoke", body))["kind"] == "invalid"


async def test_no_body_is_an_empty_request(node):
    assert (await ask(node, "nodes.list", b""))[-1][0] == "result"


async def test_too_large_a_request_is_refused_unread(node):
    body = b'{"target":"echo","input":"' + b"x" * request_size.REQUEST_MAX_BYTES + b'"}'
    assert (await refusal(node, "agents.invoke", body))["code"] == "ops.request_too_large"


async def test_rights_are_checked(node):
    reader = table.Caller("reader", may="read")
    assert (await ask(node, "agents.list", {}, reader))[-1][0] == "result"
    assert (await refusal(node, "agents.invoke", {"target": "echo"}, reader))["code"] == "ops.denied"
    writer = table.Caller("writer", may="write")
    assert (await refusal(node, "node.stop", {}, writer))["kind"] == "denied"
    assert node.asked == []


async def test_a_project_not_served_is_not_found(node):
    stranger = table.Caller("tester", project="other", may="admin")
    assert (await refusal(node, "nodes.list", {}, stranger))["code"] == "project.not_found"


async def test_what_json_cannot_say_becomes_null(node):
    node.one_mesh.known[0] = node.one_mesh.known[0].model_copy(update={"load": float("nan")})
    assert (await answer(node, "agents.list"))["agents"][0]["load"] is None


async def test_what_is_nested_as_deep_as_can_be_read_is_answered():
    value = codec.decode(b"[" * 880 + b"1" + b"]" * 880)
    told = codec.decode(serve.encode(replies.Chunk(data={"a": value})))["data"]
    deep = 0
    while isinstance(told, list | dict):
        told, deep = (told["a"] if isinstance(told, dict) else told[0]), deep + 1
    assert (told, deep) == (1, 881)


async def test_half_a_character_does_not_break_the_answer(node):
    node.one_mesh.known[0] = node.one_mesh.known[0].model_copy(update={"description": "\ud800"})
    assert (await refusal(node, "agents.list"))["code"] == "ops.bad_answer"


async def test_events_count_and_end_by_limit_and_by_time(node):
    frames = await ask(node, "node.events", {"limit": 2, "names": ["node.*"]})
    assert [kind for kind, _ in frames] == ["chunk", "chunk", "result"]
    assert frames[-1][1] == {"count": 2, "dropped": 0}
    assert (await ask(node, "node.events", {"wait_s": 0.05}))[-1] == ("result", {"count": 4, "dropped": 7})
    assert node.asked[0] == ("events", ("node.*",), "default")


async def test_filters(node):
    assert [row["agent"] for row in (await answer(node, "agents.list", {"capability": "talk"}))["agents"]] == ["echo"]
    assert [row["agent"] for row in (await answer(node, "agents.list", {"tags": ["fast"]}))["agents"]] == ["echo"]
    limited = await answer(node, "agents.list", {"limit": 1})
    assert (len(limited["agents"]), limited["total"]) == (1, 3)
    assert [row["name"] for row in (await answer(node, "nodes.list", {"online": True}))["nodes"]] == ["here"]
    shown = await answer(node, "config.show", {"prefix": "mesh.", "origin": True})
    assert [(row["key"], row["origin"]) for row in shown["settings"]] == [("mesh.heartbeat_s", "default")]
    assert {row["origin"] for row in (await answer(node, "config.show"))["settings"]} == {""}


async def test_stop_now_does_not_drain(node):
    await answer(node, "node.stop", {"now": True})
    await answer(node, "node.stop", {"drain_s": 5})
    await answer(node, "node.stop")
    assert node.asked == [("stop", 0.0), ("stop", 5.0), ("stop", None)]


def test_two_rows_of_one_name_are_refused():
    with pytest.raises(AssertionError, match="two ops"):
        table.op("node.status", table.Request, table.Reply, effect="read", summary="", cli=table.CliForm(("x",)))(ask)
