"""Who may see what: the whole truth table, relation by relation."""

import pytest

from knotwork.trust.scopes import SCOPES, circle, circles, is_meant, may_do, may_see, reaches_out
from knotwork.trust.who import Who, owner_of, person

ME = Who("a1", "me", "shop", "ann")
OTHERS = {
    "itself": ME,
    "same owner, same project": Who("a2", "two", "shop", "ann"),
    "same owner, other project": Who("a3", "three", "lab", "ann"),
    "other owner, same project": Who("b1", "four", "shop", "bob"),
    "other owner, other project": Who("b2", "five", "lab", "bob"),
    "no owner, same project": Who("n1", "six", "shop", ""),
    "same id, other project": Who("a1", "me", "lab", "bob"),
    "its sub-agent": Who("c1", "child", "shop", "ann", parent="a1"),
    "its person": person("ann", "shop"),
    "another person": person("bob", "shop"),
}
SEEN_BY = {
    "private": {"itself"},
    "personal": {"itself", "same owner, same project", "same owner, other project", "its sub-agent", "its person"},
    "team": {
        "itself", "same owner, same project", "other owner, same project", "no owner, same project", "its sub-agent",
        "its person", "another person",
    },
    "public": set(OTHERS),
    "galactic": {"itself"},
}  # fmt: skip


def test_the_table_names_every_scope():
    assert set(SEEN_BY) == {*SCOPES, "galactic"}


@pytest.mark.parametrize("scope", SEEN_BY)
@pytest.mark.parametrize("relation", OTHERS)
def test_truth_table(scope, relation):
    assert may_see(scope, ME, OTHERS[relation]) is (relation in SEEN_BY[scope])


def test_things_of_nobody_are_not_personal_to_others_of_nobody():
    assert not may_see("personal", Who("x", "x", "shop", ""), Who("y", "y", "shop", ""))


@pytest.mark.parametrize(("user", "owner"), [
    ("ann", "ann"), ("Ann Smith", "ann-smith"), ("DOM\\ann", "dom-ann"), ("", "someone"), ("äöü", "someone"), ("a" * 99, "a" * 48),
])  # fmt: skip
def test_an_owner_is_a_token(user, owner):
    assert owner_of(user) == owner


DONE_BY = {
    "private": {"itself", "its sub-agent"},
    "personal": {"itself", "same owner, same project", "its sub-agent", "its person"},
    "team": SEEN_BY["team"],
    "public": {name for name, who in OTHERS.items() if who.project == ME.project},
    "galactic": {"itself"},
}


@pytest.mark.parametrize("scope", DONE_BY)
@pytest.mark.parametrize("relation", OTHERS)
def test_who_may_see_and_take_work(scope, relation):
    assert may_do(scope, ME, OTHERS[relation]) is (relation in DONE_BY[scope])


@pytest.mark.parametrize("scope", ["private", "personal"])
@pytest.mark.parametrize("relation", OTHERS)
def test_circles_say_the_same_within_a_project(scope, relation):
    other = OTHERS[relation]
    if other.project == ME.project:
        assert (circle(scope, ME) in circles(other)) is may_do(scope, ME, other)


def test_what_is_the_projects_has_no_circle():
    assert {circle(scope, ME) for scope in ("team", "public", "galactic")} == {""}
    assert circle("private", ME) != circle("personal", Who(ME.id, "x", "shop", ME.id))
    assert not set(circles(Who("x", "x", "shop", ""))) & set(circles(Who("y", "y", "shop", "")))


@pytest.mark.parametrize("scope", SCOPES)
def test_only_what_is_seen_elsewhere_reaches_out(scope):
    elsewhere = any(may_see(scope, ME, who) for who in OTHERS.values() if who.project != ME.project)
    assert reaches_out(scope) is elsewhere


MEANT = {
    "private": {"its sub-agent"},
    "personal": {name for name in SEEN_BY["personal"] if OTHERS[name].owner == ME.owner},
    "team": {name for name, who in OTHERS.items() if who.project == ME.project},
    "public": set(OTHERS),
    "galactic": set(),
}


@pytest.mark.parametrize("scope", MEANT)
@pytest.mark.parametrize("relation", OTHERS)
def test_who_is_meant_by_what_is_said_to_all_of_a_scope(scope, relation):
    assert is_meant(scope, OTHERS[relation], ME) is (relation in MEANT[scope])
