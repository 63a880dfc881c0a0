"""What expressions look at and give; and that whoever writes one can neither crash nor delay the one who reads it."""

from __future__ import annotations

import json
import sys
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from knotwork.flow import expressions
from knotwork.sdk.errors import Invalid


@pytest.mark.parametrize(
    ("text", "roots", "steps"),
    [
        ("input.x", {"input"}, set()),
        ("steps.a.output.x[0].y", {"steps"}, {"a"}),
        ('steps."a-b".output', {"steps"}, {"a-b"}),
        ("steps.a.output == steps.b.output && input", {"input", "steps"}, {"a", "b"}),
        ("steps", {"steps"}, {"*"}),
        ("steps.*.output", {"steps"}, {"*"}),
        ("steps.{x: a.output}", {"steps"}, {"*"}),
        ("steps.a[0].x", {"steps"}, {"*"}),
        ("keys(steps)", {"steps"}, {"*"}),
        ("(steps).a.output", {"steps"}, {"a"}),
        ("{a: input.x, b: [steps.c.state, run.id]}", {"input", "steps", "run"}, {"c"}),
        ("input.l[?x == `1`].steps", {"input"}, set()),
        ("input.l[*].{a: b, c: steps.d}", {"input"}, set()),
        ("input | steps.a", {"input"}, set()),
        ("sort_by(input.l, &steps.a)", {"input"}, set()),
        ("map(&x, steps.a.output)", {"steps"}, {"a"}),
        ("input[]", {"input"}, set()),
        ("input[1:2]", {"input"}, set()),
        ("!input", {"input"}, set()),
        ("'steps'", set(), set()),
        ("`1`", set(), set()),
        ("@", {"@"}, set()),
        ("@.steps.a", {"@"}, set()),
        ("length(@)", {"@"}, set()),
        ("*.a.output", {"@"}, set()),
        ("[0]", {"@"}, set()),
        ("[?x]", {"@"}, set()),
        ("[*]", {"@"}, set()),
    ],
)
def test_what_an_expression_looks_at(text, roots, steps):
    assert expressions.names(text) == (roots, steps)


HOSTILE = [
    "[" * 4096, "(" * 4096, "((" * 1000 + "a" + "))" * 1000, "!" * 4000 + "a", "a." * 2047 + "a", "a|" * 2047 + "a",
    "a||" * 1300 + "a", "a&&" * 1300 + "a", "a" + "[]" * 2000, "a" + "[*]" * 1300, "a[?" * 1300, "a[?b" * 40 + "]" * 40,
    "`" + "[" * 2000 + "]" * 2000 + "`", "`" + '{"a":' * 500 + "1" + "}" * 500 + "`", "&" * 4000, '"' * 4000, "'" * 4001,
    "[@,@]|" * 600 + "@", "[@,@][]|" * 400 + "@", "|".join(["[input,input]"] * 300), "{a:@,b:@}|" * 300 + "@",
    "|".join(["to_string([@])"] * 90), "to_string([" * 40 + "input" + "])" * 40, "input[9999999999999999999999]",
    "input[::0]", "input[99999999999999999999:]", "join('x', [" + ",".join(["input"] * 500) + "])", "\ud800", "\0", '`"\\ud800"`',
    "map(&[@,@], " * 30 + "input" + ")" * 30, "`1e99999`", "`" + "9" * 4000 + "`", "to_number('" + "9" * 4000 + "')", "abs('x')",
    "ceil(to_number('inf'))", "floor(to_number('nan'))", "avg([])", "max_by(input, &x)", "sort(input)", "merge(input, input)",
    "unknown(input)", "length()", "contains(`5`, `5`)", "sum(input)", "reverse(`5`)",
]  # fmt: skip


@pytest.mark.parametrize("text", HOSTILE, ids=range(len(HOSTILE)))
@pytest.mark.parametrize("value", [{"input": {"x": 1}}, {"input": ["x"] * 50}], ids=["table", "list"])
def test_a_hostile_expression_is_refused_or_bounded(text, value):
    began_s = time.process_time()
    try:
        expressions.names(text)
        given = expressions.as_json(expressions.evaluate(text, value))
        assert len(given) < 1_000_000
    except Invalid as error:
        assert error.code.startswith("flow.")
        assert len(error.message) < 1000
    assert time.process_time() - began_s < 60  # what is not bounded takes for ever


def test_what_cannot_be_read_says_why():
    for text, told in (
        ("a..b", "no expression"),
        ("(" * 4000, "nested too deeply"),
        ("[@,@]|" * 20 + "@", "repeats"),
        ("", "cannot be empty"),
    ):
        with pytest.raises(Invalid, match=told):
            expressions.compiled(text)
    assert expressions.evaluate(" || ".join(f"input == '{one}'" for one in range(80)), {"input": "79"}) is True


def test_what_becomes_too_large_is_refused():
    value = {"input": ["x" * 4000] * 20_000}
    with pytest.raises(Invalid) as caught:
        expressions.evaluate("[input, input]", value)
    assert caught.value.code == "flow.too_large"
    assert expressions.evaluate("input", value) is value["input"], "what is only passed on is not measured"
    with pytest.raises(Invalid):
        expressions.evaluate("input[].{" + "k" * 4000 + ": @}", {"input": [1] * 20_000})
    with pytest.raises(Invalid):
        expressions.filled("{{ input }}" * 1000, {"input": "x" * 100_000})


def test_templates():
    assert expressions.filled("a {{ x }}{{y}} }} {{ z", {"x": "é", "y": {"k": [None]}}) == 'a é{"k":[null]} }} {{ z'
    assert expressions.holes("{{a}}{{ b }}{{") == ["a", "b"]
    began_s = time.process_time()
    assert expressions.holes("{{" * 8192) == []
    assert time.process_time() - began_s < 60  # likewise


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from("abx"), inner, max_size=3), max_leaves=8,
)  # fmt: skip
WORDS = st.lists(
    st.sampled_from(
        ["a", "b", "x", ".", "[", "]", "*", "[]", "[?", "`1`", "'s'", "(", ")", "{", "}", ":", ",", "|", "||", "&&", "!", "@", "&",
         "==", "<", "length(", "sort_by(", "to_string(", "map(", "sum(", "steps", "input", "0", "-1", '"', "\ud800", "é"]
    ),
    max_size=14,
).map("".join)  # fmt: skip


@given(WORDS | st.text(max_size=30), JSON)
def test_any_text_on_any_value_gives_json_or_is_refused(text, value):
    try:
        expressions.names(text)
        json.loads(expressions.as_json(expressions.evaluate(text, {"input": value, "a": value, "steps": {"x": value}})))
    except Invalid as error:
        assert error.code.startswith("flow.")


def test_the_same_expression_is_understood_however_deep_the_stack_is():
    text = "(" * 90 + "input" + ")" * 90

    def down(levels: int) -> object:
        return expressions.compiled.__wrapped__(text) if levels == 0 else down(levels - 1)

    assert down(0) == down(sys.getrecursionlimit() // 4)
