"""How is a node started again by somebody who only knows its folder? With the configuration it had, whatever stands around.

An agent's client works in folders that others have written: a `knotwork.toml` there is not the node's, and may name any
program. So nothing of the present folder and environment decides.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path

from knotwork.cli import local
from knotwork.cli.files import FileOptions
from knotwork.host.layout import Layout


def options(folder: Path) -> FileOptions:
    """Return what the node of a data folder was started with last; nothing for one that never was, or cannot be read."""
    try:
        said = json.loads(Layout(folder).last_start.read_text(encoding="utf-8"))
        return FileOptions(
            config=tuple(map(str, said["config"])), config_dir=str(said["config_dir"]),
            sets=tuple(map(str, said["sets"])), safe_mode=said["safe_mode"] is True,
        )  # fmt: skip
    except (OSError, ValueError, KeyError, TypeError):
        return FileOptions()


def environment(env: Mapping[str, str] = os.environ) -> dict[str, str]:
    """Return an environment in which nothing configures a node."""
    return {name: value for name, value in env.items() if name == local.DATA_DIR or not name.startswith("KNOTWORK")}
