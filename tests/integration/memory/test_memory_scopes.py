"""Who sees what, over projects, nodes and machines: an oracle beside ten thousand random tries, and the plain stories."""

from __future__ import annotations

import json
import random
import re
from pathlib import Path
from typing import Any

import pytest
from tests.integration.memory.test_memory_life import found, remember

from knotwork.memory.model import OWN_SCOPES, SCOPES
from knotwork.memory.query import Query
from knotwork.memory.rules import Draft
from knotwork.sdk.errors import KnotworkError, NotFound
from knotwork.trust.who import Who

TRIES = 10_000
SECRET = re.compile(r"secret\d+of[a-z-]+")  # the first word of each content, wherever it stands
OWN, SHARED = ("recent", "tasks", "longterm", "core"), ("decisions", "architecture", "learnings")
READS = ("get", "history", "recall", "search", "list", "stats")
TAKES = ("forget", "share", "commit", "revert", "replace", "bulk", "twin")


async def test_what_is_personal_follows_its_owner_over_projects_and_nodes(bench: Any):
    home = await bench.node("home", "default")
    work = await bench.node("work", "other")
    here, there, bob = home.agent("here"), work.agent("there"), work.agent("bobs", owner="bob")
    made = await remember(home, here, "My owner writes British English", "personal", "core")
    assert (await work.desk.get(made, there)).content == "My owner writes British English"
    told = await work.desk.recall(Query(), there)
    assert [(row.content, row.project, row.node) for row in told.personal] == [
        ("My owner writes British English", "default", "home")
    ]
    assert "British English" in told.summary
    assert await found(work, there, text="british") == ["My owner writes British English"]
    assert (await work.desk.recall(Query(), bob)).personal == []
    back = await remember(work, there, "and prefers tabs", "personal")
    await remember(work, there, "and prefers spaces", "personal", replaces=back)
    assert (await home.desk.get(back, here)).content == "and prefers spaces"
    await home.desk.forget(made, here, force=True, purge=False)
    with pytest.raises(NotFound):
        await work.desk.get(made, there)
    assert (await work.desk.revert(made, there, None)).content == "My owner writes British English"


async def test_what_was_forgotten_is_listed_for_those_alone_who_can_bring_it_back(bench: Any):
    home = await bench.node("home", "default")
    ann, bob = home.agent("ann"), home.agent("bob", owner="bob")
    sub = home.agent("sub", parent=ann.id)
    ann_herself, bob_himself = home.person("ann"), home.person("bob")
    for number, scope in enumerate(SCOPES):
        made = await remember(home, ann, f"taken back {number}", scope, "learnings" if number > 1 else "longterm")
        await home.desk.forget(made, ann, force=False, purge=False)
    for number in range(3):
        made = await remember(home, bob, f"of bob {number}", "team", "learnings")
        await home.desk.forget(made, bob, force=False, purge=False)

    async def listed(who: Who) -> set[str]:
        return set(await found(home, who, forgotten=True, newest=True, limit=4))

    every = {f"taken back {number}" for number in range(4)}
    assert await listed(ann) == every
    assert await listed(sub) == {"taken back 1"}
    assert await listed(bob) == await listed(bob_himself) == {"of bob 0", "of bob 1", "of bob 2"}
    assert await listed(ann_herself) == every - {"taken back 0"}


async def test_what_is_public_is_seen_in_other_projects_and_of_a_team_is_not(bench: Any):
    home = await bench.node("home", "default")
    work = await bench.node("work", "other")
    here, stranger = home.agent("here"), work.agent("stranger", owner="bob")
    await remember(home, here, "everybody may know", "public")
    await remember(home, here, "the team alone", "team")
    told = await work.desk.recall(Query(), stranger)
    assert [row.content for row in told.public] == ["everybody may know"]
    assert told.team == told.private == told.personal == []


async def test_a_second_node_of_a_project_reads_what_the_first_just_wrote(bench: Any):
    one, two = await bench.node("one"), await bench.node("two")
    ann = one.agent("writer")
    for number in range(30):  # each at once: a read waits for what was written before it
        made = await remember(one, ann, f"thing {number}", category="longterm")
        assert (await two.desk.get(made, ann)).content == f"thing {number}"
        assert await found(two, ann, newest=True, limit=1) == [f"thing {number}"]


async def test_without_an_account_for_all_projects_it_is_kept_in_one_and_said(bench: Any):
    alone = await bench.node("alone", commons=False)
    ann = alone.agent("writer")
    told = await alone.desk.remember(Draft("mine", "personal"), ann, replaces="", duplicates=None)
    assert "in this project alone" in told.note
    assert [row.content for row in (await alone.desk.recall(Query(), ann)).personal] == ["mine"]
    assert not (await alone.desk.stats(ann)).commons


async def test_sub_agents_read_what_their_parent_keeps_but_not_its_core(node: Any):
    parent = node.agent("parent")
    child = node.agent("child", parent=parent.id)
    stranger = node.agent("stranger")
    made = await remember(node, parent, "the plan", category="tasks")
    core = await remember(node, parent, "who I am", category="core")
    assert await found(node, child) == ["the plan"]
    assert (await node.desk.get(made, child)).content == "the plan"
    assert await found(node, child, text="plan who") == ["the plan"]
    with pytest.raises(NotFound):
        await node.desk.get(core, child)
    for act in (
        node.desk.forget(made, child, force=True, purge=True),
        node.desk.commit(made, child, "", None),
        node.desk.share(made, child, scope="public", category="learnings", move=False, duplicates=None),
        node.desk.revert(made, child, None),
    ):
        with pytest.raises(KnotworkError) as refused:
            await act
        assert refused.value.code in ("memory.not_yours", "memory.not_kept")
    assert await found(node, stranger) == []
    own = await remember(node, child, "what I found")
    with pytest.raises(NotFound):
        await node.desk.get(own, parent)


async def test_what_was_put_there_by_hand_is_not_believed(node: Any):
    """A record under another owner, of another shape, or in a place that is none is nobody's."""
    ann, bob = node.agent("writer"), node.agent("other", owner="bob")
    made = await remember(node, ann, "mine", category="longterm")
    memory = node.rooms.memory
    held = await memory.held(made, ann)
    store = memory.around.slot("kv").plugin
    bucket = node.rooms.memory.around.slot("kv").plugin._buckets("default")
    from knotwork.memory.model import encode
    from knotwork.sdk.memory import Place

    await store.store(Place("default", "private", bob.id, made), encode(held.record))
    await store.store(Place("default", "private", bob.id, "m" + "a" * 24), b"no json")
    await store.store(Place("default", "team", "default", "q-something"), b'{"author":1}')
    await bucket.put("private.only-two", b"{}")
    await bucket.put("nonsense.a.b", b"{}")
    assert await found(node, bob) == []
    assert await found(node, ann) == ["mine"]
    await remember(node, ann, "goes on")  # keys of others hold nothing up
    assert len(await found(node, ann)) == 2


def _sees(scope: str, of: Who, by: Who, category: str) -> bool:
    """Say who may see what, as the issue has it: written anew here, and not by the code that is tried."""
    if scope == "public":
        return True
    if scope == "team":
        return of.project == by.project
    if scope == "personal":
        return of.owner == by.owner
    if of.project != by.project:
        return False
    return of.id == by.id or (by.parent == of.id and category != "core")


def _changes(scope: str, of: Who, by: Who, category: str) -> bool:
    """Say likewise who may change what."""
    if scope == "personal":
        return of.owner == by.owner
    return _sees(scope, of, by, category) and (of.id, of.project) == (by.id, by.project)


class Tries:
    """Agents of two projects, three owners, parents and children do everything with everything; an oracle watches."""

    def __init__(self, nodes: dict[str, Any], seed: int) -> None:
        self.nodes, self.chance = nodes, random.Random(seed)
        self.agents: list[Who] = []
        for project, place in nodes.items():
            for owner in ("ann", "bob", "cid"):
                parent = place.agent(f"{owner}-{project}", owner)
                self.agents += [parent, place.agent(f"{owner}-child-{project}", owner, parent.id)]
        self.secrets: dict[str, tuple[str, Who, str, str]] = {}  # id: content, author, scope, category
        self.said: dict[str, str] = {}  # first word of a content: id
        self.leaks: list[str] = []
        self.seen = 0

    async def write(self) -> None:
        """Remember something nobody has said before."""
        who, scope = self.chance.choice(self.agents), self.chance.choice(SCOPES)
        category = self.chance.choice(OWN if scope in OWN_SCOPES else SHARED)
        content = f"secret{len(self.secrets)}of{who.name} word{self.chance.randrange(9)}"
        draft = Draft(content, scope, category, (f"tag{self.chance.randrange(5)}",))
        made = await self.nodes[who.project].desk.remember(draft, who, replaces="", duplicates="allow")
        self.secrets[made.id] = (content, who, scope, category)
        self.said[content.split(maxsplit=1)[0]] = made.id

    def look(self, by: Who, told: Any, what: str) -> None:
        """Note every content in an answer that `by` may not see."""
        text = told if isinstance(told, str) else told.model_dump_json()
        for word in {*SECRET.findall(text)} & self.said.keys():
            made = self.said[word]
            _, of, scope, category = self.secrets[made]
            self.seen += 1
            if not _sees(scope, of, by, category):
                self.leaks.append(f"{what}: {by.name} saw {scope}/{category} {made} of {of.name}")

    async def read(self, what: str, by: Who, made: str) -> None:
        """Ask for something, and look at the answer."""
        desk, (content, of, _, _) = self.nodes[by.project].desk, self.secrets[made]
        asked = {
            "get": lambda: desk.get(made, by),
            "history": lambda: desk.history(made, by),
            "recall": lambda: desk.recall(Query(limit=200, text=self.chance.choice(("", content, "word3"))), by),
            "search": lambda: desk.page(Query(text=content.split()[0], limit=200), by),
            "list": lambda: desk.page(Query(author=of.id, newest=True, limit=200), by),
            "stats": lambda: desk.stats(by),
        }
        told = await asked[what]()
        self.look(by, told, what)
        if what == "stats":
            mine = sum(_sees(scope, one, by, category) for _, one, scope, category in self.secrets.values())
            if told.total != mine:
                self.leaks.append(f"{by.name} counts {told.total}, and may see {mine}")

    async def export(self, by: Who) -> None:
        """Write everything to a file, and look at it."""
        told = await self.nodes[by.project].desk.export("all.jsonl", Query(), by, overwrite=True)
        self.look(by, Path(told.path).read_text(encoding="utf-8"), "export")

    async def take(self, what: str, by: Who, made: str) -> None:
        """Do something with what one may not see, or not change: it must be refused."""
        desk, (content, _, scope, category) = self.nodes[by.project].desk, self.secrets[made]
        draft = Draft(content, scope, category)
        asked = {
            "forget": lambda: desk.forget(made, by, force=True, purge=True),
            "share": lambda: desk.share(made, by, scope="public", category="learnings", move=True, duplicates=None),
            "commit": lambda: desk.commit(made, by, "taken", None),
            "revert": lambda: desk.revert(made, by, None),
            "replace": lambda: desk.remember(draft, by, replaces=made, duplicates=None),
            "bulk": lambda: desk.forget_all([made], by, force=True, purge=True, stop_on_error=False),
            "twin": lambda: desk.remember(draft, by, replaces="", duplicates="merge"),
        }
        told = await asked[what]()
        if what == "twin":  # nobody is told that others said the same
            if told.duplicate_of:
                self.leaks.append(f"{by.name} was told of a twin in {scope}/{category}")
            await desk.forget(told.id, by, force=True, purge=True)
        elif what != "bulk" or told.deleted:
            self.leaks.append(f"{what}: {by.name} took {scope}/{category} {made}")

    async def once(self) -> None:
        """Try something by chance."""
        by, made = self.chance.choice(self.agents), self.chance.choice([*self.secrets])
        _, of, scope, category = self.secrets[made]
        sees, changes = _sees(scope, of, by, category), _changes(scope, of, by, category)
        what = self.chance.choice((*READS, *TAKES))
        try:
            if what in READS:
                await self.read(what, by, made)
            elif not sees or (not changes and what != "twin"):
                await self.take(what, by, made)
            elif self.chance.random() < 0.02:
                await self.export(by)
        except KnotworkError as error:
            if sees and (what in READS or error.code != "memory.not_yours"):
                self.leaks.append(f"{what}: {by.name} may see {made} of {of.name} and was told {error.code}")
            elif not sees and error.code not in ("memory.not_found", "memory.core_full"):
                self.leaks.append(f"{what}: {by.name} was told {error.code} of {made}")
            self.look(by, json.dumps(error.to_wire()), "error")


@pytest.mark.timeout(900)
async def test_ten_thousand_tries_leak_nothing(bench: Any):
    tries = Tries({"default": await bench.node("one", "default"), "other": await bench.node("two", "other")}, 20)
    for _ in range(240):
        await tries.write()
    for number in range(TRIES):
        await tries.once()
        if number % 100 == 0:
            await tries.write()
    assert not tries.leaks, tries.leaks[:20]
    assert tries.seen > TRIES, "nothing was ever seen: the try tries nothing"
