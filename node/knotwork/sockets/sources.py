"""Where could plugins come from? Installed packages, single files and folders, told apart without importing any code."""

from __future__ import annotations

import ast
import hashlib
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from knotwork.config import regular
from knotwork.sdk import API_VERSION, Invalid, Kind
from knotwork.sockets import manifest

if TYPE_CHECKING:
    from collections.abc import Iterator

GROUP = "knotwork"
BUNDLED = "bundled"
FILE_MAX_BYTES = 1024 * 1024
FOLDER_FILES_MAX = 2000


@dataclass(frozen=True, slots=True)
class Source:
    """One place that offers plugins.

    `where` is an import path (`package:attribute`) for packages and an absolute path for files and folders; `entry`
    the file or module inside a folder. `digest` changes when the code may have changed. `types` and `plugin_kind` are
    known beforehand for folders only, from their manifest.
    """

    kind: Literal["bundled", "package", "file", "folder"]
    name: str
    where: str
    entry: str = ""
    version: str = ""
    summary: str = ""
    docs: str = ""
    api: int = API_VERSION
    hosted: bool = False
    plugin_kind: Kind | None = None
    types: tuple[str, ...] = ()
    dependencies: tuple[str, ...] = ()
    digest: str = ""

    def __str__(self) -> str:
        """Return what a person would call it."""
        if self.kind == "bundled":
            return "bundled"
        return f"package {self.name}" if self.kind == "package" else self.where

    def may_offer(self, kind: Kind, type_name: str) -> bool:
        """Say whether a type is likely of this source: what none but a manifest says, it is called after."""
        if self.types:
            return kind == self.plugin_kind and type_name in self.types
        return type_name == self.name


def from_packages(group: str = GROUP) -> Iterator[Source]:
    """Yield the bundled plugins first, then every installed package with an entry point in `group`, by name."""
    points = {(point.name, point.value): point for point in metadata.entry_points(group=group)}
    for (name, value), point in sorted(points.items(), key=lambda item: (item[0][0] != BUNDLED, item[0])):
        dist = point.dist
        version = dist.version if dist else ""
        yield Source(
            kind="bundled" if name == BUNDLED and dist is not None and dist.name == "knotwork" else "package",
            name=name,
            where=value,
            version=version,
            summary=str(dist.metadata.json.get("summary", "")) if dist else "",
            digest=f"{value} {version}",
        )


def from_file(path: Path) -> Source:
    """Describe a single-file plugin; raises `Invalid` (`plugin.file`) when it cannot be read or is no Python."""
    try:
        with regular.opened(path) as file:
            raw = file.read(FILE_MAX_BYTES + 1)
    except OSError as error:
        raise Invalid(f"{path}: cannot be read: {error.strerror or error}", code="plugin.file") from error
    if len(raw) > FILE_MAX_BYTES:
        raise Invalid(f"{path}: over {FILE_MAX_BYTES} bytes, too big for a plugin in one file", code="plugin.file")
    try:
        told = ast.get_docstring(_parsed(raw, path)) or ""
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        line = getattr(error, "lineno", None)
        raise Invalid(f"{path}:{line or 1}: {error}", code="plugin.import_failed") from error
    return Source(
        kind="file",
        name=path.stem,
        where=str(path),
        summary=told.strip().split("\n", 1)[0][:200],
        digest=hashlib.sha256(raw).hexdigest()[:16],
    )


def _parsed(raw: bytes, path: Path) -> ast.Module:
    try:
        return ast.parse(raw, filename=str(path))
    except SystemError:  # Pythons before 3.11.5 mix up two threads that parse at the same time
        return ast.parse(raw, filename=str(path))


def from_folder(path: Path) -> Source:
    """Describe a plugin folder by its manifest; raises `Invalid` (`plugin.manifest`)."""
    said = manifest.read(path)
    return Source(
        kind="folder",
        name=said.name,
        where=str(path),
        entry=said.entry,
        version=said.version,
        summary=said.summary,
        docs=said.docs,
        api=said.api,
        hosted=said.runs_hosted,
        plugin_kind=said.kind,
        types=said.type_names,
        dependencies=said.dependencies,
        digest=_digest(path),
    )


def inside(folder: Path) -> Iterator[Path]:
    """Yield the plugins a configured folder holds: itself, or its sub-folders with a manifest and its `.py` files."""
    if (folder / manifest.FILE_NAME).exists():
        yield folder
        return
    for path in sorted(folder.iterdir()):
        if path.name.startswith((".", "_")):
            continue
        if (path.is_dir() and (path / manifest.FILE_NAME).exists()) or (path.suffix == ".py" and path.is_file()):
            yield path


def _digest(folder: Path) -> str:
    """Return a digest of the folder's own code; names, sizes and times are enough, and cheap for big folders."""
    seen = hashlib.sha256()
    paths = [path for pattern in ("*.py", "*.toml") for path in folder.rglob(pattern) if "vendor" not in path.parts]
    for path in sorted(paths)[:FOLDER_FILES_MAX]:
        stat = path.stat()
        seen.update(f"{path.relative_to(folder)}\0{stat.st_size}\0{stat.st_mtime_ns}\n".encode())
    return seen.hexdigest()[:16]
