"""What is said of a run of which nothing is stored? What is true: there was none, it was let go of, or nobody can tell."""

from __future__ import annotations

import pytest

from knotwork.flow import unknown
from knotwork.flow.history import Keeps
from knotwork.flow.runs import keyed_run, new_run
from knotwork.flow.unknown import Oldest

DAY_NS = 86400 * 10**9
NOW_NS = 1_800_000_000 * 10**9
KEEPS = Keeps(30 * 86400.0)
NOTHING = Oldest(let_go=False, kept_ns=2**63)
KEYED = keyed_run("w", "monday")


def ago(days: float) -> str:
    return new_run(int(NOW_NS - days * DAY_NS))


@pytest.mark.parametrize(
    ("run", "oldest", "code"),
    [
        (ago(1), NOTHING, "flow.no_run"),
        (ago(31), NOTHING, "flow.forgotten"),
        (ago(1), Oldest(let_go=True, kept_ns=NOW_NS - 2 * DAY_NS), "flow.no_run"),
        (ago(3), Oldest(let_go=True, kept_ns=NOW_NS - 2 * DAY_NS), "flow.forgotten"),  # it was too many bytes
        (ago(3), Oldest(let_go=False, kept_ns=NOW_NS - 2 * DAY_NS), "flow.no_run"),
        (ago(1), Oldest(let_go=True, kept_ns=2**63), "flow.forgotten"),  # nothing is left at all
        (ago(-1), NOTHING, "flow.no_run"),
        (KEYED, NOTHING, "flow.no_run"),
        (KEYED, Oldest(let_go=True, kept_ns=NOW_NS - 2 * DAY_NS), "flow.forgotten"),
        ("w0000000", Oldest(let_go=True, kept_ns=NOW_NS), "flow.no_run"),
    ],
    ids=[
        "yesterday",
        "before all that is kept",
        "before the oldest",
        "let go of by bytes",
        "never",
        "nothing left",
        "tomorrow",
        "keyed",
        "keyed and let go",
        "no id",
    ],  # the ids of runs are random
)
def test_what_is_said_is_true(run, oldest, code):
    error = unknown.told(run, KEEPS, NOW_NS, oldest)
    assert error.code == code
    assert "Runs that are over are kept for 30 days" in error.hint
    assert ("run export" in error.hint) == (code == "flow.forgotten")
    assert ("run list" in error.hint) == (code == "flow.no_run")


def test_of_an_id_that_was_made_of_a_key_it_is_said_that_nobody_can_tell():
    let_go = Oldest(let_go=True, kept_ns=NOW_NS)
    assert "or it is over and not kept any more" in unknown.told(KEYED, KEEPS, NOW_NS, let_go).message
    assert "it would have begun at 2027-01-11T" in unknown.told(ago(4), KEEPS, NOW_NS, let_go).message


@pytest.mark.parametrize(
    ("state", "meant"),
    [
        ({}, NOTHING),
        ({"messages": 0, "first_seq": 1, "last_seq": 0, "first_ts": "0001-01-01T00:00:00Z"}, NOTHING),
        ({"messages": 0, "first_seq": 8, "last_seq": 7}, Oldest(let_go=True, kept_ns=2**63)),
        (
            {"messages": 0, "first_seq": 8, "last_seq": 7, "last_ts": "1970-01-01T00:00:09Z"},
            Oldest(let_go=True, kept_ns=9 * 10**9),
        ),
        ({"messages": 3, "first_seq": 1, "first_ts": "1970-01-01T00:00:02Z"}, Oldest(let_go=False, kept_ns=2 * 10**9)),
        ({"messages": 3, "first_seq": 5, "first_ts": "1970-01-01T00:00:02Z"}, Oldest(let_go=True, kept_ns=2 * 10**9)),
    ],
)
def test_what_the_stream_of_the_past_tells(state, meant):
    assert unknown.oldest({"state": state}) == meant
