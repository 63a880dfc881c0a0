"""Which items of an HTTP address are new? It is asked again and again, with its ETag; each new item fires once."""

from __future__ import annotations

import asyncio
import hashlib
import time
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, Literal, Self
from urllib.parse import urlsplit

import jmespath
from jmespath.exceptions import JMESPathError
from pydantic import Field, model_validator

from knotwork.sdk import Context, Factory, Firing, Mark, PluginConfig, SecretRef, Trigger, Unavailable
from knotwork_plugins.over_http import retry_after_s
from knotwork_plugins.triggers.poll import answers

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    import httpx

MEBIBYTE = 1_048_576
SEEN_MAX = 2 * answers.ITEMS_MAX
NOT_MODIFIED, TOO_MANY = 304, 429


class PollConfig(PluginConfig):
    """Options of an address that is looked at now and again."""

    url: str = Field(min_length=8, max_length=8192, description="what to look at, http:// or https://")
    every_s: float = Field(default=60.0, ge=0.1, le=7 * 86_400, description="seconds between two looks at it")
    headers: dict[str, str | SecretRef] = Field(
        default_factory=dict, description="headers to send; values are strings or secret references"
    )
    format: answers.Format = Field(
        default="auto",
        description="json: items of a list; feed: entries of RSS or Atom; page: the whole, when it is as it never was",
    )
    items: str = Field(
        default="",
        max_length=1024,
        description="JMESPath to the list in JSON; empty: the whole, or its list `items`, …",
    )
    id: str = Field(
        default="",
        max_length=1024,
        description="JMESPath to what tells an item apart; empty: its id, url, …, or all of it",
    )
    begin: Literal["new", "all"] = Field(
        default="new", description="with items to come, or with all there are at the first look"
    )
    timeout_s: float = Field(default=30.0, gt=0, le=600, description="seconds one look may take")
    answer_max_bytes: int = Field(
        default=8 * MEBIBYTE, ge=1, le=64 * MEBIBYTE, description="bytes of an answer, unpacked"
    )
    verify: bool = Field(default=True, description="check the server's certificate; turn off for tests only")
    use_proxies: bool = Field(default=True, description="use the proxies named in the environment (HTTPS_PROXY, …)")

    @model_validator(mode="after")
    def _sound(self) -> Self:
        parts = urlsplit(self.url)
        if parts.scheme not in {"http", "https"} or not parts.hostname:
            msg = "url must begin with http:// or https:// and name a host"
            raise ValueError(msg)
        for name in ("items", "id"):
            try:
                jmespath.compile(getattr(self, name) or "@")
            except JMESPathError as error:
                msg = f"{name} is no JMESPath expression: {error}"
                raise ValueError(msg) from error
        return self


class Poll:
    """The trigger: one client for all who listen."""

    def __init__(self, config: PollConfig, context: Context, client: httpx.AsyncClient) -> None:
        """Keep the client, which the opener closes."""
        self._config, self._context, self._client = config, context, client

    async def firings(self, since: Any) -> AsyncIterator[Firing | Mark]:
        """Tell each new item, in their order; the mark is what was seen, and the ETag of it."""
        known = since if isinstance(since, dict) else None
        seen = list(known.get("seen", [])) if known is not None else []
        tags: dict[str, str] = dict(known.get("tags", {})) if known is not None else {}
        first = known is None and self._config.begin == "new"
        while True:
            found, got = await self._look(tags)
            before = set(seen)
            fresh = [item for item in found if _short(item.id) not in before]
            for item in fresh:
                seen = _with(seen, found, item)
                if not first:
                    yield Firing(item.id, item.value, {"url": self._config.url}, {"seen": seen, "tags": tags})
            if first or got != tags:
                yield Mark({"seen": seen, "tags": got})  # only now: what was told halfway must be told again
            first, tags = False, got
            await asyncio.sleep(self._config.every_s)

    async def _look(self, tags: dict[str, str]) -> tuple[list[answers.Item], dict[str, str]]:
        """Return the items that are there, none when nothing is different, and what to ask with the next time."""
        import httpx

        sent = {**await self._headers(), **tags}
        try:
            async with (
                asyncio.timeout(self._config.timeout_s),
                self._client.stream("GET", self._config.url, headers=sent) as answer,
            ):
                if answer.status_code == NOT_MODIFIED and tags:
                    return [], tags
                self._must_be_well(answer)
                body = await self._body(answer)
        except (httpx.HTTPError, httpx.InvalidURL, TimeoutError) as error:
            raise Unavailable(
                f"{self._address()} does not answer: {type(error).__name__}: {error}.".replace(": .", "."),
                code="poll.no_answer",
            ) from error
        kind = answer.headers.get("content-type", "")
        try:
            found = await asyncio.to_thread(
                answers.read, body, kind, self._config.format, self._config.items, self._config.id
            )
        except answers.Unreadable as error:
            raise Unavailable(
                f"What {self._address()} answers cannot be read: {error}.", code="poll.unreadable"
            ) from error
        given = {"If-None-Match": answer.headers.get("etag"), "If-Modified-Since": answer.headers.get("last-modified")}
        return found, {name: value for name, value in given.items() if value}

    def _must_be_well(self, answer: httpx.Response) -> None:
        if answer.is_success:
            return
        wait_s = retry_after_s(answer.headers.get("retry-after", ""), time.time())
        if answer.status_code == TOO_MANY and wait_s is None:
            wait_s = self._config.every_s
        raise Unavailable(f"{self._address()} answers {answer.status_code}.", code="poll.refused", retry_after_s=wait_s)

    async def _body(self, answer: httpx.Response) -> bytes:
        parts, size = [], 0
        async for part in answer.aiter_bytes():
            parts.append(part)
            size += len(part)
            if size > self._config.answer_max_bytes:
                limit = self._config.answer_max_bytes
                raise Unavailable(f"{self._address()} answers over {limit} bytes.", code="poll.too_large")
        return b"".join(parts)

    async def _headers(self) -> dict[str, str]:
        return {
            name: await asyncio.to_thread(self._context.secrets, value) if isinstance(value, SecretRef) else value
            for name, value in self._config.headers.items()
        }

    def _address(self) -> str:
        """Return the address without what may be secret in it."""
        parts = urlsplit(self._config.url)
        return f"{parts.scheme}://{parts.hostname}{f':{parts.port}' if parts.port else ''}{parts.path}"


def _with(seen: list[str], found: list[answers.Item], item: answers.Item) -> list[str]:
    """Return what was seen with one more; what is still there is kept, of the rest the newest."""
    there = {_short(one.id) for one in found}
    more = [one for one in seen if one != _short(item.id)] + [_short(item.id)]
    too_many = len(more) - SEEN_MAX
    gone = [one for one in more if one not in there][: max(0, too_many)]
    return [one for one in more if one not in set(gone)]


def _short(name: str) -> str:
    return hashlib.sha256(name.encode("utf-8", "surrogatepass")).hexdigest()[:20]


@asynccontextmanager
async def open_poll(config: PollConfig, context: Context) -> AsyncIterator[Trigger]:
    """Entering makes the client; the address is looked at once somebody listens."""
    import httpx

    async with httpx.AsyncClient(
        verify=config.verify, trust_env=config.use_proxies, follow_redirects=True, timeout=config.timeout_s
    ) as client:
        yield Poll(config, context, client)


FACTORY: Factory[Trigger] = Factory(
    name="poll", config=PollConfig, open=open_poll,
    summary="Fires for each new item of a web address: a JSON list, an RSS or Atom feed, a page that changes.",
)  # fmt: skip
