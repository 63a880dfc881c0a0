"""What do memories mean? Vectors of a configured plugin, made beside everything else and kept in memory by content.

Nothing waits for a vector but a search: a memory that has none yet is found by its words.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from knotwork.bus.background import background
from knotwork.bus.waits import set_within
from knotwork.memory import asking, vectors
from knotwork.memory.index import Filter, Index
from knotwork.memory.model import Record
from knotwork.memory.room import Memory
from knotwork.memory.vectors import Vector
from knotwork.sdk.errors import KnotworkError, PluginFailed, Unavailable
from knotwork.sdk.memory import Place
from knotwork.sockets import raised

log = logging.getLogger(__name__)
BATCH = 32
TEXT_MAX = 8_000
"""Characters of a memory that its vector stands for: what models take."""
AGAIN_S = 5.0
LOOK_S = 0.5
PROBE, TRIES = "memory", 3
"""What any service makes a vector of, and how often one text is tried by itself while it does."""
ASK_S, BATCH_S = 10.0, 120.0
"""How long a search waits for a vector, and how long a slow machine may take for those of one batch."""


class Meaning:
    """The vectors of one project's memories. Made by `open_meaning`."""

    def __init__(self, memory: Memory) -> None:
        """Know none; every record that the index takes in is told to us."""
        self._memory = memory
        self._model, self._outdated = "", False
        self._away = ""
        """Why no vectors could be made when that was tried last."""
        self._digests: dict[Place, tuple[str, bytes]] = {}
        self._vectors: dict[bytes, Vector] = {}
        self._waiting: deque[tuple[bytes, str]] = deque()
        self._stirred = asyncio.Event()
        memory.shelf.listeners.append(self._told)

    async def nearest(self, text: str, wanted: Filter, limit: int) -> list[str]:
        """Return the ids of memories that mean much the same, best first; none when nothing is configured.

        Raises `Unavailable` when the plugin does not answer, `PluginFailed` when it answers with no vectors.
        """
        instance = self._memory.settings.embeddings
        if not instance:
            return []
        if not self._model:
            if self._away:
                raise Unavailable(self._away, code="memory.embed")
            return []
        try:
            async with asyncio.timeout(ASK_S):
                model, (asked,) = await self._made(instance, [text[:TEXT_MAX]])
        except TimeoutError:
            raise Unavailable(f"{instance} did not answer within {ASK_S:g} s.", code="memory.embed") from None
        if model != self._model:  # another one was configured: what the old one said is not to be compared
            self._outdated = True
            self._stirred.set()
            return []
        known = [(id_, self._vectors[digest]) for id_, digest in self._digests.values() if digest in self._vectors]
        allowed = {(sight.scope, sight.owner) for sight in wanted.sights}
        seen = {id_ for place, (id_, _) in self._digests.items() if (place.scope, place.owner) in allowed}
        mine = [one for one in known if one[0] in seen]
        return await self._memory.shelf.ask(lambda _: vectors.nearest(asked, mine, limit))

    @property
    def known(self) -> int:
        """Return how many memories have a vector."""
        return sum(digest in self._vectors for _, digest in self._digests.values())

    def _told(self, place: Place, record: Record | None) -> None:
        if not self._memory.settings.embeddings:
            return
        if record is None or record.forgotten:
            self._digests.pop(place, None)
            return
        digest = hashlib.blake2b(record.content.encode(), digest_size=16).digest()
        self._digests[place] = (record.id, digest)
        if digest not in self._vectors:
            self._waiting.append((digest, record.content[:TEXT_MAX]))
            self._stirred.set()

    async def run(self) -> None:
        """Make vectors of what has none, until cancelled; begin anew when another model is configured."""
        instance = ""
        while True:
            wanted = self._memory.settings.embeddings
            try:
                if wanted != instance or self._outdated:
                    await self._begin_anew(wanted)
                    instance = wanted
                if not instance:
                    await asyncio.sleep(LOOK_S)
                elif await set_within(self._stirred, LOOK_S):
                    self._stirred.clear()
                    await self._embed(instance)
                    self._away = ""
            except KnotworkError as error:
                self._away = error.message
                log.warning("memories are not found by meaning for now: %s", error)
                self._stirred.set()
                await asyncio.sleep(AGAIN_S)

    async def _begin_anew(self, instance: str) -> None:
        self._digests.clear()
        self._vectors.clear()
        self._waiting.clear()
        self._model, self._outdated = "", True
        found = await self._memory.shelf.ask(_everything) if instance else []
        self._outdated = False
        for place, record in found:
            self._told(place, record)

    async def _embed(self, instance: str) -> None:
        while self._waiting:
            batch = [self._waiting.popleft() for _ in range(min(BATCH, len(self._waiting)))]
            todo = {digest: text for digest, text in batch if digest not in self._vectors}
            if not todo:
                continue
            try:
                await self._take(instance, todo)
            except BaseException:
                self._waiting.extendleft(reversed(batch))
                raise
            self._tidy()

    async def _take(self, instance: str, todo: dict[bytes, str], tries: int = TRIES) -> None:
        """Make vectors of texts; one that is refused again and again while others are taken goes without.

        It would hold up all that come after it, for ever: such as a text that is too long for the model.
        """
        try:
            model, made = await self._batch(instance, list(todo.values()))
        except KnotworkError as error:
            await self._batch(instance, [PROBE])  # raises when it is not the texts that are at fault
            if len(todo) > 1:
                some = list(todo.items())
                half = len(some) // 2
                await self._take(instance, dict(some[:half]))
                await self._take(instance, dict(some[half:]))
            elif tries > 1:
                await self._take(instance, todo, tries - 1)
            else:
                log.warning("one memory is found by its words alone: %s", error)
            return
        if model != self._model and self._model:
            await self._begin_anew(instance)
        self._model = model
        self._vectors.update(zip(todo, made, strict=True))

    async def _batch(self, instance: str, texts: list[str]) -> tuple[str, list[Vector]]:
        """Return what `_made` does, within reason; raises `Unavailable` when it takes too long."""
        try:
            async with asyncio.timeout(BATCH_S):
                return await self._made(instance, texts)
        except TimeoutError:
            raise Unavailable(f"{instance} did not answer within {BATCH_S:g} s.", code="memory.embed") from None

    def _tidy(self) -> None:
        """Let go of the vectors of what is not remembered any more, when they are as many as the others."""
        if len(self._vectors) > 2 * len(self._digests) + BATCH:
            there = {digest for _, digest in self._digests.values()}
            self._vectors = {digest: vector for digest, vector in self._vectors.items() if digest in there}

    async def _made(self, instance: str, texts: list[str]) -> tuple[str, list[Vector]]:
        """Return which model it was and one vector for each text; whatever else a plugin does stays its own failure."""
        try:
            with self._memory.around.slot(instance).lease() as plugin:
                given = await asking.safely(instance, lambda: plugin.embed(texts))
                model, made = str(plugin.model), [vectors.vector(one) for one in given]
        except KnotworkError:
            raise
        except Exception as error:
            raise PluginFailed(f"{instance} makes no vectors: {raised.text(error)}", code="memory.embed") from error
        if len(made) != len(texts):
            raise PluginFailed(f"{instance} gave {len(made)} vectors for {len(texts)} texts.", code="memory.embed")
        lengths = sorted({len(one.values) for one in made})
        if len(lengths) > 1:
            raise PluginFailed(f"{instance} gave vectors of several lengths: {lengths}.", code="memory.embed")
        return f"{model}, {lengths}", made  # another one may answer under the same name


def _everything(index: Index) -> list[tuple[Place, Record]]:
    return index.everything()


@asynccontextmanager
async def open_meaning(memory: Memory) -> AsyncIterator[Meaning]:
    """Make vectors inside the block, when a plugin for them is configured."""
    meaning = Meaning(memory)
    async with background() as group:
        group.create_task(meaning.run(), name=f"meaning of {memory.project}")
        yield meaning
