"""Plugins are found wherever they may be, and none of them can hurt the one who looks."""

import os
import subprocess
import sys
import textwrap
import threading
import time
from dataclasses import replace
from datetime import date
from pathlib import Path

import psutil
import pytest

from knotwork.config import bones, elsewhere, instances, judge, references
from knotwork.config.layers import Layer, Merged
from knotwork.config.load import read
from knotwork.config.loaded import Sources
from knotwork.sdk import NotFound, PluginFailed
from knotwork.sockets import catalog, factories, importing, loading, offered, options, tried, tried_child
from knotwork.sockets.catalog import CatalogSettings, Use

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
    usual = {"start_timeout_s": 60.0, "patience_s": 60.0}  # a slow machine is no fault of a plugin
    return loading.load(CatalogSettings(files=files, base=tmp_path, group=NOBODY, **{**usual, **more}))


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


WHO = "import os, pathlib\nwith pathlib.Path(__file__).with_name('who').open('a') as file:\n    print(os.getpid(), file=file)\n"


def imported_by(folder: Path) -> list[int]:
    who = folder / "who"
    return [int(line) for line in who.read_text().split()] if who.exists() else []


def test_a_folder_that_asks_for_it_is_never_imported_here(tmp_path):
    write(tmp_path / "p" / "a.py", WHO + textwrap.dedent(WHOLE), name="apart")
    write(tmp_path / "p" / "plugin.toml", 'name="apart"\nkind="executor"\nentry="a.py"\nhosted=true')
    entry = load(tmp_path, folders=(Path("p"),)).find("executors", "apart")
    assert entry.hosted_only
    assert not entry.imported
    assert len(imported_by(tmp_path / "p")) == 1
    assert os.getpid() not in imported_by(tmp_path / "p")


@pytest.mark.parametrize(("hosted", "times"), [(True, 1), (False, 2)])
def test_a_plugin_is_imported_here_only_when_something_is_to_run_here(tmp_path, hosted, times):
    write(tmp_path / "a.py", WHO + textwrap.dedent(WHOLE))
    uses = (Use("executors", "./a.py", hosted=hosted), Use("executors", "process"))
    found = load(tmp_path, "./a.py", uses=uses)
    assert found.broken() == []
    assert (os.getpid() in imported_by(tmp_path)) is not hosted
    assert len(imported_by(tmp_path)) == times
    again = loading.extended(found, ["./a.py"], uses)
    assert again.find("executors", "./a.py") == found.find("executors", "./a.py")
    assert len(imported_by(tmp_path)) == times  # its code has not changed
    both = loading.extended(found, ["./a.py"], (*uses, Use("executors", "echo")))
    assert both.find("executors", "echo").imported
    assert both.find("executors", "echo").apart is found.find("executors", "echo").apart  # who runs apart goes on
    assert os.getpid() in imported_by(tmp_path)
    assert len(imported_by(tmp_path)) == (3 if hosted else 2)


def test_looking_imports_nothing_foreign_here(tmp_path):
    write(tmp_path / "a.py", WHO + textwrap.dedent(WHOLE))
    found = load(tmp_path, "./a.py", imports=False)
    assert not found.find("executors", "echo").imported
    assert os.getpid() not in imported_by(tmp_path)
    assert {"./a.py", "echo"} <= set(found.config_classes()["executors"])


TABLES = """
    from contextlib import asynccontextmanager
    from datetime import date
    from typing import Literal
    from pydantic import Field, field_validator, model_validator
    from knotwork.sdk import Factory, PluginConfig, SecretRef, hookimpl

    class Inner(PluginConfig):
        deep: int = 1

    class Config(PluginConfig):
        \"\"\"Words about it.\"\"\"
        must: str = Field(pattern="^[a-z{}]+$", max_length=5, description="a word")
        many: list[int] = Field(default_factory=lambda: [7])
        mode: Literal["a", "b"] = "a"
        inner: Inner = Inner()
        either: int | Inner = 1
        key: SecretRef | None = None
        keys: dict[str, SecretRef | str] = {}
        at: date | None = None
        much: float = Field(default=1.0, allow_inf_nan=True)
        timeout_s: float = 1.0

        @field_validator("mode")
        @classmethod
        def _not_b(cls, value):
            assert value != "b", "not {b}"
            return value

        @model_validator(mode="after")
        def _rule(self):
            if len(self.many) > 3:
                raise ValueError("too many of them")
            return self

    @asynccontextmanager
    async def open_it(config, context):
        yield None

    @hookimpl
    def executors():
        yield Factory(name="tables", config=Config, open=open_it, summary="Has many options.", exclusive=True)
"""


WRITTEN = (
    {},
    {"must": "ok"},
    {"must": "OK"},
    {"must": "far too long", "nmae": 1, "inner": {"depe": 2}, "timeout_s": "x"},
    {"must": "a", "many": ["x", 2], "mode": "c", "either": {"deep": "x"}, "key": "plain", "keys": {"x": {}}},
    {"must": "a", "mode": "b"},
    {"must": "a", "many": [1, 2, 3, 4]},
    {"must": "a", "key": {"env": "A"}, "keys": {"x": {"file": "f"}, "y": "plain"}, "at": date(2020, 1, 2)},
    {"must": "a", "much": float("inf"), "at": "2020-13-01"},
    {"must": 3, "many": {}, "inner": [], "either": [], "key": {"env": "A", "file": "b"}},
)


@pytest.fixture(scope="module")
def judges(tmp_path_factory):
    """The factory as it was described by another process, which judged all the tables, and the one that is here."""
    folder = tmp_path_factory.mktemp("judges")
    write(folder / "t.py", TABLES)
    uses = tuple(Use("executors", "./t.py", hosted=True, table={**table, "concurrency": 2}) for table in WRITTEN)
    there = load(folder, "./t.py", uses=uses).find("executors", "tables").apart
    return there, load(folder, "./t.py").find("executors", "tables").factory


@pytest.mark.parametrize("written", WRITTEN)
def test_a_table_is_judged_elsewhere_as_it_is_here(judges, written):
    there, here = judges
    said = []
    for model in (there.config, here.config):
        merged = Merged()
        merged.add(Layer("file", {"executors": {"t": {"type": "./t.py", **written}}}))
        config, errors = judge.fit(model, merged, ("executors", "t"), dict(written))
        known = bones.skeleton(model)
        told = [
            judge.problem_of(error, path, merged, lambda at, known=known: bones.keys_in(known, at[2:]))
            for error, path in errors
        ]
        references_ = [] if config is None else list(references.inside(config))
        said.append((told, references_))
    assert said[0] == said[1]


def test_what_is_told_of_one_elsewhere_is_what_is_seen_here(judges):
    there, here = judges
    assert (there.name, there.summary, there.exclusive) == (here.name, here.summary, here.exclusive)
    assert list(elsewhere.keys_of(there.config)) == list(here.config.model_fields)
    options_there, options_here = options.options(there.config), options.options(here.config)
    assert options_there == options_here
    assert there.config.model_validate({"must": "a"}) == there.config.model_validate({"must": "a"})


def test_tables_are_judged_while_the_plugin_is_tried(tmp_path):
    write(tmp_path / "t.py", WHO + textwrap.dedent(TABLES))
    uses = tuple(Use("executors", "./t.py", hosted=True, table={"must": word, "timeout_s": 2}) for word in "abc")
    found = load(tmp_path, "./t.py", uses=uses)
    for word in "abc":
        assert found.find("executors", "tables").apart.config.model_validate({"must": word, "timeout_s": 2})
    assert len(imported_by(tmp_path)) == 1
    more = tuple(Use("executors", "./t.py", hosted=True, table={"must": word, "concurrency": 1}) for word in "ade")
    again = loading.extended(found, [], more)
    for word in "ade":
        assert again.find("executors", "tables").apart.config.model_validate({"must": word})
    assert len(imported_by(tmp_path)) == 2


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
    write(info / "entry_points.txt", f"[{NOBODY}]\nforeign = kt_not_there\n")
    broken = load(tmp_path)
    with pytest.raises(PluginFailed, match="kt_not_there"):
        broken.find("executors", "foreign")
    write(info / "entry_points.txt", f"[{NOBODY}]\nforeign = kt_foreign\n")
    piece = loading.looked_again(broken, Use("executors", "foreign"), patience_s=60.0)
    assert broken.healed(piece).find("executors", "foreign").imported
    assert broken.healed(piece).broken() == []
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


@pytest.fixture(scope="module")
def beside_broken(tmp_path_factory):
    """A folder with each of the broken ones and one that is good, and what was found there."""
    folder = tmp_path_factory.mktemp("broken")
    for name, (text, _, _) in BROKEN.items():
        write(folder / f"{name}.py", text)
    write(folder / "good.py", name="good")
    return folder, load(folder, *(f"{name}.py" for name in sorted(BROKEN)), "good.py")


@pytest.mark.parametrize("name", sorted(BROKEN))
def test_a_broken_plugin_is_a_row_and_its_neighbour_works(beside_broken, name):
    (tmp_path, found), (_, code, reason) = beside_broken, BROKEN[name]
    assert [entry.type for entry in found.entries()] == ["good"]
    assert len(found.broken()) == len(BROKEN)
    (row,) = [row for row in found.broken() if row.source.endswith(f"/{name}.py")]
    assert row.code == code
    assert reason in row.reason
    assert row.source == str(tmp_path / f"{name}.py")
    with pytest.raises(PluginFailed, match=r".+"):
        found.find("executors", f"./{name}.py")


HANGS = {
    "spins": "while True: pass",
    "sleeps": "import time; time.sleep(3600)",
    "keeps the interpreter": "import ctypes; ctypes.PyDLL(None).sleep(3600)",
    "spins and likes it": "while True:\n    try:\n        while True: pass\n    except BaseException: pass",
}


@pytest.mark.parametrize("how", HANGS)
def test_a_hanging_import_is_given_up_on_and_ended(tmp_path, how):
    write(tmp_path / "hangs.py", WHO + HANGS[how])
    write(tmp_path / "good.py", name="good")
    for seconds in (1.5, 20.0):
        found = load(tmp_path, "hangs.py", "good.py", start_timeout_s=seconds, patience_s=seconds)
        if len(found.broken()) == 1:  # else there was not time enough for the good one either, on a slow machine
            break
    assert [entry.type for entry in found.entries()] == ["good"]
    (row,) = found.broken()
    assert (row.code, row.reason) == ("plugin.import_hung", f"still importing after {seconds:g} s")
    pids = imported_by(tmp_path)
    assert os.getpid() not in pids, "it was tried, and not imported here"
    assert not any(map(psutil.pid_exists, pids))


def test_several_hanging_imports_do_not_add_up(tmp_path):
    names = [f"hangs{number}.py" for number in range(5)]
    for number, name in enumerate(names):  # each waits until all are there: one after the other none would get on
        write(
            tmp_path / name,
            f"import pathlib, time\nhere = pathlib.Path(__file__).parent\n(here / 'there{number}').touch()\n"
            f"while len(list(here.glob('there*'))) < 5: time.sleep(0.01)\n" + textwrap.dedent(WHOLE),
            f"hangs{number}",
        )
    found = load(tmp_path, *names, patience_s=20, start_timeout_s=20)
    assert found.broken() == []


SLOW_HERE = "import sys, time\nif 'knotwork.sockets.tried_child' not in str(sys.orig_argv): "


def test_one_that_hangs_only_here_is_given_up_on_as_well(tmp_path):
    """A stand-in for what differs between two processes; its thread is ended where that can be."""
    write(tmp_path / "hangs.py", SLOW_HERE + "\n    while True: pass\n" + textwrap.dedent(WHOLE))
    found = load(tmp_path, "hangs.py", start_timeout_s=0.3)
    assert [(row.code, row.reason) for row in found.broken()] == [("plugin.import_hung", "still importing after 0.3 s")]
    thread = next((thread for thread in threading.enumerate() if thread.name == "import hangs"), None)
    if thread is not None:
        thread.join(30)
        assert not thread.is_alive(), "the loop was not ended"


def test_half_of_a_module_is_not_taken_for_a_whole_one(tmp_path):
    hang = "\n    import pathlib\n    while not pathlib.Path(__file__).with_name('go').exists(): time.sleep(0.01)\n"
    write(tmp_path / "hangs.py", SLOW_HERE + hang + textwrap.dedent(WHOLE))
    for _ in range(2):
        (row,) = load(tmp_path, "hangs.py", start_timeout_s=0.3).broken()
        assert row.code == "plugin.import_hung"
        assert "import" in row.reason
    (tmp_path / "go").touch()


FORGES = """
import os
for number in range(30):
    try:
        os.write(number, b'{"word": "survived"}' + bytes([10]))
    except OSError:
        pass
os._exit(4)
"""
FATAL = {
    "leaves": ("import os; os._exit(3)", "exit code 3"),
    "leaves happily": ("import os; os._exit(0)", "exit code 0"),
    "segfault": ("import ctypes; ctypes.string_at(0)", "SIGSEGV"),
    "killed": ("import os; os.killpg(0, 9)", "SIGKILL"),
    "forges": (
        FORGES,
        "exit code 4",
    ),
}


@pytest.mark.parametrize("hosted", [False, True])
def test_an_import_that_ends_its_process_ends_no_other(tmp_path, hosted):
    bad = {str(write(tmp_path / f"bad{number}.py", text)): why for number, (text, why) in enumerate(FATAL.values())}
    write(tmp_path / "good.py", name="good")
    uses = (*(Use("executors", path, hosted=hosted) for path in bad), Use("executors", "./good.py"))
    found = load(tmp_path, *bad, "good.py", uses=uses)
    told = {row.source: row for row in found.broken()}
    assert told.keys() == bad.keys()
    assert {row.code for row in told.values()} == {"plugin.import_crashed"}
    assert not [path for path, reason in bad.items() if reason not in told[path].reason]
    assert found.find("executors", "good").imported


@pytest.mark.parametrize(("limit_mb", "works"), [(64, False), (1024, True), (0, True)])
def test_an_import_may_take_so_much_memory(tmp_path, limit_mb, works):
    write(tmp_path / "big.py", "much = bytearray(200 * 1024**2)\n" + textwrap.dedent(WHOLE))
    found = load(tmp_path, "big.py", import_memory_mb=limit_mb)
    assert [row.code for row in found.broken()] == ([] if works else ["plugin.import_failed"])
    hosted = load(tmp_path, "big.py", uses=(Use("executors", "./big.py", hosted=True, memory_mb=limit_mb),))
    assert [row.code for row in hosted.broken()] == ([] if works else ["plugin.import_failed"])


def test_what_it_prints_and_reads_while_imported_leads_nowhere(tmp_path, capfd):
    text = "import os, sys\nassert sys.stdin.read() == ''\nprint('loud', flush=True)\nos.write(2, b'louder')\n"
    write(tmp_path / "loud.py", text + textwrap.dedent(WHOLE))
    assert load(tmp_path, "loud.py", imports=False).broken() == []
    assert capfd.readouterr() == ("", "")


def test_it_sees_the_surroundings_it_will_run_in(tmp_path, monkeypatch):
    """Here those of this process, apart a clean environment: what is missing there is missing when it is tried."""
    monkeypatch.setenv("OF_THIS_PROCESS", "1")
    monkeypatch.syspath_prepend(str(tmp_path / "more"))
    write(tmp_path / "more" / "kt_beside.py", "")
    write(tmp_path / "env.py", "import os\nos.environ['OF_THIS_PROCESS']\nimport kt_beside\n" + textwrap.dedent(WHOLE))
    assert load(tmp_path, "env.py").broken() == []
    (row,) = load(tmp_path, "env.py", uses=(Use("executors", "./env.py", hosted=True),)).broken()
    assert "KeyError: 'OF_THIS_PROCESS'" in row.reason


@pytest.mark.parametrize("hosted", [False, True])
def test_the_one_executable_tries_plugins_too(tmp_path, monkeypatch, hosted):
    """A stand-in for the frozen one: what is started is the program itself, with a hidden word."""
    program = write(tmp_path / "program", f'#!/bin/sh\nexec "{sys.executable}" -m knotwork "$@"\n')
    program.chmod(0o755)
    monkeypatch.setattr(tried.child, "frozen", lambda: True)
    monkeypatch.setattr(sys, "executable", str(program))
    write(tmp_path / "a.py", WHO + textwrap.dedent(WHOLE))
    write(tmp_path / "bad.py", "import os; os._exit(3)")
    uses = (Use("executors", "./a.py", hosted=hosted),)
    found = load(tmp_path, "a.py", "bad.py", uses=uses, imports=False)
    assert [entry.type for entry in found.entries()] == ["echo"]
    assert [row.code for row in found.broken()] == ["plugin.import_crashed"]
    assert os.getpid() not in imported_by(tmp_path)


@pytest.mark.parametrize("line", [b"", b"{}\n", b"garbage\xff\n", b"[" * 100_000])
def test_a_try_that_is_not_asked_for_ends(line):
    done = subprocess.run([sys.executable, "-m", "knotwork", tried.ARGUMENT], input=line, timeout=60, check=False)
    assert done.returncode == tried_child.EXIT_NOT_ASKED


def test_one_of_a_folder_that_is_broken_exists_all_the_same(tmp_path):
    """Its type is in the manifest: it is a plugin that cannot be used, no mistake of the configuration."""
    for name in ("mine", "torn"):
        write(tmp_path / "plugins" / name / "p.py", "1 / 0")
        write(tmp_path / "plugins" / name / "plugin.toml", f'name="{name}"\nkind="executor"\nentry="p.py"')
    (tmp_path / "plugins" / "torn" / "plugin.toml").write_text("name=")
    write(tmp_path / "plugins" / "loose.py", "def loose(:")
    found = load(tmp_path, folders=(Path("plugins"),))
    for name, told in (("mine", "division by zero"), ("torn", "plugin.toml"), ("loose", "loose.py:1")):
        with pytest.raises(PluginFailed, match=told):
            found.find("executors", name)
    for kind, name in (("routers", "mine"), ("executors", "min")):
        with pytest.raises(NotFound):
            found.find(kind, name)


def test_one_that_was_broken_is_looked_at_again_alone(tmp_path):
    for name in ("mine", "other"):
        write(tmp_path / "plugins" / name / "p.py", WHO + "1 / 0")
        write(tmp_path / "plugins" / name / "plugin.toml", f'name="{name}"\nkind="executor"\nentry="p.py"')
    found = load(tmp_path, folders=(Path("plugins"),))
    write(tmp_path / "plugins" / "mine" / "p.py", name="mine")
    use = Use("executors", "mine")
    piece = loading.looked_again(found, use, patience_s=60.0)
    assert [entry.type for entry in piece.entries()] == ["mine"]
    healed = found.healed(piece)
    assert healed.find("executors", "mine").imported
    assert [Path(row.source).name for row in healed.broken()] == ["other"]
    assert len(imported_by(tmp_path / "plugins" / "other")) == 1
    with pytest.raises(PluginFailed, match="division by zero"):
        loading.looked_again(found, Use("executors", "other"), patience_s=60.0).find("executors", "other")


def test_a_broken_one_is_tried_anew_when_somebody_edits_its_table(tmp_path):
    write(tmp_path / "a.py", "import kt_not_there_yet")
    uses = (Use("executors", "./a.py", table={"prefix": "a"}),)
    first = load(tmp_path, "./a.py", uses=uses)
    assert "kt_not_there_yet" in first.broken()[0].reason
    write(tmp_path / "a.py", WHO + "import kt_not_there_yet")
    second = loading.extended(first, [], uses)
    third = loading.extended(second, [], uses)
    assert len(imported_by(tmp_path)) == 1
    loading.extended(third, [], (Use("executors", "./a.py", table={"prefix": "b"}),))
    assert len(imported_by(tmp_path)) == 2


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


@pytest.mark.parametrize("helper", ["kt_client.py", "kt_client/__init__.py"])
def test_helpers_of_one_folder_are_never_those_of_another(tmp_path, helper):
    """What runs in one process shares its modules: the second would silently run the code of the first."""
    for name in ("first", "second"):
        write(tmp_path / "p" / name / helper, f"SUMMARY = 'of the {name}'")
        text = WHOLE.replace('"Echoes."', "kt_client.SUMMARY").replace(
            "    from knotwork", "    import kt_client\n    from knotwork"
        )
        write(tmp_path / "p" / name / f"{name}.py", text, name)
        write(tmp_path / "p" / name / "plugin.toml", f'name="{name}"\nkind="executor"\nentry="{name}.py"')
    before = list(sys.path)
    found = load(tmp_path, folders=(Path("p"),))
    assert [(entry.type, entry.factory.summary) for entry in found.entries()] == [("first", "of the first")]
    (row,) = found.broken()
    assert (row.code, str(tmp_path / "p" / "first") in row.reason, "hosted" in row.hint) == (
        "plugin.module_taken", True, True
    )  # fmt: skip
    apart = tuple(Use("executors", name, name == "second") for name in ("first", "second"))
    both = loading.extended(found, [], apart)
    assert {entry.type: entry.factory.summary for entry in both.entries()} == {
        "first": "of the first", "second": "of the second"
    }  # fmt: skip
    sys.path[:] = before
    del sys.modules["kt_client"]


@pytest.mark.parametrize("entry", ["kt_main.py", "kt_main"])
def test_an_edit_of_a_helper_is_one_of_the_folder(tmp_path, entry):
    text = WHOLE.replace('"Echoes."', "kt_help.SUMMARY").replace(
        "    from knotwork", "    import kt_help\n    from knotwork"
    )
    write(tmp_path / "p" / "kt_main.py", text)
    write(tmp_path / "p" / "kt_help.py", "SUMMARY = 'as it was'")
    write(tmp_path / "p" / "plugin.toml", f'name="echo"\nkind="executor"\nentry="{entry}"')
    before = list(sys.path)
    first = load(tmp_path, folders=(Path("p"),))
    write(tmp_path / "p" / "kt_help.py", "SUMMARY = 'and as it is now'")
    second = loading.extended(first, [])
    write(tmp_path / "p" / "kt_help.py", "SUMMARY = 'torn")
    torn = loading.extended(second, [])
    assert [found.find("executors", "echo").factory.summary for found in (first, second)] == [
        "as it was", "and as it is now"
    ]  # fmt: skip
    assert [row.code for row in torn.broken()] == ["plugin.import_failed"]
    assert sys.modules["kt_help"].SUMMARY == "and as it is now"
    sys.path[:] = before
    for name in ("kt_help", "kt_main"):
        sys.modules.pop(name, None)


RACE = """
import importlib, sys, threading
from knotwork.sockets import tried

sys.setswitchinterval(1e-6)
line = tried.encoded(tried.Told("survived", "t", [tried.Offer("executors", "n", "", False, [], "", [], {}, {})]))
for _ in range(40):
    fresh, told, start = importlib.reload(tried), [], threading.Barrier(8)
    threads = [
        threading.Thread(target=lambda: (start.wait(), told.append(fresh.decoded(line, fresh.Told)))) for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(told) == 8 and None not in told
"""


def test_many_that_answer_in_the_same_moment_are_all_heard():
    """Each is read in a thread of its own: msgspec ends the process when several meet a class first at the same time."""
    done = subprocess.run([sys.executable, "-c", RACE], capture_output=True, timeout=120, check=False)
    assert (done.returncode, done.stderr) == (0, b"")


def test_unreadable_places_are_rows(tmp_path):
    found = load(tmp_path, "missing.py", folders=(Path("nowhere"),))
    assert [row.code for row in found.broken()] == ["plugin.folder", "plugin.file"]


def test_extending_takes_over_and_reads_changed_files_anew(tmp_path):
    write(
        tmp_path / "a.py",
        "import builtins; builtins.kt_loads = getattr(builtins, 'kt_loads', 0) + 1\n" + textwrap.dedent(WHOLE),
    )
    first = load(tmp_path, "a.py")
    second = loading.extended(first, ["a.py"])
    assert second.find("executors", "a.py").factory is first.find("executors", "a.py").factory
    write(tmp_path / "a.py", WHOLE.replace("Echoes.", "Changed."))
    write(tmp_path / "b.py", name="b")
    third = loading.extended(second, ["./b.py"])
    assert third.find("executors", "a.py").factory.summary == "Changed."
    assert third.find("executors", "./b.py").type == "b"
    assert first.find("executors", "a.py").factory.summary == "Echoes."


def test_an_edit_of_equal_length_within_one_second_is_seen(tmp_path):
    plugin = write(tmp_path / "a.py")
    os.utime(plugin, (1, 1))
    first = load(tmp_path, "a.py")
    write(tmp_path / "a.py", WHOLE.replace("Echoes.", "Other.."))
    os.utime(plugin, (1, 1))
    second = loading.extended(first, ["a.py"])
    assert second.find("executors", "a.py").factory.summary == "Other.."
    assert not (tmp_path / "__pycache__").exists()


def test_extending_does_not_wait_again_for_what_hung(tmp_path):
    write(tmp_path / "hangs.py", WHO + "import time; time.sleep(3600)")
    write(tmp_path / "b.py", name="b")
    found = load(tmp_path, "hangs.py", start_timeout_s=1.5)
    patient = replace(found.settings, start_timeout_s=60.0, patience_s=60.0)
    again = loading.extended(replace(found, settings=patient), ["b.py"])
    assert len(imported_by(tmp_path)) <= 1
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


def test_bundled_plugins_are_there_however_slow_the_machine_is(tmp_path, monkeypatch):
    offers = factories.offers

    def slowly(source):
        time.sleep(0.5)  # a machine that is busy
        return offers(source)

    monkeypatch.setattr(factories, "offers", slowly)
    found = loading.load(CatalogSettings(base=tmp_path, safe_mode=True, patience_s=0.05))
    assert found.broken() == []
    assert found.find("routers", "capability")


def test_bundled_plugins_come_through_the_same_door(tmp_path):
    for safe_mode in (False, True):
        found = loading.load(CatalogSettings(base=tmp_path, safe_mode=safe_mode))
        assert found.broken() == []
        bundled = {(entry.kind, entry.type) for entry in found.entries() if entry.source.kind == "bundled"}
        assert {("executors", "process"), ("routers", "capability"), ("telemetry", "jsonl")} <= bundled


def test_an_import_may_take_longer_where_our_own_interpreter_does(tmp_path, monkeypatch):
    """A stand-in for a slow machine: our interpreter counts as having taken very long."""
    monkeypatch.setattr(tried, "SLOWNESS", 1e6)
    write(tmp_path / "slow.py", "import time\ntime.sleep(0.3)\n" + textwrap.dedent(WHOLE), "slow")
    found = load(tmp_path, "slow.py", patience_s=0.05)
    assert (found.broken(), [entry.type for entry in found.entries()]) == ([], ["slow"])


@pytest.mark.parametrize(
    ("usual_s", "longest_s", "here_s", "expected_s"),
    [(2, 10, 1, 2), (2, 10, 6, 6), (2, 10, 40, 10), (2, 0, 40, 2), (0.3, 0.3, 40, 0.3)],
)
def test_how_long_an_import_may_take(usual_s, longest_s, here_s, expected_s):
    assert tried.patience(usual_s, longest_s, here_s) == expected_s


def test_one_that_only_took_too_long_is_no_reason_to_refuse_a_configuration(tmp_path):
    write(tmp_path / "hangs.py", "import time; time.sleep(3600)")
    write(tmp_path / "wrong.py", "1 / 0")
    for name, kept in (("hangs", [False]), ("wrong", [True])):
        (tmp_path / "knotwork.toml").write_text(
            f'[executors.one]\ntype = "./{name}.py"\non_start_error = "fail"\n[plugins]\nstart_timeout_s = 1\n'
        )
        loaded = read(Sources(files=(tmp_path / "knotwork.toml",)))
        found = loading.load(replace(offered.settings_of(loaded, imports=False), group=NOBODY))
        known = offered.types_of(found, loaded.merged.data)
        assert [fatal for _, fatal in instances.unusable(loaded, known)] == kept, known.broken


def test_a_name_that_a_file_does_not_offer_is_answered_with_those_it_offers(tmp_path):
    write(
        tmp_path / "countdown.py", WHOLE + '        yield Factory(name="two", config=Config, open=open_echo)\n', "one"
    )
    found = load(tmp_path, "countdown.py")
    for kind, offered_there in (
        ("executors", "./countdown.py:one, ./countdown.py:two"),
        ("routers", "'one' (executors)"),
    ):
        with pytest.raises(NotFound, match="offers no ") as raised:
            found.find(kind, "./countdown.py:nope")
        assert f"no {kind} plugin 'nope', but " in raised.value.message
        assert offered_there in raised.value.message
