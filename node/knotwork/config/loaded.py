"""What came out of reading the configuration, and from where?"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from knotwork.config import keys
from knotwork.config.files import Text
from knotwork.config.instance_tables import SECTIONS, InstanceTable
from knotwork.config.layers import Merged
from knotwork.config.model import Config


@dataclass(frozen=True)
class Sources:
    """Where to read from, weakest first: files, a folder of files, environment, `--set key=value`.

    `env` None is the environment of this process. With neither files nor folder the usual places are searched.
    """

    files: tuple[Path, ...] = ()
    config_dir: Path | None = None
    env: Mapping[str, str] | None = None
    sets: tuple[str, ...] = ()


@dataclass(frozen=True)
class Loaded:
    """A valid configuration with everything needed to tell where each key came from.

    `texts` are the files as read, `merged` the plain tables of all layers.
    """

    config: Config
    sources: Sources
    texts: tuple[Text, ...] = ()
    merged: Merged = field(default_factory=Merged, repr=False, compare=False)

    @cached_property
    def digest(self) -> str:
        """Return the SHA-256 of all files and overrides: equal digests mean an equal configuration."""
        digest = hashlib.sha256()
        for text in self.texts:
            digest.update(f"{text.path}\0{text.text}\0".encode())
        for path, value in keys.leaves(self.merged.data):
            digest.update(f"{keys.dotted(path)}\0{value!r}\0".encode())
        return digest.hexdigest()

    @cached_property
    def folder(self) -> Path:
        """Return the folder that relative paths in the configuration start from: that of the first file, else here."""
        return folder_of(self.texts)

    @cached_property
    def watched(self) -> tuple[Path, ...]:
        """Return the files, and the folder of files, whose change means that the configuration changed."""
        named = tuple(text.path for text in self.texts if not text.shared)
        return named + ((self.sources.config_dir,) if self.sources.config_dir else ())

    @cached_property
    def origin(self) -> dict[str, str]:
        """Return where each key's value comes from: `file:line`, `env NAME`, `--set` or `default`."""
        return {keys.dotted(path): self._origin(path) for path, _ in keys.leaves(effective(self.config))}

    def _origin(self, path: keys.Path) -> str:
        if path not in self.merged.owner and len(keys.known_part(self.merged.data, path)) < len(path):
            return "default"
        name, line, _ = self.merged.where(path)
        if name.startswith("--set"):
            return "--set"
        return f"{name}:{line}" if line else name


def folder_of(texts: tuple[Text, ...]) -> Path:
    """Return the folder of the first file, else the working directory."""
    return texts[0].path.absolute().parent if texts else Path.cwd()


def effective(config: Config) -> dict[str, Any]:
    """Return the configuration as plain tables, the way it would be written: nothing left out, plugin keys in place.

    Secrets stay references; keys without a value (None) are left out, as TOML has no such thing.
    """
    plain: dict[str, Any] = {}
    for name, value in config:
        if name in SECTIONS.values():
            plain[name] = {key: _instance(table) for key, table in value.items()}
        elif isinstance(value, dict):
            plain[name] = {key: table.model_dump(mode="json", exclude_none=True) for key, table in value.items()}
        else:
            plain[name] = value.model_dump(mode="json", exclude_none=True)
    return plain


def _instance(table: InstanceTable) -> dict[str, Any]:
    common = table.model_dump(mode="json", exclude_none=True, exclude={"settings"})
    return {**common, **{key: value for key, value in table.settings.items() if key not in common}}
