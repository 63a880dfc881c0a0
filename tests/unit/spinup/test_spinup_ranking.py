"""Which work misses an agent, and which target is best for it: the pure half of the spin-up room."""

from __future__ import annotations

from typing import Any

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from knotwork.spinup import ranking
from knotwork.spinup.demand import Demand, Waiting, crowded, demands
from knotwork.spinup.records import Launch, Target, decode_target, encode

S = 1_000_000_000
NOW_NS = 1_000_000 * S
DEMAND = Demand("personal", "review", 3)


def target(name: str, **fields: Any) -> Target:
    return Target("home", name, **fields)


def ranked(*targets: Target) -> list[str]:
    return [one.target for one in ranking.rank(DEMAND, targets, NOW_NS).targets]


def nobody(_boundary: str, _routed: str) -> bool:
    return False


def always(_boundary: str) -> bool:
    return True


def test_work_that_somebody_can_take_is_no_demand():
    waiting = [Waiting("none", "review", 5), Waiting("none", "shout", 2)]
    found = demands(waiting, lambda _boundary, routed: routed == "review", always)
    assert found == [Demand("none", "shout", 2)]


def test_lanes_of_one_queue_are_one_demand_and_the_most_wanted_comes_first():
    waiting = [Waiting("none", "a", 1), Waiting("none", "b", 2), Waiting("none", "a", 4, "t1")]
    assert demands(waiting, nobody, always) == [Demand("none", "a", 5, "t1"), Demand("none", "b", 2)]


def test_work_for_an_agent_of_one_node_is_no_demand_but_for_an_agent_by_name_it_is():
    found = demands([Waiting("none", "laptop=x", 1), Waiting("none", "=x", 1)], nobody, always)
    assert [one.capability for one in found] == ["x"]


def test_work_that_waits_for_busy_agents_is_a_demand_of_its_own():
    waiting = [Waiting("none", "review", 5), Waiting("none", "review", 1), Waiting("none", "shout", 2)]
    waiting += [Waiting("none", "idle", 0), Waiting("none", "laptop=x", 1), Waiting("corporate", "review", 1)]
    found = crowded(waiting, lambda _boundary, routed: routed != "shout", lambda boundary: boundary == "none")
    assert found == [Demand("none", "review", 6, busy=True)]


def test_one_more_agent_is_started_where_work_has_waited_long_enough():
    busy = DEMAND._replace(busy=True, waited_s=30.0)
    never, soon, later = target("never"), target("soon", wait_s=10.0, cost=9.0), target("later", wait_s=60.0)
    found = ranking.rank(busy, [never, soon, later], NOW_NS)
    assert [one.target for one in found.targets] == ["soon"]
    assert "30 of 60 s" in found.refused["home/later"]
    assert "while there are agents" in found.refused["home/never"]
    assert ranked(never, soon, later) == ["later", "never", "soon"], "when nobody is there it makes no difference"


def test_the_next_one_is_started_only_when_the_last_one_did_not_help():
    def came(ago_s: float, capability: str = "review", boundary: str = "personal") -> Launch:
        return Launch("x", "soon", "home", "up", capability, boundary, registered_ns=NOW_NS - int(ago_s * S))

    others = [came(1.0, capability="shout"), came(2.0, boundary="none")]
    assert ranking.since_relief_s(DEMAND, others, NOW_NS) == NOW_NS / S
    assert ranking.since_relief_s(DEMAND, [*others, came(300.0), came(20.0)], NOW_NS) == 20.0


def test_policy_may_forbid_to_start_agents():
    assert demands([Waiting("corporate", "x", 1)], nobody, lambda boundary: boundary != "corporate") == []


def test_health_comes_before_cost_and_cost_before_luck():
    well, unknown = target("well", health="healthy", cost=9.0), target("unknown", cost=0.0)
    cheap = target("cheap", health="healthy", cost=1.0)
    lucky = target("lucky", health="healthy", cost=1.0, last_success_ns=NOW_NS)
    assert ranked(unknown, well, cheap, lucky) == ["lucky", "cheap", "well", "unknown"]


def test_no_target_is_for_work_that_is_claimed():
    own = DEMAND._replace(routed="==private-0123456789abcdef01234567=review")
    assert (own.capability, own.is_claimed, DEMAND.is_claimed) == ("review", True, False)
    found = ranking.rank(own, [target("any"), target("fit", capabilities=("review",))], NOW_NS)
    assert found.targets == ()
    assert set(found.refused.values()) == {"executors of a node get no private or personal work"}


def test_each_target_that_is_out_has_a_reason():
    targets = [
        target("other", capabilities=("shout",)),
        target("elsewhere", boundaries=("corporate",)),
        target("off", disabled=True),
        target("unset", enabled=False),
        target("ill", health="unhealthy", why="no key"),
        target("full", running=2, max_concurrent=2),
        target("hot", failures=2, last_failure_ns=NOW_NS - 30 * S, cooldown_s=30.0),
    ]
    found = ranking.rank(DEMAND, targets, NOW_NS)
    assert found.targets == ()
    assert set(found.refused) == {f"home/{one.target}" for one in targets}
    assert "no key" in found.refused["home/ill"]
    assert "30 s" in found.refused["home/hot"]


@given(failures=st.integers(1, 10**6), since_s=st.floats(0, 10**6), cooldown_s=st.floats(0, 86400))
def test_a_cooldown_grows_with_failures_and_always_ends(failures: int, since_s: float, cooldown_s: float):
    one = target("x", failures=failures, cooldown_s=cooldown_s, last_failure_ns=NOW_NS - int(since_s * S))
    left_s = ranking.cooldown_left_s(one, NOW_NS)
    assert left_s <= ranking.COOLDOWN_MAX_S
    assert since_s <= ranking.COOLDOWN_MAX_S or left_s <= 1


@given(st.permutations([target(name, cost=cost) for name, cost in (("a", 1.0), ("b", 1.0), ("c", 0.5), ("d", 2.0))]))
def test_every_node_comes_to_the_same_order(targets: list[Target]):
    assert ranked(*targets) == ["c", "a", "b", "d"]


def test_a_record_comes_back_as_it_was():
    one = target("x", capabilities=("a",), health="healthy", cost=1.5)
    assert decode_target(encode(one)) == one
    assert msgspec.json.decode(encode(target("y"))) == {"node": "home", "target": "y"}


def test_targets_of_a_node_that_is_away_are_out():
    cheap, dear = target("cheap"), msgspec.structs.replace(target("dear", cost=5.0), node="other")
    found = ranking.rank(DEMAND, [cheap, dear], NOW_NS, {"home"})
    assert [one.target for one in found.targets] == ["dear"]
    assert found.refused == {"home/cheap": "node home is not online"}


def test_a_target_that_cools_down_says_why_its_last_launch_failed():
    failed = target("t", failures=2, cooldown_s=30, last_failure_ns=0, failed_why="no such image")
    assert ranking.unready(failed, 0) == "it cools down for 60 s more after 2 failures in a row: no such image"


def test_the_pause_of_a_target_whose_agents_come_and_take_nothing_grows():
    one, now_ns, pauses = target("t", cooldown_s=30), NOW_NS, []
    for _ in range(3):
        came = Launch("l", "t", "home", "up", registered_ns=now_ns)
        one = ranking.judged(one, came, now_ns)
        assert (one.failures, ranking.unready(one, now_ns)) == (0, ""), "one that came may be followed by a second"
        one = ranking.judged(one, msgspec.structs.replace(came, state="failed", why="it takes nothing"), now_ns)
        pauses.append(ranking.cooldown_left_s(one, now_ns))
    assert pauses == [30, 60, 120]
    one = ranking.judged(one, Launch("l", "t", "home", "stopped", registered_ns=now_ns), now_ns)
    one = ranking.judged(one, Launch("l", "t", "home", "up", registered_ns=now_ns), now_ns)
    one = ranking.judged(one, Launch("m", "t", "home", "failed"), now_ns)
    assert one.failures == 1, "one that was not needed any more ends the row"


def test_who_starts_an_agent_by_hand_names_nothing_that_the_target_is_not_for():
    one = target("a", capabilities=("review",), boundaries=("lab",))
    for said in (("", ""), ("review", ""), ("", "lab"), ("review", "lab"), ("", "none")):
        assert ranking.unasked(one, *said) == ""
        assert ranking.unasked(target("b"), *said) == ""
    assert ranking.unasked(one, "shout", "lab") == "it starts agents for review"
    assert ranking.unasked(one, "", "corporate") == "it serves the boundaries lab"
