"""How does any URL become an agent? One HTTP request per attempt; status and body say how it ended."""

from __future__ import annotations

import asyncio
import codecs
import ssl
import time
import zlib
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, Literal, Self
from urllib.parse import urlsplit

import msgspec
from pydantic import Field, model_validator

from knotwork.sdk import (
    Attempt,
    Context,
    Done,
    Executor,
    Factory,
    Failed,
    KnotworkError,
    Outcome,
    PluginConfig,
    SecretRef,
    Unavailable,
)
from knotwork_plugins.executors.http_call import template as http_template
from knotwork_plugins.over_http import no_cookies, retry_after_s, trusted

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping

    import httpx

MEBIBYTE = 1_048_576
BODY_IN_DETAIL_BYTES = 2048
CONNECTIONS_MAX = 1000


class HttpConfig(PluginConfig):
    """Options of an agent that is a URL."""

    url: str = Field(
        min_length=8,
        max_length=8192,
        description='what to call; after the host {input} and {input.key} may stand, e.g. "https://x.org/items/{input.id}"',
    )
    method: Literal["GET", "POST", "PUT", "PATCH", "DELETE"] = Field(default="POST", description="the HTTP method")
    headers: dict[str, str | SecretRef] = Field(
        default_factory=dict, description="headers to send; values are strings or secret references"
    )
    query: dict[str, str] = Field(
        default_factory=dict, description="query parameters; {input} and {input.key} may stand in the values"
    )
    body: Literal["auto", "json", "text", "none"] = Field(
        default="auto",
        description="the request body: the input as JSON, as text, or none; auto: none with GET, else json",
    )
    output: Literal["auto", "json", "text"] = Field(
        default="auto", description="what the answer is; auto: JSON when its content type says so, else text"
    )
    send_context: bool = Field(
        default=True, description="send the traceparent and Idempotency-Key headers of the attempt along"
    )
    ok_statuses: tuple[int, ...] = Field(default=(200, 201, 202, 203, 204), description="statuses that mean success")
    retriable_statuses: tuple[int, ...] = Field(
        default=(408, 425, 429, 500, 502, 503, 504), description="statuses after which another attempt may succeed"
    )
    time_limit_s: float | None = Field(
        default=None, gt=0, le=604_800, description="seconds one request may take; unset: the agent's timeout_s alone"
    )
    connect_timeout_s: float = Field(default=5.0, gt=0, le=300, description="seconds to get a connection")
    output_max_bytes: int = Field(
        default=8 * MEBIBYTE, ge=1, le=1_073_741_824, description="bytes of the answer, unpacked; more is a failure"
    )
    follow_redirects: bool = Field(default=False, description="follow redirects instead of failing on them")
    verify: bool = Field(default=True, description="check the server's certificate; turn off for tests only")
    ca_file: str = Field(default="", description="file with the certificates to trust instead of the system's")
    use_proxies: bool = Field(default=True, description="use the proxies named in the environment (HTTPS_PROXY, …)")
    probe_url: str = Field(
        default="", description="URL that must answer below 500 before the agent counts as ready; empty: not asked"
    )

    @model_validator(mode="after")
    def _sound(self) -> Self:
        for name in ("url", "probe_url"):
            value = getattr(self, name)
            parts = urlsplit(value)
            if value and (parts.scheme not in {"http", "https"} or not parts.hostname):
                msg = f"{name} must begin with http:// or https:// and name a host"
                raise ValueError(msg)
            if "{" in parts.netloc or (name == "probe_url" and "{" in value):
                msg = f"{name}: an input may not choose the host" if name == "url" else "probe_url has no input"
                raise ValueError(msg)
        for template in (self.url, *self.query.values()):
            http_template.check(template)
        for name, value in self.headers.items():
            if not name or not name.isascii() or any(c in name for c in "\r\n: \0") or not _one_line(value):
                msg = f"no header can be written as {name!r}"
                raise ValueError(msg)
        return self


class _TooMuch(Exception):
    """The answer is larger than allowed."""


class HttpCall:
    """The executor: one client and its connections for all attempts."""

    def __init__(self, config: HttpConfig, context: Context, client: httpx.AsyncClient) -> None:
        """Keep the client, which the opener closes."""
        self._config = config
        self._context = context
        self._client = client
        self._secret_headers = any(isinstance(value, SecretRef) for value in config.headers.values())

    async def probe(self) -> None:
        """Raise `Unavailable` when `probe_url` is set and does not answer below 500."""
        import httpx

        url = self._config.probe_url
        if not url:
            return
        try:
            async with (
                asyncio.timeout(self._config.connect_timeout_s),
                self._client.stream("GET", url, headers=await self._headers(None)) as answer,
            ):
                status = answer.status_code
        except (httpx.HTTPError, httpx.InvalidURL, TimeoutError) as error:
            raise Unavailable(
                f"{url} does not answer: {_words(error)}.", code="http.probe_failed", hint="Start what is behind it."
            ) from error
        if status >= 500:  # noqa: PLR2004 - where server errors begin
            raise Unavailable(
                f"{url} answers {status}.", code="http.probe_failed", hint="Look at the log of what is behind it."
            )

    async def execute(self, attempt: Attempt) -> Outcome:
        """Send the request and make an outcome of the answer."""
        import httpx

        limit = asyncio.timeout(self._config.time_limit_s)
        try:
            async with limit:
                return await self._ask(attempt)
        except http_template.NoSuchPart as error:
            return Failed(str(error), code="agent.input_invalid")
        except KnotworkError as error:  # a secret that cannot be had
            return Failed(str(error), error.code, error.retriable, error.retry_after_s)
        except (httpx.TimeoutException, TimeoutError) as error:
            if isinstance(error, TimeoutError) and not limit.expired():
                raise
            what = _words(error) if isinstance(error, httpx.TimeoutException) else "time_limit_s is over"
            return Failed(f"no answer in time: {what}", code="agent.timed_out", retriable=True)
        except (httpx.HTTPError, httpx.InvalidURL, httpx.StreamError, ssl.SSLError, ValueError) as error:
            lasting = isinstance(error, httpx.UnsupportedProtocol | httpx.LocalProtocolError | httpx.TooManyRedirects)
            return Failed(
                f"the request failed: {_words(error)}",
                code="agent.unreachable",
                retriable=isinstance(error, httpx.TransportError) and not lasting,
            )
        except _TooMuch:
            return Failed(
                f"the answer is larger than output_max_bytes = {self._config.output_max_bytes}",
                code="agent.output_too_large",
            )

    async def _ask(self, attempt: Attempt) -> Outcome:
        config = self._config
        url = http_template.fill_url(config.url, attempt.input)
        query = {name: http_template.fill(value, attempt.input) for name, value in config.query.items()}
        headers = await self._headers(attempt)
        body = self._body(attempt.input, headers)
        async with self._client.stream(
            config.method, url, params=query or None, headers=headers, content=body
        ) as answer:
            good = answer.status_code in config.ok_statuses
            try:
                content = await _read(answer, config.output_max_bytes if good else BODY_IN_DETAIL_BYTES)
            except _TooMuch as much:
                if good:
                    raise
                content = bytes(much.args[0])  # the beginning will do to say what was wrong
        return self._good(answer, content) if good else self._bad(answer, content)

    def _body(self, value: Any, headers: dict[str, str]) -> bytes | None:
        kind = self._config.body
        if kind == "auto":
            kind = "none" if self._config.method == "GET" else "json"
        if kind == "none":
            return None
        text = kind == "text"
        if not any(name.lower() == "content-type" for name in headers):
            headers["content-type"] = "text/plain; charset=utf-8" if text else "application/json"
        return value.encode(errors="replace") if text and isinstance(value, str) else msgspec.json.encode(value)

    async def _headers(self, attempt: Attempt | None) -> dict[str, str]:
        given = self._config.headers
        # Secrets are resolved for each request, in a thread: they may be files or commands.
        headers = await asyncio.to_thread(self._resolve, given) if self._secret_headers else self._resolve(given)
        if attempt is not None and self._config.send_context:
            have = {name.lower() for name in headers}
            for name, value in (("traceparent", attempt.traceparent), ("Idempotency-Key", attempt.idempotency_key)):
                if value and value.isascii() and value.isprintable() and name.lower() not in have:
                    headers[name] = value
        return headers

    def _resolve(self, given: Mapping[str, str | SecretRef]) -> dict[str, str]:
        return {name: v if isinstance(v, str) else self._context.secrets(v) for name, v in given.items()}

    def _good(self, answer: httpx.Response, content: bytes) -> Outcome:
        kind = answer.headers.get("content-type", "").split(";")[0].strip().lower()
        form = self._config.output
        if form == "auto":
            if not content:
                return Done(None)
            form = "json" if kind == "application/json" or kind.endswith("+json") else "text"
        if form == "text":
            try:
                return Done(content.decode(answer.charset_encoding or "utf-8", errors="replace"))
            except LookupError:  # the server named an encoding that does not exist
                return Done(content.decode(errors="replace"))
        if not content.strip():
            return Done(None)
        try:
            return Done(msgspec.json.decode(content.removeprefix(codecs.BOM_UTF8)))
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
            begin = content[:80].decode(errors="replace")
            return Failed(
                f"the answer is not JSON: {error}; it begins with {begin!r}",
                code="agent.output_not_json",
                detail={"status": answer.status_code, "content_type": kind},
            )

    def _bad(self, answer: httpx.Response, content: bytes) -> Failed:
        status, text = answer.status_code, content[:BODY_IN_DETAIL_BYTES].decode(errors="replace")
        detail: dict[str, Any] = {"status": status, "body": text}
        if answer.is_redirect:
            detail["location"] = answer.headers.get("location", "")
        hint = " (set follow_redirects = true to follow it)" if answer.is_redirect else ""
        return Failed(
            f"the server answered {status} {answer.reason_phrase}{hint}".rstrip(),
            code="agent.http_status",
            retriable=status in self._config.retriable_statuses,
            retry_after_s=retry_after_s(answer.headers.get("retry-after", ""), time.time()),
            detail=detail,
        )


async def _read(answer: httpx.Response, most: int) -> bytes:
    """Return the unpacked body; raises `_TooMuch(beginning)` as soon as it is longer than `most` bytes.

    The client's own unpacking makes as many bytes as it likes of one piece, so it is done here, bounded.
    """
    encoding = answer.headers.get("content-encoding", "identity").strip().lower()
    if encoding not in {"", "identity", "gzip", "x-gzip", "deflate"}:
        raise ValueError(f"the answer is packed with {encoding!r}, which was not asked for")
    unpack = None if encoding in {"", "identity"} else zlib.decompressobj(wbits=47)
    content = bytearray()
    async for piece in answer.aiter_raw():
        try:
            content += piece if unpack is None else unpack.decompress(piece, most + 1 - len(content))
        except zlib.error as error:
            raise ValueError(f"the answer is not {encoding}: {error}") from error
        if len(content) > most:
            raise _TooMuch(content[:most])
    return bytes(content)


def _one_line(value: str | SecretRef) -> bool:
    return not isinstance(value, str) or not any(c in value for c in "\r\n\0")


def _words(error: BaseException) -> str:
    return str(error) or type(error).__name__


def _make_client(config: HttpConfig) -> httpx.AsyncClient:
    """Make the client. Blocks: it imports httpx and reads the certificates."""
    import httpx

    return httpx.AsyncClient(
        cookies=no_cookies(),
        verify=trusted(config.ca_file, verify=config.verify),
        trust_env=config.use_proxies,
        follow_redirects=config.follow_redirects,
        # Only connecting has a limit of its own: an agent may think for minutes before it answers.
        timeout=httpx.Timeout(None, connect=config.connect_timeout_s),
        limits=httpx.Limits(max_connections=CONNECTIONS_MAX, max_keepalive_connections=100),
        headers={"accept-encoding": "gzip, deflate", "user-agent": "knotwork"},
    )


@asynccontextmanager
async def open_http(config: HttpConfig, context: Context) -> AsyncIterator[Executor]:
    """Open the client; raises `Unavailable` when its certificates cannot be read."""
    client = await asyncio.to_thread(_make_client, config)
    async with client:
        yield HttpCall(config, context, client)


FACTORY: Factory[Executor] = Factory(
    name="http",
    config=HttpConfig,
    open=open_http,
    summary="Calls a URL: the input is the request body (or stands in the URL), the answer is the output.",
    abilities=("probe",),
)
