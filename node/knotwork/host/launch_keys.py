"""With which key does an agent join that a target started? One of its own, which ends with the launch.

The key is a user of the project's account in our own server: a file while the launch lives, so that it holds over a
restart of the node. At a NATS that others run we cannot make users; there a launch gets the credentials that we have.
All of it reads or writes files: call it from a thread.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Collection, Iterator
from typing import TYPE_CHECKING

from knotwork.sdk.errors import KnotworkError
from knotwork.trust import keys

if TYPE_CHECKING:
    from knotwork.host.layout import Layout
    from knotwork.trust.keys import KeyPair

log = logging.getLogger(__name__)
_NAME = re.compile(r"launch-(.+)-([0-9a-f]{16})")


def admit(layout: Layout, project: str, launch: str) -> KeyPair:
    """Return the key of a launch, made on first use; raises what `keys.load_or_create` raises."""
    return keys.load_or_create(layout.keys, _name(project, launch))


def dismiss(layout: Layout, project: str, launches: Collection[str]) -> bool:
    """Forget the keys of launches that are over; returns whether there was any."""
    found = [path for launch in launches if (path := layout.keys / f"{_name(project, launch)}.nk").exists()]
    for path in found:
        path.unlink(missing_ok=True)
    return bool(found)


def known(layout: Layout, project: str) -> set[str]:
    """Return the launches of a project that have a key."""
    named = (_NAME.fullmatch(path.stem) for path in layout.keys.glob(f"launch-{project}-*.nk"))
    return {found[2] for found in named if found is not None and found[1] == project}


def public(layout: Layout, project: str) -> Iterator[str]:
    """Yield the public half of each of those keys; one that cannot be used is passed over."""
    for launch in sorted(known(layout, project)):
        try:
            yield keys.load(layout.keys / f"{_name(project, launch)}.nk").public
        except KnotworkError as error:
            log.warning("launch %s can connect no more: %s", launch, error)


def _name(project: str, launch: str) -> str:
    return f"launch-{project}-{launch}"
