"""Does the right prompt come out of every input?"""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from knotwork_plugins.executors.prompting import prompt_of

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=10,
)


@pytest.mark.parametrize(
    ("given_", "template", "prompt"),
    [
        ("hello", "", "hello"),
        ({"prompt": "hello", "x": 1}, "", "hello"),
        ({"x": "ü"}, "", '{"x": "ü"}'),
        ([1, None], "", "[1, null]"),
        (None, "", "null"),
        ("hello", "Say {prompt}!", "Say hello!"),
        ({"prompt": "p", "a": {"b": 2}}, "{input.a.b} {input.a} {input.none.b}.", '2 {"b": 2} .'),
        ("{prompt} {input.x}", "<{prompt}>", "<{prompt} {input.x}>"),
        ("x", 'keep {this} and {"json": 1}', 'keep {this} and {"json": 1}'),
        ("lone \ud800", "", "lone ?"),
    ],
)
def test_prompts(given_: Any, template: str, prompt: str) -> None:
    assert prompt_of(given_, template) == prompt


@given(JSON, st.text())
def test_any_input_gives_a_text_that_can_be_sent(given_: Any, template: str) -> None:
    prompt_of(given_, template).encode("utf-8")
