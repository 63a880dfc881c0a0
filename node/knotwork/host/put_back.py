"""What did the files say before a rollback wrote them, and are they those that the node reads?

What they said is kept in memory, for a rollback that is refused.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING

from knotwork.config import revisions
from knotwork.sdk.errors import Conflict

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

    from knotwork.config.files import Text
    from knotwork.config.loaded import Loaded

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Back:
    """A revision whose files were written again, and what `revisions.restore` said it did."""

    revision: revisions.Revision
    done: Sequence[str]

    @property
    def aside(self) -> str:
        """Return what became of texts that the files said and no revision has; empty when there were none."""
        told = "; ".join(line for line in self.done if not line.startswith("wrote "))
        return f"{told[:1].upper()}{told[1:]}." if told else ""

    def refuse_other(self, loaded: Loaded) -> None:
        """Raise `Conflict` (`config.other_files`) when the node reads other files: that would be no way back."""
        reads = _by_file(loaded.texts)
        if reads == _by_file(self.revision.texts):
            return
        number = self.revision.number
        raise Conflict(
            f"Revision {number} is made of other files than this node reads. It is of {_named(self.revision.texts)}; "
            f"the node reads {_named(loaded.texts)}.",
            code="config.other_files",
            hint=f"Stop the node, and start it with those files (--config, --config-dir); or copy what you want from "
            f"`knotwork config revision {number}`.",
        )


def _by_file(texts: Iterable[Text]) -> dict[Path, str]:
    """Return what each file says, by its place whatever it is called."""
    return {text.path.resolve(): text.text for text in texts}


def _named(texts: Iterable[Text]) -> str:
    return ", ".join(str(text.path) for text in texts) or "none"


class Before:
    """What the files that a rollback writes or renames said before; reads them."""

    def __init__(self, revision: revisions.Revision) -> None:
        mine = [text.path for text in revision.texts]
        self._said = {path: path.read_bytes() if path.is_file() else None for path in mine}
        asides = [revisions.aside_of(path) for path, said in self._said.items() if said is not None]
        self._asides = [aside for aside in asides if not aside.exists()]
        folder = revision.config_dir
        renamed = sorted(set(folder.glob("*.toml")) - set(mine)) if folder is not None else []
        self._renamed = {path: revisions.aside_of(path) for path in renamed if path.is_file()}

    def put_back(self) -> None:
        """Let them say that again; a file that cannot be written is logged."""
        for path, said in self._said.items():
            try:
                if said is None:
                    path.unlink(missing_ok=True)
                elif not path.is_file() or path.read_bytes() != said:
                    revisions.write_whole(path, said.decode())
            except (OSError, ValueError) as error:
                log.warning("%s stays as the rollback wrote it: %s", path, error)
        for aside in self._asides:
            aside.unlink(missing_ok=True)
        for path, aside in self._renamed.items():
            try:
                if aside.exists() and not path.exists():
                    aside.replace(path)
            except OSError as error:
                log.warning("%s stays %s: %s", path, aside.name, error)
