"""Who may see what: the whole truth table, relation by relation."""

import pytest

from knotwork.trust.scopes import SCOPES, may_see
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
