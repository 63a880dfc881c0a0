"""Does the page about agents tell the truth: do its tables load, and is every option on it?"""

import re
import tomllib
from pathlib import Path
from typing import Any

import pytest

from knotwork.sdk import Factory
from knotwork_plugins.executors.agent_cli import claude_code, codex, copilot, gemini
from knotwork_plugins.executors.mcp_tool import plugin as mcp_tool
from knotwork_plugins.executors.openai_chat import plugin as openai_chat

PAGE = (Path(__file__).parents[3] / "docs" / "agents.md").read_text(encoding="utf-8")
MODULES = (claude_code, codex, copilot, gemini, mcp_tool, openai_chat)
FACTORIES: dict[str, Factory[Any]] = {module.FACTORY.name: module.FACTORY for module in MODULES}
OF_EVERY_AGENT = {"type", "description", "capabilities", "tags", "boundaries", "concurrency", "queue_max", "timeout_s"}
BLOCKS = re.findall(r"```toml\n(.*?)```", PAGE, re.DOTALL)


@pytest.mark.parametrize("block", BLOCKS)
def test_the_examples_load(block: str) -> None:
    for table in tomllib.loads(block)["executors"].values():
        own = {key: value for key, value in table.items() if key not in OF_EVERY_AGENT}
        FACTORIES[table["type"]].config.model_validate(own)


def test_every_type_has_an_example() -> None:
    shown = {table["type"] for block in BLOCKS for table in tomllib.loads(block)["executors"].values()}
    assert shown == set(FACTORIES)


@pytest.mark.parametrize("name", list(FACTORIES))
def test_every_option_is_told_and_described(name: str) -> None:
    for option, field in FACTORIES[name].config.model_fields.items():
        assert re.search(rf"^\|.*`{option}`.*\|.*\|.*\|$", PAGE, re.MULTILINE), option
        assert field.description, option


@pytest.mark.parametrize("name", list(FACTORIES))
def test_no_option_is_taken_by_the_table_of_every_agent(name: str) -> None:
    taken = OF_EVERY_AGENT | {
        "enabled",
        "hosted",
        "memory_mb",
        "on_start_error",
        "projects",
        "input_schema",
        "output_schema",
    }
    assert not taken & FACTORIES[name].config.model_fields.keys()
