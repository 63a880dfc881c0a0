"""Does docs/executors.md name every option, and are its examples valid?"""

import re
import tomllib
from pathlib import Path
from typing import Any

import pytest

from knotwork.sdk import Factory
from knotwork_plugins.executors import rehearsal
from knotwork_plugins.executors.http_call import plugin as http_call
from knotwork_plugins.executors.process import plugin as process
from knotwork_plugins.executors.python_function import plugin as python_function

PAGE = (Path(__file__).parents[3] / "docs" / "executors.md").read_text(encoding="utf-8")
FACTORIES = {m.FACTORY.name: m.FACTORY for m in (process, python_function, http_call, rehearsal)}
SHARED = {"type", "capabilities", "tags", "boundaries", "concurrency", "timeout_s"}
EXAMPLES = [
    table
    for text in re.findall(r"```toml\n(.*?)```", PAGE, re.DOTALL)
    for table in tomllib.loads(text)["executors"].values()
]


def section(name: str) -> str:
    return PAGE.split(f"## `{name}`")[1].split("\n## `")[0]


@pytest.mark.parametrize("factory", FACTORIES.values(), ids=FACTORIES)
def test_every_option_has_its_row(factory: Factory[Any]):
    rows = re.findall(r"^\| `(\w+)` \|", section(factory.name), re.MULTILINE)
    wanted = set(factory.config.model_fields)
    assert wanted <= set(rows)
    if factory.name == "rehearsal":
        assert set(rehearsal.Step.model_fields) <= set(rows)


@pytest.mark.parametrize("table", EXAMPLES, ids=lambda table: table["type"])
def test_the_examples_are_valid(table: dict[str, Any]):
    own = {key: value for key, value in table.items() if key not in SHARED}
    FACTORIES[table["type"]].config.model_validate(own)


def test_every_type_has_an_example():
    assert {table["type"] for table in EXAMPLES} == set(FACTORIES)


@pytest.mark.parametrize("factory", FACTORIES.values(), ids=FACTORIES)
def test_no_option_takes_the_name_of_a_shared_key(factory: Factory[Any]):
    shared = SHARED | {"enabled", "hosted", "memory_mb", "on_start_error", "description", "projects", "queue_max"}
    assert not set(factory.config.model_fields) & {*shared, "input_schema", "output_schema"}
