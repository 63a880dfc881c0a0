"""Memory as a file: written and read back, only inside allowed folders, and an import that forges nobody."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from tests.integration.memory.test_memory_life import found, remember

from knotwork.memory import carrying
from knotwork.memory.query import Query
from knotwork.memory.rules import Draft
from knotwork.memory.settings import Settings
from knotwork.sdk.errors import Conflict, Denied, Invalid, KnotworkError, NotFound


def exports(node: Any, who: Any) -> Path:
    return node.around.now.folders[0] / who.project / who.id


def put(node: Any, who: Any, name: str, *lines: bytes | dict) -> str:
    """Write a file into the folder for an agent's exports."""
    exports(node, who).mkdir(parents=True, exist_ok=True)
    data = b"".join((line if isinstance(line, bytes) else json.dumps(line).encode()) + b"\n" for line in lines)
    (exports(node, who) / name).write_bytes(data)
    return name


async def load(node: Any, who: Any, name: str, **more: Any) -> Any:
    given = {"skip_invalid": False, "duplicates": None, "scope": None, **more}
    return await node.desk.load(name, who, **given)


async def test_a_file_that_was_written_on_windows_is_read(node: Any):
    ann = node.agent("writer")
    done = await load(
        node, ann, put(node, ann, "bom.jsonl", b'\xef\xbb\xbf{"content": "one"}\r\n{"content": "two"}\r\n')
    )
    assert (done.imported, done.errors) == (2, [])


async def test_what_was_exported_comes_back_as_the_importers_own(bench: Any):
    one, two = await bench.node("one", "default"), await bench.node("two", "other")
    ann, bob = one.agent("writer"), two.agent("reader", owner="bob")
    odd = 'quotes " \\ newline \n bidi \u202e zero \x00 emoji \U0001f9f6'
    await remember(one, ann, odd, category="longterm", tags=("a", "b"), priority=3, related=("m1",), source="file.py")
    await remember(one, ann, "a decision", "team", "decisions")
    await remember(one, ann, "for all", "personal", "core")
    await remember(one, ann, "passing")
    told = await one.desk.export("all.jsonl", Query(), ann, overwrite=False)
    assert (told.exported, told.node) == (4, "one")
    assert Path(told.path).stat().st_size == told.bytes
    lines = [json.loads(line) for line in Path(told.path).read_text(encoding="utf-8").splitlines()]
    assert {line["content"] for line in lines} == {odd, "a decision", "for all", "passing"}
    with pytest.raises(Conflict) as refused:
        await one.desk.export("all.jsonl", Query(), ann, overwrite=False)
    assert refused.value.code == "memory.file_exists"

    put(two, bob, "theirs.jsonl", Path(told.path).read_bytes())
    done = await load(two, bob, "theirs.jsonl")
    assert (done.imported, done.duplicates, done.skipped) == (4, 0, 0)
    rows = [*(await two.desk.page(Query(), bob)).memories]
    assert {row.author_id for row in rows} == {bob.id}
    assert {row.owner for row in rows} == {"bob"}
    assert {row.project for row in rows} == {"other"}
    assert all(row.origin.startswith("import ") for row in rows)
    back = next(row for row in rows if row.content == odd)
    assert (back.tags, back.priority, back.related, back.source) == (["a", "b"], 3, ["m1"], "file.py")
    assert (await load(two, bob, "theirs.jsonl")).duplicates == 4
    assert [row.author_id for row in (await one.desk.page(Query(), ann)).memories] == [ann.id] * 4


async def test_what_is_related_stays_so_under_the_names_it_gets(node: Any):
    ann = node.agent("reader")
    there = await remember(node, ann, "known as k")
    related = {"a": ["b", "c"], "b": ["c"], "c": ["elsewhere"], "d": ["e"], "e": ["d"], "f": ["f", "k"], "k": []}
    lines = [
        {"id": f"old-{name}", "content": "known as k" if name == "k" else f"memory {name}",
         "related": [f"old-{one}" for one in others]} for name, others in related.items()
    ]  # fmt: skip
    assert (await load(node, ann, put(node, ann, "r.jsonl", *lines))).duplicates == 1
    rows = {row.content[-1]: row for row in (await node.desk.page(Query(), ann)).memories}
    named = {"elsewhere": "old-elsewhere", "k": there} | {name: rows[name].id for name in "bcdef"}
    for name in "abcdef":  # those in a circle, too
        assert rows[name].related == [named[one] for one in related[name]], name
    assert len(rows) == len(related)


async def test_an_export_holds_what_was_asked_for_and_nothing_else(node: Any):
    ann, bob = node.agent("writer"), node.agent("other")
    for number in (1, 2, 3):
        await remember(node, ann, f"of {number}", "team", priority=number)
    await remember(node, bob, "of another", "team", priority=3)
    now_ns = node.rooms.memory.now_ns()
    for number, (query, wanted) in enumerate((
        (Query(priority_min=3), {"of 3", "of another"}), (Query(priority_max=1), {"of 1"}), (Query(author=bob.id), {"of another"}),
        (Query(created_before_ns=1), set()), (Query(updated_before_ns=1), set()), (Query(created_after_ns=now_ns), set()),
        (Query(limit=1), {"of 1", "of 2", "of 3", "of another"}),
    )):  # fmt: skip
        told = await node.desk.export(f"{number}.jsonl", query, ann, overwrite=False)
        lines = (exports(node, ann) / f"{number}.jsonl").read_text().splitlines()
        assert ({json.loads(line)["content"] for line in lines}, told.exported) == (wanted, len(wanted)), query


async def test_what_passes_passes_also_after_it_was_shared_or_carried_over(node: Any):
    ann = node.agent("writer")
    made = await node.desk.remember(
        Draft("for an hour", "private", "longterm", ttl_s=3600), ann, duplicates=None, replaces=""
    )
    shared = await node.desk.share(made.id, ann, scope="team", category="learnings", move=True, duplicates=None)
    ends_at = (await node.desk.get(shared.id, ann)).expires_at
    assert ends_at[:18] == made.expires_at[:18] != ""
    await node.desk.export("all.jsonl", Query(), ann, overwrite=False)
    lines = [json.loads(line) for line in (exports(node, ann) / "all.jsonl").read_text().splitlines()]
    put(
        node,
        ann,
        "back.jsonl",
        *({**line, "scope": "public"} for line in lines),
        {"content": "x", "expires_at": "2020-01-01T00:00:00Z"},
    )
    done = await load(node, ann, "back.jsonl")
    assert (done.imported, done.skipped, [one.line for one in done.errors]) == (1, 1, [2])
    (row,) = (await node.desk.page(Query(scopes=("public",)), ann)).memories
    assert row.expires_at[:18] == ends_at[:18]
    with pytest.raises(Invalid) as caught:
        await load(
            node, ann, put(node, ann, "bad.jsonl", {"content": "x", "expires_at": "tomorrow"}, b'"' + b"z" * 1_100_000)
        )
    assert [one["line"] for one in caught.value.detail["errors"]] == [1, 2]
    assert "1048576 bytes" in caught.value.detail["errors"][1]["message"]


async def test_an_import_forges_nobody(node: Any):
    ann, bob = node.agent("writer"), node.agent("other", owner="bob")
    forged = {
        "content": "forged", "scope": "private", "owner": "bob", "author": "other", "author_id": bob.id,
        "agentId": bob.id, "projectId": "other", "project": "other", "id": "m" + "0" * 24, "version": 99,
        "created_at": "1999-01-01T00:00:00Z", "forgotten": True, "past": [], "expires_ns": 5,
    }  # fmt: skip
    put(
        node,
        ann,
        "forged.jsonl",
        forged,
        {**forged, "scope": "personal", "category": "core"},
        {**forged, "scope": "team"},
    )
    assert (await load(node, ann, "forged.jsonl")).imported == 3
    assert await found(node, bob) == ["forged"]  # what is the team's, and there it says who brought it
    rows = (await node.desk.page(Query(), ann)).memories
    assert {(row.author_id, row.owner, row.project, row.version) for row in rows} == {(ann.id, "ann", "default", 1)}
    assert not any(row.created_at.startswith("1999") for row in rows)
    assert {row.scope for row in rows} == {"private", "personal", "team"}


BAD = [
    b"no json",
    b"[]",
    b"null",
    b"{}",
    b'{"content": 5}',
    b'{"content": ""}',
    b'{"content": "x", "scope": "shared"}',
    b'{"content": "x", "category": "nonsense"}',
    b'{"content": "x", "tags": "a"}',
    b'{"content": "x", "tags": ["' + b"y" * 51 + b'"]}',
    b'{"content": "x", "priority": 9}',
    b'{"content": "' + b"x" * 33_000 + b'"}',
    b'{"content": "x"',
    b"\xff\xfe\x00",
    b'{"content": "\\ud800"}',
    b"[" * 5000,
    b'{"content": "x", "related": [{}]}',
    b'{"content": "' + b"y" * (carrying.LINE_MAX_BYTES + 10) + b'"}',
]


async def test_bad_lines_are_all_told_and_nothing_is_kept(node: Any):
    ann = node.agent("writer")
    put(node, ann, "bad.jsonl", {"content": "good"}, *BAD, b"", {"content": "last"})
    with pytest.raises(Invalid) as refused:
        await load(node, ann, "bad.jsonl")
    assert refused.value.code == "memory.bad_file"
    assert [one["line"] for one in refused.value.detail["errors"]] == list(range(2, 2 + len(BAD)))
    assert await found(node, ann) == []
    done = await load(node, ann, "bad.jsonl", skip_invalid=True)
    assert (done.imported, done.skipped) == (2, len(BAD))
    assert set(await found(node, ann)) == {"good", "last"}


async def test_secrets_and_a_full_core_stop_an_import_only_there(node: Any):
    ann = node.agent("writer")
    lines = [{"content": f"core {number}", "category": "core"} for number in range(103)]
    put(node, ann, "core.jsonl", *lines, {"content": "ghp_" + "a1B2" * 9}, {"content": "fine"})
    done = await load(node, ann, "core.jsonl", skip_invalid=True)
    assert (done.imported, done.skipped) == (101, 4)
    assert {one.message.split(".")[0].split(":")[0] for one in done.errors} == {
        "writer has 100 core memories already, private and personal ones together", "This looks like a secret"
    }  # fmt: skip


async def test_a_secret_is_a_bad_line(node: Any):
    ann = node.agent("writer")
    put(node, ann, "secret.jsonl", {"content": "good"}, {"content": "x", "source": "ghp_" + "a1B2" * 9})
    with pytest.raises(Invalid) as refused:
        await load(node, ann, "secret.jsonl")
    assert [one["line"] for one in refused.value.detail["errors"]] == [2]
    assert await found(node, ann) == []


async def test_all_of_a_file_can_be_put_into_one_scope(node: Any):
    ann, bob = node.agent("writer"), node.agent("other", owner="bob")
    put(
        node,
        ann,
        "some.jsonl",
        {"content": "a", "category": "core"},
        {"content": "b", "scope": "private", "category": "tasks"},
    )
    await load(node, ann, "some.jsonl", scope="team")
    assert sorted(await found(node, bob)) == ["a", "b"]
    put(node, ann, "more.jsonl", {"content": "c", "scope": "team", "category": "decisions"})
    await load(node, ann, "more.jsonl", scope="private")
    told = await node.desk.recall(Query(), ann)
    assert [(row.content, row.category) for row in told.private] == [("c", "longterm")]


@pytest.mark.parametrize(
    "name",
    ["../up.jsonl", "/etc/passwd", "a/../../up", "link.jsonl", "way/file.jsonl", "", "a\0b", "none.jsonl", "folder"],
)
async def test_files_elsewhere_are_neither_read_nor_written(node: Any, name: str, tmp_path: Path):
    ann = node.agent("writer")
    await remember(node, ann, "x")
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "file.jsonl").write_text('{"content":"of somebody else"}')
    (exports(node, ann) / "folder").mkdir(parents=True)
    (exports(node, ann) / "link.jsonl").symlink_to(outside / "file.jsonl")
    (exports(node, ann) / "way").symlink_to(outside)
    with pytest.raises(KnotworkError) as refused:
        await load(node, ann, name)
    assert isinstance(refused.value, Denied | Invalid | NotFound)
    if name != "none.jsonl":
        with pytest.raises(KnotworkError) as refused:
            await node.desk.export(name, Query(), ann, overwrite=False)
        assert not isinstance(refused.value, NotFound)
    assert (outside / "file.jsonl").read_text() == '{"content":"of somebody else"}'
    assert await found(node, ann) == ["x"]


async def test_an_export_holds_every_page(node: Any):
    ann = node.agent("writer")
    for number in range(0, 1203, 3):
        from knotwork.memory.rules import Draft

        drafts = [Draft(f"thing {one}", category="longterm") for one in range(number, number + 3)]
        await node.desk.remember_all(drafts, ann, duplicates="allow", stop_on_error=False)
    told = await node.desk.export("deep/er/many.jsonl", Query(limit=1), ann, overwrite=False)
    lines = Path(told.path).read_text().splitlines()
    assert told.exported == len(lines) == len({json.loads(line)["content"] for line in lines}) == 1203


async def test_what_changes_while_it_is_exported_is_in_the_file(node: Any, monkeypatch: pytest.MonkeyPatch):
    ann = node.agent("writer")
    drafts = [Draft(f"thing {one}", category="longterm") for one in range(600)]
    oldest = (await node.desk.remember_all(drafts, ann, duplicates="allow", stop_on_error=False)).ids[0]
    shelf, ask = node.rooms.memory.shelf, node.rooms.memory.shelf.ask

    async def asked(work: Any) -> Any:  # after each look, what has not been seen yet becomes the newest
        answer = await ask(work)
        with monkeypatch.context() as plain:
            plain.setattr(shelf, "ask", ask)
            await remember(node, ann, "changed", "private", "longterm", replaces=oldest)
        return answer

    monkeypatch.setattr(shelf, "ask", asked)
    told = await node.desk.export("many.jsonl", Query(), ann, overwrite=False)
    assert oldest in {json.loads(line)["id"] for line in Path(told.path).read_text().splitlines()}
    assert told.exported == 600


async def test_no_agent_reads_or_overwrites_what_another_exported(bench: Any):
    """An export holds private lines: it is its agent's alone, also for agents of other projects of the same node."""
    one, other = await bench.node("one", "default"), await bench.node("one", "other")
    shared = (one.around.now.folders[0],)
    other.around.now = Settings(folders=shared)
    ann, bob, lab = one.agent("writer"), one.agent("other", owner="bob"), other.agent("writer")
    await remember(one, ann, "private of ann")
    told = await one.desk.export("backup.jsonl", Query(scopes=("private",)), ann, overwrite=False)
    assert Path(told.path) == shared[0] / "default" / ann.id / "backup.jsonl"
    kept = Path(told.path).read_bytes()
    for node, who in ((one, bob), (other, lab), (other, other.person())):
        for name, kind in (
            ("backup.jsonl", NotFound), (told.path, Denied), (f"../{ann.id}/backup.jsonl", Denied),
            (f"../../default/{ann.id}/backup.jsonl", Denied), (f"default/{ann.id}/backup.jsonl", NotFound),
        ):  # fmt: skip
            with pytest.raises(kind):
                await load(node, who, name)
        with pytest.raises(Denied):
            await node.desk.export(told.path, Query(), who, overwrite=True)
        await node.desk.export("backup.jsonl", Query(), who, overwrite=True)
        assert await found(node, who) == []
    assert Path(told.path).read_bytes() == kept
    assert (await load(one, ann, told.path)).duplicates == 1
    assert (await load(one, one.person(), f"{ann.id}/backup.jsonl", scope="team")).imported == 1
