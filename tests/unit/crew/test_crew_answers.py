"""What an agent's answer says beside its words: what it took, as we or its vendor count it, and the data in it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from knotwork.bus import codec
from knotwork.crew import answers, planner, records, synthesis
from knotwork.crew.budget import Spent
from knotwork.crew.plan import Part

CLAUDE = {
    "text": "done", "session": "s", "model": "claude-x", "usage": {"input_tokens": 12, "output_tokens": 7}, "turns": 2,
    "cost_usd": 0.0125,
}  # fmt: skip
OPENAI = {
    "text": "said", "model": "m-1", "finish": "stop",
    "usage": {"prompt_tokens": 3, "completion_tokens": 4, "total_tokens": 7},
}  # fmt: skip


@pytest.mark.parametrize(
    ("output", "used"),
    [
        ({"usage": {"tokens": 7, "cost": 0.25}}, Spent(7, 0.25)),
        (CLAUDE, Spent(19, 0.0125)),
        (OPENAI, Spent(7)),
        ({"usage": {"prompt_tokens": 3, "completion_tokens": 4}}, Spent(7)),
        ({"usage": {"tokens": 5, "input_tokens": 90}, "cost_usd": 2}, Spent(5, 2)),
        ({"usage": {"tokens": 10**30, "cost": 1e300}}, Spent(records.TOKENS_MAX, answers.COST_MAX)),
        ({"usage": {"tokens": -7, "cost": -1}}, Spent()),
        ({"usage": {"tokens": "many", "cost": True}, "cost_usd": "much"}, Spent()),
        ({"usage": 3, "cost_usd": 0.5}, Spent(0, 0.5)),
        ("text", Spent()),
        (None, Spent()),
    ],
)
def test_what_an_output_says_it_took(output, used):
    assert answers.took(codec.encode(output)) == used


def test_what_is_no_json_took_nothing():
    assert answers.took(b"{broken") == answers.took(b"\xff") == answers.took(b"[" * 5000) == Spent()


@given(st.recursive(st.none() | st.booleans() | st.floats(allow_nan=False, allow_infinity=False) | st.integers(-(2**63), 2**63) | st.text(max_size=3),
    lambda inner: st.dictionaries(st.sampled_from(["usage", "tokens", "cost", "total_tokens", "cost_usd"]), inner, max_size=3)))  # fmt: skip
def test_whatever_an_output_is_what_it_took_is_a_number_within_bounds(output):
    used = answers.took(codec.encode(output))
    assert type(used.tokens) is int and 0 <= used.tokens <= records.TOKENS_MAX and 0 <= used.cost <= answers.COST_MAX


def test_answers_of_ai_tools_are_joined_by_what_they_say():
    pieces = [
        synthesis.Piece(Part("a"), CLAUDE), synthesis.Piece(Part("b"), OPENAI),
        synthesis.Piece(Part("c"), OPENAI | {"text": '```json\n{"x": 1}\n```'}),
        synthesis.Piece(Part("d"), CLAUDE | {"text": '{"y": 2}', "structured": {"y": 2}}),
        synthesis.Piece(Part("e"), {"text": "mine", "pages": 3}),
    ]  # fmt: skip
    made = synthesis.merged(pieces)
    assert made.output == {"a": "done", "b": "said", "x": 1, "y": 2, "text": "mine", "pages": 3}
    assert made.conflicts == []


def test_a_planner_may_answer_with_data_of_its_own():
    parts = planner.read({"text": "a plan", "structured": {"parts": [{"id": "a"}]}, "model": "m"}, {"do"}, "do", 5)
    assert [(one.id, one.capability) for one in parts] == [("a", "do")]
