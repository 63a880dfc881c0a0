"""What did the files say before a rollback wrote them? Kept in memory, for a rollback that is refused."""

from __future__ import annotations

import logging

from knotwork.config import revisions

log = logging.getLogger(__name__)


class Before:
    """What the files that a rollback writes or renames said before; reads them."""

    def __init__(self, revision: revisions.Revision) -> None:
        mine = [text.path for text in revision.texts]
        self._said = {path: path.read_bytes() if path.is_file() else None for path in mine}
        folder = revision.config_dir
        self._renamed = sorted(set(folder.glob("*.toml")) - set(mine)) if folder is not None else []

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
        for path in self._renamed:
            aside = path.with_name(path.name + revisions.ASIDE)
            try:
                if aside.exists() and not path.exists():
                    aside.replace(path)
            except OSError as error:
                log.warning("%s stays %s: %s", path, aside.name, error)
