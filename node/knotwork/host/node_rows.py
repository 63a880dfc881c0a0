"""How do plugins, their slots and changes of the configuration look to those who ask? As the ops' replies."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from knotwork.bus import clock
from knotwork.config import secrets
from knotwork.config.instance_tables import SECTIONS
from knotwork.host.moments import rfc3339
from knotwork.ops import replies

if TYPE_CHECKING:
    from knotwork.config import diff
    from knotwork.host.projects import Project
    from knotwork.sockets import describe
    from knotwork.sockets.slot import Slot


def taking_work(state: str, projects: Sequence[Project]) -> replies.Check:
    """Return whether the node takes work: not while it drains, nor without a connection to any of its projects."""
    why = "" if state == "running" else state
    up = any(one.connection is not None and one.connection.state == "connected" for one in projects)
    if projects and not up:
        why = why or "no connection to NATS"
    return replies.Check(name="taking work", ok=not why, why=why)


def slot_row(slot: Slot) -> replies.Slot:
    """Return how one running plugin is."""
    return replies.Slot(
        kind=slot.kind,
        id=slot.id,
        type=slot.instance.entry.type,
        state=slot.state,
        why=secrets.redact(slot.why),
        since=rfc3339(clock.at(slot.since_ns)),
        starts=slot.starts,
        hosted=slot.instance.hosted or slot.instance.entry.hosted_only,
    )


def plugin_row(row: describe.Row) -> replies.PluginRow:
    """Return one type of plugin, in short."""
    return replies.PluginRow(
        kind=row.kind,
        type=row.type,
        origin=row.source,
        version=row.version,
        summary=row.summary,
        hosted_only=row.state == "hosted",
        broken=row.reason,
    )


def change_rows(plan: diff.Plan) -> list[replies.Change]:
    """Return what a reload would do, one row for each change."""
    changes = []
    for kind, found in plan.instances.items():
        changes += [replies.Change(what=f"{SECTIONS[kind]}.{name}", how="start") for name in found.added]
        changes += [replies.Change(what=f"{SECTIONS[kind]}.{name}", how="stop") for name in found.removed]
        reopened = plan.reopen.get(kind, frozenset())
        changes += [
            replies.Change(what=f"{SECTIONS[kind]}.{name}", how="replace" if name in reopened else "live")
            for name in found.changed
        ]
    changes += [replies.Change(what=f"projects.{name}", how="start") for name in plan.projects.added]
    changes += [replies.Change(what=f"projects.{name}", how="stop") for name in plan.projects.removed]
    changes += [replies.Change(what=f"projects.{name}", how="live") for name in plan.projects.changed]
    changes += [replies.Change(what=key, how="live") for key in plan.live]
    changes += [replies.Change(what=key, how="restart", why="restart the node for this") for key in plan.refused]
    return changes
