"""A definition means the same to whoever reads it: to the engine that was given it, and to those that load it later."""

from __future__ import annotations

import json

from hypothesis import given
from hypothesis import strategies as st

from knotwork.flow import definitions
from knotwork.flow.graph import graph

DO = {"capability": "do"}
NAMES = st.lists(
    st.sampled_from(["zebra", "mango", "apple", "kiwi", "fig", "lime"]), min_size=2, max_size=6, unique=True
)


def loaded(text: bytes):
    return graph(definitions.parsed(json.loads(text)))


@given(NAMES, st.data())
def test_steps_have_the_same_places_for_everybody(names, data):
    handled = data.draw(st.sampled_from(names))
    steps = {name: {**DO, "on_failure": "mend"} if name == handled else DO for name in names}
    workflow = definitions.parsed({"name": "w", "steps": {**steps, "mend": DO}, "max_parallel": 1})
    text = definitions.text_of(workflow)
    given_places = {name: box.place for name, box in graph(workflow).boxes.items()}
    assert {name: box.place for name, box in loaded(text).boxes.items()} == given_places
    assert list(loaded(text).boxes) == list(graph(workflow).boxes)
    assert definitions.text_of(definitions.parsed(json.loads(text))) == text


def test_another_order_is_another_definition():
    one, other = ({"name": "w", "steps": dict.fromkeys(names, DO)} for names in (("b", "a"), ("a", "b")))
    digests = {definitions.digest_of(definitions.text_of(definitions.parsed(found))) for found in (one, other)}
    assert len(digests) == 2
