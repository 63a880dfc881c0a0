"""[memory] and [memories]: what needs no table, what is refused with its place, and what changes while a node runs."""

from __future__ import annotations

from pathlib import Path

import pytest

from knotwork.config import diff, load
from knotwork.config.contradictions import contradictions
from knotwork.config.instances import Known, implied_memories
from knotwork.config.model import Config
from knotwork.memory.settings import Settings
from knotwork.sdk import ConfigInvalid, PluginConfig


def test_the_bundled_ones_in_use_need_no_table():
    assert implied_memories(Config()) == ("kv",)
    found = Config.model_validate(
        {"memory": {"private": "sqlite", "team": "mine"}, "memories": {"mine": {"type": "kv"}}}
    )
    assert implied_memories(found) == ("sqlite", "kv")
    own = Config.model_validate({"memories": {"kv": {"type": "./mine.py"}}})
    assert implied_memories(own) == ()


@pytest.mark.parametrize(
    ("data", "path"),
    [
        ({"memory": {"private": "kw"}}, ("memory", "private")),
        ({"memory": {"public": "mine"}, "memories": {"other": {}}}, ("memory", "public")),
        ({"memory": {"embeddings": "kv"}}, ("memory", "embeddings")),
        ({"memory": {"team": "mine"}, "memories": {"mine": {"enabled": False}}}, ("memory", "team")),
    ],
)
def test_a_scope_without_a_place_is_told(data: dict, path: tuple):
    found = [one for one in contradictions(data) if one.path[0] == "memory"]
    assert [one.path for one in found] == [path]
    assert not [one for one in contradictions({"memory": {"private": "sqlite"}}) if one.path[0] == "memory"]


ABLE = {("memories", "keeper"): ["stores"], ("memories", "model"): ["embeds"], ("memories", "own"): []}
TABLES = '[memories.k]\ntype = "keeper"\n[memories.m]\ntype = "model"\n[memories.own]\n'


@pytest.mark.parametrize(
    ("memory", "told"),
    [
        ('embeddings = "k"', "2:14: [memories.k] keeps memories and makes no vectors"),
        ('team = "m"', "2:8: [memories.m] makes vectors and keeps nothing"),
        ('team = "k"\nembeddings = "m"', ""),
        ('team = "own"\nembeddings = "own"', ""),
    ],
    ids=["no vectors", "no keeper", "both fit", "not said"],
)
def test_a_plugin_is_named_for_what_it_can_do(tmp_path: Path, memory: str, told: str):
    file = tmp_path / "knotwork.toml"
    file.write_text(f"[memory]\n{memory}\n{TABLES}")
    known = Known({"memories": dict.fromkeys(("keeper", "model", "own"), PluginConfig)}, able=ABLE)  # type: ignore[arg-type]
    found = load.read(load.Sources((file,), None, {}, ()), find_types=lambda _data, _folder: known)
    said = []
    try:
        assert len(load.check_instances(found, known)) == 3
    except ConfigInvalid as error:
        said = [f"{one['line']}:{one['column']}: {one['message']}" for one in error.detail["problems"]]
    assert said == [told] * bool(told)


def test_memory_changes_while_the_node_runs():
    old = Config()
    new = Config.model_validate({"memory": {"private": "sqlite", "secrets": "redact", "undo_s": 60.0}})
    plan = diff.plan(old, new)
    assert set(plan.live) == {"memory.private", "memory.secrets", "memory.undo_s"}
    assert not plan.refused


def test_the_defaults_of_the_table_are_those_of_the_room():
    table, settings = Config().memory, Settings()
    assert dict(settings.kept) == {scope: getattr(table, scope) for scope in ("private", "personal", "team", "public")}
    for key in ("duplicates", "secrets", "recent_s", "undo_s", "versions_max", "embeddings"):
        assert getattr(settings, key) == getattr(table, key), key


@pytest.mark.parametrize(
    "table",
    [
        {"secrets": "maybe"},
        {"duplicates": True},
        {"versions_max": -1},
        {"recent_s": 0},
        {"private": "No Name"},
        {"x": 1},
    ],
)
def test_nonsense_is_refused(table: dict):
    with pytest.raises(ValueError, match="memory"):
        Config.model_validate({"memory": table})


def test_settings_follow_what_is_in_force(tmp_path: Path):
    from types import SimpleNamespace

    from knotwork.host.memory_around import MemoryAround
    from knotwork.sdk.errors import Unavailable

    def loaded(**table: object) -> SimpleNamespace:
        return SimpleNamespace(config=Config.model_validate({"memory": table}), folder=tmp_path)

    world = SimpleNamespace(loaded=loaded(), slots=SimpleNamespace(get=lambda _kind, _name: None))
    around = MemoryAround(world, tmp_path / "exports")  # type: ignore[arg-type]
    assert around.settings().folders == (tmp_path / "exports",)
    assert around.settings() is around.settings()
    world.loaded = loaded(folders=["shared", "/srv/memory"], private="sqlite")
    assert around.settings().folders == (tmp_path / "shared", Path("/srv/memory"))
    assert around.settings().kept["private"] == "sqlite"
    with pytest.raises(Unavailable) as refused:
        around.slot("sqlite")
    assert refused.value.code == "memory.no_store"
