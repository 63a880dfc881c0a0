"""Secrets are looked up before they are needed: which references there are, and which of them lead nowhere."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import Field

from knotwork.config import files, load, references
from knotwork.sdk import ConfigInvalid, PluginConfig, SecretRef


class Inner(PluginConfig):
    key: SecretRef | None = None


class Config(PluginConfig):
    key: SecretRef | None = None
    headers: dict[str, str | SecretRef] = Field(default={})
    inner: list[Inner] = Field(default=[])


def test_references_are_found_wherever_they_are():
    config = Config.model_validate(
        {
            "key": {"env": "A"},
            "headers": {"X-A": {"file": "f"}, "plain": "{env}"},
            "inner": [{}, {"key": {"cmd": ["c"]}}],
        }
    )
    found = dict(references.inside(config, ("executors", "a")))
    assert list(found) == [
        ("executors", "a", "key"), ("executors", "a", "headers", "X-A"), ("executors", "a", "inner", 1, "key"),
    ]  # fmt: skip
    assert found["executors", "a", "key"] == SecretRef(env="A")


@pytest.mark.parametrize(
    ("written", "content", "told"),
    [
        ('{ env = "A" }', "", ""),
        ('{ env = "EMPTY" }', "", "EMPTY holds no secret"),
        ('{ env = "NOT_SET" }', "", "NOT_SET holds no secret"),
        ('{ file = "key" }', "value\n", ""),
        ('{ file = "key" }', "\nsecond line\n", "the secret is empty"),
        ('{ file = "other" }', "value", "cannot be read"),
        ('{ file = "." }', "value", "cannot be read"),
        ('{ cmd = ["false"] }', "", ""),
    ],
)
def test_a_secret_that_cannot_be_had_is_a_problem_with_its_place(tmp_path, written, content, told):
    file = tmp_path / "knotwork.toml"
    file.write_text(f'[executors.a]\ntype = "x"\ninner = [{{}}, {{ key = {written} }}]\n')
    (tmp_path / "key").write_text(content)
    loaded = load.read(load.Sources((file,), None, {"A": "value", "EMPTY": ""}))
    classes = {"executors": {"x": Config}}
    if not told:
        assert load.check_instances(loaded, classes)
        return
    with pytest.raises(ConfigInvalid) as raised:
        load.check_instances(loaded, classes)
    (row,) = raised.value.detail["problems"]
    assert (row["code"], row["line"], row["key"]) == ("config.missing_secret", 3, "executors.a.inner[1].key")
    assert row["column"] > 1
    assert told in row["message"]
    assert row["hint"]


def test_what_is_not_started_needs_no_secret(tmp_path):
    file = tmp_path / "knotwork.toml"
    file.write_text('[executors.a]\ntype = "x"\nenabled = false\nkey = { env = "NOT_SET" }\n')
    loaded = load.read(load.Sources((file,), None, {}))
    assert load.check_instances(loaded, {"executors": {"x": Config}}) == {}


def test_credentials_of_the_node_are_looked_up_as_well():
    text = '[nats]\nmode = "join"\nurls = ["nats://h"]\nuser = "u"\npassword = { env = "NOT_SET" }\n'
    loaded = load.read(load.Sources(env={}), texts=(files.Text(Path("/nowhere/k.toml"), text),))
    with pytest.raises(ConfigInvalid, match=r"k\.toml:5:12: nats\.password: .* NOT_SET holds no secret"):
        load.check_instances(loaded, {})
