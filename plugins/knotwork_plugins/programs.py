"""Can a program be started? What the plugins that run commands need to know of one before they try."""

from __future__ import annotations

import os
import shutil
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from knotwork.sdk import Context, SecretRef


def is_there(program: str, cwd: Path, env: Mapping[str, str | SecretRef], context: Context) -> bool:
    """Return whether `program` can be started in `cwd`, by the `PATH` of `env` when that names one. Blocks.

    Raises what resolving that `PATH` raises when it is a secret.
    """
    if os.sep in program:
        return os.access(cwd / program, os.X_OK) and not (cwd / program).is_dir()
    path = env.get("PATH")  # the start goes by it, too
    own = {} if path is None else {"PATH": path if isinstance(path, str) else context.secrets(path)}
    return shutil.which(program, path=context.child_env(own).get("PATH")) is not None
