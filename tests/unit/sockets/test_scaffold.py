"""A new plugin works at once: it loads, keeps its contract, and its own tests pass."""

import subprocess
import sys
from pathlib import Path

import pytest
from tests import plugin_tests

from knotwork.config import instances
from knotwork.config.load import read
from knotwork.config.loaded import Sources
from knotwork.sdk import Conflict, Invalid
from knotwork.sockets import catalog, loading, offered, scaffold, trial

KINDS = {
    "executor": "executors", "router": "routers", "memory": "memories", "spinup": "spinups", "telemetry": "telemetry",
    "trigger": "triggers",
}  # fmt: skip


@pytest.mark.parametrize("kind", scaffold.KINDS)
def test_the_projects_own_tests_pass(tmp_path, kind):
    scaffold.write(kind, "my-agent", tmp_path / "my-agent")
    plugin_tests.run(tmp_path / "my-agent", "-W", "error")


@pytest.mark.parametrize("kind", scaffold.KINDS)
def test_it_loads_as_folder_and_as_file(tmp_path, kind):
    scaffold.write(kind, "mine", tmp_path / "plugins" / "mine")
    (file,) = scaffold.write(kind, "loose", tmp_path, single_file=True)
    settings = catalog.CatalogSettings(
        files=("./loose.py",), folders=(Path("plugins"),), base=tmp_path, group="knotwork-tests", patience_s=60
    )
    found = loading.load(settings)
    assert found.broken() == []
    assert [entry.type for entry in found.entries()] == ["loose", "mine"]
    assert found.find(KINDS[kind], "./loose.py").source.where == str(file)
    results = list(trial.run(found.find(KINDS[kind], "mine"), {}, "x"))
    assert len(results) > 8
    assert [result for result in results if not result.passed] == []


@pytest.mark.parametrize("kind", scaffold.KINDS)
def test_what_the_page_says_brings_it_into_use(tmp_path, kind):
    """A router or a memory that only has a table of its own is never asked."""
    scaffold.write(kind, "mine", tmp_path / "mine")
    page = (tmp_path / "mine" / "README.md").read_text()
    (tmp_path / "knotwork.toml").write_text(
        page.partition("```toml\n")[2].partition("```")[0] + '\n[plugins]\nfolders = ["mine"]\n'
    )
    loaded = read(Sources(files=(tmp_path / "knotwork.toml",), env={}))
    assert instances.check_instances(loaded, offered.types_of(loading.load(offered.settings_of(loaded)), {}))
    asked = {"router": loaded.config.routing.routers[0], "memory": loaded.config.memory.team}.get(kind, f"my-{kind}")
    assert asked == f"my-{kind}"


def test_it_is_clean_python(tmp_path):
    ruff = [
        sys.executable,
        "-m",
        "ruff",
        "check",
        "--isolated",
        "--line-length",
        "120",
        "--select",
        "E,F,W,I,UP,B,PL,RUF,SIM,RET",
    ]
    for kind in scaffold.KINDS:
        scaffold.write(kind, f"my-{kind}", tmp_path / kind)
        command = [*ruff, "--ignore", "RUF012", "."]
        done = subprocess.run(command, cwd=tmp_path / kind, capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode == 0, done.stdout


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        *[("executor", name) for name in ("none", "true", "pytest", "plugin", "done", "factory", "host", "attempt")],
        ("router", "route"), ("memory", "place"), ("spinup", "unavailable"), ("telemetry", "event"), ("trigger", "mark"),
    ],
)  # fmt: skip
def test_a_name_that_would_hide_what_its_files_use_is_refused(tmp_path, kind, name):
    with pytest.raises(Invalid, match=name) as raised:
        scaffold.write(kind, name, tmp_path / "p")
    assert raised.value.code == "plugin.bad_name"
    assert not (tmp_path / "p").exists()


@pytest.mark.parametrize("name", ["", "A", "a b", "../x", "json", "class", "9lives", "knotwork", "x" * 65, "a.b"])
def test_bad_names_are_refused_and_nothing_is_written(tmp_path, name):
    with pytest.raises(Invalid) as raised:
        scaffold.write("executor", name, tmp_path / "p")
    assert raised.value.code == "plugin.bad_name"
    assert not (tmp_path / "p").exists()


def test_an_unknown_kind_is_refused(tmp_path):
    with pytest.raises(Invalid, match="executor, router, memory, spinup, telemetry, trigger"):
        scaffold.write("executer", "a", tmp_path)


def test_nothing_is_overwritten(tmp_path):
    scaffold.write("executor", "mine", tmp_path)
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    (tmp_path / "mine.py").unlink()
    with pytest.raises(Conflict):
        scaffold.write("executor", "mine", tmp_path)
    assert not (tmp_path / "mine.py").exists()
    assert all(path.read_bytes() == text for path, text in before.items() if path.name != "mine.py")
