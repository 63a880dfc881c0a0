"""The index of a node by itself: order, pages, words that many have, counts that are kept, changes that come too late."""

from __future__ import annotations

import unicodedata
from pathlib import Path

import msgspec
import pytest

from knotwork.memory import index as memory_index
from knotwork.memory import rules
from knotwork.memory.index import After, Change, Filter, Index
from knotwork.memory.model import Record, author
from knotwork.memory.rules import Sight
from knotwork.sdk.memory import Place
from knotwork.trust.who import Who

ANN, BOB = Who("a-1", "writer", "p", "ann"), Who("b-1", "other", "p", "bob")
FAR_NS = 10**18


def record(number: int, content: str, by: Who = ANN, **more) -> Record:
    given = {"category": "longterm", **more}
    return Record(
        f"m{number:024x}", "private", by.id, author=author(by), created_ns=number, updated_ns=number, content=content, **given
    )  # fmt: skip


def put(index: Index, *records: Record, revision: int = 0) -> None:
    index.apply(
        Change(Place("p", one.scope, one.owner, one.id), one, revision or number)
        for number, one in enumerate(records, 1)
    )


def wanted(who: Who = ANN, **more) -> Filter:
    return Filter(tuple(rules.sights(who)), FAR_NS, **more)


@pytest.fixture
def index():
    made = Index(None)
    yield made
    made.close()


def test_what_has_all_words_comes_first_however_old_it_is(index: Index):
    put(
        index,
        record(1, "a needle in common hay"),
        record(2, "another needle"),
        *(record(number, f"common hay {number}") for number in range(3, 4000)),
        *(record(number, "needle of bob in common hay", BOB) for number in range(4000, 4100)),
    )
    found = index.words(wanted(), "common needle", 50)
    assert found[:2] == [record(1, "").id, record(2, "").id]
    assert len(found) == 50
    assert found[2] == record(3999, "").id  # the newest of the rest
    assert len(index.words(wanted(), "hay", 50)) == 50
    assert index.words(wanted(BOB), "needle", 500) == index.words(wanted(BOB), "common hay needle", 500)
    assert len(index.words(wanted(), "needle", 500)) == 2


def test_the_last_word_is_a_beginning_unless_many_have_it_as_it_is(index: Index, monkeypatch):
    few, longer = [record(1, "thread of the loom")], record(9, "threadbare cloth")
    put(index, *few, longer)
    assert index.words(wanted(), "thread", 10) == [few[0].id, longer.id]
    monkeypatch.setattr(memory_index, "RANKED_MAX", 3)
    put(index, *(record(number, f"thread {number}") for number in range(2, 7)))
    found = index.words(wanted(), "thread", 10)
    assert longer.id not in found
    assert len(found) == 3, "as many as are put in order"
    assert index.words(wanted(), "threadba", 10) == [longer.id]


@pytest.mark.parametrize("text", ["needle", "common needle", "eedle"])
def test_the_first_ones_are_the_same_however_many_are_asked_for(index: Index, text):
    put(index, *(msgspec.structs.replace(record(number, "common needle"), updated_ns=7) for number in range(1, 41)))
    put(index, *(record(number, f"common hay {number}") for number in range(100, 120)))
    best = index.words(wanted(), text, 60)
    assert len(best) >= 40
    assert all(index.words(wanted(), text, count) == best[:count] for count in range(1, len(best)))


@pytest.mark.parametrize("form", ["NFC", "NFD"])
@pytest.mark.parametrize("asked", ["NFC", "NFD"])
@pytest.mark.parametrize(
    ("content", "text"),
    [
        ("The naïve way", "naïve"),
        ("the résumé of Zoë", "RÉSUMÉ zoë"),
        ("한국어 테스트", "한국어"),
        ("ДОКУМЕНТАЦИЯ готова", "кумента"),
        ("БАЗАДАННЫХ й", "данных й"),
    ],
)
def test_letters_are_found_in_whatever_form_they_are_written(index: Index, form, asked, content, text):
    one = record(1, unicodedata.normalize(form, content))
    put(index, one, record(2, "something else"))
    assert index.words(wanted(), unicodedata.normalize(asked, text), 10) == [one.id]
    put(index, msgspec.structs.replace(one, content="gone"), revision=9)
    assert index.words(wanted(), unicodedata.normalize(asked, text), 10) == []


@pytest.mark.parametrize(
    ("text", "numbers"),
    [
        ("数据库", [1, 2]), ("数据库 周五", [1]), ("移行 データベース", [3]), ("igrat taba", [4]),
        ("taba o", []), ("数据库 周六", []), ("c++ o", []),
    ],
)  # fmt: skip
def test_pieces_are_found_inside_words_where_no_word_fits(index: Index, text: str, numbers: list[int]):
    said = (
        "数据库迁移在周五进行",
        "数据库已经备份",
        "データベースの移行は金曜日です",
        "the database is migrated on Fridays",
    )
    put(index, *(record(number, one) for number, one in enumerate(said, 1)))
    assert sorted(index.words(wanted(), text, 50)) == [record(number, "").id for number in numbers]


def test_what_was_forgotten_and_is_over_is_counted_once(index: Index):
    put(
        index,
        record(1, "over", forgotten=True, expires_ns=5),
        record(2, "forgotten", forgotten=True),
        record(3, "there"),
    )
    assert index.counts(wanted()) == {("private", "longterm"): (3, 1, 1)}


def test_nobody_sees_by_words_what_is_not_theirs(index: Index):
    put(index, record(1, "the secret of ann"), record(2, "something of bob", BOB))
    assert index.words(wanted(BOB), "secret", 10) == []
    assert index.words(wanted(BOB), "ecre", 10) == []
    assert index.words(Filter((), FAR_NS), "secret", 10) == []
    assert index.page(Filter((), FAR_NS), 10) == []
    assert index.named(wanted(BOB), [record(1, "").id]) == []
    assert index.fitting(wanted(BOB), [record(1, "").id, record(2, "").id]) == [record(2, "").id]


def test_a_change_that_comes_too_late_is_passed_over(index: Index):
    place = Place("p", "private", ANN.id, record(1, "").id)
    index.apply([Change(place, record(1, "new"), 5)])
    index.apply([Change(place, record(1, "old"), 4), Change(place, None, 3), Change(place, record(1, "same"), 5)])
    assert [row.record.content for row in index.find(place.id)] == ["new"]
    index.apply([Change(place, None, 6)])
    assert index.find(place.id) == []
    assert index.words(wanted(), "new", 10) == []
    index.apply([Change(place, record(1, "again"), 7), Change(place, None, 0)])
    assert index.find(place.id) == []


def test_counts_follow_every_change_and_the_time(index: Index):
    put(
        index, record(1, "a"), record(2, "b", category="recent", expires_ns=FAR_NS + 10), record(3, "c", forgotten=True)
    )
    key, passing = ("private", "longterm"), ("private", "recent")
    assert index.counts(wanted()) == {key: (2, 0, 1), passing: (1, 0, 0)}
    assert index.counts(wanted()) == {key: (2, 0, 1), passing: (1, 0, 0)}
    later = Filter(tuple(rules.sights(ANN)), FAR_NS + 10)
    assert index.counts(later)[passing] == (1, 1, 0)
    put(index, record(4, "d"))
    assert index.counts(wanted())[key] == (3, 0, 1)
    assert index.counts(wanted(hidden=(ANN.id,))) == {}
    assert index.counts(wanted(BOB)) == {}


def test_what_is_over_is_not_found_before_it_is_removed(index: Index):
    put(index, record(1, "over", expires_ns=FAR_NS), record(2, "still there", expires_ns=FAR_NS + 1))
    assert [row.record.content for row in index.page(wanted(), 10)] == ["still there"]
    assert index.words(wanted(), "over", 10) == []


def test_pages_begin_behind_what_was_read(index: Index):
    put(index, *(record(number, f"thing {number}", category=("core", "tasks")[number % 2]) for number in range(1, 40)))
    seen: list[Record] = []
    after = None
    while rows := index.page(wanted(), 7, after):
        seen += [row.record for row in rows]
        after = After(0 if seen[-1].category == "core" else 6, seen[-1].updated_ns, seen[-1].id)
    assert len({one.id for one in seen}) == 39
    assert [one.updated_ns for one in seen if one.category == "core"] == list(range(38, 0, -2))


def test_what_a_store_has_no_more_is_dropped(index: Index):
    put(index, record(1, "a"), record(2, "b"), record(3, "c", BOB))
    stays = Place("p", "private", ANN.id, record(1, "").id)
    gone = index.keep_only("p", ["private"], {stays})
    assert {place.id for place in gone} == {record(2, "").id, record(3, "").id}
    assert [one.id for _, one in index.everything()] == [stays.id]
    assert index.keep_only("other", ["private"], set()) == []


def test_a_core_of_a_parent_is_left_out(index: Index):
    put(index, record(1, "plan", category="tasks"), record(2, "who I am", category="core"))
    child = Who("c-1", "child", "p", "ann", parent=ANN.id)
    assert [row.record.content for row in index.page(wanted(child), 10)] == ["plan"]
    assert index.words(wanted(child), "who am plan", 10) == [record(1, "").id]
    assert index.counts(wanted(child)) == {("private", "tasks"): (1, 0, 0)}
    assert Sight("private", ANN.id, core=False) in rules.sights(child)


def test_the_file_is_for_its_owner_alone_and_made_anew(tmp_path: Path):
    path = tmp_path / "deep" / "index.db"
    first = Index(path)
    put(first, record(1, "a"))
    first.close()
    assert path.stat().st_mode & 0o077 == 0
    again = Index(path)
    assert again.everything() == []
    again.close()
