"""How are memories found by what they mean? Vectors of a service that speaks OpenAI's embeddings API, local or far.

Source: OpenAI API reference, `POST /v1/embeddings` (the same is spoken by Ollama, llama.cpp, vLLM, LM Studio).
"""

from __future__ import annotations

import math
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

from pydantic import Field

from knotwork.sdk import Context, Embedder, Factory, PluginConfig, PluginFailed, SecretRef, Unavailable

if TYPE_CHECKING:
    import httpx

OK, BUSY = 200, frozenset({408, 425, 429, 500, 502, 503, 504})
SHOWN_MAX = 300


class OpenAiEmbeddingsConfig(PluginConfig):
    """A service that turns text into vectors."""

    url: str = Field(
        default="http://localhost:11434/v1",
        max_length=2048,
        pattern="^https?://[^ ]+$",
        description="base address of the API; /embeddings is added",
    )
    model: str = Field(
        default="nomic-embed-text", min_length=1, max_length=256, description="the model, as the service names it"
    )
    api_key: SecretRef | None = Field(default=None, description="key for the service, as a secret reference")
    dimensions: int = Field(default=0, ge=0, le=8192, description="length asked for; 0: the model's own")
    batch: int = Field(default=32, ge=1, le=2048, description="texts in one request at most")
    timeout_s: float = Field(default=30.0, gt=0, le=600, description="seconds one request may take")


class OpenAiEmbeddings:
    """Asks the service; keeps nothing."""

    def __init__(self, config: OpenAiEmbeddingsConfig, client: httpx.AsyncClient, key: str) -> None:
        """Use `open_embeddings`."""
        self._config, self._client = config, client
        self._headers = {"authorization": f"Bearer {key}"} if key else {}

    @property
    def model(self) -> str:
        """Return the model with its length: vectors of two lengths are never compared."""
        return f"{self._config.model}/{self._config.dimensions}" if self._config.dimensions else self._config.model

    async def embed(self, texts: Sequence[str]) -> Sequence[Sequence[float]]:
        """Return one vector for each text; raises `Unavailable`, or `PluginFailed` for a refusal that stays."""
        found: list[Sequence[float]] = []
        for start in range(0, len(texts), self._config.batch):
            found += await self._ask(list(texts[start : start + self._config.batch]))
        return found

    async def _ask(self, texts: list[str]) -> list[Sequence[float]]:
        import httpx  # 50 ms that a node without it need not spend

        body: dict[str, Any] = {"model": self._config.model, "input": texts, "encoding_format": "float"}
        if self._config.dimensions:
            body["dimensions"] = self._config.dimensions
        url = self._config.url.rstrip("/") + "/embeddings"
        try:
            answer = await self._client.post(url, json=body, headers=self._headers)
            told = answer.json() if answer.status_code == OK else {}
        except (httpx.HTTPError, ValueError) as error:
            raise Unavailable(f"{url} did not answer: {error or type(error).__name__}.", code="memory.embed") from error
        if answer.status_code != OK:
            what = f"{url} answered {answer.status_code}: {answer.text[:SHOWN_MAX]}"
            raise (Unavailable if answer.status_code in BUSY else PluginFailed)(what, code="memory.embed")
        return _vectors(told, len(texts), url)


def _vectors(told: Any, count: int, url: str) -> list[Sequence[float]]:
    """Return the vectors of an answer in the order of the texts; raises `PluginFailed` for anything else."""
    rows = told.get("data") if isinstance(told, dict) else None
    found: dict[int, Sequence[float]] = {}
    for place, row in enumerate(rows if isinstance(rows, list) else []):
        vector = row.get("embedding") if isinstance(row, dict) else None
        if isinstance(vector, list) and vector and all(_is_number(one) for one in vector):
            found[row.get("index", place)] = vector
    lengths = {len(vector) for vector in found.values()}
    if sorted(found, key=str) != sorted(range(count), key=str) or len(lengths) != 1:
        raise PluginFailed(f"{url} did not answer {count} vectors of one length.", code="memory.embed")
    return [found[place] for place in range(count)]


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


@asynccontextmanager
async def open_embeddings(config: OpenAiEmbeddingsConfig, context: Context) -> AsyncIterator[Embedder]:
    """Make a client; the service is asked when there is something to embed."""
    import httpx  # the same

    key = context.secrets(config.api_key) if config.api_key is not None else ""
    async with httpx.AsyncClient(timeout=config.timeout_s, trust_env=False, follow_redirects=False) as client:
        yield OpenAiEmbeddings(config, client, key)


FACTORY: Factory[Embedder] = Factory(
    name="openai-embeddings",
    config=OpenAiEmbeddingsConfig,
    open=open_embeddings,
    summary="Finds memories by meaning, with vectors of any service that speaks OpenAI's embeddings API.",
    abilities=("embeds",),
)
