"""Agents in containers: what is asked of Docker, and what is made of its answers. The Engine is a stand-in."""

import base64
import json
import os
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
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
from knotwork_plugins.spinups.docker import plugin, speech
from knotwork_plugins.spinups.docker.plugin import FACTORY

pytestmark = pytest.mark.timeout(120)


def request(launch: str = "launch-1") -> LaunchRequest:
    env = {"KNOTWORK_TOKEN": "hush-hush-7", "KNOTWORK_URL": "nats://10.0.0.1:4222"}
    return LaunchRequest(launch, "box", "default", "review", "personal", "task-1", env)


@asynccontextmanager
async def opened(api: Any, **given: Any) -> AsyncIterator[SpinUp]:
    table = {"image": "agent:1", "socket": api.url, "request_timeout_s": 30, **given}
    async with host(FACTORY, table, start_timeout_s=40) as spinup:
        yield spinup


@asynccontextmanager
async def unasked(**given: Any) -> AsyncIterator[SpinUp]:
    """Open it without a probe."""
    context = make_context()
    async with FACTORY.open(FACTORY.config(**{"image": "agent:1", **given}), context) as spinup:
        yield spinup
    shutil.rmtree(context.folder)


async def test_what_is_sent(docker_api, monkeypatch):
    monkeypatch.setenv("API_KEY", "the key")
    table: dict[str, Any] = {
        "command": ["agent", "--now"], "entrypoint": ["tini"], "cwd": "/work", "user": "1000", "network": "agents",
        "env": {"PLAIN": "x", "KEY": {"env": "API_KEY"}}, "volumes": ["/srv:/srv:ro"], "memory_limit_mb": 512, "cpus": 1.5,
    }  # fmt: skip
    async with opened(docker_api, **table) as spinup:
        launched = await spinup.launch(request())
    (create,) = docker_api.asks("POST", "/containers/create$")
    assert create.path == "/v1.44/containers/create"
    assert create.query == {"name": "knotwork-launch-1"}
    assert create.headers["content-type"] == "application/json"
    body = create.json
    assert sorted(body.pop("Env")) == [
        "KEY=the key", "KNOTWORK_LAUNCH=launch-1", "KNOTWORK_TOKEN=hush-hush-7", "KNOTWORK_URL=nats://10.0.0.1:4222", "PLAIN=x",
    ]  # fmt: skip
    assert body == {
        "Image": "agent:1", "Cmd": ["agent", "--now"], "Entrypoint": ["tini"], "WorkingDir": "/work", "User": "1000",
        "AttachStdin": False, "OpenStdin": False, "Tty": False,
        "Labels": {
            "knotwork.launch": "launch-1", "knotwork.target": "box", "knotwork.project": "default",
            "knotwork.capability": "review", "knotwork.boundary": "personal", "knotwork.task": "task-1",
        },
        "HostConfig": {
            "Init": True, "AutoRemove": False, "RestartPolicy": {"Name": "no"}, "NetworkMode": "agents",
            "ExtraHosts": ["host.docker.internal:host-gateway"], "Binds": ["/srv:/srv:ro"], "Memory": 536_870_912,
            "NanoCpus": 1_500_000_000, "SecurityOpt": ["no-new-privileges"],
        },
    }  # fmt: skip
    (start,) = docker_api.asks("POST", "/start$")
    assert start.path == f"/v1.44/containers/{launched.ref['id']}/start"
    assert set(launched.ref) == {"id", "launch"}


async def test_stop_asks_gently_and_removes(docker_api):
    async with opened(docker_api) as spinup:
        launched = await spinup.launch(request())
        await spinup.stop(launched.ref, 2.3)
    (stop,) = docker_api.asks("POST", "/stop$")
    assert stop.query == {"t": "3"}
    assert docker_api.asks("DELETE", "/containers/")[0].query == {"force": "1", "v": "1"}
    assert docker_api.containers == {}


async def test_a_container_that_ends_badly_is_failed_with_its_last_lines(docker_api):
    async with opened(docker_api, command=["false"]) as spinup:
        launched = await spinup.launch(request())
        condition = await spinup.condition(launched.ref)
        assert condition == Condition("failed", "it ended with exit code 3; its last lines:\nhello\nno such agent")
        docker_api.fault("GET", "/logs", status=200, body=b"\1\0\0\0\0\0\0\x0chush-hush-7\n")
        assert "hush" not in (await spinup.condition(launched.ref)).why
        docker_api.fault("GET", "/logs", status=500)
        assert (await spinup.condition(launched.ref)).why == "it ended with exit code 3, without a word"
        await spinup.stop(launched.ref, 0.0)
        assert await spinup.condition(launched.ref) == Condition("gone", "the container was removed")


@pytest.mark.parametrize(("state", "expected"), [
    ({"Status": "created"}, "starting"), ({"Status": "restarting"}, "starting"), ({"Status": "running"}, "running"),
    ({"Status": "paused"}, "running"), ({"Status": "removing"}, "gone"), ({"Status": "exited", "ExitCode": 0}, "gone"),
    ({"Status": "exited", "ExitCode": 1}, "failed"), ({"Status": "dead", "ExitCode": 137, "OOMKilled": True}, "failed"),
    ({"Status": "exited", "ExitCode": 0, "Error": "no such file"}, "failed"), ({}, "failed"),
])  # fmt: skip
def test_each_state_of_a_container(state, expected):
    assert speech.state_of({"State": state})[0] == expected


@pytest.mark.parametrize(("theirs", "ours"), [
    ("1.51", "/v1.44"), ("1.44", "/v1.44"), ("1.41", "/v1.41"), ("", "/v1.44"), ("x", "/v1.44"), ("2.0", "/v1.44"),
])  # fmt: skip
def test_the_version_spoken_is_one_both_know(theirs, ours):
    assert speech.version(theirs) == ours


@pytest.mark.parametrize(("image", "parts"), [
    ("agent", ("agent", "latest")), ("agent:2", ("agent", "2")), ("r.io:5000/agent", ("r.io:5000/agent", "latest")),
    ("r.io:5000/a/b:3", ("r.io:5000/a/b", "3")), ("agent@sha256:ab", ("agent@sha256:ab", "")),
])  # fmt: skip
def test_an_image_and_its_tag(image, parts):
    assert speech.image_and_tag(image) == parts


async def test_a_missing_image_is_pulled_with_the_login(docker_api, monkeypatch):
    monkeypatch.setenv("REGISTRY", "the password")
    login = {"registry_user": "me", "registry_password": {"env": "REGISTRY"}}
    async with opened(docker_api, image="agent:2", **login) as spinup:
        launched = await spinup.launch(request())
        assert (await spinup.condition(launched.ref)).state == "running"
    (pull,) = docker_api.asks("POST", "/images/create")
    assert pull.query == {"fromImage": "agent", "tag": "2"}
    sent = json.loads(base64.urlsafe_b64decode(pull.headers["x-registry-auth"]))
    assert sent == {"username": "me", "password": "the password"}


async def test_always_pulls_each_time_and_never_does_not(docker_api):
    docker_api.registry.add("agent:1")
    async with opened(docker_api, pull="always") as spinup:
        for launch in ("launch-1", "launch-2", "launch-2"):
            await spinup.launch(request(launch))
    assert len(docker_api.asks("POST", "/images/create")) == 2
    async with unasked(image="agent:2", pull="never", socket=docker_api.url) as spinup:
        for asked in (spinup.probe(), spinup.launch(request("launch-3"))):
            with pytest.raises(NotFound) as refused:
                await asked
            assert refused.value.code == "launch.not_found"
            assert refused.value.hint
    assert len(docker_api.asks("POST", "/images/create")) == 2


async def test_a_pull_that_fails_within_its_answer(docker_api):
    async with opened(docker_api, image="nobody/has:this") as spinup:
        with pytest.raises(NotFound, match="pull access denied") as refused:
            await spinup.launch(request())
    assert refused.value.code == "launch.no_image"
    assert docker_api.containers == {}


async def test_a_pull_that_takes_long_goes_on_meanwhile(docker_api, monkeypatch):
    monkeypatch.setattr(plugin, "PULL_WAIT_S", 0.2)
    docker_api.registry.add("agent:3")
    docker_api.slow_pull.clear()
    async with opened(docker_api, image="agent:3") as spinup:
        for launch in ("launch-1", "launch-2"):
            with pytest.raises(Unavailable, match="still being pulled") as refused:
                await spinup.launch(request(launch))
            assert refused.value.code == "launch.pulling"
            assert refused.value.retry_after_s
        docker_api.slow_pull.set()
        monkeypatch.setattr(plugin, "PULL_WAIT_S", 30.0)
        launched = await spinup.launch(request("launch-2"))
        assert (await spinup.condition(launched.ref)).state == "running"
        docker_api.slow_pull.clear()
        docker_api.images.clear()
        monkeypatch.setattr(plugin, "PULL_WAIT_S", 0.2)
        with pytest.raises(Unavailable, match="still being pulled"):  # and closing breaks it off
            await spinup.launch(request("launch-3"))
    docker_api.slow_pull.set()
    assert len(docker_api.asks("POST", "/images/create")) == 2


async def test_one_whose_name_is_taken_by_another_is_refused(docker_api):
    async with opened(docker_api) as spinup:
        await spinup.launch(request())
        next(iter(docker_api.containers.values()))["body"]["Labels"]["knotwork.launch"] = "somebody-elses"
        with pytest.raises(Conflict) as refused:
            await spinup.launch(request())
    assert refused.value.code == "launch.conflict"
    assert len(docker_api.containers) == 1


async def test_one_that_cannot_start_leaves_no_container(docker_api):
    said = 'failed to create task: exec: "nope": executable file not found in $PATH: hush-hush-7'
    docker_api.fault("POST", "/start$", status=400, body={"message": said})
    async with opened(docker_api) as spinup:
        with pytest.raises(Invalid, match="executable file not found") as refused:
            await spinup.launch(request())
    assert refused.value.code == "launch.refused"
    assert "hush" not in str(refused.value)
    assert docker_api.containers == {}


@pytest.mark.parametrize(("status", "error", "code"), [
    (400, Invalid, "launch.refused"), (401, Denied, "launch.denied"), (403, Denied, "launch.denied"),
    (409, Conflict, "launch.conflict"), (422, Invalid, "launch.refused"), (429, Busy, "launch.busy"),
    (500, Unavailable, "launch.unavailable"), (503, Unavailable, "launch.unavailable"), (302, Invalid, "launch.moved"),
])  # fmt: skip
async def test_each_refusal_has_its_error(docker_api, status, error, code):
    docker_api.fault(
        "POST", "/containers/create", status=status, body={"message": "the reason"}, headers={"Retry-After": "7"}
    )
    async with opened(docker_api) as spinup:
        with pytest.raises(error) as refused:
            await spinup.launch(request())
    assert (type(refused.value), refused.value.code) == (error, code)
    assert refused.value.retry_after_s == (7.0 if issubclass(error, Unavailable) else None)
    assert "the reason" in str(refused.value) or status == 302


async def test_silence_is_for_later(docker_api):
    docker_api.fault("GET", "/_ping", hang=True)
    async with unasked(socket=docker_api.url, request_timeout_s=1.0) as spinup:
        with pytest.raises(Unavailable, match="within 1 s") as silent:
            await spinup.launch(request())
    assert silent.value.code == "launch.no_answer"


async def test_garbage_is_for_later(docker_api):
    async with opened(docker_api) as spinup:
        docker_api.fault("POST", "/containers/create", status=201, body=b"<html>a proxy</html>")
        docker_api.fault("POST", "/containers/create", status=201, body={"Warnings": []})
        for _ in range(2):
            with pytest.raises(Unavailable) as odd:
                await spinup.launch(request())
            assert odd.value.code == "launch.bad_answer"
        docker_api.fault("POST", "/containers/create", raw=b"no HTTP at all\r\n\r\n")
        with pytest.raises(Unreachable):
            await spinup.launch(request())
        docker_api.fault("GET", "/json", status=200, body=b"x" * 5_000_000)
        with pytest.raises(Unavailable, match="more than"):
            await spinup.condition({"id": "a" * 64})


async def test_nobody_is_there(tmp_path):
    async with unasked(socket=str(tmp_path / "none.sock")) as spinup:
        for asked in (
            spinup.probe(),
            spinup.launch(request()),
            spinup.condition({"id": "a"}),
            spinup.stop({"id": "a"}, 1),
        ):
            with pytest.raises(Unreachable, match="start Docker") as away:
                await asked
            assert away.value.code == "launch.unreachable"


async def test_a_socket_that_this_user_may_not_use(docker_api, monkeypatch):
    async with unasked(socket=docker_api.url) as spinup:
        docker_api.close()
        monkeypatch.setattr(os, "access", lambda *_: False)  # root may use every socket
        with pytest.raises(Denied, match="group `docker`"):
            await spinup.probe()


async def test_a_container_that_docker_does_not_get_rid_of(docker_api, monkeypatch):
    monkeypatch.setattr(plugin, "REMOVED_WITHIN_S", 0.5)
    async with opened(docker_api) as spinup:
        launched = await spinup.launch(request())
        docker_api.fault("DELETE", "/containers/", status=409, body={"message": "removal in progress"}, times=1000)
        with pytest.raises(TimedOut) as refused:
            await spinup.stop(launched.ref, 0.0)
    assert refused.value.code == "launch.will_not_end"
