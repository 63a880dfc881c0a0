"""Agents as workflow runs: what is asked of GitHub, and what is made of its answers. GitHub is a stand-in."""

import shutil
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from knotwork.sdk import (
    Busy,
    Condition,
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
from knotwork_plugins.spinups.github_actions import plugin, runs
from knotwork_plugins.spinups.github_actions.plugin import FACTORY

pytestmark = pytest.mark.timeout(120)


def request(launch: str = "launch-1") -> LaunchRequest:
    env = {"KNOTWORK_TOKEN": "hush-hush-7", "KNOTWORK_URL": "nats://10.0.0.1:4222", "KNOTWORK_CLAIM": "claim-1"}
    return LaunchRequest(launch, "gh", "default", "review", "personal", "task-1", env)


@asynccontextmanager
async def opened(github: Any, *, probed: bool = True, **given: Any) -> AsyncIterator[SpinUp]:
    table = {"repo": "me/agents", "workflow": "agent.yml", "api_url": github.url, "request_timeout_s": 30, **given}
    if probed:
        async with host(FACTORY, table, start_timeout_s=40) as spinup:
            yield spinup
        return
    context = make_context()
    async with FACTORY.open(FACTORY.config(**table), context) as spinup:
        yield spinup
    shutil.rmtree(context.folder)


async def test_what_is_sent_holds_no_secret(github):
    async with opened(github) as spinup:
        launched = await spinup.launch(request())
    (sent,) = github.asks("POST", "/dispatches$")
    assert sent.path == "/repos/me/agents/actions/workflows/agent.yml/dispatches"
    assert sent.headers["authorization"] == f"Bearer {github.token}"
    assert sent.headers["accept"] == "application/vnd.github+json"
    assert sent.headers["x-github-api-version"] == "2022-11-28"
    assert sent.headers["user-agent"] == "knotwork"
    assert sent.json == {
        "ref": "main", "return_run_details": True,
        "inputs": {
            "knotwork_launch": "launch-1", "knotwork_target": "gh", "knotwork_project": "default",
            "knotwork_task": "task-1", "knotwork_claim": "claim-1",
        },
    }  # fmt: skip
    assert launched.ref == {"launch": "launch-1", "repo": "me/agents", "run": 30_433_642}
    assert not [one for one in github.asked if b"hush" in one.body]


async def test_inputs_carry_what_is_mapped_on_purpose(github):
    github.inputs = {"who", "where", "secret"}
    inputs = {"who": "{target}/{capability}", "where": "{env.KNOTWORK_URL}", "secret": "{env.KNOTWORK_TOKEN}"}
    async with opened(github, inputs=inputs, standard_inputs=False) as spinup:
        await spinup.launch(request())
    (sent,) = github.asks("POST", "/dispatches$")
    assert sent.json["inputs"] == {"who": "gh/review", "where": "nats://10.0.0.1:4222", "secret": "hush-hush-7"}


@pytest.mark.parametrize("knows", [True, False], ids=["answers-204", "refuses-the-parameter"])
async def test_an_older_server_is_understood_and_no_run_is_guessed(github, knows):
    """Two launches at once: each gets the run that carries its own name, however they are listed."""
    github.names_runs, github.knows_parameter = False, knows
    async with opened(github) as spinup:
        one = await spinup.launch(request("launch-1"))
        github.runs[99_999_999] = {**github.runs[one.ref["run"]], "id": 99_999_999, "display_title": "agent launch-12"}
        two = await spinup.launch(request("launch-2"))
        again = await spinup.launch(request("launch-1"))
    assert one.ref == again.ref
    assert one.ref["run"] != two.ref["run"]
    assert github.runs[two.ref["run"]]["display_title"] == "agent launch-2"
    assert len([run for run in github.runs if run != 99_999_999]) == 2


async def test_a_run_that_never_shows_its_name_is_not_made_up(github, monkeypatch):
    github.names_runs = github.shows_runs = False
    async with opened(github, start_timeout_s=0.3) as spinup:
        launched = await spinup.launch(request())
        assert set(launched.ref) == {"launch", "repo", "since"}
        assert await spinup.condition(launched.ref) == Condition("starting", "GitHub has not shown the run yet")
        with pytest.raises(Unavailable, match="run-name") as refused:
            await spinup.stop(launched.ref, 0.0)
        assert refused.value.code == "launch.unseen"
        old = {**launched.ref, "since": int(time.time()) - 3600}
        assert (await spinup.condition(old)).state == "failed"
        await spinup.stop(old, 0.0)
        next(iter(github.runs.values()))["display_title"] = "agent launch-1"  # late, but there it is
        assert (await spinup.condition(launched.ref)).state in ("starting", "running")


async def test_one_that_failed_is_told_of_with_the_step(github):
    async with opened(github) as spinup:
        launched = await spinup.launch(request())
        github.runs[launched.ref["run"]] |= {"status": "completed", "conclusion": "failure"}
        condition = await spinup.condition(launched.ref)
        github.fault("GET", "/jobs$", status=500)
        without = await spinup.condition(launched.ref)
    link = "https://github.com/me/agents/actions/runs/30433642"
    assert condition == Condition("failed", f"the run ended: failure in job 'agent', step 'Run the agent'; see {link}")
    assert without == Condition("failed", f"the run ended: failure; see {link}")


@pytest.mark.parametrize(("status", "conclusion", "state"), [
    ("queued", None, "starting"), ("requested", None, "starting"), ("waiting", None, "starting"),
    ("pending", None, "starting"), ("in_progress", None, "running"), ("completed", "success", "gone"),
    ("completed", "cancelled", "gone"), ("completed", "failure", "failed"), ("completed", "timed_out", "failed"),
    ("completed", "startup_failure", "failed"), (None, None, "starting"),
])  # fmt: skip
def test_each_state_of_a_run(status, conclusion, state):
    assert runs.state_of({"status": status, "conclusion": conclusion})[0] == state


async def test_stop_cancels_and_waits(github):
    async with opened(github) as spinup:
        launched = await spinup.launch(request())
        await spinup.stop(launched.ref, 30.0)
        assert (await spinup.condition(launched.ref)).state == "gone"
        await spinup.stop(launched.ref, 30.0)
        del github.runs[launched.ref["run"]]
        assert (await spinup.condition(launched.ref)).state == "gone"
        await spinup.stop(launched.ref, 30.0)
    assert [one.path.rpartition("/")[2] for one in github.asks("POST", "/runs/")] == ["cancel"]


async def test_stop_forces_after_the_grace(github):
    github.ends_on = {"force-cancel"}
    async with opened(github) as spinup:
        launched = await spinup.launch(request())
        await spinup.stop(launched.ref, 0.2)
    assert [one.path.rpartition("/")[2] for one in github.asks("POST", "/runs/")] == ["cancel", "force-cancel"]


async def test_a_run_that_goes_on_is_told_of(github, monkeypatch):
    monkeypatch.setattr(plugin, "ENDS_WITHIN_S", 0.3)
    github.ends_on = set()
    async with opened(github) as spinup:
        launched = await spinup.launch(request())
        with pytest.raises(TimedOut, match=str(launched.ref["run"])) as refused:
            await spinup.stop(launched.ref, 0.1)
    assert refused.value.code == "launch.will_not_end"


@pytest.mark.parametrize(("given", "change", "error", "code", "words"), [
    ({"workflow": "none.yml"}, {}, NotFound, "launch.not_found", "actions: write"),
    ({}, {"token": "another"}, Denied, "launch.denied", "Bad credentials"),
    ({}, {"state": "disabled_manually"}, Unavailable, "launch.disabled", "gh workflow enable"),
])  # fmt: skip
async def test_a_probe_says_what_is_wrong(github, given, change, error, code, words):
    for name, value in change.items():
        setattr(github, name, value)
    async with opened(github, probed=False, **given) as spinup:
        with pytest.raises(error, match=words) as refused:
            await spinup.probe()
    assert refused.value.code == code
    assert refused.value.hint


@pytest.mark.parametrize(("given", "words"), [
    ({"ref": "nope"}, "No ref found for: nope"), ({"inputs": {"other": "x"}}, "Unexpected inputs provided"),
])  # fmt: skip
async def test_what_the_workflow_does_not_take_is_said(github, given, words):
    async with opened(github, **given) as spinup:
        with pytest.raises(Invalid, match=words) as refused:
            await spinup.launch(request())
    assert refused.value.code == "launch.refused"
    assert "knotwork_launch" in refused.value.hint
    assert github.runs == {}


@pytest.mark.parametrize(("status", "error", "code"), [
    (401, Denied, "launch.denied"), (403, Denied, "launch.denied"), (404, NotFound, "launch.not_found"),
    (422, Invalid, "launch.refused"), (429, Busy, "launch.busy"), (500, Unavailable, "launch.unavailable"),
    (502, Unavailable, "launch.unavailable"), (301, Invalid, "launch.moved"),
])  # fmt: skip
async def test_each_refusal_has_its_error(github, status, error, code):
    github.fault("POST", "/dispatches$", status=status, body={"message": "the reason: hush-hush-7"})
    async with opened(github) as spinup:
        with pytest.raises(error) as refused:
            await spinup.launch(request())
    assert (type(refused.value), refused.value.code) == (error, code)
    assert "hush" not in str(refused.value)
    assert github.token not in str(refused.value)


@pytest.mark.parametrize(("status", "headers", "message", "pause_s"), [
    (403, {"x-ratelimit-remaining": "0", "x-ratelimit-reset": "{in 100}"}, "API rate limit exceeded", (50, 100)),
    (429, {"retry-after": "30"}, "slow down", (30, 30)),
    (403, {}, "You have exceeded a secondary rate limit", (60, 60)),
    (429, {}, "", (60, 60)),
])  # fmt: skip
async def test_a_rate_limit_is_for_later(github, status, headers, message, pause_s):
    given = {name: value.replace("{in 100}", str(int(time.time()) + 100)) for name, value in headers.items()}
    github.fault("POST", "/dispatches$", status=status, body={"message": message}, headers=given)
    async with opened(github) as spinup:
        with pytest.raises(Busy) as refused:
            await spinup.launch(request())
    assert pause_s[0] <= refused.value.retry_after_s <= pause_s[1]


async def test_silence_is_for_later(github):
    github.fault("GET", "/runs$", hang=True)
    async with opened(github, probed=False, request_timeout_s=1.0) as spinup:
        with pytest.raises(Unavailable, match="within 1 s") as silent:
            await spinup.launch(request())
    assert silent.value.code == "launch.no_answer"


async def test_garbage_is_for_later(github):
    async with opened(github) as spinup:
        github.fault("GET", "/runs$", status=200, body=b"[]")
        with pytest.raises(Unavailable) as odd:
            await spinup.launch(request())
        assert odd.value.code == "launch.bad_answer"
        github.fault("GET", "/runs$", status=200, body={"workflow_runs": [None, 7, {"id": "x"}]})
        assert (await spinup.launch(request())).ref["run"]
        github.close()
        with pytest.raises(Unreachable):
            await spinup.launch(request())
