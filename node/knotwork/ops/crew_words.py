"""Which words may stand in requests about orchestrations? Their ids, those of parts, and a plan."""

from __future__ import annotations

import json
from typing import Annotated, Any

from pydantic import BeforeValidator, Field, StringConstraints

from knotwork.ops.crew_ports import NewPart
from knotwork.ops.op import Request
from knotwork.ops.words import NAMED, Target, Text, Token

ID = "o0198c0ffee0012345678ab"
"""What examples call one."""
_ID, _PART_ID = r"^o[a-z0-9]{7,39}$", r"^[a-z0-9](?:-?[a-z0-9_])*$"
_PLACE = r"^(?:[0-9]{1,19}-o[a-z0-9]{7,39})?$"
NAMED |= {
    _ID: ("not the id of an orchestration", "Ids begin with o: assess_task (`crew assess`) answers with one."),
    _PART_ID: (
        "not the name of a part",
        "Names of parts are lower-case letters, digits, _ and single - between them, 32 at most, such as db-schema.",
    ),
    _PLACE: ("not a cursor", "Use `next` of the page before, or no cursor to begin."),
}
CrewId = Annotated[str, StringConstraints(pattern=_ID, max_length=40)]
ListPlace = Annotated[str, StringConstraints(pattern=_PLACE, max_length=64)]
PartId = Annotated[str, StringConstraints(pattern=_PART_ID, max_length=32)]
PARTS = ("id", "state", "percent", "agent", "node", "attempt", "needs", "text")
"""Columns in which parts are shown at a shell."""
BELOW = ("id", "phase", "held", "why", "error")
"""What is shown under them."""


class CrewRequest(Request):
    """Which orchestration."""

    id: CrewId = Field(description="id of an orchestration")


class PartRequest(Request):
    """One part of a plan."""

    id: PartId = Field(description="short name, for `needs` and for folders")
    title: Annotated[str, StringConstraints(max_length=256)] = Field(
        default="", description="what it is, in a few words"
    )
    instructions: Annotated[str, StringConstraints(max_length=32_768)] = Field(
        default="", description="what is to be done"
    )
    capability: Token | None = Field(default=None, description="any agent with this capability does it")
    agent: Target | None = Field(default=None, description="this agent does it instead")
    needs: list[PartId] = Field(default=[], max_length=32, description="parts whose results it is given, and waits for")
    acceptance: list[Annotated[str, StringConstraints(max_length=1024)]] = Field(
        default=[], max_length=20, description="when it is done"
    )
    timeout_s: float = Field(default=3600.0, gt=0, le=30 * 86400, description="seconds for one attempt")
    attempts: int = Field(default=3, ge=1, le=100, description="attempts in all")
    why: Text = Field(default="", description="why it has this capability; not kept")

    def described(self) -> NewPart:
        """Return the part."""
        return NewPart(
            self.id, self.title, self.instructions, self.capability or "", self.agent or "", tuple(self.needs),
            tuple(self.acceptance), self.timeout_s, self.attempts,
        )  # fmt: skip


def _parts(value: Any) -> Any:
    """Return parts however they were written: as objects, or, at a shell, as texts of JSON."""
    if not isinstance(value, list | str):
        return value
    found: list[Any] = []
    for one in [value] if isinstance(value, str) else value:
        read = one
        if isinstance(one, str):
            try:
                read = json.loads(one)
            except (ValueError, RecursionError):
                return value
        if isinstance(read, dict) and isinstance(read.get("parts"), list):
            read = read["parts"]
        found += read if isinstance(read, list) else [read]
    return found


Plan = Annotated[list[PartRequest], Field(max_length=200), BeforeValidator(_parts)]
