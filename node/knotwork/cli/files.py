"""Which configuration does a command mean, and what does it say? For commands that work without a running node."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from collections.abc import Mapping

    from knotwork.config.instances import Known
    from knotwork.config.loaded import Loaded
    from knotwork.config.problems import Problem
    from knotwork.sockets.catalog import Catalog


@dataclass(frozen=True, slots=True)
class FileOptions:
    """What was typed: files, a folder of files, and single values."""

    config: tuple[str, ...] = ()
    config_dir: str = ""
    sets: tuple[str, ...] = ()
    safe_mode: bool = False

    @property
    def given(self) -> bool:
        """Return whether anything was typed at all."""
        return bool(self.config or self.config_dir or self.sets or self.safe_mode)

    def words(self) -> list[str]:
        """Return the options as they would be typed, with absolute paths."""
        words = [word for path in self.config for word in ("--config", str(Path(path).absolute()))]
        words += ["--config-dir", str(Path(self.config_dir).absolute())] if self.config_dir else []
        words += [word for value in self.sets for word in ("--set", value)]
        return words + (["--safe-mode"] if self.safe_mode else [])


def options() -> list[click.Option]:
    """Return the options that name a configuration."""
    return [
        click.Option(["--config"], multiple=True, metavar="FILE", help="configuration file, may be given again"),
        click.Option(["--config-dir"], metavar="DIR", help="folder of *.toml files, laid over the files by name"),
        click.Option(["--set", "sets"], multiple=True, metavar="KEY=VALUE", help="one value, e.g. web.port=8080"),
        click.Option(["--safe-mode"], is_flag=True, help="bundled plugins only"),
    ]


def take(values: dict[str, Any]) -> FileOptions:
    """Take these options out of a command's values."""
    return FileOptions(
        config=tuple(values.pop("config", ()) or ()),
        config_dir=values.pop("config_dir", None) or "",
        sets=tuple(values.pop("sets", ()) or ()),
        safe_mode=bool(values.pop("safe_mode", False)),
    )


def load(chosen: FileOptions) -> Loaded:
    """Return the configuration, its plugin tables not yet judged; raises `ConfigInvalid` with all problems."""
    from knotwork.config import load as loading  # parsing and models: only for commands about files
    from knotwork.config.loaded import Sources  # the same

    def find_types(data: Mapping[str, Any], folder: Path) -> Known:
        from knotwork.sockets import offered  # plugins are imported: only when something is wrong already

        return offered.types_for(data, folder, safe_mode=chosen.safe_mode)

    return loading.read(
        Sources(
            files=tuple(Path(path) for path in chosen.config),
            config_dir=Path(chosen.config_dir) if chosen.config_dir else None,
            sets=chosen.sets,
        ),
        find_types=find_types,
    )


def catalog(loaded: Loaded, *, safe_mode: bool = False) -> Catalog:
    """Return the plugins that this configuration could use."""
    from knotwork.sockets import loading, offered  # bundled plugins are imported: only for commands that need them

    return loading.load(offered.settings_of(loaded, safe_mode=safe_mode, imports=False))


def check(chosen: FileOptions) -> tuple[Loaded, Catalog, list[Problem]]:
    """Return configuration and plugins after judging every table, and what a node would start with all the same.

    Raises `ConfigInvalid` with all problems that a node would refuse to start with.
    """
    from knotwork.config import instances  # as above
    from knotwork.sockets import offered  # the same

    loaded = load(chosen)
    found = catalog(loaded, safe_mode=chosen.safe_mode)
    known = offered.types_of(found, loaded.merged.data)
    instances.check_instances(loaded, known)
    return loaded, found, [problem for problem, fatal in instances.unusable(loaded, known) if not fatal]
