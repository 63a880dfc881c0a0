"""How does an OpenAI-compatible endpoint answer a prompt? `POST <base_url>/chat/completions`, streamed.

Works with every server of that dialect (OpenAI, vLLM, llama.cpp, Ollama, LiteLLM, …). Words are streamed as they
come; the output carries the whole text, the usage and why the model stopped.
"""

from __future__ import annotations

import asyncio
import email.utils
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from pydantic import ConfigDict, Field, field_validator

from knotwork.sdk import Attempt, Context, Done, Factory, Failed, Outcome, PluginConfig, SecretRef, Unavailable
from knotwork_plugins.executors import prompting, trouble
from knotwork_plugins.executors.agent_cli.heard import items_in, numbers_in, plain, text_in, value_in, whole_in
from knotwork_plugins.executors.openai_chat import sse
from knotwork_plugins.executors.prompting import clean

if TYPE_CHECKING:
    import httpx

_OURS = frozenset({"messages", "model", "stream", "stream_options"})
_ROLES = frozenset({"system", "developer", "user", "assistant", "tool"})
_ERROR_BODY_MAX = 65_536
_MESSAGES_MAX = 1_000
_TOOL_CALLS_MAX = 128


class OpenAIConfig(PluginConfig):
    """What the operator may write for an agent of type `openai`."""

    model_config = ConfigDict(defer_build=True)  # built when first used: this file is imported at every start

    base_url: str = Field(
        default="https://api.openai.com/v1",
        pattern=r"^https?://\S+$",
        description="endpoint, without /chat/completions",
    )
    api_key: SecretRef | None = Field(default=None, description="sent as bearer token; default: no key is sent")
    model: str = Field(min_length=1, max_length=200, description="model to use")
    system_prompt: str = Field(default="", max_length=200_000, description="instructions before every prompt")
    template: str = Field(
        default="", max_length=100_000, description="text around the prompt; fills {prompt}, {input}, {input.key}"
    )
    params: dict[str, Any] = Field(
        default_factory=dict, description="further fields of the request: temperature, max_tokens, response_format, …"
    )
    headers: dict[str, str] = Field(default_factory=dict, description="further request headers")
    secret_headers: dict[str, SecretRef] = Field(default_factory=dict, description="request headers from secrets")
    stream: bool = Field(default=True, description="ask for the answer word by word")
    stream_usage: bool = Field(default=True, description="ask for token counts; switch off where that is refused")
    connect_timeout_s: float = Field(default=10.0, gt=0, le=300, description="seconds to reach the endpoint")
    idle_timeout_s: float = Field(default=120.0, gt=0, le=3_600, description="seconds of silence before giving up")
    answer_max: int = Field(default=4_000_000, ge=1, le=7_000_000, description="characters of an answer; more: failed")

    @field_validator("params")
    @classmethod
    def _not_ours(cls, params: dict[str, Any]) -> dict[str, Any]:
        if taken := sorted(_OURS & params.keys()):
            msg = f"{', '.join(taken)} cannot be set here; use the options of that name"
            raise ValueError(msg)
        return params


@dataclass(slots=True)
class Answer:
    """One answer as it comes in."""

    text_max: int
    model: str = ""
    finish: str = ""
    usage: dict[str, Any] = field(default_factory=dict)
    trouble: trouble.Trouble | None = None
    ended: bool = False
    spoken: list[str] = field(default_factory=list)
    calls: dict[int, dict[str, str]] = field(default_factory=dict)
    _size: int = 0
    _half: str = ""

    def take(self, event: Any) -> str:
        """Take one chunk, or a whole unstreamed answer; return the new text in it. Never raises."""
        if (error := value_in(event, "error")) is not None:
            self.trouble = trouble_of(error, None)
            return ""
        self.model = text_in(event, "model") or self.model
        self.usage = numbers_in(event, "usage") or self.usage
        text = ""
        for choice in items_in(event, "choices")[:1]:
            self.finish = text_in(choice, "finish_reason") or self.finish
            said = value_in(choice, "delta") or value_in(choice, "message")
            parts = "".join(text_in(part, "text") for part in items_in(said, "content"))  # how some servers put it
            text = self._whole(value_in(said, "content")) or parts or text_in(said, "refusal")
            for call in items_in(said, "tool_calls"):
                self._call(call)
        self._size += len(text)
        if self._size > self.text_max:
            self.trouble = trouble.Trouble(f"The answer is over {self.text_max} characters.", "agent.output_too_large")
            return ""
        if text:
            self.spoken.append(text)
        return text

    def _whole(self, content: Any) -> str:
        """Return a text with the characters in it whole: some servers send half a character in each of two chunks."""
        if not isinstance(content, str):
            return ""
        text, self._half = self._half + content, ""
        if "\ud800" <= text[-1:] < "\udc00":
            text, self._half = text[:-1], text[-1]
        return clean(text.encode("utf-16", "surrogatepass").decode("utf-16", "surrogatepass"))

    def _call(self, call: Any) -> None:
        index = whole_in(call, "index")
        index = len(self.calls) if index is None else index
        if index not in self.calls and len(self.calls) >= _TOOL_CALLS_MAX:
            return
        known = self.calls.setdefault(index, {"id": "", "name": "", "arguments": ""})
        known["id"] = text_in(call, "id") or known["id"]
        known["name"] = text_in(call, "function", "name") or known["name"]
        more = text_in(call, "function", "arguments")
        self._size += len(more)
        known["arguments"] += more

    def output(self) -> dict[str, Any]:
        """Return the answer as plain data."""
        known = {"model": self.model, "finish": self.finish, "usage": self.usage, "tool_calls": [*self.calls.values()]}
        return {"text": "".join(self.spoken), **{name: value for name, value in known.items() if value}}


class OpenAIChat:
    """The executor: one request per attempt, one connection pool for all."""

    def __init__(self, config: OpenAIConfig, context: Context, client: httpx.AsyncClient) -> None:
        """Keep the parts."""
        self.config = config
        self.context = context
        self.client = client

    async def execute(self, attempt: Attempt) -> Outcome:
        """Send the prompt and gather the answer."""
        messages = self._messages(attempt.input)
        if isinstance(messages, Failed):
            return messages
        import httpx

        answer = Answer(text_max=self.config.answer_max)
        try:
            async with self.client.stream(
                "POST", self._url(), json=self._body(messages), headers=await self._headers(attempt)
            ) as response:
                if response.is_success:
                    await self._listen(response, answer, attempt)
                else:
                    answer.trouble = await self._refusal(response)
        except Unavailable as gone:
            return Failed(str(gone), code=gone.code, retriable=True)
        except sse.EventTooLarge:
            answer.trouble = trouble.Trouble("The endpoint sent an event of over 4 MB.", "agent.output_too_large")
        except (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout) as error:
            answer.trouble = trouble.Trouble(
                f"{self.config.base_url} cannot be reached: {error or type(error).__name__}.",
                "agent.unreachable",
                retriable=True,
            )
        except httpx.ReadTimeout:
            answer.trouble = trouble.Trouble(
                f"The endpoint said nothing for {self.config.idle_timeout_s:g} s.", "agent.silent", retriable=True
            )
        except httpx.HTTPError as error:
            answer.trouble = trouble.Trouble(
                f"The answer broke off: {error or type(error).__name__}.", "agent.truncated", retriable=True
            )
        return self._outcome(answer)

    def _outcome(self, answer: Answer) -> Outcome:
        found = answer.trouble
        if found is None and not answer.ended:
            found = trouble.Trouble("The endpoint stopped before the answer was finished.", "agent.truncated", True)  # noqa: FBT003
        if found is None:
            return Done(answer.output())
        hint = "Set or mend `api_key`." if found.code == trouble.UNAUTHENTICATED else ""
        partial = answer.output()
        return found.failed(hint, partial=partial) if partial["text"] else found.failed(hint)

    def _url(self) -> str:
        return f"{self.config.base_url.rstrip('/')}/chat/completions"

    def _messages(self, given: Any) -> list[Any] | Failed:
        before = [{"role": "system", "content": self.config.system_prompt}] if self.config.system_prompt else []
        if isinstance(given, dict) and "messages" in given and "prompt" not in given:
            messages = given["messages"]
            if not isinstance(messages, list) or not 0 < len(messages) <= _MESSAGES_MAX:
                return _invalid(f"`messages` must be a list of 1 to {_MESSAGES_MAX} messages.")
            if not all(isinstance(one, dict) and one.get("role") in _ROLES for one in messages):
                return _invalid("Each of `messages` must be an object with a `role`.")
            messages = plain(messages)
            return [*before, *messages] if messages is not None else _invalid("`messages` is no JSON.")
        prompt = prompting.prompt_of(given, self.config.template)
        if not prompt.strip():
            return _invalid("The prompt is empty. Send a text, or an object with `prompt` or `messages`.")
        return [*before, {"role": "user", "content": prompt}]

    def _body(self, messages: list[Any]) -> dict[str, Any]:
        body = {**self.config.params, "model": self.config.model, "messages": messages, "stream": self.config.stream}
        if self.config.stream and self.config.stream_usage:
            body["stream_options"] = {"include_usage": True}
        return body

    async def _headers(self, attempt: Attempt) -> dict[str, str]:
        headers = {"Accept": "text/event-stream" if self.config.stream else "application/json", **self.config.headers}
        if attempt.traceparent:
            headers["traceparent"] = attempt.traceparent
        for name, reference in self.config.secret_headers.items():
            # In a thread: a `{cmd = …}` secret may take seconds.
            headers[name] = await asyncio.to_thread(self.context.secrets, reference)
        if self.config.api_key is not None:
            headers["Authorization"] = f"Bearer {await asyncio.to_thread(self.context.secrets, self.config.api_key)}"
        return headers

    async def _listen(self, response: httpx.Response, answer: Answer, attempt: Attempt) -> None:
        if not response.headers.get("content-type", "").startswith("text/event-stream"):
            await self._listen_whole(response, answer, attempt)
            return
        events = sse.Events()
        async for chunk in response.aiter_bytes():
            for data in events.push(chunk):
                if await self._hear(data, answer, attempt):
                    return
        for data in events.rest():
            await self._hear(data, answer, attempt)

    @staticmethod
    async def _hear(data: str, answer: Answer, attempt: Attempt) -> bool:
        """Take one event; True when it is the last."""
        if data.strip() == "[DONE]":
            answer.ended = True
            return True
        try:
            event = json.loads(data)
        except (ValueError, RecursionError):
            return False  # not ours to understand; a missing end is noticed all the same
        if text := answer.take(event):
            await attempt.report.stream(text)
        # Some servers close after the finish reason without [DONE]; usage may still follow, so read on.
        answer.ended = answer.ended or bool(answer.finish)
        return answer.trouble is not None

    async def _listen_whole(self, response: httpx.Response, answer: Answer, attempt: Attempt) -> None:
        body = await _bounded(response, 8 * self.config.answer_max)
        try:
            event = json.loads(body)
        except (ValueError, RecursionError):
            answer.trouble = trouble.Trouble(
                f"The endpoint answered with {len(body)} bytes that are no JSON.", "agent.bad_answer"
            )
            return
        if text := answer.take(event):
            await attempt.report.stream(text)
        answer.ended = bool(items_in(event, "choices"))

    async def _refusal(self, response: httpx.Response) -> trouble.Trouble:
        body = await _bounded(response, _ERROR_BODY_MAX)
        try:
            error = json.loads(body)
        except (ValueError, RecursionError):
            error = body.decode("utf-8", "replace")
        error = value_in(error, "error") or error
        pause = retry_after(response.headers, self.context.clock.time_ns() / 1e9)
        return trouble_of(error, response.status_code, pause)


def trouble_of(error: Any, status: int | None, retry_after_s: float | None = None) -> trouble.Trouble:
    """Return the trouble that an `error` object (or a bare text) describes."""
    message = error if isinstance(error, str) else text_in(error, "message")
    kind = text_in(error, "code") or text_in(error, "type")
    if status is None:
        status = whole_in(error, "code") or whole_in(error, "status")
    message = prompting.clean(message).strip() or f"The endpoint answered with status {status}."
    return trouble.sort(message, status=status, kind=kind, retry_after_s=retry_after_s)


def retry_after(headers: Any, now_s: float) -> float | None:
    """Return the seconds that `Retry-After` (seconds or an HTTP date) or `retry-after-ms` asks for, else None."""
    for name, scale in (("retry-after-ms", 0.001), ("retry-after", 1.0)):
        text = headers.get(name, "")
        try:
            return trouble.bounded_pause(float(text) * scale)
        except ValueError:
            continue
    try:
        return trouble.bounded_pause(
            email.utils.parsedate_to_datetime(headers.get("retry-after", "")).timestamp() - now_s
        )
    except (TypeError, ValueError, OverflowError):
        return None


async def _bounded(response: httpx.Response, limit: int) -> bytes:
    body = bytearray()
    async for chunk in response.aiter_bytes():
        body += chunk
        if len(body) > limit:
            break
    return bytes(body[:limit])


def _invalid(message: str) -> Failed:
    return Failed(message, code="request.invalid")


@asynccontextmanager
async def open_openai(config: OpenAIConfig, context: Context) -> AsyncIterator[OpenAIChat]:
    """Open the connection pool; raises `Unavailable` when the key cannot be had."""
    if config.api_key is not None:
        await asyncio.to_thread(context.secrets, config.api_key)
    client = await asyncio.to_thread(_client, config)
    async with client:
        yield OpenAIChat(config, context, client)


def _client(config: OpenAIConfig) -> httpx.AsyncClient:
    # In a thread and not at the top: importing httpx and loading the certificates take 0.1 s and more.
    import httpx

    timeout = httpx.Timeout(config.idle_timeout_s, connect=config.connect_timeout_s, pool=config.connect_timeout_s)
    limits = httpx.Limits(max_connections=None, max_keepalive_connections=100)
    return httpx.AsyncClient(timeout=timeout, limits=limits, follow_redirects=False)


FACTORY = Factory(
    name="openai",
    config=OpenAIConfig,
    open=open_openai,
    summary="A model behind any OpenAI-compatible chat endpoint, streamed.",
    abilities=("streams", "cancels"),
)
