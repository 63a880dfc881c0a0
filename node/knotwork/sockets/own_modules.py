"""Which modules does a plugin's folder bring, and does nobody else have their names?

All that runs in one process shares one table of modules: a plugin that imports its `client.py` would silently be given
that of another plugin, or of an installed package. So that is refused, by name, before any code of it runs.
"""

from __future__ import annotations

import ast
import importlib
import importlib.util
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType

from knotwork.config import regular
from knotwork.sdk import PluginFailed

MARK = "knotwork_file_"
"""How the names begin that single files are imported under: theirs alone, whatever the file is called."""


@contextmanager
def imported_anew(folder: Path) -> Iterator[None]:
    """Let what is imported inside be read from `folder` as it is now; when that fails, what was imported before stays."""
    inside, vendor = f"{folder}{os.sep}", f"{folder / 'vendor'}{os.sep}"
    before = {
        name: module
        for name, module in list(sys.modules.items())
        if isinstance(module, ModuleType)  # there are classes among them
        and not name.startswith(MARK)
        and _origin(module).startswith(inside)
        and not _origin(module).startswith(vendor)
    }
    for name in before:
        del sys.modules[name]
    importlib.invalidate_caches()
    try:
        yield
    except BaseException:
        sys.modules.update(before)
        raise


def refuse_taken(folder: Path, entry: str) -> None:
    """Raise `PluginFailed` (`plugin.module_taken`) when a module of `folder` that `entry` leads to is not what is found."""
    for name in sorted(_names(folder, entry)):
        found = sys.modules.get(name) or importlib.util.find_spec(name)
        origin = _origin(found)
        if not origin or not Path(origin).resolve().is_relative_to(folder.resolve()):
            raise PluginFailed(
                f"{folder}: module {name} is taken by {origin or 'a built-in module'}",
                code="plugin.module_taken",
                hint="Rename the module, or run the plugin hosted, where it is alone. What was removed goes with a restart.",
            )


def _names(folder: Path, entry: str) -> set[str]:
    """Return the modules and packages at the top of `folder` that its code imports, beginning with `entry`."""
    found: set[str] = set()
    files: list[Path] = [folder / entry] if entry.endswith(".py") else []
    names = set() if files else {entry.partition(".")[0]}
    while files or names:
        for name in names - found:
            found.add(name)
            files += _files(folder, name)
        names = (
            {name for name in _imported(files.pop()) if name not in found and _files(folder, name)} if files else set()
        )
    return found


def _files(folder: Path, name: str) -> list[Path]:
    alone = folder / f"{name}.py"
    return [alone] if alone.is_file() else sorted((folder / name).rglob("*.py"))


def _imported(path: Path) -> Iterator[str]:
    """Yield the first parts of what a file imports; none when it cannot be read, which its import tells better."""
    tree: ast.AST = ast.Module([], [])
    with (
        suppress(OSError, SyntaxError, ValueError, RecursionError, MemoryError, SystemError),
        regular.opened(path) as file,
    ):
        tree = ast.parse(file.read())
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            yield node.module.partition(".")[0]


def _origin(found: ModuleType | ModuleSpec | None) -> str:
    """Return the file a module comes from, or its folder when it has no file; "" when it is built in."""
    if isinstance(found, ModuleType):
        said = vars(found)  # no attribute: some modules import more when they are asked for one
        file, folders = said.get("__file__"), said.get("__path__")
    else:
        file = found.origin if found is not None and found.has_location else None
        folders = found.submodule_search_locations if found is not None else None
    return str(file or next(iter(folders or ()), ""))
