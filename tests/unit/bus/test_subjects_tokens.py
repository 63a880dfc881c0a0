"""No text from outside can make a subject say more than it should."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from knotwork.bus import patterns, subjects
from knotwork.sdk.errors import Invalid

TOKEN = st.from_regex(r"[a-z0-9][a-z0-9_-]{0,63}", fullmatch=True)
ANY = st.one_of(
    st.text(max_size=80),
    TOKEN,
    st.sampled_from(["", ">", "*", "a.b", "a b", "a\r\nPUB x", "é", "a" * 65, "A", "-a", "a\n"]),
)
BUILDERS = {
    "agent": (subjects.agent, r"agent\.{t}\.{t}"),
    "agents_of": (lambda a, b: patterns.agents_of(a), r"agent\.{t}\.\*"),
    "cancel": (subjects.cancel, r"cancel\.{t}\.{t}"),
    "cancels_of": (lambda a, b: patterns.cancels_of(a), r"cancel\.{t}\.\*"),
    "op": (subjects.op, r"op\.[a-z]+\.[a-z_]+(\.{t})?"),
    "op_cancel": (lambda a, b: subjects.op_cancel(a), r"op\.cancel\.{t}"),
    "telemetry": (lambda a, b: subjects.telemetry(a), r"telemetry(\.[a-z0-9_-]+){1,8}"),
}


@pytest.mark.parametrize("name", BUILDERS)
@given(ANY, ANY)
def test_a_subject_keeps_its_shape_or_is_refused(name, one, two):
    build, shape = BUILDERS[name]
    try:
        subject = build(one, two)
    except Invalid as error:
        assert error.code.startswith("request.bad_")
        assert len(error.message) < 300
        return
    assert re.fullmatch(shape.replace("{t}", "[a-z0-9][a-z0-9_-]{0,63}"), subject, re.ASCII)


@given(TOKEN, TOKEN)
def test_tokens_are_taken_as_they_are(one, two):
    assert subjects.agent(one, two) == f"agent.{one}.{two}"
    assert subjects.is_token(one)


@pytest.mark.parametrize("odd", [None, 1, b"a", ["a"], {"a": 1}, 1.5])
def test_what_is_not_text_is_refused(odd):
    assert not subjects.is_token(odd)
    with pytest.raises(Invalid):
        subjects.token(odd, "node")


@pytest.mark.parametrize(
    "reply", ["", "$JS.API.STREAM.PURGE.KV_NODES", "agent.a.b", "op.node.stop", ">", "*", "cancel.a.b", "$KV.NODES.a"]
)
def test_an_answer_never_goes_where_work_is_done(reply):
    assert not subjects.may_answer(reply)


@pytest.mark.parametrize("reply", ["_INBOX.abc", "_NODE.1234.5", "_R_.x"])
def test_an_answer_goes_to_inboxes(reply):
    assert subjects.may_answer(reply)
