"""Does docs/workflows.md name every key and kind there is, and do its examples make sense?"""

from __future__ import annotations

import re
from pathlib import Path
from typing import get_args

import pytest
from jsonschema import Draft202012Validator

from knotwork.flow import source, texts
from knotwork.flow.model import AnyStep, Case, Children, Retry, Sticky, Workflow, json_schema

PAGE = (Path(__file__).parents[3] / "docs" / "workflows.md").read_text(encoding="utf-8")
MODELS = (Workflow, Case, Retry, Sticky, Children, *get_args(get_args(AnyStep)[0]))


EXAMPLES = re.findall(r"^```yaml\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize("text", EXAMPLES)
def test_examples_make_sense(text):
    assert source.check(text).flaws == ()


def test_the_json_schema_lets_the_examples_pass_and_tells_what_does_not():
    schema = json_schema()
    Draft202012Validator.check_schema(schema)
    judge = Draft202012Validator(schema)
    for text in EXAMPLES:
        assert [error.message for error in judge.iter_errors(texts.read(text, 1 << 20)[0])] == []
    steps = {
        "a": {"capability": "x", "timeout": "5m", "retry": {"delay": "1h30m"}},
        "b": {"kind": "sleep", "duration": 3},
    }
    assert judge.is_valid({"name": "w", "steps": steps})
    for wrong in (
        {"name": "w", "steps": {"a": {"kind": "map", "capability": "x", "order": True}}},
        {"name": "w", "steps": {"a": {"capability": "x", "timeout": "5 minutes"}}},
        {"name": "w", "steps": {"a": {"capability": "x", "timeout": -1}}},
        {"name": "w", "steps": {}},
        {"steps": steps},
    ):
        assert not judge.is_valid(wrong)


def test_every_key_and_kind_is_named():
    keys = {key for one in MODELS for key in one.model_fields}
    kinds = {get_args(one.model_fields["kind"].annotation)[0] for one in MODELS if "kind" in one.model_fields}
    assert {word for word in keys | kinds if f"`{word}`" not in PAGE} == set()
