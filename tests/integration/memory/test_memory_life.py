"""The life of a memory over a real nats-server: kept, found, changed, brought back, expired by the server, gone."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
from typing import Any

import pytest
from tests.integration.memory.conftest import until

from knotwork.memory.model import CATEGORIES
from knotwork.memory.query import Query
from knotwork.memory.rules import Draft
from knotwork.memory.settings import Settings
from knotwork.sdk.errors import Conflict, Denied, Invalid, KnotworkError, NotFound
from knotwork.sdk.memory import Place
from knotwork.sdk.testing.buckets import DictBucket


async def remember(node: Any, who: Any, content: str, scope: str = "private", category: Any = None, **more: Any) -> str:
    """Remember something and return its id."""
    duplicates, replaces = more.pop("duplicates", None), more.pop("replaces", "")
    draft = Draft(content, scope, category, **more)
    return (await node.desk.remember(draft, who, replaces=replaces, duplicates=duplicates)).id


async def found(node: Any, who: Any, **query: Any) -> list[str]:
    """Return the contents of a page."""
    return [row.content for row in (await node.desk.page(Query(**query), who)).memories]


async def test_what_was_remembered_is_recalled_at_once_by_scope(node: Any):
    ann = node.agent("writer")
    for scope, category in (
        ("private", "recent"),
        ("personal", "core"),
        ("team", "decisions"),
        ("public", "learnings"),
    ):
        await remember(node, ann, f"{scope} thing", scope, category)
    told = await node.desk.recall(Query(), ann)
    assert [row.content for row in told.private] == ["private thing"]
    assert [row.content for row in told.personal] == ["personal thing"]
    assert [row.content for row in told.team] == ["team thing"]
    assert [row.content for row in told.public] == ["public thing"]
    assert told.current
    assert (told.counts.total, told.counts.returned, told.counts.expired) == (4, 4, 0)
    assert [line.split("]")[0] for line in told.summary.splitlines()[1:]] == [
        "- [personal/core, 0 s", "- [team/decisions, 0 s, writer", "- [public/learnings, 0 s, writer", "- [private/recent, 0 s",
    ]  # fmt: skip
    row = told.team[0]
    assert (row.author, row.author_id, row.owner, row.project, row.node) == (
        "writer",
        "writer-id",
        "ann",
        "default",
        "n1",
    )


async def test_recall_filters(node: Any):
    ann = node.agent("writer")
    await remember(node, ann, "old and low", category="longterm", tags=("DB", "x"), priority=1)
    middle = await remember(node, ann, "in between", category="longterm", tags=("db",))
    await remember(node, ann, "new and high", category="tasks", tags=("db", "y"), priority=3)
    assert await found(node, ann, tags=("db",)) == [
        "in between",
        "old and low",
        "new and high",
    ]  # longterm before tasks
    assert "more" not in (await node.desk.recall(Query(tags=("y",)), ann)).summary
    assert (await node.desk.recall(Query(limit=1), ann)).summary.endswith("… and 2 more.")
    assert (await node.desk.recall(Query(limit=1, tags=("db",)), ann)).summary.endswith("… and more.")
    assert await found(node, ann, tags=("db", "Y")) == ["new and high"]
    assert await found(node, ann, priority_min=2) == ["in between", "new and high"]
    assert await found(node, ann, priority_max=1) == ["old and low"]
    assert await found(node, ann, categories=("tasks",)) == ["new and high"]
    assert await found(node, ann, scopes=("team",)) == []
    assert await found(node, ann, newest=True) == ["new and high", "in between", "old and low"]
    created_ns = (await node.rooms.memory.held(middle, ann)).record.created_ns
    assert await found(node, ann, created_after_ns=created_ns) == ["in between", "new and high"]
    assert await found(node, ann, created_before_ns=created_ns) == ["old and low"]
    assert await found(node, ann, updated_after_ns=created_ns + 1) == ["new and high"]
    assert await found(node, ann, author="writer-id", updated_before_ns=created_ns) == ["old and low"]


@pytest.mark.parametrize("newest", [False, True])
async def test_pages_do_not_drift(node: Any, newest: bool):
    ann = node.agent("writer")
    for number in range(23):
        category = ("recent", "tasks", "longterm", "core")[number % 4]
        await remember(node, ann, f"thing {number}", ("private", "personal")[number % 2], category)
    whole = [row.id for row in (await node.desk.page(Query(limit=200, newest=newest), ann)).memories]
    seen, cursor = [], ""
    while True:
        page = await node.desk.page(Query(limit=5, cursor=cursor, newest=newest), ann)
        seen += [row.id for row in page.memories]
        await remember(node, ann, f"meanwhile {len(seen)}", category="core")  # before what was read, in both orders
        cursor = page.next
        if not cursor:
            break
    assert [one for one in seen if one in whole] == whole
    assert len(seen) == len(set(seen))


@pytest.mark.parametrize(
    "cursor", ["x", "W10", "WzEsMl0", "eyJhIjoxfQ", "!!", "WzEsMTAwMDAwMDAwMDAwMDAwMDAwMDAwMDAwLCJhIl0"]
)
async def test_a_cursor_that_is_none_is_told(node: Any, cursor: str):
    for query in (Query(cursor=cursor), Query(cursor=cursor, text="x"), Query(cursor=cursor, newest=True)):
        with pytest.raises(Invalid) as refused:
            await node.desk.page(query, node.agent("writer"))
        assert refused.value.code == "ops.bad_cursor"


async def test_words_are_found_in_their_forms_and_the_best_first(node: Any):
    ann = node.agent("writer")
    await remember(node, ann, "We deploy on Tuesdays")
    await remember(node, ann, "Deployment of the database is deployed by the deploying team", tags=("deploy",))
    await remember(node, ann, "Cafés serve naïve customers")
    await remember(node, ann, "nothing to do with it")
    assert (await found(node, ann, text="deploying"))[0].startswith("Deployment")
    assert len(await found(node, ann, text="deploying")) == 2
    assert await found(node, ann, text="cafe naive") == ["Cafés serve naïve customers"]
    assert await found(node, ann, text="databa") != []  # the beginning of a word
    assert await found(node, ann, text="hing") == ["nothing to do with it"]  # a part, when no word fits
    for odd in ('"', "NEAR(", "a AND", "*", "content:x", "-", "'; DROP TABLE items", "()", "\x00", "ü" * 500):
        await found(node, ann, text=odd)


async def test_a_search_goes_on_from_page_to_page(node: Any):
    ann = node.agent("writer")
    for number in range(12):
        await remember(node, ann, f"apple {number}")
    first = await node.desk.page(Query(text="apple", limit=5), ann)
    second = await node.desk.page(Query(text="apple", limit=5, cursor=first.next), ann)
    third = await node.desk.page(Query(text="apple", limit=5, cursor=second.next), ann)
    rows = [*first.memories, *second.memories, *third.memories]
    assert len({row.id for row in rows}) == 12
    assert third.next == ""
    assert rows[0].found_by == ["words"]


async def test_the_server_lets_things_expire(node: Any):
    ann = node.agent("writer")
    gone = await remember(node, ann, "soon over", ttl_s=1)
    stays = await remember(node, ann, "stays", category="longterm")
    usual = await node.desk.remember(Draft("a day"), ann, replaces="", duplicates=None)
    with contextlib.suppress(NotFound):  # on a slow machine it may be gone already
        assert usual.expires_at > (await node.desk.get(gone, ann)).expires_at
    memory = node.rooms.memory

    async def is_gone() -> bool:
        return await memory.around.slot("kv").plugin.get(memory.place(gone, "private", ann.id)) is None

    await until(is_gone)  # nobody cleaned up: the server did
    with pytest.raises(NotFound):
        await node.desk.get(gone, ann)
    assert await found(node, ann, newest=True) == ["a day", "stays"]
    assert (await node.desk.get(stays, ann)).expires_at == ""
    headers = await _ttl_of(node, memory.place(usual.id, "private", ann.id))
    assert 86_000 < int(headers) <= 86_400


async def _ttl_of(node: Any, place: Place) -> str:
    """Return the time to live that the server was told for what lies in a place."""
    subject = f"$KV.MEMORY.{place.scope}.{place.owner}.{place.id}"
    message = await node.connections["default"].request(f"$JS.API.DIRECT.GET.KV_MEMORY.{subject}")
    return (message.headers or {})["Nats-TTL"]


async def test_the_same_thing_remembered_twice_is_one_memory(node: Any):
    ann = node.agent("writer")
    first = await remember(node, ann, "The build needs Node 20.", tags=("build",), priority=1)
    told = await node.desk.remember(
        Draft("the  BUILD needs node 20.", tags=("node",), priority=3), ann, replaces="", duplicates=None
    )
    assert (told.id, told.duplicate_of) == (first, first)
    row = await node.desk.get(first, ann)
    assert (row.content, row.tags, row.priority) == ("The build needs Node 20.", ["build", "node"], 3)
    with pytest.raises(Conflict) as refused:
        await remember(node, ann, "The build needs node 20.", duplicates="refuse")
    assert refused.value.detail == {"duplicate_of": first}
    assert await remember(node, ann, "The build needs node 20.", duplicates="allow") != first
    assert await remember(node, ann, "The build needs node 20.", category="longterm") != first
    assert await remember(node, node.agent("other", owner="bob"), "The build needs node 20.") != first


async def test_the_same_thing_written_at_once_is_one_memory(node: Any):
    ann = node.agent("writer")
    async with asyncio.TaskGroup() as group:
        writes = [group.create_task(remember(node, ann, "all at once", tags=(f"t{one}",))) for one in range(8)]
    assert len({one.result() for one in writes}) == 1
    row = await node.desk.get(writes[0].result(), ann)
    assert set(row.tags) == {f"t{one}" for one in range(8)}


async def test_what_was_forgotten_is_no_twin(node: Any):
    ann = node.agent("writer")
    first = await remember(node, ann, "twice")
    await node.desk.forget(first, ann, force=False, purge=False)
    assert await remember(node, ann, "twice") != first


async def test_an_insight_is_committed_and_its_history_kept(node: Any):
    ann = node.agent("writer")
    made = await remember(node, ann, "tests need a database", tags=("test",))
    told = await node.desk.commit(made, ann, "tests need a running database", None)
    assert (told.id, told.previous_category, told.category, told.version) == (made, "recent", "longterm", 2)
    row = await node.desk.get(made, ann)
    assert (row.content, row.expires_at, row.tags) == ("tests need a running database", "", ["test"])
    with pytest.raises(Conflict) as again:
        await node.desk.commit(made, ann, "", None)
    assert again.value.code == "memory.not_passing"
    history = await node.desk.history(made, ann)
    assert [(one.number, one.what, one.by, one.content) for one in history.versions] == [
        (1, "committed", "writer", "tests need a database")
    ]
    back = await node.desk.revert(made, ann, 1)
    assert (back.content, back.category, back.version) == ("tests need a database", "recent", 3)
    assert back.expires_at
    assert (await node.desk.revert(made, ann, 2)).category == "longterm"
    with pytest.raises(NotFound) as none:
        await node.desk.revert(made, ann, 99)
    assert none.value.code == "memory.no_version"


async def test_an_insight_committed_elsewhere_moves(node: Any):
    ann, sister = node.agent("writer"), node.agent("sister")
    made = await remember(node, ann, "my owner likes tests", category="tasks")
    told = await node.desk.commit(made, ann, "", "personal")
    assert (told.id, told.previous_scope, told.scope) == (made, "private", "personal")
    assert (await node.desk.get(made, sister)).content == "my owner likes tests"
    assert (await node.desk.history(made, sister)).versions == []  # what was private stays so
    assert (await node.desk.recall(Query(), ann)).private == []
    with pytest.raises(Invalid):
        await node.desk.commit(await remember(node, ann, "x"), ann, "", "team")


async def test_sharing_copies_or_moves(node: Any):
    ann, bob = node.agent("writer"), node.agent("reader", owner="bob")
    made = await remember(node, ann, "retry with backoff", category="longterm", tags=("net",))
    core = await remember(node, ann, "never deploy on friday", "personal", "core")
    copy = await node.desk.share(made, ann, scope="team", category="learnings", move=False, duplicates=None)
    assert not copy.original_deleted
    assert (await node.desk.get(made, ann)).content == "retry with backoff"
    row = await node.desk.get(copy.id, bob)
    assert (row.content, row.origin, row.author, row.tags) == ("retry with backoff", made, "writer", ["net"])
    sister = node.agent("sister")
    with pytest.raises(Denied, match="not moved away by another agent"):
        await node.desk.share(core, sister, scope="team", category="learnings", move=True, duplicates=None)
    assert (await node.desk.get(core, ann)).content == "never deploy on friday"
    moved = await node.desk.share(core, ann, scope="public", category="decisions", move=True, duplicates=None)
    assert moved.original_deleted
    assert (await node.desk.get(moved.id, bob)).category == "decisions"
    with pytest.raises(NotFound):
        await node.desk.get(core, ann)
    for what in (await remember(node, ann, "passing"), copy.id):
        with pytest.raises(Conflict) as refused:
            await node.desk.share(what, ann, scope="team", category="learnings", move=False, duplicates=None)
        assert refused.value.code == "memory.not_kept"
        assert ("`knotwork memory commit`" in refused.value.hint) is (what != copy.id)


async def test_forgetting_and_bringing_back(node: Any):
    ann, bob = node.agent("writer"), node.agent("reader", owner="bob")
    made = await remember(node, ann, "a decision", "team", "decisions")
    with pytest.raises(Denied) as refused:
        await node.desk.forget(made, bob, force=True, purge=True)
    assert refused.value.code == "memory.not_yours"
    told = await node.desk.forget(made, ann, force=False, purge=False)
    assert told.until
    for who in (ann, bob):
        with pytest.raises(NotFound):
            await node.desk.get(made, who)
    with pytest.raises(NotFound):
        await node.desk.revert(made, bob, None)
    with pytest.raises(NotFound):
        await node.desk.history(made, bob)
    assert await found(node, ann, forgotten=True, newest=True) == ["a decision"]
    assert (await node.desk.history(made, ann)).forgotten
    back = await node.desk.revert(made, ann, None)
    assert (back.content, back.expires_at) == ("a decision", "")
    assert (await node.desk.get(made, bob)).content == "a decision"
    await node.desk.forget(made, ann, force=False, purge=True)
    with pytest.raises(NotFound):
        await node.desk.revert(made, ann, None)
    assert await found(node, ann, forgotten=True, newest=True) == []


async def test_what_passes_comes_back_with_the_time_it_had(node: Any):
    ann = node.agent("writer")
    made = await remember(node, ann, "for an hour", ttl_s=3600)
    before = (await node.desk.get(made, ann)).expires_at
    await node.desk.forget(made, ann, force=False, purge=False)
    assert (await node.desk.revert(made, ann, None)).expires_at == before


async def test_core_is_protected(node: Any):
    ann = node.agent("writer")
    made = await remember(node, ann, "who I am", category="core")
    with pytest.raises(Conflict) as refused:
        await node.desk.forget(made, ann, force=False, purge=False)
    assert refused.value.code == "memory.core_protected"
    await node.desk.forget(made, ann, force=True, purge=False)
    assert (await node.desk.revert(made, ann, None)).content == "who I am"


async def test_something_else_is_said_in_its_place(node: Any):
    ann, bob = node.agent("writer"), node.agent("reader", owner="bob")
    made = await remember(node, ann, "PostgreSQL", "team", "decisions")
    assert await remember(node, ann, "PostgreSQL 17", "team", "decisions", replaces=made) == made
    assert (await node.desk.get(made, bob)).content == "PostgreSQL 17"
    with pytest.raises(Denied):
        await remember(node, bob, "MySQL", "team", "decisions", replaces=made)
    with pytest.raises(Conflict):
        await remember(node, ann, "private now", replaces=made)
    with pytest.raises(NotFound):
        await remember(node, ann, "x", "team", replaces="m" + "0" * 24)


async def test_history_is_bounded(node: Any):
    ann = node.agent("writer")
    made = await remember(node, ann, "\x00" * 30_000 + "0", category="longterm")
    for number in range(1, 15):
        await remember(node, ann, "\x00" * 30_000 + str(number), category="longterm", replaces=made)
    history = await node.desk.history(made, ann)
    assert history.memory.version == 15
    assert 1 <= len(history.versions) <= 10
    assert history.versions[-1].content.endswith("13")


async def test_secrets_are_blocked_taken_out_or_told(node: Any):
    ann = node.agent("writer")
    secret = "the token is ghp_" + "a1B2" * 9
    with pytest.raises(Invalid) as refused:
        await remember(node, ann, secret)
    assert (refused.value.code, refused.value.detail) == ("memory.secret", {"kinds": ["github-token"]})
    made = await remember(node, ann, "harmless")
    with pytest.raises(Invalid):
        await node.desk.commit(made, ann, secret, None)
    token = "ghp_" + "a1B2" * 9
    for elsewhere in ({"tags": (token,)}, {"source": f"see {token}"}, {"related": (token,)}):
        draft = Draft("plain", "public", "learnings", **elsewhere)
        with pytest.raises(Invalid) as refused:
            await node.rooms.writing.remember(draft, ann)
        assert refused.value.code == "memory.secret"
        (bulk,) = await node.rooms.writing.remember_all([draft], ann, duplicates=None, stop_on_error=False)
        assert bulk.code == "memory.secret"
    node.around.now = dataclasses.replace(node.around.now, secrets="redact")
    tagged = await node.rooms.writing.remember(Draft("tagged", tags=("ok", token)), ann)
    assert (tagged.record.tags, tagged.record.warnings) == (("ok", "[github-token removed]"), ("github-token",))
    redacted = await node.desk.get(await remember(node, ann, secret), ann)
    assert (redacted.content, redacted.warnings) == ("the token is [github-token removed]", ["github-token"])
    node.around.now = dataclasses.replace(node.around.now, secrets="warn")
    assert (await node.desk.get(await remember(node, ann, secret), ann)).content == secret


async def test_what_is_wrong_changes_nothing(node: Any):
    ann = node.agent("writer")
    for draft in (Draft("x" * 33_000), Draft(" "), Draft("x", "team", "core"), Draft("x", tags=("y",) * 11)):
        with pytest.raises(KnotworkError):
            await node.desk.remember(draft, ann, replaces="", duplicates=None)
    with pytest.raises(Denied) as refused:
        await remember(node, node.agent("nobodys", owner=""), "x", "personal")
    assert refused.value.code == "memory.no_owner"
    assert await found(node, ann) == []


async def test_many_at_once(node: Any):
    ann = node.agent("writer")
    drafts = [Draft(f"thing {number}" if number != 3 else "") for number in range(50)]
    told = await node.desk.remember_all(drafts, ann, duplicates=None, stop_on_error=False)
    assert (told.stored, told.failed, len(told.ids)) == (49, 1, 50)
    assert [(error.index, error.code) for error in told.errors] == [(3, "memory.invalid")]
    stopped = await node.desk.remember_all(
        [dataclasses.replace(draft, category="tasks") for draft in drafts], ann, duplicates=None, stop_on_error=True
    )
    assert (stopped.stored, stopped.failed) == (3, 47)
    gone = await node.desk.forget_all([*told.ids[:3], "none"], ann, force=False, purge=False, stop_on_error=False)
    assert (gone.deleted, gone.failed, gone.errors[0].code) == (3, 1, "memory.not_found")


async def test_a_clean_up_is_of_ones_own(node: Any):
    ann, bob = node.agent("writer"), node.agent("other", owner="bob")
    mine, his = await remember(node, ann, "mine"), await remember(node, bob, "his")
    for memory, who in ((mine, ann), (his, bob)):
        await node.desk.forget(memory, who, force=False, purge=False)
    assert (await node.desk.clean(ann, expire_only=True)).deleted == 0
    assert (await node.desk.clean(ann, expire_only=False)).forgotten == 1
    with pytest.raises(NotFound):
        await node.desk.revert(mine, ann, None)
    assert (await node.desk.revert(his, bob, None)).content == "his"


async def test_an_author_is_hidden_and_shown_again(node: Any, bench: Any):
    second = await bench.node("n2")
    bad, ann, owner = node.agent("misled", owner="bob"), node.agent("writer"), node.person()
    for scope in ("private", "personal", "team", "public"):
        await remember(node, bad, f"poison {scope}", scope)
    kept = await remember(node, ann, "good", "team")
    hidden = await node.desk.quarantine("misled", owner, release=False, why="read a bad page")
    assert [(one.author_id, one.memories) for one in hidden.hidden] == [("misled-id", 4)]
    await remember(node, bad, "poison later", "team")
    for place in (node, second):
        await until(lambda place=place: place.rooms.memory.shelf.hidden == ("misled-id",))
        assert await found(place, ann, text="poison") == []
        assert await found(place, ann, scopes=("team",)) == ["good"]
        assert (await place.desk.recall(Query(), bad)).counts.total == 1  # the good one alone
    told = await node.desk.stats(owner)
    assert [one.why for one in told.quarantined] == ["read a bad page"]
    assert len(await found(node, owner, author="misled-id")) == 3  # people look at it by name
    with pytest.raises(NotFound):
        await node.desk.quarantine("nobody", owner, release=False, why="")
    with pytest.raises(NotFound):
        await node.desk.quarantine("writer", owner, release=True, why="")
    await second.desk.quarantine("misled-id", owner, release=True, why="")
    await until(lambda: node.rooms.memory.shelf.hidden == ())
    assert len(await found(node, ann, text="poison")) == 3
    assert (await node.desk.get(kept, ann)).content == "good"


async def test_stats_tell_what_there_is(node: Any):
    ann = node.agent("writer")
    await remember(node, ann, "a", category="core")
    await remember(node, ann, "b", "personal", "core")
    await remember(node, ann, "c", "team")
    told = await node.desk.stats(ann)
    assert (told.total, told.core_private, told.core_personal, told.core_max) == (3, 1, 1, 100)
    assert told.commons
    assert set(told.index.values()) == {"current"}
    assert {one.category for one in told.counts} <= set(CATEGORIES)


async def test_the_stand_in_bucket_is_as_strict_as_the_real_one():
    bucket = DictBucket()
    first = await bucket.put("a.b.c", b"1", revision=0)
    with pytest.raises(Conflict):
        await bucket.put("a.b.c", b"2", revision=first + 1)


async def test_a_quarantine_outlives_the_move_of_a_scope_to_another_plugin_and_holds_on_all_nodes(bench: Any):
    node = await bench.node("n1")
    ann, bad, owner = node.agent("reader"), node.agent("misled"), node.person()
    for scope in ("personal", "team", "public"):
        await remember(node, bad, f"poison {scope}", scope)
    await node.desk.quarantine("misled", owner, release=False, why="")
    moved = Settings(kept={"private": "sqlite", "personal": "kv", "team": "sqlite", "public": "kv"})
    second = await bench.node(
        "n2", settings=moved, configs={"kv": {}, "sqlite": {}}
    )  # a node that starts after the move
    assert await found(second, ann, text="poison") == []
    assert [one.author_id for one in (await second.desk.stats(owner)).quarantined] == ["misled-id"]
    for scope in ("public", "personal"):
        assert await found(second, ann, scopes=(scope,)) == []
    await second.desk.quarantine("misled", owner, release=True, why="")
    assert len(await found(node, ann, scopes=("public", "personal"))) == 2
    assert (await node.desk.stats(owner)).quarantined == []


async def test_what_is_in_quarantine_is_nobodys_duplicate(node: Any):
    ann, bad, owner = node.agent("reader"), node.agent("misled"), node.person()
    theirs = await remember(node, bad, "the same", "personal")
    await node.desk.quarantine("misled", owner, release=False, why="")
    made = await node.desk.remember(Draft("the same", "personal"), ann, duplicates="refuse", replaces="")
    assert made.id != theirs
    assert await remember(node, ann, "the same", "personal") == made.id  # of two that say it the one that is seen
    assert await remember(node, owner, "the same", "personal") in (theirs, made.id)


async def test_what_another_agent_says_in_its_place_is_that_ones(node: Any):
    ann, bad, owner = node.agent("writer"), node.agent("misled"), node.person()
    memory = await remember(node, ann, "the truth", "personal", "longterm")
    await remember(node, bad, "the truth", "personal", "longterm", tags=("seen",))  # the same words stay the writer's
    assert (await node.desk.get(memory, ann)).author == "writer"
    await remember(node, bad, "a lie", "personal", replaces=memory)
    assert (await node.desk.get(memory, ann)).author == "misled"
    await node.desk.quarantine("misled", owner, release=False, why="")
    assert await found(node, ann) == []
    await node.desk.revert(memory, owner, 2)
    assert await found(node, ann) == ["the truth"]


async def test_of_two_that_say_the_same_the_one_left_is_the_twin(node: Any):
    ann = node.agent("writer")
    first, second = [await remember(node, ann, "twice", duplicates="allow") for _ in range(2)]
    await node.desk.forget(first, ann, force=False, purge=False)
    assert await remember(node, ann, "twice") == second


async def test_a_clean_up_leaves_what_others_forgot_to_be_brought_back(node: Any):
    ann, other, owner = node.agent("writer"), node.agent("other"), node.person()
    made = [await remember(node, ann, scope, scope) for scope in ("personal", "team")]
    for memory in made:
        await node.desk.forget(memory, ann, force=False, purge=False)
    for who in (other, owner):
        assert (await node.desk.clean(who, expire_only=False)).forgotten == 0
    for memory in made:
        await node.desk.revert(memory, ann, None)
    assert await found(node, ann) == ["team", "personal"]
