"""The pure rules: who may write to whom, who sees what, what is unread, who is meant, what an id and a cursor are."""

from __future__ import annotations

import itertools
import sqlite3

import pytest
from hypothesis import given
from hypothesis import strategies as st

from knotwork.bus.fitting import fitting
from knotwork.sdk.errors import Invalid, KnotworkError, NotFound, TooLarge
from knotwork.talk import channel, contact, inbox_state, index_rows, mentions, message
from knotwork.talk.contact import Policy
from knotwork.talk.inbox_state import InboxState, Wish
from knotwork.talk.message import Draft, Envelope, Said
from knotwork.trust.scopes import SCOPES, may_see
from knotwork.trust.who import Who, person

ANN, BOB = Who("a-1", "ann", "p", "olga"), Who("b-1", "bob", "p", "olga")
CYD, FAR = Who("c-1", "cyd", "p", "carl"), Who("f-1", "far", "q", "olga")
EVERYBODY = (ANN, BOB, CYD, FAR, Who("a-1", "ann", "q", "eve"), Who("n-1", "nil", "p", ""), Who("n-2", "nul", "q", ""))


def test_the_sql_of_the_index_sees_what_the_one_rule_lets_be_seen():
    db = sqlite3.connect(":memory:")
    db.execute("CREATE TABLE m (sender, project, owner, scope)")
    for scope, of, by in itertools.product((*SCOPES, "unknown"), EVERYBODY, EVERYBODY):
        db.execute("DELETE FROM m")
        db.execute("INSERT INTO m VALUES (?, ?, ?, ?)", (of.id, of.project, of.owner, scope))
        found = db.execute(f"SELECT 1 FROM m WHERE {index_rows.SEES}", index_rows.seer(by, 0)).fetchone()
        assert bool(found) is may_see(scope, of, by), (scope, of, by)
    db.close()


@pytest.mark.parametrize(
    ("policy", "sender", "to", "answering", "allowed"),
    [
        (Policy(), ANN, CYD, False, True),
        (Policy(), FAR, ANN, False, True),
        (Policy("team"), ANN, CYD, False, True),
        (Policy("team"), FAR, ANN, False, False),
        (Policy("allow-list", ("ann>*",)), ANN, CYD, False, True),
        (Policy("allow-list", ("ann>*",)), CYD, ANN, False, False),
        (Policy("allow-list", ("ann>*",)), CYD, ANN, True, True),
        (Policy("allow-list", ("*>b-1",)), CYD, BOB, False, True),
        (Policy("allow-list", ("owner=olga>owner=carl",)), BOB, CYD, False, True),
        (Policy("allow-list", ("owner=olga>owner=carl",)), CYD, BOB, False, False),
        (Policy("allow-list", ("far>*",)), FAR, ANN, False, False),
        (Policy("allow-list", ("far@q>*",)), FAR, ANN, False, True),
        (Policy("allow-list", ("far@p>*",)), FAR, ANN, False, False),
        (Policy("allow-list", ("f-1>*",)), FAR, ANN, False, True),
        (Policy("allow-list", ("ann@p>far@q",)), ANN, FAR, False, True),
        (Policy("allow-list", ("*>far",)), ANN, FAR, False, False),
        (Policy("allow-list", ("person-eve>*",)), person("eve", "q"), ANN, False, False),
        (Policy("allow-list", ("owner=eve>*",)), person("eve", "q"), ANN, False, True),
        (Policy("allow-list"), ANN, BOB, False, False),
        (Policy("none"), ANN, BOB, True, False),
        (Policy("none"), ANN, ANN, False, True),
    ],
)
def test_who_may_write_to_whom(policy, sender, to, answering, allowed):
    assert contact.allows(policy, sender, to, of="p", answering=answering) is allowed


def test_every_rule_that_is_none_is_named():
    with pytest.raises(Invalid) as caught:
        contact.checked(
            "allow-list", ["a>b", "a b", "*", "x>y>z", "a->b", "owner=>b", "A>b", "owner=me>*", "a@q>b", "a@>b"]
        )
    for wrong in ("'a b'", "'*'", "'x>y>z'", "'a->b'", "'owner=>b'", "'A>b'", "'a@>b'"):
        assert wrong in caught.value.message
    assert "owner=me" not in caught.value.message
    assert "a@q" not in caught.value.message
    assert contact.decode(contact.encode(contact.checked("allow-list", ["a>b", "a>b"]))).allow == ("a>b",)


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("@ann and @bob, @ann!", ["ann", "bob"]),
        ("(@ann)", ["ann"]),
        ("mail ann@example.org or a/@b, @@x", []),
        ("@ann. @bob-2: @Ann", ["ann", "bob-2"]),
        ("@person-olga?", ["person-olga"]),
        ("@" + "x" * 65, []),
        ("none", []),
    ],
)
def test_who_is_meant_by_a_text(text, named):
    assert mentions.named(text) == named


def test_so_many_mentions_count_and_no_more():
    assert len(mentions.named(" ".join(f"@a{number}" for number in range(1000)))) == message.MENTIONS_MAX


@given(st.sampled_from(["channel", "inbox"]), st.integers(1, message.PLACE_MAX - 1))
def test_an_id_leads_to_its_place(where, place):
    assert message.place_of(message.name(where, place)) == (where, place)


@pytest.mark.parametrize("bad", ["", "m", "m0", "x7", "m-1", "m1\n", "m1 ", "d٣", "m" + "9" * 16, "7"])
def test_what_is_no_id_is_not_found(bad):
    with pytest.raises(NotFound) as caught:
        message.place_of(bad)
    assert caught.value.code == "message.not_found"


@pytest.mark.parametrize("bad", ["", "a", "b-1", "a5-", "a5-xyz1", "a5-12345", "c7", "a1.5", "b٣", "a" + "9" * 16])
def test_what_is_no_cursor_is_refused(bad):
    with pytest.raises(Invalid) as caught:
        index_rows.cursor(bad, "roadmap")
    assert caught.value.code == "message.bad_cursor"


@given(st.integers(0, 10**14), st.booleans())
def test_a_cursor_says_from_where_on(place, older):
    text = index_rows.next_cursor(place, older=older, of="roadmap")
    assert index_rows.cursor(text, "roadmap") == ((0, max(1, place)) if older else (place, 0))
    assert index_rows.cursor(text.partition("-")[0], "errors") == index_rows.cursor(text, "roadmap")
    for other in ("errors", index_rows.INBOX):
        with pytest.raises(Invalid) as caught:
            index_rows.cursor(text, other)
        assert caught.value.code == "message.other_cursor"


@given(st.text())
def test_no_query_is_more_than_words(query):
    db = sqlite3.connect(":memory:")
    db.execute("CREATE VIRTUAL TABLE words USING fts5(text, other)")
    try:
        expression = index_rows.expression(query)
    except Invalid as error:
        assert error.code == "message.bad_query"
        assert not any(char.isalnum() for char in query)
    else:
        db.execute("SELECT rowid FROM words WHERE words MATCH ?", (expression,)).fetchall()
    finally:
        db.close()


DRAFTS = st.builds(
    Draft, text=st.text(), kind=st.just("text"), priority=st.integers(1, 10), ack=st.booleans(),
    data=st.recursive(st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(), st.lists, max_leaves=5),
)  # fmt: skip


@given(DRAFTS)
def test_what_is_said_comes_back_as_it_was_sent(draft):
    try:
        payload = message.encode(message.written(ANN, draft, thread="m1", mentions=("b-1",)))
    except Invalid as error:  # half a character is no text
        assert error.code == "message.not_json"
        return
    found = message.decode(payload)
    assert (found.text, found.data, found.priority, found.ack) == (draft.text, draft.data, draft.priority, draft.ack)
    assert found.who == ANN


@given(st.binary(max_size=200))
def test_garbage_is_no_message(data):
    assert message.said("channel.x", data, 1, 0) is None
    assert message.said("channel.x.y", b"{}", 1, 0) is None


def test_what_is_too_large_says_what_to_do():
    with pytest.raises(TooLarge) as caught:
        message.encode(message.written(ANN, Draft(text="x" * 2_000_000)))
    assert "blob put" in caught.value.hint


@pytest.mark.parametrize("data", [b"", b"[]", b'{"name": "x", "max_messages": 0}', b"\xff"])
def test_settings_that_are_none_are_refused(data):
    with pytest.raises(KnotworkError) as caught:
        channel.decode(data)
    assert caught.value.code == "channel.malformed"


# -- inboxes: against the plainest model there is ------------------------------------------------------------------------


def letter(place: int, *, ack: bool, kind: str, priority: int) -> Said:
    envelope = Envelope(sender="a-1", handle="ann", project="p", owner="o", kind=kind, ack=ack, priority=priority)
    return Said("inbox", "b-1", place, 0, envelope, 100)


LETTERS = st.lists(
    st.tuples(st.booleans(), st.sampled_from(["x", "y"]), st.integers(1, 10)), min_size=1, max_size=12
).map(lambda found: [letter(3 * place + 1, ack=a, kind=k, priority=p) for place, (a, k, p) in enumerate(found)])
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("read"), st.sampled_from(["", "x", "y"]), st.integers(1, 5), st.booleans()),
        st.tuples(st.just("ack"), st.integers(0, 11), st.none(), st.none()),
        st.tuples(st.just("settle"), st.none(), st.none(), st.none()),
        st.tuples(st.just("back"), st.none(), st.none(), st.none()),
    ),
    max_size=20,
)  # fmt: skip


@given(LETTERS, STEPS)
def test_each_letter_is_shown_until_it_is_done_and_never_again(letters, steps):
    state, done, last, now_ns = InboxState(), set[int](), [], 10**9
    for step, one, limit, urgent in steps:
        now_ns += int(inbox_state.AGAIN_S * 1e9)  # what waits to be acknowledged is due again
        if step == "read":
            wish = Wish(kind=one, limit=limit, urgent=urgent)
            open_ = [each for each in letters if each.place not in done and one in ("", each.envelope.kind)]
            shown = inbox_state.picked(
                [each for each in letters if inbox_state.wanted(state, each, wish, now_ns)], wish, 10**6
            )
            expected = sorted(open_, key=lambda each: (-each.envelope.priority if urgent else 0, each.place))[:limit]
            assert shown == expected
            state = inbox_state.after_showing(inbox_state.settled(state), shown, now_ns)
            state, last = (
                inbox_state.starting(state, [each.place for each in letters if each.place > state.clear]),
                shown,
            )
            done |= {each.place for each in shown if not each.envelope.ack}
        elif step == "ack" and one < len(letters):
            state, last = inbox_state.after_ack(state, [letters[one].place]), []
            done.add(letters[one].place)
        elif step == "settle":
            state = inbox_state.settled(state)  # what was shown last can be taken back all the same
        elif step == "back":
            state = inbox_state.after_taking_back(state, [each.place for each in last])
            done -= {each.place for each in last if not each.envelope.ack}
            last = []
        assert {each.place for each in letters if state.is_done(each.place)} == done
        assert inbox_state.decode(inbox_state.encode(state)) == state


def test_an_answer_holds_what_fits_and_one_at_least():
    letters = [letter(place, ack=False, kind="x", priority=5) for place in range(1, 6)]
    assert len(inbox_state.picked(letters, Wish(), 250)) == 2
    assert len(inbox_state.picked(letters, Wish(), 1)) == 1
    assert inbox_state.picked([], Wish(), 1) == []


def test_what_fits_into_an_answer_is_one_at_least():
    assert fitting([3, 3, 3], lambda size: size, 6) == [3, 3]
    assert fitting([9, 1], lambda size: size, 6) == [9]
    assert fitting([], lambda size: size, 6) == []
