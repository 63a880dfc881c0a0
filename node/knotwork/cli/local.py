"""Where is the node of this machine, and which project is meant? From the data folder and a few environment variables.

`KNOTWORK_DATA_DIR` is the node's folder, `KNOTWORK_PROJECT_PATH` the folder that decides the project, `KNOTWORK_AGENT`
the label of an attached agent. (`KNOTWORK_CONFIG` is read by `config.files`.) A node describes itself in
`<data dir>/run/node.json`, readable by its owner alone, from its first moment on; it can be asked once it is ready.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from knotwork.bus.pids import alive
from knotwork.cli import launched
from knotwork.sdk.errors import Denied, Invalid, NotFound, Unavailable, Unreachable

__all__ = ["LocalNode", "alive", "caller", "data_dir", "find", "folder_meant", "node_file", "read", "ready"]
DATA_DIR = "KNOTWORK_DATA_DIR"
PROJECT_PATH = "KNOTWORK_PROJECT_PATH"
AGENT = "KNOTWORK_AGENT"
SIZE_MAX_BYTES = 256 * 1024
_label = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.@/-]{0,63}").fullmatch


@dataclass(frozen=True, slots=True)
class LocalNode:
    """A node of this machine as it describes itself; `projects` maps a name to its seed file and folders.

    `state` is starting, connecting, ready or stopping, `why` the reason that it is not ready; `said` is all of it.
    """

    pid: int
    node: str
    url: str
    http: str
    project: str
    seed_file: str
    http_token_file: str
    projects: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    state: str = "ready"
    why: str = ""
    said: Mapping[str, Any] = field(default_factory=dict)

    @property
    def early(self) -> bool:
        """Return whether it cannot be asked yet."""
        return self.state in ("starting", "connecting")

    @property
    def shown(self) -> str:
        """Return which process it is and how it is, for messages."""
        how = "" if self.state == "ready" else f", {self.state}" + (f": {self.why}" if self.why else "")
        return f"{self.node}, process {self.pid}{how}"

    def project_of(self, folder: Path) -> str:
        """Return the project whose path is the longest one around `folder`, else the node's own."""
        best, depth = self.project, -1
        for name, about in self.projects.items():
            for path in map(Path, about.get("paths", ())):
                if folder.is_relative_to(path) and len(path.parts) > depth:
                    best, depth = name, len(path.parts)
        return best

    def seed_of(self, project: str) -> str:
        """Return the seed file to use for a project; raises `NotFound` (`project.not_found`)."""
        if project in self.projects:
            return str(self.projects[project].get("seed_file", self.seed_file))
        if project in ("", self.project):
            return self.seed_file
        known = ", ".join(sorted({self.project, *self.projects}))
        raise NotFound(
            f"Node {self.node} does not serve a project {project!r}.",
            code="project.not_found",
            hint=f"It serves: {known}.",
        )


def data_dir(given: str | None = None, env: Mapping[str, str] = os.environ) -> Path:
    """Return the absolute data folder: as given, `KNOTWORK_DATA_DIR`, or the user's own for this program (or launch)."""
    named = given or env.get(DATA_DIR)
    if named:
        return Path(named).expanduser().absolute()
    import platformdirs  # only where nobody named a folder

    return launched.folder(Path(platformdirs.user_data_dir("knotwork", appauthor=False)), env)


def node_file(folder: Path) -> Path:
    """Return where the node with this data folder describes itself while it runs."""
    return folder / "run" / "node.json"


def read(folder: Path) -> LocalNode | None:
    """Return the node described in a data folder, None when there is none; a dead node's description counts as none.

    Raises `Denied` when the description belongs to somebody else, `Invalid` when it is none.
    """
    path = node_file(folder)
    try:
        with path.open("rb") as file:
            raw = file.read(SIZE_MAX_BYTES + 1)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise Denied(
            f"{path} cannot be read: {error.strerror}.",
            code="cli.node_file_unreadable",
            hint="Run the command as the user who started the node.",
        ) from error
    node = _parse(raw, path)
    return node if alive(node.pid, str(node.said.get("born") or "")) else None


def _parse(raw: bytes, path: Path) -> LocalNode:
    try:
        found: Any = json.loads(raw) if len(raw) <= SIZE_MAX_BYTES else None
        projects = found.get("projects") or {}
        return LocalNode(
            pid=int(found["pid"]),
            projects={str(name): dict(about) for name, about in projects.items()},
            **{key: str(found.get(key) or "") for key in ("node", "url", "http", "seed_file", "http_token_file")},
            project=str(found.get("project") or "default"),
            state=str(found.get("state") or "ready"),
            why=str(found.get("why") or ""),
            said=found,
        )
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise Invalid(
            f"{path} is damaged.", code="cli.node_file_damaged", hint="Stop the node, remove the file, start again."
        ) from error


def find(folder: Path) -> LocalNode:
    """Return the node of a data folder, in whatever state; raises `Unreachable` (`node.not_running`) for none."""
    node = read(folder)
    if node is None:
        raise Unreachable(
            f"No node is running here (looked for {node_file(folder)}).",
            code="node.not_running",
            hint="Start one with `knotwork up --detach`, or point at one with --url or --data-dir.",
        )
    return node


def ready(folder: Path) -> LocalNode:
    """Return the node of a data folder that can be asked.

    Raises `Unreachable` (`node.not_running`), and `Unavailable` (`node.not_ready`) with the reason.
    """
    node = find(folder)
    if node.early:
        raise Unavailable(
            f"The node is not ready yet ({node.shown}).",
            code="node.not_ready",
            hint="Try again, see `knotwork status`, or end it with `knotwork stop`.",
            retry_after_s=1.0,
        )
    return node


def folder_meant(env: Mapping[str, str] = os.environ) -> Path:
    """Return the folder that decides the project: `KNOTWORK_PROJECT_PATH`, or where we are."""
    named = env.get(PROJECT_PATH)
    return Path(named).expanduser().resolve() if named else Path.cwd()


def caller(env: Mapping[str, str] = os.environ) -> str:
    """Return who asks: the label in `KNOTWORK_AGENT`, else ""; raises `Invalid` for one that is no label."""
    label = env.get(AGENT, "")
    if label and not _label(label):
        raise Invalid(
            f"{AGENT}={label[:64]!r} is no label.",
            code="cli.bad_agent_label",
            hint="Use 1 to 64 letters, digits and _ . @ / -, beginning with a letter or digit.",
        )
    return label
