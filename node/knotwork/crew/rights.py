"""Who may change a plan, and who may say how far it is? Those whose it is, and of a part the agent that holds it (pure)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from knotwork.crew import plan
from knotwork.sdk.errors import Denied
from knotwork.trust.scopes import may_do
from knotwork.trust.who import Who

if TYPE_CHECKING:
    from knotwork.crew.records import Record
    from knotwork.crew.sight import PartSight, View


def may_look(record: Record, by: Who) -> bool:
    """Return whether somebody may know of an orchestration: as its scope says, and whoever spawned it."""
    asker = Who(record.by.id, record.by.name, by.project, record.by.owner)
    return by.id == record.spawner.id or may_do(record.scope, asker, by)


def works_on(view: View, by: Who) -> bool:
    """Return whether somebody holds a part of it, or did to its end: who does so may look at it."""
    return any(_holds(view, name, by) for name in (*view.parts, plan.SYNTHESIS))


def admit_plan(record: Record, by: Who) -> None:
    """Raise `Denied` (`crew.not_yours`) for one of somebody else: of an agent of another owner, who did not assess it."""
    is_owners = bool(by.owner) and by.owner == record.by.owner
    if by.id == record.by.id or by.kind == "person" or is_owners:
        return
    raise Denied(
        f"{record.id} was assessed by {record.by.name}: {by.name} can neither change, spawn nor steer it.", code="crew.not_yours",
        hint="Ask them, or a person of the project; or assess the task yourself.", detail={"by": record.by.name},
    )  # fmt: skip


def admit_report(view: View, part: str, by: Who, *, used: bool, only_words: bool) -> None:
    """Raise `Denied` (`crew.not_your_part`) for what somebody may not say of a part, or of the whole (no part).

    Of a part speaks the agent that holds it, or whose outcome it has, and whoever spawned the whole; what it used says the
    agent alone. Of the whole, and what that used, speaks whoever spawned it; who holds a part may add a word (`only_words`:
    neither a phase, a percentage, expenses nor data).
    """
    if not part:
        if _is_theirs(view.record, by) or (only_words and works_on(view, by)):
            return
        raise _refused(f"{by.name} did not spawn {view.record.id}: what it says of the whole does not count.")
    if _holds(view, part, by):
        return
    seen = _seen(view, part)
    by_whom = f"is held by {seen.agent}" if seen is not None and seen.agent else "is held by nobody now"
    if not _is_theirs(view.record, by):
        raise _refused(f"{part} of {view.record.id} {by_whom}, not by {by.name}.")
    if used:
        raise _refused(f"{part} of {view.record.id} {by_whom}: who holds it says what it used.")


def speaker(view: View, part: str, by: Who) -> str:
    """Return under which name it counts what somebody says of a part: that under which it is held, by whoever holds it."""
    seen = _seen(view, part)
    return seen.agent if seen is not None and _holds(view, part, by) else by.name


def _seen(view: View, part: str) -> PartSight | None:
    return view.synthesis if part == plan.SYNTHESIS else view.parts.get(part)


def _holds(view: View, part: str, by: Who) -> bool:
    """Return whether somebody holds a part, or held it to its end: by its id when it was claimed with one.

    A node cannot tell the agents without a session from its person.
    """
    seen = _seen(view, part)
    if seen is None or not seen.agent:
        return False
    is_called_so = by.id == seen.agent_id if seen.agent_id else by.name == seen.agent
    return is_called_so or (by.kind == "person" and by.node == seen.node)


def _is_theirs(record: Record, by: Who) -> bool:
    is_person = by.kind == "person" and bool(by.owner) and by.owner == record.by.owner
    return by.id in (record.by.id, record.spawner.id) or is_person


def _refused(message: str) -> Denied:
    return Denied(
        message, code="crew.not_your_part",
        hint="Claim the part first (`knotwork work claim`); whoever spawned it may report on the whole.",
    )  # fmt: skip
