"""Differences obey their laws; plans say what restarts, what is opened anew and what is refused."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from knotwork.config import diff, model
from knotwork.config.diff import RESTART_KEYS, Difference, difference, plan, same
from knotwork.config.model import Config
from knotwork.config.schema import json_schema

VALUES = st.recursive(
    st.one_of(st.integers(-2, 2), st.booleans(), st.floats(), st.text(max_size=2), st.none()),
    lambda inner: st.one_of(st.lists(inner, max_size=2), st.dictionaries(st.sampled_from("ab"), inner, max_size=2)),
    max_leaves=4,
)
MAPPINGS = st.dictionaries(st.sampled_from("abcde"), VALUES)


@given(MAPPINGS, MAPPINGS)
def test_a_difference_leads_from_one_to_the_other_and_back(a, b):
    found, back = difference(a, b), difference(b, a)
    kept = {key: value for key, value in a.items() if key not in found.removed}
    assert same({**kept, **{key: new for key, (_, new) in found.changed.items()}, **found.added}, b)
    assert same(back.added, found.removed)
    assert same(back.removed, found.added)
    assert same(back.changed, {key: (new, old) for key, (old, new) in found.changed.items()})


@given(MAPPINGS)
def test_nothing_differs_from_itself(a):
    assert not difference(a, a)
    assert difference(a, {}).removed.keys() == a.keys()


@given(MAPPINGS, MAPPINGS)
def test_the_three_parts_do_not_overlap(a, b):
    found = difference(a, b)
    parts = [set(found.added), set(found.changed), set(found.removed)]
    assert sum(map(len, parts)) == len(set().union(*parts))
    assert bool(found) == (not same(a, b))


def test_types_matter():
    assert difference({"a": 1}, {"a": True})
    assert difference({"a": 1}, {"a": 1.0})
    assert not difference({"a": float("nan")}, {"a": float("nan")})


def made(**tables) -> Config:
    return Config.model_validate(tables)


def test_a_plan_of_nothing_is_empty():
    assert not plan(Config(), made(node={"drain_s": 30}))
    assert list(plan(Config(), Config()).lines()) == []


def test_instances_added_changed_removed_and_switched_off():
    old = made(executors={"a": {"x": 1}, "b": {"x": 1}, "c": {}, "d": {}, "e": {}}, telemetry={"log": {}})
    new = made(
        executors={"a": {"x": 2}, "b": {"x": 1, "concurrency": 2}, "c": {"enabled": False}, "e": {}, "f": {}},
        telemetry={"log": {}},
    )
    found = plan(old, new)
    executors = found.instances["executors"]
    assert (set(executors.added), set(executors.changed), set(executors.removed)) == ({"f"}, {"a", "b"}, {"c", "d"})
    assert found.reopen["executors"] == {"a"}
    assert not found.instances["telemetry"]
    assert sorted(found.lines()) == [
        "+ executors.f", "- executors.c", "- executors.d", "~ executors.a (opened anew)", "~ executors.b",
    ]  # fmt: skip


@pytest.mark.parametrize(
    "change",
    [{"type": "y"}, {"hosted": True}, {"memory_mb": 5}, {"anything": {"deep": [1]}}, {"on_start_error": "fail"}],
)
def test_what_opens_a_plugin_anew(change):
    found = plan(made(routers={"r": {}}), made(routers={"r": change}))
    assert "r" in found.instances["routers"].changed
    assert ("r" in found.reopen["routers"]) == ("on_start_error" not in change)


def test_a_rotated_secret_is_a_change():
    config = made(executors={"a": {}, "b": {}})
    found = plan(
        config,
        config,
        {("executors", "a"): "1", ("executors", "b"): "1"},
        {("executors", "a"): "2", ("executors", "b"): "1"},
    )
    assert set(found.instances["executors"].changed) == {"a"}
    assert found.reopen["executors"] == {"a"}


def test_projects_follow_what_is_declared():
    found = plan(Config(), made(projects={"lab": {}}))
    assert (set(found.projects.added), set(found.projects.removed)) == ({"lab"}, {"default"})
    assert not plan(Config(), made(projects={"default": {}})).projects


def test_every_key_outside_the_tables_of_plugins_is_live_or_refused():
    other = made(
        node={"name": "n", "labels": {"a": "b"}, "drain_s": 1, "log_level": "error"},
        nats={
            "mode": "join",
            "host": "h",
            "port": 1,
            "urls": ["nats://x"],
            "tls": {"ca": "x"},
            "password": {"env": "X"},
        },
        web={
            "enabled": False,
            "host": "h",
            "port": 1,
            "insecure": True,
            "allowed_hosts": ["x"],
            "allowed_origins": ["x"],
        },
        mesh={"heartbeat_s": 1, "stale_beats": 3, "offline_beats": 9, "keepalive_s": 1},
        routing={"routers": ["x"]},
        plugins={"files": ["x"], "disabled": ["y"]},
    )
    found = plan(Config(), other)
    assert set(found.refused) == {
        *RESTART_KEYS, "plugins.files", "plugins.disabled",
        "nats.mode", "nats.host", "nats.port", "nats.urls", "nats.tls", "nats.password",
    }  # fmt: skip
    assert set(found.live) == {
        "node.labels", "node.drain_s", "node.log_level", "web.allowed_hosts", "web.allowed_origins", "routing.routers",
        "mesh.heartbeat_s", "mesh.stale_beats", "mesh.offline_beats", "mesh.keepalive_s",
    }  # fmt: skip
    assert found.values["node.name"] == ("", "n")
    assert "! node.name (needs a restart)" in list(found.lines())
    back = plan(other, Config())
    assert set(back.refused) == set(found.refused)


def test_no_section_is_forgotten():
    tables = set(json_schema()["properties"]) - {"projects", "boundaries", *model.SECTIONS.values()}
    assert tables == set(diff.VALUES)


def test_boundaries_change_while_the_node_runs_one_by_one():
    old = made(boundaries={"lab": {"forbid": ["x"]}, "corporate": {"paths": ["/srv"]}})
    new = made(boundaries={"lab": {"forbid": ["y"]}, "more": {}})
    found = plan(old, new)
    assert set(found.live) == {"boundaries.lab", "boundaries.corporate", "boundaries.more"}
    assert found.refused == ()
    assert found.values["boundaries.more"][0] is None
    assert found.values["boundaries.corporate"][1].allow == ("copilot",)
    assert not plan(old, made(boundaries={"lab": {"forbid": ["x"]}, "corporate": {"paths": ["/srv"], "prefer": []}}))


def test_differences_are_values():
    assert Difference({"a": 1}) == Difference({"a": 1})
    assert not Difference()
