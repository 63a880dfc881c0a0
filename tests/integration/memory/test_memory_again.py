"""What is said again, by committing it or by bringing it back, is kept once, and looked through as one says it now."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
from tests.integration.memory.test_memory_life import remember

from knotwork.bus.background import together
from knotwork.sdk.errors import Conflict, Invalid, NotFound


def change(node: Any, **settings: Any) -> None:
    """Put other settings into force."""
    node.around.now = dataclasses.replace(node.around.now, **settings)


@pytest.mark.parametrize("scope", ["private", "personal"])
async def test_an_insight_is_committed_once_however_often_one_has_it(node: Any, scope: Any):
    """Each time there was one more that said the same."""
    ann = node.agent("writer")
    kept = await remember(node, ann, "Use tabs.", scope, "longterm", tags=("style",))
    made = await remember(node, ann, "use  TABS.", tags=("new",))
    told = await node.desk.commit(made, ann, "", scope)
    assert (told.id, told.duplicate_of, told.scope, told.category) == (kept, kept, scope, "longterm")
    assert (await node.desk.get(kept, ann)).tags == ["style", "new"]
    with pytest.raises(NotFound):
        await node.desk.get(made, ann)
    change(node, duplicates="refuse")
    made = await remember(node, ann, "Use tabs.")
    with pytest.raises(Conflict) as refused:
        await node.desk.commit(made, ann, "", scope)
    assert refused.value.code == "memory.duplicate"
    change(node, duplicates="allow")
    assert (await node.desk.commit(made, ann, "", None)).id == made


@pytest.mark.parametrize("scope", ["private", "personal"])
async def test_what_is_committed_twice_at_once_is_not_its_own_twin(
    node: Any, monkeypatch: pytest.MonkeyPatch, scope: Any
):
    """Who came second found what the first had kept, added itself to it, and forgot it."""
    ann, memory = node.agent("writer"), node.rooms.memory
    made = await remember(node, ann, "Use tabs.")
    before, now = [await memory.held(made, ann)] * 2, memory.held  # the desk looks, too
    await node.desk.commit(made, ann, "", scope)
    await now(made, ann)  # the index knows of it

    async def held(asked: str, who: Any) -> Any:
        return before.pop() if before else await now(asked, who)

    monkeypatch.setattr(memory, "held", held)
    with pytest.raises(Conflict):
        await node.desk.commit(made, ann, "", scope)
    row = await node.desk.get(made, ann)
    assert (row.category, row.scope, before) == ("longterm", scope, [])


async def test_what_was_kept_before_secrets_were_looked_for_is_looked_through_when_it_is_said_again(node: Any):
    ann = node.agent("writer")
    token = "ghp_" + "a1B2" * 9
    change(node, secrets="off")
    passing = await remember(node, ann, f"use {token}", tags=(token,))
    changed = await remember(node, ann, f"first {token}", category="longterm")
    await remember(node, ann, "second", category="longterm", replaces=changed)
    change(node, secrets="block")
    for refused in (node.desk.commit(passing, ann, "", None), node.desk.revert(changed, ann, 1)):
        with pytest.raises(Invalid) as caught:
            await refused
        assert caught.value.code == "memory.secret"
    change(node, secrets="redact")
    await node.desk.commit(passing, ann, "", None)
    row = await node.desk.get(passing, ann)
    assert (row.content, row.tags, row.category) == (
        "use [github-token removed]",
        ["[github-token removed]"],
        "longterm",
    )
    assert (await node.desk.revert(changed, ann, 1)).content == "first [github-token removed]"


async def test_what_is_related_to_what_it_becomes_is_not_related_to_itself(node: Any):
    ann = node.agent("writer")
    kept = await remember(node, ann, "the same")
    other = await remember(node, ann, "another")
    assert await remember(node, ann, "The Same", related=(kept, other)) == kept
    assert (await node.desk.get(kept, ann)).related == [other]


async def test_what_is_removed_twice_at_once_is_removed_once_and_no_error(node: Any):
    ann = node.agent("writer")
    for number in range(20):
        await node.desk.forget(await remember(node, ann, f"thing {number}"), ann, force=False, purge=False)
    done = await together(*(node.desk.clean(ann, expire_only=False) for _ in range(4)))
    assert (sum(one.forgotten for one in done), [one.errors for one in done]) == (20, [[]] * 4)
