"""Webhooks and requests, on a real server: signed, once each, answered by the run."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import json
import time
from typing import Any

import pytest
from tests.integration.trigger.conftest import DO, define, keep, output, runs_of
from tests.integration.work.conftest import PATIENCE_S, until

from knotwork.bus import reading, subjects
from knotwork.flow import facts, history
from knotwork.sdk.errors import Busy, Conflict, Denied, Invalid, NotFound, TooLarge, Unavailable
from knotwork.trigger import arrivals
from knotwork.trigger.arrivals import Arrived

SECRET = "a-long-secret"


@pytest.fixture(autouse=True)
def secret(monkeypatch):
    monkeypatch.setenv("HOOK_SECRET", SECRET)


def signed(body: bytes, secret: str = SECRET) -> dict[str, str]:
    return {"x-signature-256": "sha256=" + hmac.new(secret.encode(), body, hashlib.sha256).hexdigest()}


async def send(triggers, kind: str, path: str, body: bytes = b"", headers: dict[str, str] | None = None, **more: Any):
    """Fire whatever is served there, as the HTTP door does."""
    async with asyncio.timeout(PATIENCE_S):
        while not (found := triggers.arrivals.find(kind, path)):
            await asyncio.sleep(0.02)
    arrived = Arrived(kind, more.pop("method", "POST"), path, headers or {}, more, body)
    return await triggers.arrivals.answer(found[0], arrived)


async def test_a_webhook_starts_one_run_for_one_delivery(nodes):
    flow, triggers = await nodes.here()
    _, there = await nodes.here("there")
    await define(flow)
    await keep(triggers, kind="webhook", path="in", secret={"env": "HOOK_SECRET"})
    body = b'{"a": 1}'
    first = await send(triggers, "webhook", "in", body, signed(body))
    again = await send(there, "webhook", "in", body, signed(body))  # replayed, at another node
    assert (first.status, again.status) == (202, 202)
    told, twice = json.loads(first.body), json.loads(again.body)
    assert (told["new"], twice["new"]) == (True, False)
    assert told["run"] == twice["run"] == first.run
    assert await output(flow, first.run) == {"a": 1}
    other = await send(triggers, "webhook", "in", b"[]", {**signed(b"[]"), "idempotency-key": "k"})
    assert await output(flow, other.run) == []
    with pytest.raises(Denied):
        await send(triggers, "webhook", "in", b"[1]", signed(b"[]"))
    with pytest.raises(Denied):
        await send(triggers, "webhook", "in", b"[1]")
    assert len(await runs_of(flow)) == 2
    assert await there.firings.counts(["t"]) == {"t": 2}  # runs, not requests; wherever one asks
    assert SECRET not in str((await triggers.store.get("t")).trigger.model_dump())
    await triggers.remove("t")
    assert await there.firings.counts(["t"]) == {}


def numbered(body: bytes, name: str) -> dict[str, str]:
    """Return the headers of Standard Webhooks."""
    at = str(int(time.time()))
    digest = hmac.new(SECRET.encode(), f"{name}.{at}.".encode() + body, hashlib.sha256).digest()
    return {"webhook-id": name, "webhook-timestamp": at, "webhook-signature": f"v1,{base64.b64encode(digest).decode()}"}


async def test_a_delivery_that_is_replayed_is_no_other_for_a_header_that_nobody_signed(nodes):
    flow, triggers = await nodes.here()
    await define(flow)
    await keep(triggers, kind="webhook", path="in", secret={"env": "HOOK_SECRET"})
    heard = numbered(b"1", "m1")
    first = await send(triggers, "webhook", "in", b"1", heard)
    for key in ("k1", "k2"):
        assert (await send(triggers, "webhook", "in", b"1", {**heard, "idempotency-key": key})).run == first.run
    assert (await send(triggers, "webhook", "in", b"1", numbered(b"1", "m2"))).run != first.run
    with pytest.raises(Conflict, match=f"another body: it was the run {first.run}"):
        await send(triggers, "webhook", "in", b"2", numbered(b"2", "m1"))
    assert len(await runs_of(flow)) == 2


async def test_a_path_has_one_trigger(nodes):
    flow, triggers = await nodes.here()
    await define(flow)
    await keep(triggers, "a", kind="http", path="p", unsigned=True)
    await keep(triggers, "b", kind="http", path="p", method="GET", unsigned=True)
    await keep(triggers, "c", kind="webhook", path="p", unsigned=True)
    await keep(triggers, "a", kind="http", path="p", unsigned=True, timeout="1s")  # its own
    with pytest.raises(Conflict) as taken:
        await keep(triggers, "d", kind="http", path="p", unsigned=True)
    assert (taken.value.code, taken.value.detail) == ("trigger.route_taken", {"trigger": "a"})
    with pytest.raises(NotFound):
        await triggers.store.get("d")
    await keep(triggers, "a", kind="http", path="q", unsigned=True)
    await keep(triggers, "d", kind="http", path="p", unsigned=True)
    await triggers.store.remove("d")
    await keep(triggers, "e", kind="http", path="p", unsigned=True)
    await triggers.store._bucket.delete("def.e")  # as if it had ended before it was written: the path is free
    await keep(triggers, "f", kind="http", path="p", unsigned=True)


async def test_a_request_is_answered_by_the_run(nodes):
    flow, triggers = await nodes.here(**DO)
    await define(
        flow,
        steps={
            "a": {"capability": "do"},
            "say": {"kind": "respond", "status": 201, "depends_on": ["a"]},
            "more": {"kind": "wait_for_signal", "signal": "go", "depends_on": ["say"]},
        },
    )
    await keep(triggers, kind="http", path="say", unsigned=True, mapping={"body": "body", "q": "query.q"})
    found = await send(triggers, "http", "say", b'{"n": 1}', q="7")
    assert (found.status, json.loads(found.body)) == (201, {"body": {"n": 1}, "q": "7"})
    assert (await flow.runs.look(found.run)).finish is None  # it goes on
    headers = {"idempotency-key": "once"}
    first = await send(triggers, "http", "say", b'{"n": 2}', headers)
    again = await send(triggers, "http", "say", b'{"n": 2}', headers)
    assert first == again
    with pytest.raises(Conflict):
        await send(triggers, "http", "say", b'{"n": 3}', headers)
    await flow.runs.signal(first.run, "go", b"1")
    async with asyncio.timeout(PATIENCE_S):
        await flow.runs.ended(first.run)
    assert await send(triggers, "http", "say", b'{"n": 2}', headers) == first  # also when it is over


async def test_how_a_run_ends_is_an_answer_too(nodes):
    flow, triggers = await nodes.here()
    await define(flow)
    await define(flow, "waits", steps={"a": {"kind": "wait_for_signal", "signal": "go"}})
    await keep(triggers, kind="http", path="do", unsigned=True)
    await keep(triggers, "late", kind="http", path="late", unsigned=True, workflow="waits", timeout="50ms")
    await keep(triggers, "patient", kind="http", path="patient", unsigned=True, workflow="waits")
    done = await send(triggers, "http", "do", b"[1]")
    assert (done.status, done.body) == (200, b"[1]")
    failed = await send(triggers, "http", "do", b'{"fail": {"message": "broken"}}')
    assert (failed.status, failed.error.code, failed.run != "") == (500, "agent.failed", True)
    late = await send(triggers, "http", "late")
    assert (late.status, late.error.code, late.error.detail) == (504, "trigger.timeout", {"id": late.run})
    await flow.runs.cancel(late.run)

    async def cancel() -> None:
        while not (found := await runs_of(flow, "patient")):
            await asyncio.sleep(0.02)
        await flow.runs.cancel(next(iter(found.values())))

    async with asyncio.TaskGroup() as group:
        group.create_task(cancel())
        cancelled = await send(triggers, "http", "patient")
    assert cancelled.status == 503


async def test_what_is_refused(nodes, monkeypatch):
    flow, triggers = await nodes.here()
    await define(flow)
    schema = {"type": "object", "required": ["n"]}
    await keep(triggers, kind="http", path="do", unsigned=True, body_schema=schema, max_body=50)
    with pytest.raises(TooLarge):
        await send(triggers, "http", "do", b'"' + b"x" * 50 + b'"')
    with pytest.raises(Invalid) as misfit:
        await send(triggers, "http", "do", b"{}")
    assert misfit.value.code == "trigger.schema"
    await keep(triggers, "none", kind="webhook", path="none", secret={"env": "NOT_SET"})
    with pytest.raises(Unavailable) as unset:
        await send(triggers, "webhook", "none", b"", signed(b""))
    assert (unset.value.code, "NOT_SET" in str(unset.value)) == ("trigger.no_secret", False)
    await keep(triggers, "gone", kind="webhook", path="gone", unsigned=True, workflow="gone")
    with pytest.raises(Unavailable) as gone:
        await send(triggers, "webhook", "gone")
    assert (gone.value.code, "Register it again" in gone.value.hint) == ("trigger.no_workflow", True)
    assert not await runs_of(flow)


async def test_a_secret_that_was_changed_counts_at_once(nodes, monkeypatch):
    monkeypatch.setattr(arrivals, "DOUBTED_S", 0.0)
    flow, triggers = await nodes.here()
    await define(flow)
    await keep(triggers, kind="webhook", path="in", secret={"env": "HOOK_SECRET"})
    await send(triggers, "webhook", "in", b"1", signed(b"1"))
    monkeypatch.setenv("HOOK_SECRET", "another-secret")
    assert (await send(triggers, "webhook", "in", b"2", signed(b"2", "another-secret"))).status == 202
    with pytest.raises(Denied) as old:
        await send(triggers, "webhook", "in", b"3", signed(b"3"))
    assert old.value.code == "trigger.bad_signature"


async def test_overlap_of_requests(nodes):
    flow, triggers = await nodes.here()
    await define(flow, steps={"a": {"kind": "wait_for_signal", "signal": "go"}})
    await keep(triggers, kind="webhook", path="skip", unsigned=True, overlap="skip")
    await keep(triggers, "c", kind="webhook", path="cancel", unsigned=True, overlap="cancel")
    first = await send(triggers, "webhook", "skip")
    with pytest.raises(Busy) as busy:
        await send(triggers, "webhook", "skip")
    assert busy.value.detail == {"id": first.run}
    await flow.runs.signal(first.run, "go", b"1")
    async with asyncio.timeout(PATIENCE_S):
        await flow.runs.ended(first.run)
    assert (await send(triggers, "webhook", "skip")).run != first.run
    one = await send(triggers, "webhook", "cancel")
    two = await send(triggers, "webhook", "cancel")
    async with asyncio.timeout(PATIENCE_S):
        assert (await flow.runs.ended(one.run)).state == "cancelled"
    assert not await flow.runs.over(two.run)


async def test_a_request_that_starts_nothing_is_in_nobodys_way(nodes):
    flow, triggers = await nodes.here()
    of_numbers = {"input_schema": {"type": "integer"}}
    await define(flow, steps={"a": {"kind": "wait_for_signal", "signal": "go"}}, **of_numbers)
    for name in ("skip", "cancel"):
        await keep(triggers, name, kind="webhook", path=name, unsigned=True, overlap=name)
        with pytest.raises(Invalid):
            await send(triggers, "webhook", name, b'"text"')
        first = await send(triggers, "webhook", name, b"1")  # a place taken by what never began would refuse it
        with pytest.raises(Invalid):
            await send(triggers, "webhook", name, b'"text"')
        assert (await flow.runs.look(first.run)).run.phase == "running"
        assert (await triggers.store.state(name))[0].runs == [first.run]
        if name == "cancel":
            await send(triggers, "webhook", name, b"2")
            async with asyncio.timeout(PATIENCE_S):
                assert (await flow.runs.ended(first.run)).state == "cancelled"


async def test_twenty_deliveries_at_once_are_one_run(nodes):
    flow, triggers = await nodes.here()
    await define(flow)
    await keep(triggers, kind="webhook", path="in", secret={"env": "HOOK_SECRET"})
    body = b"1"
    await send(triggers, "webhook", "in", b"0", signed(b"0"))
    async with asyncio.TaskGroup() as group:
        sent = [group.create_task(send(triggers, "webhook", "in", body, signed(body))) for _ in range(20)]
    assert len({one.result().run for one in sent}) == 1
    assert sum(json.loads(one.result().body)["new"] for one in sent) == 1


async def test_a_delivery_that_comes_again_when_its_run_is_long_over(nodes, tmp_path):
    flow, triggers = await nodes.here()
    await define(flow)
    await keep(triggers, kind="webhook", path="in", unsigned=True)
    touched = tmp_path / "touched"
    body = json.dumps({"touch": str(touched)}).encode()
    keys = [{"idempotency-key": str(number)} for number in range(5)]
    first = [await send(triggers, "webhook", "in", body, key) for key in keys]
    for one in first:
        await output(flow, one.run)

    async def forgotten() -> bool:
        lasts = [await reading.last(flow.connection, subjects.FACTS, facts.subject(one.run, "start")) for one in first]
        return not any(lasts)

    await until(forgotten)
    again = [await send(triggers, "webhook", "in", body, key) for key in keys]
    assert [one.run for one in again] == [one.run for one in first]
    await output(flow, (await send(triggers, "webhook", "in", b"1")).run)  # whatever they began had its time
    assert len(touched.read_text().splitlines()) == 5


async def test_a_key_is_for_one_body_also_when_its_run_is_packed_away(nodes):
    flow, triggers = await nodes.here()
    await define(flow)
    await keep(triggers, kind="http", path="p", unsigned=True)
    head = {"idempotency-key": "k"}
    first = await send(triggers, "http", "p", b"1", head)
    await until(lambda: history.is_kept(flow.connection, first.run))
    again = await send(triggers, "http", "p", b"1", head)
    assert (again.status, again.body, again.run) == (200, b"1", first.run)
    with pytest.raises(Conflict) as reused:
        await send(triggers, "http", "p", b"2", head)
    assert (reused.value.code, reused.value.detail) == ("flow.key_reused", {"id": first.run})
