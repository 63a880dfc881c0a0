"""What is not as it should be, though the node runs? Told in its status, and with its health."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING

from knotwork.bus.away import why_away
from knotwork.config import secrets
from knotwork.ops import replies

if TYPE_CHECKING:
    from knotwork.bus.connection import Connection
    from knotwork.config.model import Config
    from knotwork.host.project_rooms import ProjectRooms
    from knotwork.mesh.membership import Membership


def of(
    opened: Mapping[str, ProjectRooms], memberships: Iterable[Membership] = (), commons: Connection | None = None
) -> list[replies.Check]:
    """Return what is wrong in the projects that are open, and with COMMONS; what is right is not among it."""
    return [*_stores(opened), *_views(opened), *_twins(memberships), *_commons(commons)]


def unasked(config: Config) -> list[str]:
    """Return what is said of routers that run for nothing: nobody asks them."""
    return [
        f'routers.{name}: nobody asks it; name it in `routing.routers`, as in routers = ["{name}", "capability"].'
        for name in sorted(config.routers)
        if name not in config.routing.routers
    ]


def _stores(opened: Mapping[str, ProjectRooms]) -> Iterator[replies.Check]:
    """Yield the stores that let nothing new in; one with a disk that works is good for all else."""
    for name, rooms in opened.items():
        if why := rooms.work.submitter.no_room:
            yield replies.Check(name=f"store {name}", ok=False, why=why, needed=rooms.work.submitter.full())


def _views(opened: Mapping[str, ProjectRooms]) -> Iterator[replies.Check]:
    """Yield the views of the past that cannot be written: lists are refused here, all else goes on."""
    for name, rooms in opened.items():
        told = rooms.view.told()
        if told.stuck:
            why = f"it cannot be written, make room in the data folder: {secrets.redact(told.why)}"
            yield replies.Check(name=f"view {name}", ok=False, why=why, needed=False)


def _commons(link: Connection | None) -> Iterator[replies.Check]:
    """Yield that what is personal or public cannot be had: each project goes on without."""
    if link is not None and (away := why_away(link)) is not None:
        yield replies.Check(name="COMMONS", ok=False, why=secrets.redact(away.message), needed=False)


def _twins(memberships: Iterable[Membership]) -> Iterator[replies.Check]:
    """Yield the projects in which somebody else says that he is this node: others see now the one, now the other."""
    for one in memberships:
        if why := one.presence.twin:
            yield replies.Check(name=f"identity in {one.project}", ok=False, why=why, needed=False)
