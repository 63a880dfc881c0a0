"""Whose sub-agent is somebody? That of the agent whose parent key it shows: a node tells the key to that agent alone.

A sub-agent sees what is private to its parent, so to name one is not enough. The key is sealed with a secret of the
project and says who the parent is: every node can read it, it is the same at every start, and nobody can make another.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

from knotwork.bus import subjects
from knotwork.sdk.errors import Denied, Internal
from knotwork.trust import seals

if TYPE_CHECKING:
    from knotwork.bus.connection import Connection

KEY_MAX = 256
_SETTING, _MARK = "parents", "kp1"


class ParentKeys:
    """The parent keys of one project's agents. Made by `open_parent_keys`."""

    def __init__(self, secret: bytes) -> None:
        """Seal with a secret that all nodes of the project share."""
        self._key = hashlib.sha256(b"knotwork parent\0" + secret).digest()

    def of(self, agent: str) -> str:
        """Return the key of the agent with this id."""
        return seals.close(self._key, _MARK, agent.encode())

    def parent(self, shown: str) -> str:
        """Return the id of the agent whose key is shown; raises `Denied` (`session.bad_parent`) for everything else."""
        found = seals.open_(self._key, _MARK, shown, size_max=KEY_MAX)
        if found is None:
            raise Denied(
                "What was given as the parent is no parent key of this project, and a name or an id proves nothing.",
                code="session.bad_parent",
                hint="Give the key that the parent was told: `parentKey` of its get_my_handle, `parent_key` of its session.",
            )  # fmt: skip
        return found.decode()


async def open_parent_keys(connection: Connection) -> ParentKeys:
    """Return the parent keys of the project that a connection belongs to; raises `Internal` (`session.bad_secret`)."""
    secret = await seals.shared_secret(connection, _SETTING)
    if secret is None:
        raise Internal(
            "The secret of the project's parent keys is damaged.", code="session.bad_secret",
            hint=f"Delete the key {_SETTING} of the bucket {subjects.SETTINGS}: sub-agents need new keys of their parents then.",
        )  # fmt: skip
    return ParentKeys(secret)
