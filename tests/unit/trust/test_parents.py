"""Whose sub-agent is somebody? The truth table of what may be shown as a parent, and what it then sees."""

from __future__ import annotations

import pytest

from knotwork.sdk.errors import Denied
from knotwork.trust import seals
from knotwork.trust.parents import ParentKeys
from knotwork.trust.scopes import circle, circles, is_meant, may_do, may_see
from knotwork.trust.who import Who

ME, SISTER = Who("a1", "me", "shop", "ann"), Who("a2", "sister", "shop", "ann")
KEYS, ELSEWHERE = ParentKeys(b"s" * 32), ParentKeys(b"t" * 32)
SHOWN = {
    "nothing": "",
    "its handle": "me",
    "its id": "a1",
    "its key": KEYS.of("a1"),
    "the key of a sister": KEYS.of("a2"),
    "its key of another project": ELSEWHERE.of("a1"),
    "its id under the key of a sister": KEYS.of("a2").replace(".", f".{KEYS.of('a1').split('.')[1]}.", 1),
    "a claim that the project sealed": seals.close(b"s" * 32, "kc1", b"a1"),
    "what the secret itself seals": seals.close(b"s" * 32, "kp1", b"a1"),
    "its key and more": KEYS.of("a1") + "A",
    "half of its key": KEYS.of("a1")[:-1],
    "very much": "a" * 100_000,
}
PARENT = {"its key": "a1", "the key of a sister": "a2"}


@pytest.mark.parametrize("shown", [one for one in SHOWN if one != "nothing"])
def test_who_is_the_parent(shown):
    if shown in PARENT:
        assert KEYS.parent(SHOWN[shown]) == PARENT[shown]
        return
    with pytest.raises(Denied) as refused:
        KEYS.parent(SHOWN[shown])
    assert refused.value.code == "session.bad_parent"
    assert "kp1." not in str(refused.value), "it might be the key of somebody"


def child_of(shown: str) -> Who:
    try:
        parent = KEYS.parent(SHOWN[shown])
    except Denied:
        parent = ""
    return Who("c1", "child", "shop", "ann", parent=parent)


@pytest.mark.parametrize("shown", SHOWN)
def test_what_is_private_is_for_those_who_showed_the_key_of_its_owner(shown):
    child, meant = child_of(shown), shown == "its key"
    assert may_do("private", ME, child) is meant
    assert (circle("private", ME) in circles(child)) is meant
    assert is_meant("private", child, ME) is meant
    assert not may_see("private", ME, child)  # a sub-agent sees what its parent has, never the agent's own core
    assert may_do("personal", ME, child)


def test_a_key_is_the_same_at_every_start_and_on_every_node():
    assert ParentKeys(b"s" * 32).of("a1") == KEYS.of("a1") != KEYS.of("a2")
    assert may_do("private", SISTER, child_of("the key of a sister"))
