"""Plugins are found wherever they may be, and none of them can hurt the one who looks."""

import sys
import textwrap
import threading
import time
from pathlib import Path

import pytest

from knotwork.sdk import NotFound, PluginFailed
from knotwork.sockets import catalog, importing
from knotwork.sockets.catalog import CatalogSettings

NOBODY = "knotwork-tests"  # an entry point group that no installed package uses
WHOLE = """
    from contextlib import asynccontextmanager
    from knotwork.sdk import Done, Factory, PluginConfig, hookimpl

    class Config(PluginConfig):
        prefix: str = ""

    class Echo:
        async def execute(self, attempt):
            return Done(attempt.input)

    @asynccontextmanager
    async def open_echo(config, context):
        yield Echo()

    @hookimpl
    def executors():
        yield Factory(name="NAME", config=Config, open=open_echo, summary="Echoes.")
"""


def write(path: Path, text: str = WHOLE, name: str = "echo") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(textwrap.dedent(text).replace("NAME", name))
    return path


def load(tmp_path: Path, *files: str, **more) -> catalog.Catalog:
    return catalog.load(CatalogSettings(files=files, base=tmp_path, group=NOBODY, **more))


def test_a_single_file_is_found_by_name_and_by_path(tmp_path):
    write(tmp_path / "echo.py")
    found = load(tmp_path, "./echo.py")
    assert found.broken() == []
    for written in ("echo", "./echo.py", "./echo.py:echo", str(tmp_path / "echo.py")):
        assert found.find("executors", written).type == "echo"
    classes = found.config_classes()["executors"]
    assert {"echo", "./echo.py", "./echo.py:echo"} <= set(classes)


def test_an_unknown_type_names_the_nearest(tmp_path):
    write(tmp_path / "echo.py")
    with pytest.raises(NotFound, match="did you mean 'echo'") as raised:
        load(tmp_path, "echo.py").find("executors", "ecko")
    assert raised.value.code == "plugin.unknown_type"


def test_a_file_with_several_types_needs_the_name(tmp_path):
    write(tmp_path / "two.py", WHOLE + '        yield Factory(name="two", config=Config, open=open_echo)\n', "one")
    found = load(tmp_path, "two.py")
    assert found.find("executors", "two.py:two").type == "two"
    with pytest.raises(NotFound, match="several"):
        found.find("executors", "two.py")


def test_a_folder_is_found_by_its_manifest(tmp_path):
    write(tmp_path / "plugins" / "mine" / "mine.py", name="mine")
    write(tmp_path / "plugins" / "mine" / "plugin.toml", 'name="mine"\nkind="executor"\nentry="mine.py"\nversion="2"')
    write(tmp_path / "plugins" / "loose.py", name="loose")
    found = load(tmp_path, folders=(Path("plugins"),))
    assert [(entry.type, entry.source.version) for entry in found.entries()] == [("loose", ""), ("mine", "2")]


def test_a_folder_that_asks_for_it_is_never_imported(tmp_path):
    write(tmp_path / "p" / "a.py", "raise SystemExit('imported')")
    write(tmp_path / "p" / "plugin.toml", 'name="apart"\nkind="executor"\nentry="a.py"\nhosted=true')
    entry = load(tmp_path, folders=(Path("p"),)).find("executors", "apart")
    assert entry.hosted_only


def test_an_installed_package_comes_through_its_entry_point(tmp_path, monkeypatch):
    write(tmp_path / "kt_foreign.py", name="foreign")
    info = tmp_path / "kt_foreign-1.2.dist-info"
    write(info / "METADATA", "Metadata-Version: 2.1\nName: kt-foreign\nVersion: 1.2\nSummary: From afar.\n")
    write(info / "entry_points.txt", f"[{NOBODY}]\nforeign = kt_foreign\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    entry = load(tmp_path).find("executors", "foreign")
    assert (entry.source.kind, entry.source.version, entry.source.summary) == ("package", "1.2", "From afar.")
    assert load(tmp_path, disabled=frozenset({"foreign"})).entries() == []
    assert load(tmp_path, safe_mode=True).entries() == []
    del sys.modules["kt_foreign"]


def test_a_survey_imports_nothing(tmp_path):
    write(tmp_path / "bomb.py", '"""Ticks."""\nraise SystemExit')
    found, broken = catalog.survey(CatalogSettings(files=("bomb.py",), base=tmp_path, group=NOBODY))
    assert [(source.name, source.summary) for source in found] == [("bomb", "Ticks.")]
    assert broken == []


BROKEN = {
    "import_error": ("import no_such_module_anywhere", "plugin.import_failed", "no_such_module_anywhere"),
    "exits": ("import sys\nsys.exit(3)", "plugin.import_failed", "SystemExit"),
    "interrupts": ("raise KeyboardInterrupt", "plugin.import_failed", "KeyboardInterrupt"),
    "no_python": ("def :", "plugin.import_failed", "invalid syntax"),
    "old_api": ("knotwork_api = 99", "plugin.api_version", "99"),
    "odd_api": ("knotwork_api = 'x' * 1000", "plugin.api_version", "xxx"),
    "misspelt": (
        "from knotwork.sdk import hookimpl\n@hookimpl\ndef executers(): return []",
        "plugin.unknown_hook",
        "did you mean 'executors'",
    ),
    "empty": ("x = 1", "plugin.empty", "offers nothing"),
    "no_factory": (
        "from knotwork.sdk import hookimpl\n@hookimpl\ndef executors(): yield 1",
        "plugin.bad_factory",
        "not a Factory",
    ),
    "bad_name": (WHOLE.replace("NAME", "A b"), "plugin.bad_factory", "not a token"),
    "hook_raises": (
        "from knotwork.sdk import hookimpl\n@hookimpl\ndef executors():\n    raise ValueError('no')\n    yield",
        "plugin.import_failed",
        "ValueError: no",
    ),
}


@pytest.mark.parametrize("name", sorted(BROKEN))
def test_a_broken_plugin_is_a_row_and_its_neighbour_works(tmp_path, name):
    text, code, reason = BROKEN[name]
    write(tmp_path / f"{name}.py", text)
    write(tmp_path / "good.py", name="good")
    found = load(tmp_path, f"{name}.py", "good.py")
    assert [entry.type for entry in found.entries()] == ["good"]
    (row,) = found.broken()
    assert row.code == code
    assert reason in row.reason
    assert row.source == str(tmp_path / f"{name}.py")
    with pytest.raises(PluginFailed, match=r".+"):
        found.find("executors", f"./{name}.py")


def test_a_hanging_import_is_given_up_on(tmp_path):
    write(tmp_path / "hangs.py", "while True: pass")
    write(tmp_path / "good.py", name="good")
    began_s = time.monotonic()
    found = load(tmp_path, "hangs.py", "good.py", start_timeout_s=0.2)
    assert time.monotonic() - began_s < 1.5
    assert [entry.type for entry in found.entries()] == ["good"]
    assert [row.code for row in found.broken()] == ["plugin.import_hung"]
    thread = next((thread for thread in threading.enumerate() if thread.name == "import hangs"), None)
    if thread is not None:
        thread.join(5)
        assert not thread.is_alive(), "the loop was not ended"


def test_several_hanging_imports_do_not_add_up(tmp_path, monkeypatch):
    monkeypatch.setattr(catalog, "PATIENCE_S", 0.05)
    names = [f"hangs{number}.py" for number in range(5)]
    for name in names:
        write(tmp_path / name, "import threading; threading.Event().wait(3)")
    began_s = time.monotonic()
    found = load(tmp_path, *names, start_timeout_s=0.4)
    assert time.monotonic() - began_s < 1.5
    assert len(found.broken()) == 5


def test_a_taken_type_name_is_a_row_but_the_file_works_by_path(tmp_path):
    write(tmp_path / "a.py")
    write(tmp_path / "b.py")
    found = load(tmp_path, "a.py", "b.py")
    assert found.find("executors", "echo").source.name == "a"
    assert found.find("executors", "./b.py").source.name == "b"
    assert [row.code for row in found.broken()] == ["plugin.duplicate"]


def test_a_module_name_that_is_taken_is_said(tmp_path):
    write(tmp_path / "p" / "json.py", name="mine")
    write(tmp_path / "p" / "plugin.toml", 'name="mine"\nkind="executor"\nentry="json"')
    found = load(tmp_path, folders=(Path("p"),))
    assert [row.code for row in found.broken()] == ["plugin.module_taken"]
    import json

    assert "mine" not in (json.__file__ or "")


def test_unreadable_places_are_rows(tmp_path):
    found = load(tmp_path, "missing.py", folders=(Path("nowhere"),))
    assert [row.code for row in found.broken()] == ["plugin.folder", "plugin.file"]


def test_extending_takes_over_and_reads_changed_files_anew(tmp_path):
    write(
        tmp_path / "a.py",
        "import builtins; builtins.kt_loads = getattr(builtins, 'kt_loads', 0) + 1\n" + textwrap.dedent(WHOLE),
    )
    first = load(tmp_path, "a.py")
    second = first.extended(["a.py"])
    assert second.find("executors", "a.py").factory is first.find("executors", "a.py").factory
    write(tmp_path / "a.py", WHOLE.replace("Echoes.", "Changed."))
    write(tmp_path / "b.py", name="b")
    third = second.extended(["./b.py"])
    assert third.find("executors", "a.py").factory.summary == "Changed."
    assert third.find("executors", "./b.py").type == "b"
    assert first.find("executors", "a.py").factory.summary == "Echoes."


def test_extending_does_not_wait_again_for_what_hung(tmp_path):
    write(tmp_path / "hangs.py", "import threading; threading.Event().wait(3)")
    write(tmp_path / "b.py", name="b")
    found = load(tmp_path, "hangs.py", start_timeout_s=0.2)
    began_s = time.monotonic()
    again = found.extended(["b.py"])
    assert time.monotonic() - began_s < 0.15
    assert [row.code for row in again.broken()] == ["plugin.import_hung"]
    assert [entry.type for entry in again.entries()] == ["b"]


def test_plugin_folders_come_after_ours_on_the_path(tmp_path):
    write(tmp_path / "p" / "kt_mod" / "__init__.py", name="mine")
    write(tmp_path / "p" / "plugin.toml", 'name="mine"\nkind="executor"\nentry="kt_mod"')
    before = list(sys.path)
    assert load(tmp_path, folders=(Path("p"),)).broken() == []
    assert sys.path[: len(before)] == before
    sys.path.remove(str(tmp_path / "p"))


def test_an_errand_gives_result_and_error():
    fine = importing.Errand(lambda: 42, "fine")
    assert fine.finished(5)
    assert fine.result() == 42
    wrong = importing.Errand(lambda: 1 // 0, "wrong")
    assert wrong.finished(5)
    with pytest.raises(ZeroDivisionError):
        wrong.result()


def test_bundled_plugins_come_through_the_same_door(tmp_path):
    for safe_mode in (False, True):
        found = catalog.load(CatalogSettings(base=tmp_path, safe_mode=safe_mode))
        assert found.broken() == []
        bundled = {(entry.kind, entry.type) for entry in found.entries() if entry.source.kind == "bundled"}
        assert {("executors", "process"), ("routers", "capability"), ("telemetry", "jsonl")} <= bundled
