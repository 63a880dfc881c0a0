"""Which files hold code that agents of the configuration are made of, and what do they say? An edit is a change of them."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from pathlib import Path

from knotwork.config import regular
from knotwork.sdk import Kind, PluginConfig

Code = dict[Path, str]
"""The SHA-256 of what each file says; empty for one that cannot be read."""


def of(configs: Mapping[tuple[Kind, str], PluginConfig], base: Path) -> Code:
    """Return what the code files of these instances say now. Blocks."""
    return read(path for config in configs.values() for path in config.code_files(base))


def read(paths: Iterable[Path]) -> Code:
    """Return what these files say now. Blocks."""
    return {path: _digest(path) for path in paths}


def _digest(path: Path) -> str:
    try:
        with regular.opened(path) as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError:
        return ""
