"""What comes back from an OpenAI-compatible endpoint? Against a real local HTTP server that speaks the protocol."""

import asyncio
import json
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from knotwork.sdk import Done, Failed, Unavailable
from knotwork.sdk.testing import RecordingReporter, attempt, host
from knotwork_plugins.executors.openai_chat.plugin import FACTORY, Answer, OpenAIConfig, retry_after

SERVER = Path(__file__).parents[2] / "contract" / "standins" / "chat_server.py"


@pytest.fixture(scope="module")
def endpoint() -> Iterator[str]:
    with subprocess.Popen([sys.executable, "-S", str(SERVER)], stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        yield f"http://127.0.0.1:{int(server.stdout.readline())}/v1"
        server.terminate()


async def ask(endpoint: str, given: Any, *, report: RecordingReporter | None = None, **config: Any) -> Done | Failed:
    async with asyncio.timeout(90), host(FACTORY, {"base_url": endpoint, "model": "m", **config}) as agent:
        outcome = await agent.execute(attempt(given, report=report))
    assert isinstance(outcome, Done | Failed)
    return outcome


async def last(endpoint: str) -> dict[str, Any]:
    def get() -> dict[str, Any]:
        with urllib.request.urlopen(f"{endpoint}/last", timeout=30) as response:
            found: dict[str, Any] = json.load(response)
            return found

    return await asyncio.to_thread(get)


async def test_words_are_streamed_and_usage_is_told(endpoint: str) -> None:
    report = RecordingReporter()
    outcome = await ask(endpoint, "hi", report=report)
    usage = {"prompt_tokens": 3, "completion_tokens": 4, "total_tokens": 7}
    assert outcome == Done({"text": "You said: hi", "model": "m-1", "finish": "stop", "usage": usage})
    assert report.chunks == ["You ", "said: ", "hi"]


async def test_unstreamed_answers(endpoint: str) -> None:
    report = RecordingReporter()
    outcome = await ask(endpoint, "hi", report=report, stream=False)
    assert isinstance(outcome, Done)
    assert (outcome.output["text"], report.chunks) == ("You said: hi", ["You said: hi"])


async def test_what_is_sent(endpoint: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("THE_KEY", "s3cret")
    config = {
        "api_key": {"env": "THE_KEY"},
        "system_prompt": "Be kind.",
        "template": "<{input.x}>",
        "params": {"temperature": 0.5},
        "headers": {"X-Team": "a"},
        "secret_headers": {"X-Secret": {"env": "THE_KEY"}},
    }
    async with host(FACTORY, {"base_url": endpoint + "/", "model": "m", **config}) as agent:
        await agent.execute(attempt({"x": 1}, traceparent="00-aa-bb-01"))
    seen = await last(endpoint)
    assert seen["path"] == "/v1/chat/completions"
    assert seen["body"] == {
        "temperature": 0.5,
        "model": "m",
        "messages": [{"role": "system", "content": "Be kind."}, {"role": "user", "content": "<1>"}],
        "stream": True,
        "stream_options": {"include_usage": True},
    }
    headers = {name.lower(): value for name, value in seen["headers"].items()}
    assert headers["authorization"] == "Bearer s3cret"
    assert (headers["x-team"], headers["x-secret"], headers["traceparent"]) == ("a", "s3cret", "00-aa-bb-01")


async def test_a_conversation_is_sent_as_it_is(endpoint: str) -> None:
    messages = [
        {"role": "user", "content": "a"},
        {"role": "assistant", "content": "b"},
        {"role": "user", "content": "c"},
    ]
    assert isinstance(await ask(endpoint, {"messages": messages}), Done)
    assert (await last(endpoint))["body"]["messages"] == messages
    for wrong in ([], "x", [{"role": "boss"}], ["x"], [{}], [{"role": "user"}] * 1001):
        refused = await ask(endpoint, {"messages": wrong})
        assert isinstance(refused, Failed)
        assert refused.code == "request.invalid"


@pytest.mark.parametrize(
    ("word", "code", "retriable", "pause"),
    [
        ("RATE", "agent.rate_limited", True, 7.0),
        ("DATED", "agent.rate_limited", True, 60.0),
        ("CREDIT", "agent.out_of_credit", False, None),
        ("LOGIN", "agent.unauthenticated", False, None),
        ("BAD", "agent.failed", False, None),
        ("DOWN", "agent.overloaded", True, None),
        ("MOVED", "agent.failed", False, None),
        ("MIDWAY", "agent.overloaded", True, None),
        ("TRUNCATED", "agent.truncated", True, None),
        ("CUT", "agent.truncated", True, None),
        ("HUGE", "agent.output_too_large", False, None),
    ],
)
async def test_refusals_and_breaks(endpoint: str, word: str, code: str, retriable: bool, pause: float | None) -> None:
    outcome = await ask(endpoint, word)
    assert isinstance(outcome, Failed), outcome
    assert (outcome.code, outcome.retriable, outcome.retry_after_s) == (code, retriable, pause)
    if code == "agent.unauthenticated":
        assert "api_key" in outcome.message
    if word == "BAD":
        assert outcome.message == "max_tokens is too large"
    if word in ("MIDWAY", "TRUNCATED", "CUT"):
        assert outcome.detail["partial"]["text"].startswith("You said: ")


async def test_characters_sent_in_halves_are_whole(endpoint: str) -> None:
    report = RecordingReporter()
    outcome = await ask(endpoint, "HALVES", report=report)
    assert isinstance(outcome, Done), outcome
    assert outcome.output["text"] == "You said: HALVES\U0001f600" == "".join(report.chunks)


@pytest.mark.parametrize("word", ["GARBAGE", "NODONE", "MARKED"])
async def test_odd_streams_do_not_lose_the_answer(endpoint: str, word: str) -> None:
    outcome = await ask(endpoint, word)
    assert isinstance(outcome, Done), outcome
    assert outcome.output["text"] == f"You said: {word}"


async def test_tool_calls_are_put_together(endpoint: str) -> None:
    outcome = await ask(endpoint, "CALLS")
    calls = [{"id": "c1", "name": "look", "arguments": '{"a": 1}'}]
    assert outcome == Done({"text": "", "model": "m-1", "finish": "tool_calls", "tool_calls": calls})


async def test_silence_and_size_are_bounded(endpoint: str) -> None:
    silent = await ask(endpoint, "HANG", idle_timeout_s=0.2)
    assert isinstance(silent, Failed)
    assert (silent.code, silent.retriable) == ("agent.silent", True)
    large = await ask(endpoint, "x" * 100, answer_max=50)
    assert isinstance(large, Failed)
    assert large.code == "agent.output_too_large"


async def test_an_endpoint_that_is_away() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        outcome = await ask(f"http://127.0.0.1:{taken.getsockname()[1]}/v1", "hi")
    assert isinstance(outcome, Failed)
    assert (outcome.code, outcome.retriable) == ("agent.unreachable", True)


async def test_a_key_that_is_missing(endpoint: str) -> None:
    with pytest.raises(Unavailable):
        await ask(endpoint, "hi", api_key={"env": "NO_SUCH_KEY_ANYWHERE"})


def test_params_cannot_take_over() -> None:
    with pytest.raises(ValidationError, match="messages, stream"):
        OpenAIConfig(model="m", params={"stream": False, "messages": []})


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({}, None),
        ({"retry-after": "3"}, 3.0),
        ({"retry-after": "-3"}, 0.0),
        ({"retry-after-ms": "250", "retry-after": "9"}, 0.25),
        ({"retry-after": "Thu, 01 Jan 1970 00:01:40 GMT"}, 90.0),
        ({"retry-after": "soon"}, None),
        ({"retry-after": "1e999"}, 86_400.0),
        ({"retry-after": "nan"}, None),
    ],
)
def test_retry_after(headers: dict[str, str], seconds: float | None) -> None:
    assert retry_after(headers, 10.0) == seconds


@pytest.mark.parametrize(
    "event", [None, 7, [], {"choices": [None]}, {"choices": [{"delta": 3}]}, {"usage": {"a": "b"}}]
)
def test_no_event_breaks_the_answer(event: Any) -> None:
    answer = Answer(text_max=10)
    assert answer.take(event) == ""
    assert answer.output() == {"text": ""}
