"""How do plugins, their slots, settings, revisions and changes of the configuration look to those who ask? As replies."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from knotwork.bus import clock
from knotwork.config import secrets
from knotwork.config.instance_tables import SECTIONS
from knotwork.config.keys import dotted, leaves
from knotwork.config.loaded import effective
from knotwork.desk.moments import rfc3339
from knotwork.ops import replies
from knotwork.sockets import describe

if TYPE_CHECKING:
    from knotwork.config import diff
    from knotwork.config.loaded import Loaded
    from knotwork.config.revisions import Revision
    from knotwork.host.projects import Project
    from knotwork.sockets.catalog import Entry
    from knotwork.sockets.slot import Slot


def taking_work(state: str, projects: Sequence[Project]) -> replies.Check:
    """Return whether the node takes work: not while it drains, nor without a connection to any of its projects."""
    why = "" if state == "running" else state
    up = any(one.connection is not None and one.connection.state == "connected" for one in projects)
    if projects and not up:
        why = why or "no connection to NATS"
    return replies.Check(name="taking work", ok=not why, why=why)


def project_check(project: Project) -> replies.Check:
    """Return whether a project is served just now."""
    up = project.connection is not None and project.connection.state == "connected" and project.membership is not None
    return replies.Check(name=f"project {project.name}", ok=up, why=secrets.redact(project.why))


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


def plugin_info(entry: Entry, using: Sequence[Slot]) -> replies.PluginInfo:
    """Return one type of plugin whole, with the slots that are of it."""
    return replies.PluginInfo(
        kind=entry.kind,
        type=entry.type,
        origin=str(entry.source),
        version=entry.source.version,
        summary=entry.factory.summary,
        abilities=list(entry.factory.abilities),
        hosted_only=entry.hosted_only,
        config_schema=entry.factory.config.model_json_schema(),
        docs=describe.docs(entry),
        slots=[slot_row(slot) for slot in using],
    )


def settings(loaded: Loaded) -> list[replies.Setting]:
    """Return every setting with where it comes from; secrets are not shown."""
    origin = loaded.origin
    plain: Any = secrets.redact_tree(effective(loaded.config))
    return [
        replies.Setting(key=dotted(path), value=value, origin=origin.get(dotted(path), "default"))
        for path, value in leaves(plain)
    ]


def revision_row(one: Revision, current: int) -> replies.Revision:
    """Return one accepted configuration; `current` is the number of the one in force."""
    return replies.Revision(
        number=one.number,
        at=one.at,
        digest=one.digest,
        current=one.number == current,
        files=[str(text.path) for text in one.texts],
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
