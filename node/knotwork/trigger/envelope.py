"""What does a firing carry, and what is a run given of it? The same as by hand: what came, not what it came in (pure)."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import msgspec

from knotwork.flow import expressions, outputs
from knotwork.sdk.errors import Invalid
from knotwork.trigger import due

if TYPE_CHECKING:
    from knotwork.trigger.model import Definition

_decode = msgspec.json.Decoder().decode
NULL = b"null"


@dataclass(frozen=True, slots=True)
class Firing:
    """That a trigger fires. `key` tells it from every other; `body` is JSON; `more` is what else there is to say."""

    key: str
    body: bytes = NULL
    due_ns: int = 0
    fired_ns: int = 0
    more: dict[str, Any] = field(default_factory=dict)


def as_json(body: bytes) -> bytes:
    """Return what came as JSON: as it is, or as a text; nothing is null."""
    return outputs.as_json(body) if body else NULL


def seen(trigger: Definition, firing: Firing) -> dict[str, Any]:
    """Return the envelope: what expressions of a trigger look at."""
    return {
        "trigger": trigger.id, "kind": trigger.kind, "body": _decode(firing.body), "key": firing.key,
        "due_at": due.told(firing.due_ns) if firing.due_ns else None, "fired_at": due.told(firing.fired_ns),
        **firing.more,
    }  # fmt: skip


def is_meant(trigger: Definition, firing: Firing) -> bool:
    """Return whether a message is one that a trigger is for; one that its filter cannot look at is not."""
    text = getattr(trigger, "filter", None)
    if text is None:
        return True
    try:
        return expressions.is_true(expressions.evaluate(text, seen(trigger, firing)))
    except (Invalid, ValueError):
        return False


def input_of(trigger: Definition, firing: Firing) -> bytes:
    """Return the input of the run that a firing starts; raises what a mapping that fails raises."""
    if trigger.mapping is None:
        return firing.body
    return outputs.shaped(trigger.mapping, seen(trigger, firing))


def labels(trigger: Definition, firing: Firing) -> dict[str, str]:
    """Return the labels of the run: those of the trigger, and where it comes from."""
    told = {**trigger.labels, "trigger": trigger.id, "trigger_kind": trigger.kind}
    if firing.due_ns:
        told["due_at"] = due.told(firing.due_ns)
    return told
