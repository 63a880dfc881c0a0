"""Pauses grow within bounds; crashes end in quarantine, patience never does."""

from hypothesis import given
from hypothesis import strategies as st

from knotwork.sockets.pace import History, Pace

PACE = Pace()


@given(st.lists(st.floats(0, 1), min_size=1, max_size=40))
def test_pauses_double_up_to_the_most(chances):
    history = History(PACE)
    for number, chance in enumerate(chances):
        pause_s = history.failed(now_s=number, ran_s=0, crashed=False, chance=chance)
        middle = min(PACE.first_s * 2**number, PACE.most_s)
        assert middle * 0.8 - 1e-9 <= pause_s <= middle * 1.2 + 1e-9


def test_the_fifth_crash_in_ten_minutes_is_the_last():
    history = History(PACE)
    pauses = [history.failed(now_s=at, ran_s=1, crashed=True, chance=0.5) for at in (0, 100, 200, 300, 599)]
    assert pauses == [1.0, 2.0, 4.0, 8.0, None]


def test_crashes_further_apart_are_forgiven():
    history = History(PACE)
    assert all(history.failed(now_s=at * 151.0, ran_s=1, crashed=True, chance=0.5) for at in range(100))


def test_running_well_for_a_while_resets_the_pause():
    history = History(PACE)
    for _ in range(4):
        history.failed(now_s=0, ran_s=0, crashed=False, chance=0.5)
    assert history.failed(now_s=0, ran_s=PACE.healthy_s, crashed=False, chance=0.5) == PACE.first_s


def test_forgetting_starts_anew():
    history = History(PACE)
    for _ in range(5):
        history.failed(now_s=0, ran_s=0, crashed=True, chance=0.5)
    history.forget()
    assert history.failed(now_s=0, ran_s=0, crashed=True, chance=0.5) == PACE.first_s
