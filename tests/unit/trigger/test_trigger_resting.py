"""When does a node leave a plugin's trigger to others? After failures in a row, if there are others that may hear it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from knotwork.trigger.resting import GIVES_UP_AFTER, REST_MAX_S, REST_S, Rest, S, awake, gives_up, recent, rest, resting

NOW = 10**18
HOUR = 3600 * S
SLEEPS, WOKE = Rest(NOW + 1), Rest(NOW)


@pytest.mark.parametrize(
    ("failures", "nodes", "rests", "meant"),
    [
        (GIVES_UP_AFTER, {"a", "b"}, {}, True),
        (GIVES_UP_AFTER - 1, {"a", "b"}, {}, False),
        (99, {"a"}, {}, False),  # nobody else is there
        (99, {"b"}, {}, True),
        (99, {"a", "b"}, {"b": SLEEPS}, False),  # nobody else is awake
        (99, {"a", "b"}, {"b": WOKE}, True),
        (99, {"a", "b", "c"}, {"b": SLEEPS}, True),
    ],
)
def test_a_node_gives_up_when_another_may_do_it(failures, nodes, rests, meant):
    assert gives_up(failures, "a", nodes, rests, NOW) is meant


def test_who_rests_does_not_listen_unless_all_do():
    assert awake(["a", "b"], {"a": SLEEPS}, NOW) == ["b"]
    assert awake(["a", "b"], {"a": WOKE}, NOW) == ["a", "b"]
    assert awake(["a", "b"], {"a": SLEEPS, "b": SLEEPS}, NOW) == ["a", "b"]
    assert awake([], {"a": SLEEPS}, NOW) == []
    assert resting({"a": SLEEPS, "b": WOKE}, NOW) == {"a": SLEEPS}


def test_each_rest_is_longer_than_the_one_before_up_to_an_hour_and_a_day_later_short_again():
    before, spans = None, []
    for _ in range(6):
        before = rest(before, "no way", NOW)
        spans.append((before.until_ns - NOW) / S)
    assert spans == [REST_S, 2 * REST_S, 4 * REST_S, 8 * REST_S, REST_MAX_S, REST_MAX_S]
    assert (before.times, before.why) == (6, "no way")
    later = before.until_ns + 24 * HOUR
    assert rest(before, "", later) == Rest(later + int(REST_S * S), "", 1)
    assert recent({"a": before}, later - 1) == {"a": before}
    assert recent({"a": before}, later) == {}


NODES = st.sampled_from("abcd")


@given(
    nodes=st.sets(NODES, min_size=1),
    rests=st.dictionaries(NODES, st.sampled_from([SLEEPS, WOKE])),
    failing=st.sets(NODES),
)
def test_somebody_always_listens_and_it_is_one_where_it_works_soon(nodes, rests, failing):
    """Whoever listens and fails gives up, until it is one where it works, or nobody else is left to try."""
    rests = dict(rests)
    for _ in range(len(nodes) + 1):
        holder = min(awake(sorted(nodes), rests, NOW))
        if holder not in failing or not gives_up(GIVES_UP_AFTER, holder, nodes, rests, NOW):
            break
        rests[holder] = rest(rests.get(holder), "", NOW)
    assert holder in nodes
    fresh = {node for node in nodes if node not in failing and node not in resting(rests, NOW)}
    assert holder not in failing or not fresh
