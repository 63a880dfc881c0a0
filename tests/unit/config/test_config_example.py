"""What is generated from the models: example, first file, JSON Schema, and the view of what is in force."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Literal

import jsonschema
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, Field

from knotwork.config import example, load, schema, secrets, show, size
from knotwork.config import format as formatting
from knotwork.config.files import Text
from knotwork.config.instance_tables import SECTIONS
from knotwork.config.loaded import Loaded, effective
from knotwork.config.model import BoundaryTable, Config, ProjectTable
from knotwork.sdk import ConfigInvalid, PluginConfig, SecretRef


class Inner(BaseModel):
    depth: int = Field(default=1, description="how deep")


class RunConfig(PluginConfig):
    """Runs a command."""

    command: list[str] = Field(description="what to run")
    way: Literal["a", "b"] = Field(default="a", description="which way")
    key: SecretRef | None = Field(default=None, description="a key")
    folder: Path = Field(default=Path("/x"), description="where")
    inner: Inner = Field(default_factory=Inner, description="more of it")
    settings: dict[str, str] = Field(default_factory=dict, description="a key that is called so")


class SinkConfig(PluginConfig):
    """Writes lines."""

    path: str = "out.jsonl"


KINDS = {"executors": {"run": RunConfig}, "telemetry": {"sink": SinkConfig}}


def read(text: str, **more) -> Loaded:
    return load.read(load.Sources(env={}, **more), texts=(Text(Path("k.toml"), text),))


def test_the_example_is_the_default_configuration_and_tidy():
    text = example.example_text(KINDS)
    assert read(text).config == Config()
    assert formatting.fmt(text) == text
    assert text.startswith("#:schema ")


def test_every_option_of_the_example_exists_and_every_option_is_in_it():
    text = example.example_text(KINDS)
    all_on = re.sub(r"^#(?=[a-z\[\"])", "", text, flags=re.MULTILINE)
    tables = tomllib.loads(all_on)
    with pytest.raises(ConfigInvalid) as caught:
        read(all_on)
    # each option stands there once, whatever goes with it: only those that do not go together may be refused
    assert {problem["code"] for problem in caught.value.detail["problems"]} == {"config.contradiction"}
    for name, info in Config.model_fields.items():
        table = tables[name]
        kind = next((kind for kind, section in SECTIONS.items() if section == name), None)
        if kind is not None or name in ("projects", "boundaries"):
            table = next(iter(table.values()))
            own = BoundaryTable.model_fields if name == "boundaries" else ProjectTable.model_fields
            keys = set(Config.KIND_TABLES[kind].common_keys() if kind is not None else own)
        else:
            keys = set(info.annotation.model_fields)  # type: ignore[union-attr]
        assert set(table) == keys, name
    assert set(tables["executors"]["run"]) == set(RunConfig.model_fields)
    assert tables["telemetry"]["sink"] == {"path": "out.jsonl"}
    assert "# what to run (required)\n#command = " in text


def test_every_option_is_explained():
    for line, before in zip(example.example_text().splitlines()[1:], example.example_text().splitlines(), strict=False):
        if re.match(r"#?[a-z_]+ = ", line):
            assert before.startswith("# "), line


def test_the_first_file_is_short_commented_and_valid():
    text = example.init_text()
    assert len(text.splitlines()) <= 25
    assert sum(line.startswith("#") for line in text.splitlines()) >= 5
    config = read(text).config
    assert list(config.executors) == ["shout"]
    assert formatting.fmt(text) == text
    named = read(example.init_text(name="edge", agent={"type": "http", "url": "http://127.0.0.1"})).config
    assert (named.node.name, named.executors["shout"].settings) == ("edge", {"url": "http://127.0.0.1"})
    assert len(example.init_text(name="edge").splitlines()) <= 25


def test_the_schema_is_one_and_agrees_with_the_loader():
    made = schema.json_schema(KINDS)
    jsonschema.Draft202012Validator.check_schema(made)
    validator = jsonschema.Draft202012Validator(made)
    good = [
        example.example_text(KINDS),
        example.init_text(agent={"type": "run", "command": ["x"]}),
        "[executors.run]\ncommand = ['a']\nconcurrency = 2\n[executors.b]\ntype = 'run'\ncommand = []\nkey = { env = 'X' }\n",
        "[executors.mine]\ntype = './mine.py'\nanything = 1\n[nats]\nmax_payload = '8MB'\n[telemetry.sink]\n",
        "[executors.run]\ntype = './run.py'\nanything = 1\n",
    ]
    for text in good:
        read(text)
        validator.validate(tomllib.loads(text))
    bad = [
        "[web]\nprot = 1\n",
        "[web]\nport = '1'\n",
        "[executor.a]\n",
        "[executors.A]\ntype = 'run'\ncommand = []\n",
        "[executors.run]\n",
        "[executors.run]\ncommand = ['a']\ncomand = 1\n",
        "[executors.run]\ncommand = ['a']\nconcurrency = 0\n",
        "[executors.b]\ntype = 'unknown'\n",
        "[executors.b]\ncommand = ['a']\n",
        "[executors.run]\ntype = 'sink'\ncommand = ['a']\n",
        "[executors.run]\ncommand = ['a']\ninner = { dpth = 'x', depth = 'y' }\n",
        "[nats]\nmax_payload = 'eight'\n",
    ]
    for text in bad:
        assert not validator.is_valid(tomllib.loads(text)), text
        with pytest.raises(ConfigInvalid):
            load.check_instances(read(text), KINDS)


def test_the_schema_without_plugins_is_one_too():
    made = schema.json_schema()
    jsonschema.Draft202012Validator.check_schema(made)
    assert made["$schema"] == "https://json-schema.org/draft/2020-12/schema"
    assert made["properties"]["web"]


def test_what_is_in_force_is_shown_with_its_origin():
    text = (
        "[web]\nport = 3\n[node]\nlabels = { a = 'b' }\n"
        "[executors.a]\ntype = 'run'\nkey = { env = 'SHOW_KEY' }\ninput_schema = { type = 'object' }\nnote = 'show-canary'\n"
    )
    loaded = read(text, sets=("node.labels.z=1",))
    secrets.resolve(SecretRef(env="SHOW_KEY"), env={"SHOW_KEY": "show-canary"})
    shown = show.toml(loaded, origin=True)
    assert "port = 3  # k.toml:2\n" in shown
    assert 'z = "1"  # --set\n' in shown
    assert "drain_s = 30.0  # default\n" in shown
    assert 'key = { env = "SHOW_KEY" }  # k.toml:7\n' in shown
    assert "show-canary" not in shown
    assert secrets.REDACTED in shown
    brief = show.toml(loaded, defaults=False)
    assert "drain_s" not in brief
    assert tomllib.loads(brief)["executors"]["a"]["input_schema"] == {"type": "object"}
    assert show.toml(read(""), defaults=False) == ""


def test_what_is_shown_can_be_read_again():
    loaded = read(
        "[web]\nport = 3\n[projects.lab]\n[executors.a]\ntype = 'run'\ncommand = ['x', \"y'\"]\nsettings = { a = 'b' }\n"
    )
    again = read(show.toml(loaded))
    assert again.config == loaded.config
    assert effective(again.config) == effective(loaded.config)


@given(st.integers(0, size.MAX_BYTES))
def test_a_size_is_read_as_it_is_written(number):
    assert size.parse(size.render(number)) == number


@pytest.mark.parametrize(
    ("text", "expected"),
    [("1k", 1000), ("1KB", 1024), ("2 MiB", 2 * 1024**2), ("3g", 3 * 10**9), ("0", 0), ("7B", 7), (" 5 ", 5), (12, 12)],
)
def test_sizes(text, expected):
    assert size.parse(text) == expected


@pytest.mark.parametrize("text", ["", "GB", "-1", "1.5GB", "1 XB", True, -1, 2.0, None, "9" * 19 + "TB", "1" * 5000])
def test_what_is_no_size(text):
    with pytest.raises(ValueError, match="size"):
        size.parse(text)
