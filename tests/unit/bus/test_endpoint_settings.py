"""Where NATS is: addresses are checked, secrets are not shown, and tries are spread."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from knotwork.bus import endpoint as endpoints
from knotwork.bus.commit import BATCH_MAX, BATCH_MAX_BYTES, batch_length
from knotwork.bus.endpoint import Endpoint
from knotwork.sdk.errors import ConfigInvalid


@given(st.floats(0, 100), st.floats(0, 1))
def test_a_node_waits_between_one_and_thirty_seconds(last_s, chance):
    assert 1.0 <= endpoints.next_pause_s(Endpoint(("nats://x",)), last_s, chance) <= 30.0


@given(st.lists(st.floats(0, 1), min_size=12, max_size=12))
def test_pauses_grow_to_the_longest_and_are_spread(chances):
    endpoint, pause_s = Endpoint(("nats://x",)), 0.0
    for chance in chances:
        longest_s = min(30.0, max(pause_s, 1.0) * 2)
        pause_s = endpoints.next_pause_s(endpoint, pause_s, chance)
        assert pause_s == pytest.approx(1.0 + chance * (longest_s - 1.0))


@given(st.floats(0.001, 10), st.floats(0.001, 10), st.floats(0, 20), st.floats(0, 1))
def test_odd_limits_are_kept(low, high, last_s, chance):
    endpoint = Endpoint(("nats://x",), pause_min_s=low, pause_max_s=high)
    assert 0 < endpoints.next_pause_s(endpoint, last_s, chance) <= max(low, high)


@given(st.text(max_size=100))
def test_no_address_crashes_the_check(url):
    try:
        endpoints.check(Endpoint((url,)))
    except ConfigInvalid as error:
        assert error.code == "bus.bad_url"


@given(st.text(max_size=60))
def test_any_address_can_be_shown(url):
    assert isinstance(endpoints.shown_url(url), str)


def test_passwords_in_addresses_are_not_shown():
    endpoint = Endpoint(("nats://user:secret@host:4222", "tls://token@host"))
    assert endpoint.shown == "nats://host:4222, tls://host"


@given(st.lists(st.integers(0, 8_000_000), max_size=60))
def test_batches_hold_everything_once_and_keep_to_their_limits(sizes):
    left, batches = list(sizes), []
    while left:
        count = batch_length(left)
        assert count >= 1
        batches.append(left[:count])
        left = left[count:]
    assert [size for batch in batches for size in batch] == sizes
    assert all(len(batch) == 1 or sum(batch) <= BATCH_MAX_BYTES for batch in batches)


@given(st.integers(0, 5000))
def test_batches_of_small_facts_are_as_large_as_the_server_takes(count):
    assert batch_length([10] * count) == min(count, BATCH_MAX)


@pytest.mark.parametrize(
    "said", ["[Errno 32] Broken pipe", "[Errno 104] Connection reset by peer", "nats: unexpected EOF"]
)
def test_a_server_that_hangs_up_on_tls_is_there(said):
    assert "[nats.tls]" in endpoints._what_to_do([f"tls://127.0.0.1:4222: {said}"])
    assert "[nats.tls]" not in endpoints._what_to_do([f"nats://127.0.0.1:4222: {said}"])
