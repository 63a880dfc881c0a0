"""Do the bundled routers that choose an agent keep the contract of every router, and their own promises?"""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from typing import ClassVar

from hypothesis import given
from hypothesis import strategies as st

from knotwork.sdk import Ask, Candidate
from knotwork.sdk.testing import RouterContract, host
from knotwork_plugins.routers import policy, round_robin, sticky
from knotwork_plugins.routers.capability import why_not

CANDIDATES = st.lists(
    st.builds(
        Candidate,
        node=st.sampled_from(["n1", "n2", "n3"]),
        agent=st.sampled_from(["a", "b", "c"]),
        capabilities=st.just(frozenset({"review"})),
        state=st.sampled_from(["online", "online", "online", "stale", "draining"]),
        load=st.sampled_from([0.0, 0.5, 1.0]),
        standing=st.sampled_from(["preferred", "fallback"]),
    ),
    unique_by=lambda one: one.name,
    max_size=8,
)
ASK = Ask(capability="review", boundary="personal", key="k")


class TestPolicyRouter(RouterContract):
    factory = policy.FACTORY
    ask = Ask(capability="review", boundary="personal")
    bad_configs: ClassVar = ({"load_step": 3},)


class TestStickyRouter(RouterContract):
    factory = sticky.FACTORY
    ask = Ask(capability="review", key="repo")
    bad_configs: ClassVar = ({"key": "x"},)


class TestRoundRobinRouter(RouterContract):
    factory = round_robin.FACTORY
    bad_configs: ClassVar = ({"turn": 1},)


def orders(candidates):
    return [
        policy.order_by_standing(ASK, candidates, policy.PolicyConfig()),
        sticky.order_by_key(ASK, candidates),
        round_robin.order_by_turn(ASK, candidates, "n2/a"),
    ]


@given(CANDIDATES)
def test_each_candidate_is_either_in_the_order_or_left_out_with_its_reason(candidates):
    for route in orders(candidates):
        assert {one.name for one in route.candidates} == {one.name for one in candidates if not why_not(ASK, one)}
        assert route.refused == {one.name: why for one in candidates if (why := why_not(ASK, one))}
        assert route.reason


@given(CANDIDATES)
def test_of_those_with_a_free_place_preferred_ones_come_first(candidates):
    for route in orders(candidates):
        free = [one.standing == "preferred" for one in route.candidates if one.load < 1]
        assert free == sorted(free, reverse=True)


@given(CANDIDATES, st.text(min_size=1), st.randoms())
def test_a_key_stays_where_it_is_when_others_come_and_go(candidates, key, chance):
    found = [replace(one, state="online", standing="") for one in candidates]
    ask = replace(ASK, key=key)
    first = [one.name for one in sticky.order_by_key(ask, found).candidates]
    chance.shuffle(found)
    assert [one.name for one in sticky.order_by_key(ask, found).candidates] == first
    for gone in first[1:]:
        left = [one for one in found if one.name != gone]
        assert sticky.order_by_key(ask, left).candidates[0].name == first[0]
    left = [one for one in found if one.name != (first or [""])[0]]
    assert [one.name for one in sticky.order_by_key(ask, left).candidates] == first[1:]


def test_keys_spread_evenly():
    found = [Candidate(f"n{number}", "a", frozenset()) for number in range(5)]
    counts = Counter(sticky.order_by_key(Ask(key=f"k{number}"), found).candidates[0].name for number in range(2000))
    assert len(counts) == 5
    assert min(counts.values()) > 300


@given(CANDIDATES)
def test_in_as_many_turns_as_there_are_agents_each_has_one(candidates):
    found = [replace(one, state="online", load=0.0, standing="") for one in candidates]
    last, seen = "", []
    for _ in found:
        last = round_robin.order_by_turn(Ask(), found, last).candidates[0].name
        seen.append(last)
    assert sorted(seen) == sorted(one.name for one in found)


async def test_turns_are_counted_for_each_sort_of_work():
    found = [Candidate("n1", name, frozenset({"x", "y"})) for name in "abc"]
    async with host(round_robin.FACTORY, {}) as router:
        seen = [(await router.route(Ask(capability=one), found)).candidates[0].agent for one in "xyxyxy"]
    assert seen == ["a", "a", "b", "b", "c", "c"]


async def test_who_has_nothing_to_say_leaves_it_to_the_next():
    plain = [Candidate("n1", "a", frozenset({"x"}))]
    async with host(policy.FACTORY, {}) as router:
        assert await router.route(Ask(capability="x"), plain) is None
        assert await router.route(Ask(capability="x", boundary="open-source"), plain) is None
        preferred = [replace(plain[0], standing="preferred")]
        route = await router.route(Ask(capability="x", boundary="personal"), preferred)
        assert route.reason == "n1/a is preferred for personal work, of 1 eligible"
        assert not route.pin
    async with host(sticky.FACTORY, {}) as router:
        assert await router.route(Ask(capability="x"), plain) is None
        assert (await router.route(Ask(capability="x", key="k"), plain)).pin


def test_a_full_preferred_agent_comes_behind_a_free_fallback():
    full = Candidate("n1", "a", frozenset({"review"}), load=1.0, standing="preferred")
    free = Candidate("n1", "b", frozenset({"review"}), standing="fallback")
    both = [full, free]
    assert [one.agent for one in policy.order_by_standing(ASK, both, policy.PolicyConfig()).candidates] == ["b", "a"]
    assert [one.agent for one in round_robin.order_by_turn(ASK, both, "").candidates] == ["b", "a"]
    assert [one.agent for one in sticky.order_by_key(ASK, both).candidates] == ["a", "b"]  # it keeps to its agent
