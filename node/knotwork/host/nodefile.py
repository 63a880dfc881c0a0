"""How do local doors find the node? By one file, readable by its owner alone, that is there while the node is ready."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING

from knotwork.host import boot
from knotwork.host.layout import write_private

if TYPE_CHECKING:
    from knotwork.config.model import Config
    from knotwork.host.boot import Nats
    from knotwork.host.layout import Layout


def write(layout: Layout, node: str, nats: Nats, config: Config, http_url: str) -> None:
    """Describe the node: process, addresses, and for each project the key for local doors and its folders."""
    projects = {
        name: {
            "seed_file": nats.local_seed_file(name),
            "paths": [str(Path(path).expanduser()) for path in table.path],
        }
        for name, table in boot.projects_of(config).items()
    }
    first = next(iter(projects))
    about = {
        "pid": os.getpid(),
        "node": node,
        "url": nats.url(config),
        "http": http_url,
        "project": first,
        "seed_file": projects[first]["seed_file"],
        "http_token_file": str(layout.http_token_file) if http_url else "",
        "projects": projects,
    }
    text = json.dumps(about, indent=1)
    path = layout.node_file
    if not path.exists() or path.read_text(encoding="utf-8") != text:
        write_private(path, text)


def remove(layout: Layout) -> None:
    """Take the description away: nobody should come any more."""
    layout.node_file.unlink(missing_ok=True)
