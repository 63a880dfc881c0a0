"""Search by meaning: vectors of a plugin made beside everything else, both orders made one, and words alone without it.

The plugin stands in for a model, which does not run here: it knows a few words and what they have to do with each other.
"""

from __future__ import annotations

import asyncio
import dataclasses
from typing import Any

import pytest
from tests.integration.memory.conftest import memory_node, until
from tests.integration.memory.test_memory_life import found, remember

from knotwork.memory import meaning
from knotwork.memory.query import Query
from knotwork.sdk.errors import PluginFailed, Unavailable

MEANS = {"cat": 0, "kitten": 0, "feline": 0, "car": 1, "vehicle": 1, "truck": 1, "bread": 2, "loaf": 2, "bakery": 2}


class Model:
    """Embeds a text as what its words have to do with."""

    def __init__(self) -> None:
        self.model, self.away, self.asked = "words", False, 0
        self.more: list[float] = []

    async def embed(self, texts: Any) -> list[list[float]]:
        if self.away:
            raise Unavailable("the model is away", code="memory.embed")
        self.asked += len(texts)
        vectors = []
        for text in texts:
            vector = [-0.01, -0.01, -0.01, -0.01]
            for word in text.lower().split():
                vector[MEANS.get(word, 3)] += 1.0 if word in MEANS else 0.02
            vectors.append([*vector, *self.more])
        return vectors


async def with_model(node: Any) -> Model:
    model = Model()
    node.around.slots["model"] = memory_node.Slot(model)
    node.around.now = dataclasses.replace(node.around.now, embeddings="model")
    return model


async def test_what_means_the_same_is_found(node: Any):
    ann, bob = node.agent("writer"), node.agent("other", owner="bob")
    await remember(node, ann, "the kitten sleeps")
    await remember(node, ann, "the truck is red")
    model = await with_model(node)  # what was there before gets its vector, too
    await remember(node, ann, "fresh loaf on mondays")
    await remember(node, bob, "feline of bob")

    async def by_meaning() -> bool:
        return await found(node, ann, text="cat") == ["the kitten sleeps"]

    await until(by_meaning)
    page = await node.desk.page(Query(text="vehicle"), ann)
    assert [(row.content, row.found_by) for row in page.memories] == [("the truck is red", ["meaning"])]
    both = await node.desk.page(Query(text="kitten"), ann)
    assert [(row.content, row.found_by) for row in both.memories] == [("the kitten sleeps", ["words", "meaning"])]
    assert await found(node, ann, text="cat", scopes=("team",)) == []
    told = await node.desk.stats(ann)
    assert (told.embeddings, told.with_vectors) == ("model", 4)
    before = model.asked
    await remember(node, ann, "the kitten sleeps", category="longterm")  # the same words have a vector
    assert await found(node, ann, text="nothing at all") != await found(node, ann, text="cat")
    assert model.asked - before <= 3


async def test_without_the_model_words_go_on_and_it_is_said(node: Any):
    ann = node.agent("writer")
    model = await with_model(node)
    await remember(node, ann, "the kitten sleeps")
    await until(lambda: node.rooms.meaning.known == 1)
    model.away = True
    page = await node.desk.page(Query(text="kitten"), ann)
    assert [row.content for row in page.memories] == ["the kitten sleeps"]
    assert "words alone" in page.notes[0]
    await remember(node, ann, "a feline walks")
    model.away = False
    await until(lambda: node.rooms.meaning.known == 2)
    assert len(await found(node, ann, text="cat")) == 2


async def test_a_model_that_was_away_from_the_start_is_told_of(node: Any):
    ann, model = node.agent("writer"), await with_model(node)
    model.away = True
    await remember(node, ann, "the kitten sleeps")

    async def notes() -> list[str]:
        return (await node.desk.page(Query(text="kitten"), ann)).notes

    assert "the model is away" in (await until(notes))[0]
    model.away = False

    async def by_meaning() -> bool:
        return await found(node, ann, text="cat") == ["the kitten sleeps"] and not await notes()

    await until(by_meaning)


async def test_a_text_that_the_model_refuses_holds_up_no_other(node: Any):
    ann, model = node.agent("writer"), Model()
    good = model.embed

    async def picky(texts: Any) -> Any:
        if any("tome" in text for text in texts):
            raise PluginFailed("the input is too long", code="memory.embed")
        return await good(texts)

    model.embed = picky  # type: ignore[method-assign]
    for text in ("the tome about a feline", "the kitten sleeps", "another tome", "the truck is red"):
        await remember(node, ann, text)
    node.around.slots["model"] = memory_node.Slot(model)
    node.around.now = dataclasses.replace(node.around.now, embeddings="model")
    await until(lambda: node.rooms.meaning.known == 2)
    await remember(node, ann, "a third tome")
    await remember(node, ann, "fresh loaf on mondays")
    await until(lambda: node.rooms.meaning.known == 3)
    assert await found(node, ann, text="cat") == ["the kitten sleeps"]
    assert "the tome about a feline" in await found(node, ann, text="tome")


@pytest.mark.parametrize(
    "answer", [lambda _: None, lambda texts: texts[1:], lambda texts: [["a"]] * len(texts), lambda _: _slow()],
    ids=["none", "few", "words", "slow"],
)  # fmt: skip
async def test_a_model_that_does_not_behave_harms_nobody(node: Any, answer: Any):
    ann, model = node.agent("writer"), await with_model(node)
    good, asked = model.embed, asyncio.Event()

    async def bad(texts: Any) -> Any:
        asked.set()
        return answer(texts)

    model.embed = bad  # type: ignore[method-assign]
    await remember(node, ann, "the kitten sleeps")
    async with asyncio.timeout(60):
        await asked.wait()
    assert await found(node, ann, text="kitten") == ["the kitten sleeps"]
    model.embed = good  # type: ignore[method-assign]
    await until(lambda: node.rooms.meaning.known == 1)
    model.embed = bad  # type: ignore[method-assign]
    page = await node.desk.page(Query(text="kitten"), ann)
    assert [row.content for row in page.memories] == ["the kitten sleeps"]
    assert "words alone" in page.notes[0]


def _slow() -> None:
    raise TimeoutError


async def test_a_model_that_never_answers_or_cancels_is_asked_again_and_may_be_exchanged(node: Any, monkeypatch: Any):
    monkeypatch.setattr(meaning, "BATCH_S", 0.2)
    monkeypatch.setattr(meaning, "AGAIN_S", 0.1)
    ann, model = node.agent("writer"), await with_model(node)
    asked = 0

    async def never(_: Any) -> None:
        nonlocal asked
        asked += 1
        if asked > 1:
            raise asyncio.CancelledError
        await asyncio.Event().wait()

    model.embed = never  # type: ignore[method-assign, assignment]
    await remember(node, ann, "the kitten sleeps")
    await until(lambda: asked > 3)
    node.around.slots["other"] = memory_node.Slot(Model())
    node.around.now = dataclasses.replace(node.around.now, embeddings="other")
    await until(lambda: node.rooms.meaning.known == 1)


async def test_the_vectors_of_what_is_gone_go_too(node: Any):
    ann, _ = node.agent("writer"), await with_model(node)
    kept = node.rooms.meaning
    for number in range(4 * meaning.BATCH):
        made = await remember(node, ann, f"kitten {number}")
        await until(lambda: kept.known == 1)
        await node.desk.forget(made, ann, force=False, purge=False)
    assert len(kept._vectors) <= 2 * meaning.BATCH


async def test_an_index_that_cannot_be_read_is_read_later(node: Any, monkeypatch: pytest.MonkeyPatch):
    ann = node.agent("writer")
    await remember(node, ann, "the kitten sleeps")
    ask, refused = node.rooms.memory.shelf.ask, asyncio.Event()

    async def damaged(look: Any) -> Any:
        if look is meaning._everything:
            refused.set()
            raise Unavailable("The memory index of this node is damaged.", code="memory.index")
        return await ask(look)

    with monkeypatch.context() as patched:
        patched.setattr(node.rooms.memory.shelf, "ask", damaged)
        await with_model(node)
        async with asyncio.timeout(60):
            await refused.wait()
    await until(lambda: node.rooms.meaning.known == 1)


@pytest.mark.parametrize("other", [{"model": "other words"}, {"more": [0.01]}], ids=["name", "length"])
async def test_vectors_of_two_models_are_never_compared(node: Any, other: dict[str, Any]):
    ann, model = node.agent("writer"), await with_model(node)
    await remember(node, ann, "the kitten sleeps")
    await until(lambda: node.rooms.meaning.known == 1)
    vars(model).update(other)  # the same table leads to another one, perhaps under the same name
    before = model.asked
    assert await found(node, ann, text="cat") == []
    await until(lambda: model.asked > before + 1)  # it was asked for the memory, too, not for the search alone

    async def again() -> bool:
        return await found(node, ann, text="cat") == ["the kitten sleeps"]

    await until(again)


async def test_what_is_forgotten_or_changed_means_nothing_more(node: Any):
    ann = node.agent("writer")
    await with_model(node)
    made = await remember(node, ann, "the kitten sleeps", category="longterm")
    await until(lambda: node.rooms.meaning.known == 1)
    await remember(node, ann, "the truck is red", category="longterm", replaces=made)

    async def changed() -> bool:
        return await found(node, ann, text="vehicle") == ["the truck is red"]

    await until(changed)
    assert await found(node, ann, text="cat") == []
    await node.desk.forget(made, ann, force=False, purge=False)
    assert await found(node, ann, text="vehicle") == []
