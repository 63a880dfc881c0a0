"""Are the pages true where a machine can tell? Tables are valid, commands exist, plugins keep their contract, links lead somewhere."""

from __future__ import annotations

import re
import shlex
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import click
import pytest
from tests import plugin_tests

from knotwork.cli import app, files
from knotwork.config import example
from knotwork.sockets import catalog as catalogs
from knotwork.sockets import loading, manifest, trial

ROOT = Path(__file__).parents[3]
PAGES = [ROOT / "README.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").glob("*.md"))]
_FENCE = re.compile(r"(?:^<!-- (?P<mark>[^>]*) -->\n)?^```(?P<kind>\w*)\n(?P<text>.*?)^```$", re.MULTILINE | re.DOTALL)
_STARTS = re.compile(r"(?:^|[;|&(]\s*|\$ )knotwork ")


class Block(NamedTuple):
    """One fenced block; `mark` is the comment right above it."""

    page: str
    mark: str
    kind: str
    text: str


def blocks() -> Iterator[Block]:
    for page in PAGES:
        for found in _FENCE.finditer(page.read_text(encoding="utf-8")):
            yield Block(page.name, found["mark"] or "", found["kind"], found["text"])


def named(blocks: list[Block]) -> list[str]:
    return [f"{block.page}-{index}" for index, block in enumerate(blocks)]


BLOCKS = list(blocks())
TABLES = [block for block in BLOCKS if block.kind == "toml" and "plugin.toml" not in block.mark]
FILES = [block for block in BLOCKS if block.mark.startswith("file: ")]


@pytest.mark.parametrize("block", TABLES, ids=named(TABLES))
def test_tables_are_valid(block: Block, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for other in FILES:
        if other.page == block.page:
            (tmp_path / other.mark.removeprefix("file: ")).write_text(other.text)
    text = block.text  # the secrets it names must be there to be had
    for name in re.findall(r'\{ *env *= *"(\w+)" *\}', text):
        monkeypatch.setenv(name, "a-secret")
    for number, secret in enumerate(re.findall(r'\{ *file *= *"([^"]+)" *\}', text)):
        (tmp_path / f"secret{number}").write_text("a-secret")
        (tmp_path / f"secret{number}").chmod(0o600)
        text = text.replace(f'"{secret}"', f'"{tmp_path}/secret{number}"')
    path = tmp_path / "block.toml"
    path.write_text(text)
    files.check(files.FileOptions(config=(str(path),)))


def commands(block: Block) -> Iterator[list[str]]:
    """Yield the words of every `knotwork …` in a shell block."""
    text = re.sub(r"<<'END'.*?^END$", "", block.text.replace("\\\n", " "), flags=re.MULTILINE | re.DOTALL)
    for line in text.splitlines():
        for found in _STARTS.finditer(line):
            lexer = shlex.shlex(line[found.end() :], posix=True, punctuation_chars=True)
            lexer.whitespace_split = True
            words: list[str] = []
            for word in lexer:
                if set(word) <= set("();<>|&") or (words and word.isdigit() and lexer.instream.tell() and word == "2"):
                    break
                words.append(word)
            yield words


SHELL = {
    page.name: [
        words
        for block in BLOCKS
        if block.page == page.name and block.kind in ("sh", "console")
        for words in commands(block)
    ]
    for page in PAGES
}


@pytest.mark.parametrize("page", [page for page, found in SHELL.items() if found])
def test_commands_exist(page: str) -> None:
    wrong = []
    for words in SHELL[page]:
        try:
            parse(words)
        except click.UsageError as error:
            wrong.append(f"knotwork {' '.join(words)}: {error.format_message()}")
    assert not wrong


@pytest.mark.parametrize(
    "page", [page for page in PAGES if page.name not in ("cli.md", "CHANGELOG.md")], ids=lambda page: page.name
)
def test_commands_in_sentences_exist(page: Path) -> None:
    """They may leave out what they are about; a word or an option that is none is a mistake."""
    wrong = []
    prose = _FENCE.sub("", page.read_text(encoding="utf-8"))
    for span in re.findall(r"`knotwork ([^`]+)`", prose):
        line = re.split(r" (?:&&|>|\\\||…)", " ".join(span.split()))[0]
        if line.startswith("-") or "--help" in line:  # what stands before the command is no option of one
            continue
        try:
            parse(shlex.split(line))
        except click.UsageError as error:
            told = error.format_message()
            if told.startswith("No such") and "…" not in told:
                wrong.append(f"knotwork {line}: {told}")
    assert not wrong


def parse(words: list[str]) -> None:
    """Parse a command line without running it; raises `click.UsageError`."""
    command: click.Command = app.tree()
    parent: click.Context | None = None
    rest = list(words)
    while isinstance(command, click.Group):
        parent = command.make_context("knotwork", rest, parent=parent, resilient_parsing=False)
        left = [*parent._protected_args, *parent.args]
        if not left:
            return
        _, found, rest = command.resolve_command(parent, left)
        assert found is not None
        command = found
    command.make_context(command.name, rest, parent=parent)


def test_there_are_commands_and_tables_to_look_at() -> None:
    assert sum(map(len, SHELL.values())) > 80
    assert len(TABLES) > 30


PLUGINS = [block for block in FILES if block.kind == "python" and "@hookimpl" in block.text]


@pytest.mark.parametrize("block", PLUGINS, ids=named(PLUGINS))
def test_plugins_keep_their_contract(block: Block, tmp_path: Path) -> None:
    path = tmp_path / block.mark.removeprefix("file: ")
    path.write_text(block.text)
    found = loading.load(catalogs.CatalogSettings(files=(str(path),), patience_s=60))
    assert not found.broken()
    (entry,) = [entry for entry in found.entries() if entry.source.where == str(path)]
    sample = {"countdown": 3, "longest": "a few words"}.get(entry.type)
    failed = [result for result in trial.run(entry, {}, sample) if not result.passed]
    assert not failed


def test_the_test_on_the_page_passes(tmp_path: Path) -> None:
    for block in FILES:
        if block.page == "plugins.md" and block.kind == "python":
            (tmp_path / block.mark.removeprefix("file: ")).write_text(block.text)
    assert "14 passed" in plugin_tests.run(tmp_path, "--rootdir", str(tmp_path), "test_countdown.py")


def test_the_manifest_on_the_page_is_valid(tmp_path: Path) -> None:
    (block,) = [block for block in BLOCKS if block.mark == "file: plugin.toml"]
    (tmp_path / "plugin.toml").write_text(block.text)
    assert manifest.read(tmp_path).types == ()


def slug(head: str) -> str:
    """Return the anchor that a heading gets."""
    return re.sub(r"[^\w\- ]", "", head.strip().lower()).replace(" ", "-")


@pytest.mark.parametrize("page", PAGES, ids=[page.name for page in PAGES])
def test_links_lead_somewhere(page: Path) -> None:
    text = re.sub(r"```.*?```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)
    broken = []
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if "://" in target:
            continue
        name, _, anchor = target.partition("#")
        path = (page.parent / name).resolve() if name else page
        heads = (
            re.findall(r"^#+ (.+)$", path.read_text(encoding="utf-8"), re.MULTILINE)
            if path.suffix == ".md" and path.exists()
            else []
        )
        if not path.exists() or (anchor and anchor not in map(slug, heads)):
            broken.append(target)
    assert not broken


def test_every_page_is_on_the_map() -> None:
    text = (ROOT / "docs" / "README.md").read_text(encoding="utf-8")
    missing = [
        page.name for page in (ROOT / "docs").glob("*.md") if page.name != "README.md" and f"]({page.name})" not in text
    ]
    assert not missing


def test_the_example_is_what_the_program_prints(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    found = loading.load(catalogs.CatalogSettings(safe_mode=True))
    text = (ROOT / "config.example.toml").read_text(encoding="utf-8")
    assert text == example.example_text(found.config_classes()), "run: knotwork config example > config.example.toml"
    files.check(files.FileOptions(config=(str(ROOT / "config.example.toml"),)))


def test_every_key_of_the_configuration_is_told() -> None:
    page = (ROOT / "docs" / "configuration.md").read_text(encoding="utf-8")
    tables = tomllib.loads(example.example_text({}))
    missing = [f"{table}.{key}" for table, keys in tables.items() for key in keys if not re.search(rf"\b{key}\b", page)]
    assert not missing


def test_no_page_names_a_machine_of_ours() -> None:
    for page in PAGES:
        assert not re.search(r"(?<![\w~}])/(?:work|root)/", page.read_text(encoding="utf-8")), page.name
