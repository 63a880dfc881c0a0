"""What does a new plugin start from? A small project that works, with tests that pass, or a single file."""

from __future__ import annotations

import ast
import keyword
import re
import sys
from string import Template
from typing import TYPE_CHECKING

import knotwork
from knotwork.sdk import API_VERSION, Conflict, Invalid
from knotwork.sockets import manifest, scaffold_texts

if TYPE_CHECKING:
    from pathlib import Path

KINDS = tuple(scaffold_texts.MODULES)
IN_PROCESS = ("memory", "spinup")
"""Kinds that cannot run in a process of their own."""


def write(kind: str, name: str, folder: Path, *, single_file: bool = False) -> list[Path]:
    """Write the plugin into `folder` (a single file: beside it) and return the files written.

    `kind` is one of `KINDS`, `name` a token. Raises `Invalid` (`plugin.bad_name`, `plugin.bad_kind`)
    and `Conflict` (`plugin.exists`) when something is there already; then nothing is written.
    """
    files = {folder / path: text for path, text in render(kind, name, single_file=single_file).items()}
    there = [path for path in files if path.exists()]
    if there:
        raise Conflict(f"{there[0]} exists already", code="plugin.exists", hint="Choose another name or --folder.")
    for path, text in files.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    return list(files)


def render(kind: str, name: str, *, single_file: bool = False) -> dict[str, str]:
    """Return the texts by path inside the plugin's folder; raises as `write` does."""
    if kind not in KINDS:
        raise Invalid(
            f"no such kind of plugin: {kind[:40]!r}", code="plugin.bad_kind", hint=f"One of {', '.join(KINDS)}."
        )
    module = name.replace("-", "_")
    if not re.match(manifest.TOKEN, name) or not module.isidentifier() or keyword.iskeyword(module):
        raise Invalid(
            f"{name[:80]!r} is no name for a plugin",
            code="plugin.bad_name",
            hint="Like `my-agent`: a-z, 0-9, - and _, a letter first; no word of Python's.",
        )
    if module in sys.stdlib_module_names or module in ("knotwork", "knotwork_plugins", "pytest", "tests"):
        raise Invalid(f"{name!r} is the name of another module", code="plugin.bad_name", hint="Choose another name.")
    own = _words(kind, name)
    names = {own["module"], own["Name"], f"{own['Name']}Config"}
    if names & _used(kind, single_file=single_file) or keyword.iskeyword(own["Name"]):
        raise Invalid(
            f"{name!r} is a word that the files of a plugin use themselves",
            code="plugin.bad_name",
            hint=f"Choose another name, `my-{name}` say.",
        )
    return {
        path: Template(text).substitute(own) for path, text in _texts(kind, module, single_file=single_file).items()
    }


def _words(kind: str, name: str) -> dict[str, str]:
    """Return what stands in the texts for the words that begin with $."""
    module = name.replace("-", "_")
    return {
        "name": name,
        "module": module,
        "Name": "".join(part.capitalize() for part in module.split("_") if part),
        "kind": kind,
        "table": {"telemetry": "telemetry", "spinup": "targets", "memory": "memories"}.get(kind, f"{kind}s"),
        "hosted": "" if kind in IN_PROCESS else scaffold_texts.HOSTED,
        "asked": scaffold_texts.ASKED.get(kind, ""),
        "always": "" if kind in IN_PROCESS else scaffold_texts.ALWAYS,
        "api": str(API_VERSION),
        "release": ".".join(knotwork.__version__.split(".")[:2]),
    }


def _texts(kind: str, module: str, *, single_file: bool) -> dict[str, str]:
    texts = {f"{module}.py": scaffold_texts.MODULES[kind]}
    if not single_file:
        texts |= {
            "pyproject.toml": scaffold_texts.PYPROJECT,
            manifest.FILE_NAME: scaffold_texts.MANIFEST,
            "README.md": scaffold_texts.README,
            f"tests/test_{module}.py": scaffold_texts.TESTS[kind],
        }
    return texts


def _used(kind: str, *, single_file: bool) -> set[str]:
    """Return the names that the code of a new plugin uses, whatever it is called: one of its own would hide them."""
    words = {**_words(kind, "x"), "module": "_module", "Name": "_Name"}
    used: set[str] = set()
    for path, text in _texts(kind, "x", single_file=single_file).items():
        nodes = ast.walk(ast.parse(Template(text).substitute(words))) if path.endswith(".py") else ()
        for node in nodes:
            match node:
                case (
                    ast.Name(id=name) | ast.arg(arg=name) | ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name)
                ):
                    used.add(name)
                case ast.ClassDef(name=name) | ast.alias(name=name):
                    used.add(name)
    return used
