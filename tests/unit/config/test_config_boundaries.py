"""[boundaries]: four are ready, what is written is laid over them, and what makes no sense is told with its place."""

from __future__ import annotations

from pathlib import Path

import pytest

from knotwork.config import example, load
from knotwork.config.files import Text
from knotwork.config.instances import implied_routers
from knotwork.config.model import READY_BOUNDARIES, Config
from knotwork.sdk import ConfigInvalid


def read(text: str):
    return load.read(load.Sources(env={}), texts=(Text(Path("k.toml"), text),))


def problems(text: str) -> dict[str, dict]:
    with pytest.raises(ConfigInvalid) as caught:
        read(text)
    return {problem["key"]: problem for problem in caught.value.detail["problems"]}


def test_four_are_ready():
    found = Config().boundaries
    assert set(found) == {"corporate", "corporate-adjacent", "personal", "open-source"}
    assert (found["corporate"].allow, found["personal"].prefer) == (("copilot",), ("claude-code",))
    assert found["corporate-adjacent"].prefer == ("copilot",)
    assert found["open-source"].model_dump(exclude_defaults=True).keys() == {"description"}


def test_written_tables_are_laid_over_the_ready_ones_key_by_key():
    found = read('[boundaries.corporate]\npaths = ["/srv"]\n[boundaries.lab]\nspin_up = false\n')
    assert found.config.boundaries["corporate"].allow == ("copilot",)
    assert found.config.boundaries["corporate"].paths == ("/srv",)
    assert found.config.boundaries["lab"].spin_up is False
    assert len(found.config.boundaries) == 5
    assert found.origin["boundaries.corporate.paths"] == "k.toml:2"
    assert found.origin["boundaries.corporate.allow"] == "default"
    assert read("[boundaries.corporate]\nallow = []\n").config.boundaries["corporate"].allow == ()
    assert READY_BOUNDARIES["corporate"].keys() == {"description", "allow"}  # not changed by that


def test_the_example_shows_them_as_they_are():
    assert read(example.example_text({})).config == Config()


def test_mistakes_are_told_with_their_place():
    found = problems(
        '[boundaries.lab]\nlabels = ["team"]\nfallback_after_s = -1\nprefers = ["x"]\n'
        "[boundaries.Bad]\n[boundaries.none]\n"
    )
    assert "key=pattern" in found["boundaries.lab.labels[0]"]["message"]
    assert found["boundaries.lab.fallback_after_s"]["line"] == 3
    assert found["boundaries.lab.prefers"]["hint"] == 'Did you mean "prefer"?'
    assert found["boundaries.Bad"]["code"] == "config.bad_name"
    assert "any agent may do it" in found["boundaries.none"]["message"]


def test_lists_that_cannot_be_meant_together():
    found = problems('[boundaries.lab]\nfallback = ["x"]\n[boundaries.corporate]\nforbid = ["copilot"]\n')
    assert "somebody to fall back from" in found["boundaries.lab.fallback"]["message"]
    assert "allow and forbid of copilot" in found["boundaries.corporate.forbid"]["message"]
    read('[boundaries.lab]\nallow = ["x"]\nfallback = ["y"]\n')


def test_an_agent_accepts_only_boundaries_that_there_are():
    found = problems('[executors.a]\ntype = "process"\nboundaries = ["personal", "persnal", "lab"]\n')
    assert found["executors.a.boundaries[1]"]["hint"] == 'Did you mean "personal"?'
    assert found["executors.a.boundaries[2]"]["code"] == "config.unknown_id"
    read('[boundaries.lab]\n[executors.a]\ntype = "process"\nboundaries = ["lab", "corporate"]\n')


def test_a_target_is_for_boundaries_that_there_are():
    found = problems('[targets.a]\ntype = "local"\nboundaries = ["personal", "persnal", "none"]\n')
    assert [*found] == ["targets.a.boundaries[1]"]
    assert found["targets.a.boundaries[1]"]["hint"] == 'Did you mean "personal"?'


def test_bundled_routers_need_no_table():
    assert Config().routing.routers == ("policy", "capability")
    found = read('[routing]\nrouters = ["sticky", "round-robin", "policy", "capability"]\n[routers.policy]\n').config
    assert implied_routers(found) == ("sticky", "round-robin", "capability")
    assert problems('[routing]\nrouters = ["stiky"]\n')["routing.routers[0]"]["hint"] == 'Did you mean "sticky"?'
