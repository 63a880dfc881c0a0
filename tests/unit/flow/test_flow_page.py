"""Does docs/workflows.md name every key and kind there is, and do its examples make sense?"""

from __future__ import annotations

import re
from pathlib import Path
from typing import get_args

import pytest

from knotwork.flow import source
from knotwork.flow.model import AnyStep, Case, Children, Retry, Sticky, Workflow

PAGE = (Path(__file__).parents[3] / "docs" / "workflows.md").read_text(encoding="utf-8")
MODELS = (Workflow, Case, Retry, Sticky, Children, *get_args(get_args(AnyStep)[0]))


@pytest.mark.parametrize("text", re.findall(r"^```yaml\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL))
def test_examples_make_sense(text):
    assert source.check(text).flaws == ()


def test_every_key_and_kind_is_named():
    keys = {key for one in MODELS for key in one.model_fields}
    kinds = {get_args(one.model_fields["kind"].annotation)[0] for one in MODELS if "kind" in one.model_fields}
    assert {word for word in keys | kinds if f"`{word}`" not in PAGE} == set()
