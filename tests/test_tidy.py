"""Is the tree tidy? What reviewers would otherwise have to say again and again, and the gates of every change.

`node/` and `plugins/` are held to more than the rest: they are what a reader of the program reads.
"""

from __future__ import annotations

import ast
import functools
import gc
import importlib.metadata
import os
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pytest

from knotwork import __version__
from knotwork.cli import files
from knotwork.ops.table import TABLE
from knotwork.sdk import errors
from knotwork.sockets.manifest import Manifest

ROOT = Path(__file__).resolve().parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
README = (ROOT / "README.md").read_text(encoding="utf-8")
TOOL_TIMEOUT_S = 600
LINES_MAX, FUNCTION_LINES_MAX = 400, 60
SLEEP_MAX_S, HANG_MIN_S = 0.05, 10.0
SAYS_NOTHING = {"utils", "util", "common", "core", "base", "manager", "managers", "helpers", "helper", "misc"}
PINS = ("constraints.txt", "constraints-dev.txt")


def tracked() -> list[Path]:
    """Return the files of the repository; those not yet added count, ignored ones do not."""
    if (ROOT / ".git").exists():
        listed = subprocess.run(
            ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"],
            cwd=ROOT, capture_output=True, text=True, check=True, timeout=TOOL_TIMEOUT_S,
        ).stdout.split("\0")  # fmt: skip
        return [ROOT / name for name in listed if name and (ROOT / name).is_file()]
    skip = {".venv", "build", "dist", "__pycache__"}
    return [path for path in ROOT.rglob("*") if path.is_file() and not skip & set(path.relative_to(ROOT).parts)]


FILES = tracked()
PRODUCT = [path for path in FILES if path.suffix == ".py" and path.relative_to(ROOT).parts[0] in ("node", "plugins")]
PACKAGING = [path for path in FILES if path.suffix == ".py" and path.relative_to(ROOT).parts[0] == "packaging"]
TESTS = [path for path in FILES if path.suffix == ".py" and path.relative_to(ROOT).parts[0] == "tests"]
PAGES = [ROOT / "README.md", *(path for path in FILES if path.parent == ROOT / "docs" and path.suffix == ".md")]


def name_of(path: Path) -> str:
    return str(path.relative_to(ROOT))


def trees(paths: list[Path]) -> list[tuple[str, ast.Module, list[str]]]:
    gc.disable()  # all of it stays to the end: the collector would look at it again and again
    try:
        return [(name_of(path), *read(path)) for path in paths]
    finally:
        gc.freeze()
        gc.enable()


@functools.cache  # several tests look at each; nobody changes what is here
def read(path: Path) -> tuple[ast.Module, list[str]]:
    text = path.read_text(encoding="utf-8")
    return ast.parse(text), text.splitlines()


@functools.cache
def text_of(*areas: str) -> str:
    """Return the text of all Python files of some areas of the tree, this file and that of the errors left out."""
    left_out = {Path(__file__).resolve(), ROOT / "node" / "knotwork" / "sdk" / "errors.py"}
    paths = [path for path in FILES if path.suffix == ".py" and path.relative_to(ROOT).parts[0] in areas]
    return "\n".join(path.read_text(encoding="utf-8") for path in paths if path not in left_out)


# -- gates: each is the tool a developer runs by hand, with no option that is not in pyproject.toml ----------------------


@pytest.mark.timeout(TOOL_TIMEOUT_S + 10)
@pytest.mark.parametrize(
    "command",
    [
        pytest.param(("ruff", "check", "."), id="ruff-check"),
        pytest.param(("ruff", "format", "--check", "."), id="ruff-format"),
        pytest.param((sys.executable, "-m", "mypy"), id="mypy"),
        pytest.param((sys.executable, "-m", "mypy", *map(name_of, PACKAGING)), id="mypy-packaging"),
        pytest.param(("lint-imports",), id="import-contracts"),
        # what authors of plugins see is typed whole: no symbol that their checker would have to guess
        pytest.param(("basedpyright", "--verifytypes", "knotwork.sdk", "--ignoreexternal"), id="verifytypes"),
    ],
)
def test_gate(command: tuple[str, ...]):
    beside = Path(sys.executable).parent / command[0]  # the tool of this environment, activated or not
    program = str(beside) if beside.exists() else shutil.which(command[0])
    assert program, f"{command[0]} is not installed: pip install -r packaging/constraints-dev.txt"
    done = subprocess.run(
        [program, *command[1:]],
        cwd=ROOT, capture_output=True, text=True, check=False, timeout=TOOL_TIMEOUT_S, stdin=subprocess.DEVNULL,
        env={**os.environ, "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}"},
    )  # fmt: skip
    assert done.returncode == 0, f"{' '.join(command)}\n{done.stdout[-8000:]}\n{done.stderr[-2000:]}"


def test_the_banned_calls_stay_banned():
    banned = set(PROJECT["tool"]["ruff"]["lint"]["flake8-tidy-imports"]["banned-api"])
    assert {f"asyncio.{name}" for name in ("create_task", "ensure_future", "gather", "wait_for")} <= banned
    # a process half started is always let through to its end, and ended properly then: the reason stands there
    meant = {"plugins/knotwork_plugins/executors/process/group.py"}
    free = []
    for name, tree, _ in trees(
        [path for path in PRODUCT if name_of(path) not in meant]
    ):  # what ruff cannot see: the same by way of the loop
        for node in ast.walk(tree):
            if isinstance(node, ast.Attribute) and node.attr == "create_task":
                owner = node.value.func if isinstance(node.value, ast.Call) else node.value
                said = owner.attr if isinstance(owner, ast.Attribute) else getattr(owner, "id", "")
                if said in ("loop", "_loop", "get_running_loop", "get_event_loop"):
                    free.append(f"{name}:{node.lineno}")
    assert not free, f"tasks without a group: {free}"


def test_what_is_yielded_from_within_a_task_group_may_be_closed():
    """A group takes the `GeneratorExit` of a generator that is closed early for an error, and passes it on as a group of
    errors, which ends whoever closed it: it has to be caught inside."""
    exposed = []
    for name, tree, _ in trees(PRODUCT):
        for function in (one for one in ast.walk(tree) if isinstance(one, ast.AsyncFunctionDef)):
            if any("contextmanager" in ast.unparse(one) for one in function.decorator_list):
                continue
            for group in (one for one in ast.walk(function) if isinstance(one, ast.AsyncWith)):
                opened = {ast.unparse(item.context_expr) for item in group.items}
                held = any(
                    "GeneratorExit" in ast.unparse(one.type or one)
                    for one in ast.walk(group)
                    if isinstance(one, ast.ExceptHandler)
                )
                if opened & {"asyncio.TaskGroup()", "background()"} and not held:
                    exposed += [f"{name}:{one.lineno}" for one in ast.walk(group) if isinstance(one, ast.Yield)]
    assert not exposed, f"yields that end whoever closes the generator: {exposed}"


def test_every_ignored_rule_has_its_reason():
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    assert PROJECT["tool"]["ruff"]["lint"]["select"] == ["ALL"]
    assert PROJECT["tool"]["mypy"]["strict"] is True
    assert PROJECT["tool"]["pytest"]["ini_options"]["filterwarnings"][0] == "error"
    lines = text.split("\nignore = [", 1)[1].split("\n]", 1)[0].splitlines()
    bare = [line for line in lines if line.strip() and "#" not in line]
    assert not bare, bare


# -- the shape of the source ---------------------------------------------------------------------------------------------


def test_modules_are_short():
    made = ROOT / "node" / "knotwork" / "ops" / "rows.py"  # written by a program, and by nobody read
    long = {
        name: len(lines)
        for name, _, lines in trees([path for path in PRODUCT + PACKAGING if path != made])
        if len(lines) > LINES_MAX
    }
    assert not long


def test_functions_are_short():
    long = {}
    for name, tree, _ in trees(PRODUCT + PACKAGING):
        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                length = (node.end_lineno or node.lineno) - node.lineno + 1
                if length > FUNCTION_LINES_MAX:
                    long[f"{name}:{node.lineno} {node.name}"] = length
    assert not long


def test_modules_begin_with_what_they_answer():
    silent = [name for name, tree, lines in trees(PRODUCT + PACKAGING) if lines and not ast.get_docstring(tree)]
    assert not silent


def test_names_say_what_is_inside():
    empty = [
        name_of(path)
        for path in FILES
        if SAYS_NOTHING & {re.sub(r"^test_", "", Path(part).stem) for part in path.relative_to(ROOT).parts}
    ]
    assert not empty


def test_names_on_the_wire_are_built_in_one_place():
    pattern = re.compile(
        r"(?:run|trigger|told|task|hint|timer|fired|ended|history|dead|channel|inbox|heard|post|event|firing|count"
        r"|telemetry|agents?|op|cancel|withdraw|notice|stream)\.(?:\S+\.)?[*>](?:\.\S+)?"
    )
    built = {ROOT / "node" / "knotwork" / "bus" / name for name in ("subjects.py", "patterns.py")}
    found = []
    for name, tree, _ in trees([path for path in PRODUCT if path not in built]):
        for node in ast.walk(tree):
            parts = node.values if isinstance(node, ast.JoinedStr) else [node]
            text = "".join(str(part.value) if isinstance(part, ast.Constant) else "{}" for part in parts)
            if pattern.fullmatch(text):
                found.append(f"{name}:{node.lineno} {text}")
    assert not found, "say it in bus/patterns.py"


def test_packaging_shadows_nothing():
    assert not (ROOT / "packaging" / "__init__.py").exists(), "it would hide the library `packaging`"
    roots = {path.parent.name for root in ("node", "plugins") for path in (ROOT / root).glob("*/__init__.py")}
    assert roots == {"knotwork", "knotwork_plugins"}


def test_nothing_tells_of_the_machine_it_was_written_on():
    home = re.compile(
        r"/(?:home|Users)/(?!runner\b|me\b|you\b)[a-z]\w*/|/root/|(?<![\w}~*:])/work/|/tmp/(?!_MEI)\w{2,}/"
    )
    places = re.compile(
        r"\b(?:pypi\.org|pythonhosted\.org|npmjs\.(?:org|com)|deb\.debian\.org|crates\.io|proxy\.golang)"
    )
    found = []
    for path in FILES:
        if path == Path(__file__).resolve():
            continue
        try:
            text = path.read_text(encoding="utf-8")
        except UnicodeDecodeError:
            continue
        found += [f"{name_of(path)}: {hit[0]}" for hit in (*home.finditer(text), *places.finditer(text))]
    assert not found


def test_no_lock_files():
    locks = [
        name_of(path) for path in FILES if path.suffix == ".lock" or path.name in ("package-lock.json", "Pipfile.lock")
    ]
    assert not locks, "they record addresses; pins live in packaging/constraints.txt"


# -- tests ---------------------------------------------------------------------------------------------------------------


def _sleeps(tree: ast.Module) -> Iterator[tuple[ast.Call, bool]]:
    """Yield each call of a `sleep` with whether it stands in a loop."""
    todo: list[tuple[ast.AST, bool]] = [(tree, False)]
    while todo:
        node, looped = todo.pop()
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "sleep":
            yield node, looped
        inside = looped or isinstance(node, ast.While | ast.For | ast.AsyncFor)
        todo += [(child, inside) for child in ast.iter_child_nodes(node)]


def test_no_test_waits_for_a_guess():
    """A sleep is a short step of a loop that looks for something, a hang nobody waits out, random, or says why on its line."""
    guesses = []
    for name, tree, lines in trees([path for path in TESTS if "standins" not in path.parts]):
        for call, looped in _sleeps(tree):
            value = call.args[0] if call.args else None
            seconds = value.value if isinstance(value, ast.Constant) and isinstance(value.value, int | float) else None
            fine = seconds is not None and (
                seconds == 0 or seconds >= HANG_MIN_S or (looped and seconds <= SLEEP_MAX_S)
            )
            if not fine and not re.search(r"  #|random", lines[call.lineno - 1]):
                guesses.append(f"{name}:{call.lineno}")
    assert not guesses


def test_each_room_and_plugin_kind_has_tests():
    words = "\n".join(path.read_text(encoding="utf-8") for path in TESTS)
    rooms = {path.parent for path in PRODUCT if path.name == "__init__.py"}
    named = {room: (".".join(room.relative_to(ROOT).parts[1:]), f'"{room.name}"') for room in rooms}
    assert not [name_of(room) for room, names in named.items() if not any(name in words for name in names)]


@pytest.mark.parametrize("name", sorted(TABLE))
def test_each_op_is_documented_and_tested(name: str):
    op = TABLE[name]
    assert f"knotwork {' '.join(op.cli.words)}" in (ROOT / "docs" / "cli.md").read_text(encoding="utf-8")
    tests = text_of("tests")
    words = ", ".join(f'"{word}"' for word in op.cli.words)
    assert any(way in tests for way in (f'"{name}"', f"/api/{name.replace('.', '/')}", words)), "no test asks it"


@pytest.mark.parametrize("error", errors.ALL, ids=lambda error: error.__name__)
def test_each_error_is_documented_and_used(error: type[errors.KnotworkError]):
    assert error.__name__ in (errors.__doc__ or "")
    assert re.search(rf"\b{error.__name__}\(", text_of("node", "plugins")), "nobody raises it"


# -- what is written down elsewhere --------------------------------------------------------------------------------------


def test_the_example_configuration_is_the_generated_one():
    done = subprocess.run(
        [sys.executable, "-m", "knotwork", "config", "example"],
        capture_output=True, text=True, check=True, timeout=TOOL_TIMEOUT_S, cwd=ROOT / "docs",
    )  # fmt: skip
    written = (ROOT / "config.example.toml").read_text(encoding="utf-8")
    assert written == done.stdout, "run: knotwork config example > config.example.toml"
    files.check(files.FileOptions(config=(str(ROOT / "config.example.toml"),)))


def test_one_version_everywhere():
    version = PROJECT["project"]["version"]
    assert __version__ == version == importlib.metadata.version("knotwork")
    assert f"\n## {version}" in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")


BLOCKS = [
    pytest.param(text, id=f"{page.stem}-{number}")
    for page in PAGES
    for number, text in enumerate(re.findall(r"```toml\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL), 1)
]


@pytest.mark.parametrize("text", BLOCKS)
def test_the_toml_of_the_pages_is_valid(text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    tables = tomllib.loads(text)
    if {"name", "kind", "entry"} <= set(tables):  # a plugin.toml
        Manifest.model_validate(tables)
        return
    for name in re.findall(r"\$\{(\w+)\}", text):
        monkeypatch.setenv(name, "value")
    for name in re.findall(r'\{ *env *= *"(\w+)" *\}', text):
        monkeypatch.setenv(name, "a-secret")
    for number, path in enumerate(re.findall(r'\{ *file *= *"([^"]+)" *\}', text)):
        (tmp_path / f"secret{number}").write_text("a-secret", encoding="utf-8")
        (tmp_path / f"secret{number}").chmod(0o600)
        text = text.replace(f'"{path}"', f'"{tmp_path}/secret{number}"')
    file = tmp_path / "knotwork.toml"
    file.write_text(text, encoding="utf-8")
    look = files.load if re.search(r'^type = "\.', text, re.MULTILINE) else files.check  # a plugin that is only told of
    look(files.FileOptions(config=(str(file),)))


def test_links_between_pages_lead_somewhere():
    links = [
        (page, target)
        for page in PAGES
        for target in re.findall(r"\]\(([^)#]+?)(?:#[^)]*)?\)", page.read_text(encoding="utf-8"))
        if not re.match(r"[a-z]+:", target)
    ]
    assert not [f"{name_of(page)}: {target}" for page, target in links if not (page.parent / target).exists()]


def test_the_page_on_the_source_names_files_that_are_there():
    page = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    named = set(re.findall(r"`([a-z_]+/[a-z_/]+\.py)`", page))
    assert len(named) > 40
    roots = (ROOT / "node" / "knotwork", ROOT)
    assert not [name for name in named if not any((root / name).exists() for root in roots)]


# -- installing and running ----------------------------------------------------------------------------------------------


def command(marker: str) -> str:
    """Return the one line that README.md gives after `<!-- marker -->`."""
    found = re.search(rf"^<!-- {marker} -->\n```sh\n(.+)\n```$", README, re.MULTILINE)
    assert found, f"README.md has no one-line command after <!-- {marker} -->"
    return found[1]


def test_each_command_of_the_readme_is_whole():
    for marker, pins, last in (("demo", PINS[0], "knotwork demo"), ("tests", PINS[1], "python -m pytest")):
        assert "--require-hashes -r packaging/" + pins in command(marker)
        assert command(marker).endswith(".venv/bin/" + last)


def test_ci_runs_the_command_of_the_readme(tmp_path: Path):
    """The script is run in a copy where `python3` only says how it was called, and fails."""
    (tmp_path / ".ci").mkdir()
    shutil.copy(ROOT / ".ci" / "run", tmp_path / ".ci" / "run")
    (tmp_path / "README.md").write_text(README, encoding="utf-8")
    shim = tmp_path / "python3"
    shim.write_text('#!/bin/sh\necho "called: $*"\nexit 7\n')
    shim.chmod(0o755)
    done = subprocess.run(
        ["bash", str(tmp_path / ".ci" / "run")],
        env={"PATH": f"{tmp_path}:/usr/bin:/bin", "CI": "true"},
        stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip
    assert done.returncode == 7, done.stderr
    assert done.stdout.splitlines() == [command("tests"), "called: -m venv .venv"]


def pins(name: str) -> dict[str, str]:
    """Return the pinned requirements of a constraints file: name and marker to version."""
    found = {}
    for line in (ROOT / "packaging" / name).read_text(encoding="utf-8").splitlines():
        if line and line[0] not in "# ":
            match = re.fullmatch(r"([a-z0-9.-]+)==(\S+)((?: ; [^\\]+)?) \\", line)
            assert match, line
            found[match[1] + match[3]] = match[2]
    return found


@pytest.mark.parametrize("name", PINS)
def test_every_pin_has_hashes_and_no_address(name: str):
    lines = (ROOT / "packaging" / name).read_text(encoding="utf-8").splitlines()
    for line, following in pairwise([*lines, ""]):
        assert re.fullmatch(r"#.*|[a-z0-9.-]+==\S+(?: ; [^\\]+)? \\|    --hash=sha256:[0-9a-f]{64}(?: \\)?", line), line
        assert line.endswith("\\") == following.startswith("    --hash=")


def test_the_pins_hold_all_that_is_asked_for_and_agree():
    run, dev = pins(PINS[0]), pins(PINS[1])
    assert set(run.items()) <= set(dev.items())
    asked = [*PROJECT["project"]["dependencies"], *PROJECT["build-system"]["requires"]]
    for wanted, pinned in ((asked, run), (PROJECT["dependency-groups"]["dev"], dev)):
        names = {key.partition(" ")[0] for key in pinned}
        missing = {re.match(r"[\w.-]+", line)[0].lower().replace("_", "-") for line in wanted} - names
        assert not missing, "run: python packaging/pin.py"
