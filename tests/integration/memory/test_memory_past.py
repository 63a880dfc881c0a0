"""Whose words are those that a memory said before? They stay their author's, and are hidden with everything of his."""

from __future__ import annotations

from typing import Any

import pytest
from tests.integration.memory.test_memory_life import remember

from knotwork.sdk.errors import NotFound


async def test_what_is_brought_back_stands_under_the_name_of_who_wrote_it(node: Any):
    ann, bea = node.agent("writer"), node.agent("second")
    made = await remember(node, ann, "first words", "personal")
    await remember(node, bea, "other words", "personal", replaces=made)
    assert (await node.desk.get(made, ann)).author_id == "second-id"
    told = await node.desk.history(made, ann)
    assert [(one.author, one.by, one.content) for one in told.versions] == [("writer", "second", "first words")]
    back = await node.desk.revert(made, bea, 1)
    assert (back.content, back.author_id) == ("first words", "writer-id")
    back = await node.desk.revert(made, ann, 2)
    assert (back.content, back.author_id) == ("other words", "second-id")


async def test_what_a_hidden_author_wrote_is_not_in_the_past_of_what_others_made_of_it(node: Any):
    bad, ann, owner = node.agent("misled"), node.agent("writer"), node.person()
    made = await remember(node, bad, "poison", "personal")
    await remember(node, bad, "more of it", "team")
    await remember(node, ann, "mended", "personal", replaces=made)
    await node.desk.quarantine("misled", owner, release=False, why="")
    assert (await node.desk.history(made, ann)).versions == []
    for number in (None, 1):
        with pytest.raises(NotFound) as caught:
            await node.desk.revert(made, ann, number)
        assert caught.value.code == "memory.no_version"
    assert (await node.desk.get(made, ann)).content == "mended"
    assert [one.content for one in (await node.desk.history(made, owner)).versions] == ["poison"]
    await node.desk.quarantine("misled", owner, release=True, why="")
    assert [one.author for one in (await node.desk.history(made, ann)).versions] == ["misled"]
