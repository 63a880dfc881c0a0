"""Agents that something behind a URL starts: what is sent, how it is signed, and what is made of the answers."""

import base64
import hashlib
import hmac
import json
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import pytest

from knotwork.sdk import (
    Busy,
    Condition,
    Conflict,
    Denied,
    Invalid,
    LaunchRequest,
    NotFound,
    SpinUp,
    TimedOut,
    Unavailable,
    Unreachable,
)
from knotwork.sdk.testing import host, make_context
from knotwork_plugins.spinups.webhook import plugin
from knotwork_plugins.spinups.webhook.plugin import FACTORY

ODD = 'a "quoted" \\ back\nslash {target} ü'

pytestmark = pytest.mark.timeout(120)


def request(launch: str = "launch-1", **given: Any) -> LaunchRequest:
    env = {"KNOTWORK_TOKEN": "hush-hush-7", "KNOTWORK_CREDS": ODD, "KNOTWORK_URL": "nats://10.0.0.1:4222"}
    return replace(LaunchRequest(launch, "hook", "default", "review", "personal", "task-1", env), **given)


@asynccontextmanager
async def opened(receiver: Any, path: str = "/launch", **given: Any) -> AsyncIterator[SpinUp]:
    async with host(FACTORY, {"url": receiver.url + path, "request_timeout_s": 30, **given}) as spinup:
        yield spinup


async def test_all_of_it_is_sent_as_json(receiver, monkeypatch):
    monkeypatch.setenv("HOOK", "the token of the hook")
    async with opened(receiver, headers={"Authorization": {"env": "HOOK"}, "X-Plain": "x"}) as spinup:
        launched = await spinup.launch(request())
    (sent,) = receiver.asks("POST", "/launch$")
    assert sent.headers["content-type"] == "application/json"
    assert sent.headers["idempotency-key"] == sent.headers["webhook-id"] == "launch-1"
    assert sent.headers["authorization"] == "the token of the hook"
    assert sent.headers["x-plain"] == "x"
    assert "webhook-signature" not in sent.headers
    assert sent.json == {
        "launch": "launch-1", "target": "hook", "project": "default", "capability": "review", "boundary": "personal",
        "task": "task-1", "env": {**request().env, "KNOTWORK_LAUNCH": "launch-1"},
    }  # fmt: skip
    assert launched.ref == {"launch": "launch-1", "target": "hook", "answer": {"id": "vm-0", "n": 7}}, "an echo is kept"


@pytest.mark.parametrize(("secret", "key"), [
    ("whsec_" + base64.b64encode(b"the key itself").decode(), b"the key itself"), ("a plain one", b"a plain one"),
    ("whsec_no base64", b"whsec_no base64"),
])  # fmt: skip
async def test_it_is_signed_as_standard_webhooks_are(receiver, monkeypatch, secret, key):
    monkeypatch.setenv("SIGN", secret)
    async with opened(receiver, secret={"env": "SIGN"}) as spinup:
        await spinup.launch(request())
    (sent,) = receiver.asks("POST", "/launch$")
    stamp = sent.headers["webhook-timestamp"]
    assert abs(time.time() - int(stamp)) < 60
    signed = b"launch-1." + stamp.encode() + b"." + sent.body
    expected = base64.b64encode(hmac.new(key, signed, hashlib.sha256).digest()).decode()
    assert sent.headers["webhook-signature"] == f"v1,{expected}"


def test_the_example_of_the_standard_is_signed_alike():
    body = b'{"test": 2432232314}'
    found = plugin.signature("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", "msg_p5jXN8AQM9LWM0D4loKWxJek", 1614265330, body)
    assert found == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="


@pytest.mark.parametrize("body", [
    {"who": "{target}", "text": "for {task}: {env.KNOTWORK_CREDS}", "all": "{env}", "n": 7, "deep": [{"a": "{launch}"}, None]},
    '{"who": "{target}", "text": "for {task}: {env.KNOTWORK_CREDS}", "all": {env}, "n": 7, "deep": [{"a": "{launch}"}, null]}',
], ids=["table", "text"])  # fmt: skip
async def test_places_in_a_body_are_escaped(receiver, body):
    async with opened(receiver, body=body) as spinup:
        await spinup.launch(request())
    (sent,) = receiver.asks("POST", "/launch$")
    env = {**request().env, "KNOTWORK_LAUNCH": "launch-1"}
    assert sent.json == {
        "who": "hook", "text": f"for task-1: {ODD}", "all": env, "n": 7, "deep": [{"a": "launch-1"}, None],
    }  # fmt: skip


async def test_places_in_a_url_stay_in_their_segment(receiver):
    async with opened(receiver, "/launch/{target}/{task}?p={project}", method="GET") as spinup:
        await spinup.launch(request(task="a/../b?c=d#e", project="x&y=z"))
        with pytest.raises(Invalid) as refused:
            await spinup.launch(request(task=".."))
        assert refused.value.code == "launch.bad_url"
    (sent,) = receiver.asks("GET", "/launch")
    assert sent.path == "/launch/hook/a%2F..%2Fb%3Fc%3Dd%23e"
    assert sent.query == {"p": "x&y=z"}
    assert sent.body == b""


@pytest.mark.parametrize("status", [200, 201, 202, 204])
async def test_each_success_is_one(receiver, status):
    receiver.status = status
    async with opened(receiver) as spinup:
        launched = await spinup.launch(request())
    assert launched.ref["answer"] == ({} if status == 204 else {"id": "vm-0", "n": 7})


@pytest.mark.parametrize(("status", "error", "code"), [
    (203, Invalid, "launch.refused"), (301, Invalid, "launch.moved"), (400, Invalid, "launch.refused"),
    (401, Denied, "launch.denied"), (403, Denied, "launch.denied"), (404, NotFound, "launch.not_found"),
    (408, Unavailable, "launch.unavailable"), (409, Conflict, "launch.conflict"), (422, Invalid, "launch.refused"),
    (429, Busy, "launch.busy"), (500, Unavailable, "launch.unavailable"), (503, Unavailable, "launch.unavailable"),
])  # fmt: skip
async def test_each_refusal_has_its_error(receiver, monkeypatch, status, error, code):
    monkeypatch.setenv("HOOK", "the token of the hook")
    told = {"Retry-After": "7", "Location": "https://elsewhere.example.com/hush-hush-7"}
    said = {"message": "the reason: hush-hush-7, the token of the hook"}
    receiver.fault("POST", "/launch", status=status, body=said, headers=told)
    async with opened(receiver, headers={"Authorization": {"env": "HOOK"}}) as spinup:
        with pytest.raises(error) as refused:
            await spinup.launch(request())
    assert (type(refused.value), refused.value.code) == (error, code)
    assert not [word for word in ("hush", "token of the hook") if word in str(refused.value)]
    assert refused.value.retry_after_s == (7.0 if issubclass(error, Unavailable) else None)
    assert len(receiver.asks("POST", "/launch")) == 1, "a redirect was followed"


async def test_silence_is_for_later(receiver):
    receiver.fault("POST", "/launch", hang=True)
    async with host_unasked(receiver, {}, request_timeout_s=1.0) as spinup:
        with pytest.raises(Unavailable, match="within 1 s") as silent:
            await spinup.launch(request())
    assert silent.value.code == "launch.no_answer"


async def test_garbage_is_for_later(receiver):
    async with opened(receiver) as spinup:
        receiver.fault("POST", "/launch", raw=b"no HTTP at all\r\n\r\n")
        with pytest.raises(Unreachable):
            await spinup.launch(request())
        receiver.fault("POST", "/launch", status=200, body=b"[" * 100_000)
        assert (await spinup.launch(request())).ref["answer"] == {}
        receiver.close()
        with pytest.raises(Unreachable):
            await spinup.launch(request())


@pytest.mark.parametrize("value", ["the tok\ten ", "the tok\ten\x01", "the tök", "\x7f"])
async def test_a_secret_that_no_header_can_carry_is_not_told(receiver, tmp_path, value):
    (tmp_path / "token").write_text(value)
    async with host_unasked(receiver, {"X-Token": {"file": str(tmp_path / "token")}}) as spinup:
        with pytest.raises(Invalid, match="X-Token") as refused:
            await spinup.launch(request())
    assert refused.value.code == "launch.bad_header"
    assert "tok\ten" not in str(refused.value)
    assert not receiver.started


@asynccontextmanager
async def host_unasked(receiver: Any, headers: Any, **given: Any) -> AsyncIterator[SpinUp]:
    config = FACTORY.config.model_validate({"url": f"{receiver.url}/launch", "headers": headers, **given})
    async with FACTORY.open(config, make_context()) as spinup:
        yield spinup


async def test_without_a_status_url_nobody_can_tell(receiver):
    async with opened(receiver) as spinup:
        launched = await spinup.launch(request())
        assert await spinup.condition(launched.ref) == Condition(
            "running", "nobody can tell: the target has no `status_url`"
        )
        with pytest.raises(Invalid, match="no way to end") as refused:
            await spinup.stop(launched.ref, 1.0)
        assert refused.value.code == "launch.cannot_stop"


async def test_it_is_asked_how_it_is_and_told_to_end(receiver, monkeypatch):
    monkeypatch.setenv("SIGN", "a plain one")
    receiver.ends_after = 2
    agents = f"{receiver.url}/agents/{{answer.id}}"
    async with opened(receiver, status_url=agents, stop_url=agents, secret={"env": "SIGN"}) as spinup:
        launched = await spinup.launch(request())
        assert await spinup.condition(launched.ref) == Condition("running", "a machine in the cellar")
        receiver.fault("GET", "/agents/", status=200, body={"state": "failed", "why": "no room"})
        assert await spinup.condition(launched.ref) == Condition("failed", "no room")
        receiver.fault("GET", "/agents/", status=200, body={"state": "merry"})
        assert await spinup.condition(launched.ref) == Condition("running")
        receiver.fault("GET", "/agents/", status=500)
        with pytest.raises(Unavailable):
            await spinup.condition(launched.ref)
        await spinup.stop(launched.ref, 2.5)
        assert (await spinup.condition(launched.ref)).state == "gone"
        await spinup.stop(launched.ref, 2.5)
        receiver.fault("DELETE", "/agents/", status=403)
        with pytest.raises(Denied):
            await spinup.stop(launched.ref, 2.5)
    stop = receiver.asks("DELETE", "/agents/vm-0$")[0]
    assert stop.json == {"launch": "launch-1", "grace_s": 2.5}
    assert stop.headers["webhook-id"] == "launch-1.stop"
    assert "webhook-signature" in stop.headers


async def test_one_that_does_not_end_is_told_of(receiver, monkeypatch):
    monkeypatch.setattr(plugin, "ENDS_WITHIN_S", 0.2)
    monkeypatch.setattr(plugin, "LOOK_S", 0.02)
    receiver.ends_after = 10**6
    agents = f"{receiver.url}/agents/{{answer.id}}"
    async with opened(receiver, status_url=agents, stop_url=agents) as spinup:
        launched = await spinup.launch(request())
        with pytest.raises(TimedOut) as refused:
            await spinup.stop(launched.ref, 0.1)
    assert refused.value.code == "launch.will_not_end"


async def test_an_answer_without_what_the_urls_need(receiver):
    receiver.status = 204
    async with opened(receiver, status_url=f"{receiver.url}/agents/{{answer.id}}") as spinup:
        launched = await spinup.launch(request())
        with pytest.raises(Invalid, match="status_url") as refused:
            await spinup.condition(launched.ref)
    assert refused.value.code == "launch.bad_url"


async def test_a_probe_starts_nothing(receiver):
    async with opened(receiver) as spinup:
        await spinup.probe()
    async with opened(receiver, probe_url=f"{receiver.url}/health") as spinup:
        receiver.fault("GET", "/health", status=500)
        with pytest.raises(Unavailable):
            await spinup.probe()
    assert receiver.started == {}
    assert {one.method for one in receiver.asked} == {"OPTIONS", "GET"}
    receiver.close()
    config = FACTORY.config.model_validate({"url": receiver.url})
    async with FACTORY.open(config, make_context()) as spinup:
        with pytest.raises(Unreachable):
            await spinup.probe()


async def test_certificates_that_cannot_be_read(tmp_path):
    config = FACTORY.config.model_validate({"url": "https://example.com/", "ca_file": "none.pem"})
    with pytest.raises(Unavailable) as refused:
        async with FACTORY.open(config, make_context(base=tmp_path)):
            raise AssertionError("it opened")
    assert refused.value.code == "http.no_certificates"


def test_plain_http_to_another_machine_must_be_meant():
    table = {"url": "http://10.0.0.7/launch", "insecure": True}
    assert FACTORY.config.model_validate(table)
    assert FACTORY.config.model_validate({"url": "http://[::1]:8080/launch"})
    assert json.loads(FACTORY.config.model_validate(table).model_dump_json())["insecure"] is True
