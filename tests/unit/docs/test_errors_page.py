"""Does docs/errors.md name every error code that the source can give, and no other, with the right kind?"""

from __future__ import annotations

import ast
import re
from collections import defaultdict
from collections.abc import Iterator
from functools import cache
from pathlib import Path

from knotwork.config.model import Config
from knotwork.ops import rows
from knotwork.sdk import errors

ROOT = Path(__file__).parents[3]
PAGE = (ROOT / "docs" / "errors.md").read_text(encoding="utf-8")
_CODE = re.compile(r"[a-z]+(?:\.[a-z]+(?:_[a-z]+)*)")
_KINDS = {error.__name__: error.kind for error in errors.ALL}
_EVENTS = {
    "agent.done", "bus.server", "bus.state", "crew.phase", "node.ready", "node.stopped", "plugin.state", "spinup.launch", "telemetry.dropped",
    "trigger.given_up",
}  # fmt: skip
_FILES = re.compile(r".*\.(toml|json|jsonl|py|log|token)")
_FOREIGN = {
    "http.disconnect", "telemetry.jsonl", "bench.raw",  # of ASGI; a file; a subject
    "session.error", "session.model_change", "session.resume", "session.start", "session.tools_updated",
    "tool.execution_start",  # lines of Copilot's
}  # fmt: skip
_MADE = {
    "agent.bad_{what}": {"agent.bad_input": "invalid", "agent.bad_output": "failed"},
    "node.{what}": {"node.stopping": "unavailable", "node.draining": "unavailable"},
}
"""Codes that the source puts together, and what they can be."""


def test_codes_put_together_are_the_ones_expected() -> None:
    found = {
        code
        for root in ("node", "plugins")
        for path in (ROOT / root).rglob("*.py")
        for code in re.findall(r'code=f"(.*?)"', path.read_text(encoding="utf-8"))
    }
    assert found <= _MADE.keys(), "name what these codes can be, in `_MADE`"


@cache
def given() -> dict[str, set[str]]:
    """Return every code in the source, with the kinds of the errors it is given to where that can be seen."""
    found: dict[str, set[str]] = defaultdict(set)
    literals: set[str] = set()
    for root in ("node", "plugins"):
        for path in (ROOT / root).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                literals |= _texts(node) if isinstance(node, ast.Constant) else set()
                for code, kinds in _raised(node):
                    found[code] |= kinds
    for error in errors.ALL:
        found[error.default_code].add(error.kind)
    rooms = {code.partition(".")[0] for code in found}
    for word in literals - _not_codes():
        if word.partition(".")[0] in rooms:
            found.setdefault(word, set())
    for made in _MADE.values():
        for code, kind in made.items():
            found[code].add(kind)
    return dict(found)


def _raised(node: ast.AST) -> Iterator[tuple[str, set[str]]]:
    """Yield the codes that a call gives to what it makes, and the kind of error that is."""
    if isinstance(node, ast.Call):
        name = ast.unparse(node.func).rpartition(".")[2]
        for keyword in node.keywords:
            if keyword.arg == "code":
                for code in _texts(keyword.value):
                    yield code, {_KINDS[name]} if name in _KINDS else set()


def _texts(value: ast.AST) -> set[str]:
    return {
        part.value
        for part in ast.walk(value)
        if isinstance(part, ast.Constant) and isinstance(part.value, str) and _CODE.fullmatch(part.value)
    }


@cache
def _not_codes() -> set[str]:
    ops = {row["name"] for row in rows.ROWS}
    keys = {
        f"{table}.{key}"
        for table, field in Config.model_fields.items()
        if isinstance(field.annotation, type) and hasattr(field.annotation, "model_fields")
        for key in field.annotation.model_fields
    }
    events = _EVENTS | {"config.applied", "config.refused", "config.unchanged", "config.not_kept"}
    files = {word for path in (ROOT / "node").rglob("*.py") for word in _files_in(path)}
    return ops | keys | events | files | _FOREIGN


def _files_in(path: Path) -> set[str]:
    return set(re.findall(r'"([a-z]+\.(?:toml|json|jsonl|py|log|token))"', path.read_text(encoding="utf-8")))


def told() -> dict[str, str]:
    rows_of_page = re.findall(r"^\| `([a-z]+\.[a-z_]+)` \| ([a-z_, ]+) \| (.+) \|$", PAGE, re.MULTILINE)
    codes = [code for code, _, _ in rows_of_page]
    assert len(codes) == len(set(codes)), sorted(code for code in codes if codes.count(code) > 1)
    return {code: kinds for code, kinds, _ in rows_of_page}


def test_every_code_is_told() -> None:
    assert not sorted(given().keys() - told().keys())


def test_no_code_is_told_that_does_not_exist() -> None:
    assert not sorted(told().keys() - given().keys())


def test_the_kinds_are_right() -> None:
    wrong = {}
    for code, kinds in told().items():
        wanted = given()[code]
        if wanted and wanted != set(kinds.split(", ")):
            wrong[code] = f"{kinds}, should be {', '.join(sorted(wanted))}"
    assert not wrong


def test_every_kind_has_its_exit_code_and_status() -> None:
    for error in errors.ALL:
        assert f"| {error.kind} | {error.exit_code} | {error.http_status} |" in PAGE, error.kind
