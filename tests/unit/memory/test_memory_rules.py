"""Who may see and change what, what a memory may hold, and how it is called: the rules, against a table and by chance."""

from itertools import product

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from knotwork.memory import core_places, names, rules
from knotwork.memory.model import CATEGORIES, EVERYBODY, SCOPES, Record, author, belongs, decode, encode
from knotwork.memory.rules import Draft
from knotwork.sdk.errors import Denied, Invalid, NotFound, TooLarge
from knotwork.sdk.memory import Place
from knotwork.trust.who import Who, person

ANN = Who("a-1", "writer", "p", "ann")
SAME_AGENT_ELSEWHERE = Who("a-1", "writer", "q", "ann")
SISTER = Who("a-2", "sister", "p", "ann")
ABROAD = Who("a-3", "abroad", "q", "ann")
CHILD = Who("a-4", "child", "p", "ann", parent="a-1")
COLLEAGUE = Who("b-1", "colleague", "p", "bob")
STRANGER = Who("c-1", "stranger", "q", "cid")
OWNERLESS = Who("d-1", "nobodys", "p", "")
OWNER = person("ann", "p")

READS = {  # scope: who reads what ANN wrote there
    "private": {ANN, CHILD},
    "personal": {ANN, SISTER, ABROAD, CHILD, OWNER, SAME_AGENT_ELSEWHERE},
    "team": {ANN, SISTER, CHILD, COLLEAGUE, OWNERLESS, OWNER},
    "public": {ANN, SISTER, ABROAD, CHILD, COLLEAGUE, STRANGER, OWNERLESS, OWNER, SAME_AGENT_ELSEWHERE},
}
CHANGES = {
    "private": {ANN},
    "personal": READS["personal"],
    "team": {ANN, OWNER},
    "public": {ANN, OWNER},
}
EVERYONE = READS["public"]


def record(scope: str, by: Who = ANN, category: str | None = None, **more) -> Record:
    category = category or ("longterm" if scope in ("private", "personal") else "learnings")
    owner = names.owner_in(scope, by)
    return Record("m" + "0" * 24, scope, owner, category, author(by), 1, 1, content="it is so", **more)


@pytest.mark.parametrize(
    ("scope", "who"), list(product(SCOPES, sorted(EVERYONE, key=lambda who: who.id + who.project)))
)
def test_the_table_of_who_sees_and_changes_what(scope: str, who: Who):
    assert rules.may_read(record(scope), who) == (who in READS[scope])
    assert rules.may_change(record(scope), who) == (who in CHANGES[scope])


def test_a_sub_agent_does_not_see_the_core_of_its_parent():
    assert not rules.may_read(record("private", category="core"), CHILD)
    assert rules.may_read(record("private", category="core"), ANN)
    assert not rules.may_read(record("private"), Who("x", "x", "q", "ann", parent="a-1"))  # of another project


@pytest.mark.parametrize("who", [Who("x", "x", "q", "", parent=""), Who("x", "x", "q", "")])
def test_without_an_owner_nothing_is_personal(who: Who):
    forged = Record("m" + "0" * 24, "personal", "", "longterm", author(Who("y", "y", "p", "")), 1, 1)
    assert not rules.may_read(forged, who)


@pytest.mark.parametrize(("scope", "owner"), [("private", "a-2"), ("personal", "bob"), ("team", "q")])
def test_a_record_under_another_owner_than_its_author_is_nobodys(scope: str, owner: str):
    forged = Record("m" + "0" * 24, scope, owner, "longterm", author(ANN), 1, 1)
    assert not any(rules.may_read(forged, who) for who in EVERYONE)


tokens = st.sampled_from(["a", "b", "c"])
whos = st.builds(
    Who, id=tokens, name=tokens, project=tokens, owner=st.sampled_from(["", "a", "b"]),
    kind=st.sampled_from(["agent", "person"]), parent=st.sampled_from(["", "a", "b"]),
)  # fmt: skip


@settings(max_examples=500)
@given(whos, whos, st.sampled_from(SCOPES), st.sampled_from(CATEGORIES))
def test_where_one_looks_is_where_one_may_read_and_no_more(by: Who, of: Who, scope: str, category: str):
    one = record(scope, of, category)
    looked = any(
        sight.scope == scope and sight.owner == one.owner and (sight.core or category != "core")
        for sight in rules.sights(by)
    )
    if rules.may_read(one, by):
        assert looked, "it may be seen, and is not found"
    if rules.may_change(one, by):
        assert rules.may_read(one, by)
    if not looked:
        assert not rules.may_read(one, by)


def test_an_error_for_what_is_not_seen_is_that_for_what_is_not_there():
    with pytest.raises(NotFound) as unseen:
        rules.admit_change(record("private"), COLLEAGUE)
    assert str(unseen.value) == str(rules.not_found("m" + "0" * 24))
    with pytest.raises(Denied) as refused:
        rules.admit_change(record("team"), COLLEAGUE)
    assert refused.value.code == "memory.not_yours"


# ---- what one may hold


@pytest.mark.parametrize(
    "draft",
    [
        Draft("x"),
        Draft("x" * rules.CONTENT_MAX_BYTES),
        Draft("x", "team"),
        Draft("x", "public", "architecture"),
        Draft("x", "personal", "core"),
        Draft("x", tags=("y" * 50,) * 10, priority=3, related=("m1",), source="file.py:3"),
        Draft("\x1b[31m red \x00 and \u202e odd"),
        Draft("x", ttl_s=1),
    ],
)
def test_what_is_right_passes(draft: Draft):
    rules.check(draft)


@pytest.mark.parametrize(
    ("draft", "words"),
    [
        (Draft(""), "empty"),
        (Draft(" \n\t"), "empty"),
        (Draft("half \ud800"), "half a character"),
        (Draft("x", "shared"), "no scope"),
        (Draft("x", "team", "core"), "belongs to private or personal"),
        (Draft("x", "private", "learnings"), "belongs to team or public"),
        (Draft("x", "private", "nonsense"), "use recent"),
        (Draft("x", tags=("y",) * 11), "11 tags"),
        (Draft("x", tags=("y" * 51,)), "50 printable"),
        (Draft("x", tags=("",)), "50 printable"),
        (Draft("x", tags=("a\x1b[31m",)), "50 printable"),
        (Draft("x", priority=9), "Priority 9"),
        (Draft("x", priority=0), "Priority 0"),
        (Draft("x", related=("y",) * 21), "21 related"),
        (Draft("x", source="y" * 257), "source"),
        (Draft("x", source="\x00"), "source"),
        (Draft("x", ttl_s=0), "ttl_s"),
        (Draft("x", "private", "core", ttl_s=5), "does not expire"),
    ],
)
def test_what_is_wrong_is_told(draft: Draft, words: str):
    with pytest.raises(Invalid, match=words):
        rules.check(draft)


def test_everything_that_is_wrong_is_told_at_once():
    with pytest.raises(Invalid) as refused:
        rules.check(Draft(" ", "team", "core", ("",) * 11, 7, ("",) * 30, "\n", 0))
    assert len(refused.value.detail["problems"]) > 8


@pytest.mark.parametrize("content", ["x" * (rules.CONTENT_MAX_BYTES + 1), "ü" * (rules.CONTENT_MAX_BYTES // 2 + 1)])
def test_content_is_counted_in_bytes(content: str):
    with pytest.raises(TooLarge) as refused:
        rules.check(Draft(content))
    assert refused.value.code == "memory.too_large"


def test_what_passes_and_what_stays():
    assert rules.ttl_s("recent", None) == rules.ttl_s("tasks", None) == 24 * 3600
    assert rules.ttl_s("longterm", None) is rules.ttl_s("core", None) is rules.ttl_s("learnings", None) is None
    assert rules.ttl_s("longterm", 5) == 5
    assert rules.left_s(0, 10) is None
    assert rules.left_s(10 * rules.NS, 8 * rules.NS + 1) == 2
    assert rules.left_s(5, 10 * rules.NS) == 1


# ---- names


def test_core_memories_have_a_hundred_places_for_each_agent():
    places = {names.core_place(who, number) for who in (ANN, SISTER, SAME_AGENT_ELSEWHERE) for number in range(100)}
    assert len(places) == 300
    made = names.core_id(names.core_place(ANN, 7), b"chance")
    assert names.is_core(made)
    assert names.is_id(made)
    assert names.place_id(made) == names.core_place(ANN, 7)


@given(st.integers(0, 2**62), st.binary(min_size=6, max_size=6))
def test_ids_are_in_the_order_of_time(now_ns: int, chance: bytes):
    one, later = names.memory_id(now_ns, chance), names.memory_id(now_ns + 1_000_000, chance)
    assert names.is_id(one)
    assert one < later or now_ns // 1_000_000 >= 2**48 - 1
    assert names.place_id(one) == one


def test_what_is_common_lies_in_commons_where_there_is_one():
    for scope in SCOPES:
        assert names.realm(scope, "p", common=True) == ("" if scope in ("personal", "public") else "p")
        assert names.realm(scope, "p", common=False) == "p"
    assert names.owner_in("public", ANN) == EVERYBODY
    assert names.owner_in("personal", OWNERLESS) == ""


def test_a_record_survives_its_way_and_others_do_not():
    one = record("team", tags=("a",), related=("b",), expires_ns=5)
    assert decode(encode(one)) == one
    for value in (
        b"",
        b"[]",
        b"{}",
        b"\xff",
        b'{"id":1}',
        encode(one)[:-1],
        encode(one).replace(b'"team"', b'"shared"'),
    ):
        assert decode(value) is None
    assert belongs(one, Place("p", "team", "p", one.id))
    assert not belongs(one, Place("p", "team", "q", one.id))
    assert not belongs(one, Place("p", "public", "p", one.id))


def test_places_for_core_memories_count_over_all_scopes():
    places = ["c00", "c01", "c02", "c03", "c04"]
    lives, gone = (False, 9, 0), (True, 5, 0)
    here, elsewhere = {"c00": lives, "c01": gone}, {"c02": lives, "c03": (True, 3, 0), "c01": gone}
    assert core_places.order(here, elsewhere, places) == ["c04", "c03", "c01"]
    assert core_places.order({"c00": gone}, {"c00": lives}, ["c00"]) == []
