"""How are memories found by what they mean without any service? With a small model on this machine.

Source: Model2Vec (Tulkens and van Dongen, 2024): a vector for each token, averaged, so a text takes microseconds and no
graphics card. The library is not part of Knotwork: it is looked for when the plugin is opened.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import Field

from knotwork.sdk import Context, Embedder, Factory, PluginConfig, PluginFailed, Unavailable

if TYPE_CHECKING:
    from collections.abc import Callable

LIBRARY = "model2vec"


class Model2VecConfig(PluginConfig):
    """A Model2Vec model in a folder of this machine; needs the Python package model2vec beside Knotwork."""

    folder: str = Field(
        min_length=1, max_length=4096, description="folder of the model: model.safetensors, tokenizer.json, config.json"
    )


class Model2Vec:
    """Turns texts into vectors in a thread; many at once are done one after the other."""

    def __init__(self, name: str, encode: Callable[[list[str]], Any]) -> None:
        """Use `open_model2vec`."""
        self._name, self._encode = name, encode
        self._one = asyncio.Lock()

    @property
    def model(self) -> str:
        """Return the name of the model: its folder's."""
        return self._name

    async def embed(self, texts: Sequence[str]) -> Sequence[Sequence[float]]:
        """Return one vector for each text."""
        if not texts:
            return []
        async with self._one:
            found: list[list[float]] = await asyncio.to_thread(lambda: self._encode(list(texts)).tolist())
        return found


def _load(folder: Path) -> Callable[[list[str]], Any]:
    """Return what encodes with a model; blocks. Raises `Unavailable` without the library, `PluginFailed` without a model."""
    try:
        library = import_module(LIBRARY)
    except ImportError as error:
        raise Unavailable(
            f"The Python package {LIBRARY} is not there: {error}.", code="memory.embed",
            hint="Install it beside Knotwork (pip install model2vec), or use a service by type openai-embeddings.",
        ) from error  # fmt: skip
    if not (folder / "model.safetensors").is_file():
        raise PluginFailed(f"There is no Model2Vec model in {folder}.", code="memory.embed", hint="Download one.")
    try:
        model = library.StaticModel.from_pretrained(str(folder), force_download=False)
    except Exception as error:
        raise PluginFailed(f"The model in {folder} cannot be read: {error}.", code="memory.embed") from error
    return lambda texts: model.encode(texts, use_multiprocessing=False)


def _folder(config: Model2VecConfig, context: Context) -> Path:
    return context.base / Path(config.folder).expanduser()


@asynccontextmanager
async def open_model2vec(config: Model2VecConfig, context: Context) -> AsyncIterator[Embedder]:
    """Load the model: some hundred milliseconds."""
    folder = _folder(config, context)
    encode = await asyncio.to_thread(_load, folder)
    yield Model2Vec(folder.name, encode)


FACTORY: Factory[Embedder] = Factory(
    name="model2vec",
    config=Model2VecConfig,
    open=open_model2vec,
    summary="Finds memories by meaning, with a small model on this machine and no service.",
    abilities=("embeds",),
)
