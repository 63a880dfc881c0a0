"""What is a plan? Parts that sub-agents do, what each needs of others, and what must hold of them together (pure)."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Annotated, Literal

import msgspec

from knotwork.sdk.errors import Invalid

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

PARTS_MAX = 200
NEEDS_MAX, ALL_NEEDS_MAX = 32, 2_000
"""What one part may need, and all of them: each is written down several times in the workflow that they become."""
ACCEPTANCE_MAX = 20
PLAN_MAX_BYTES = 512 * 1024
"""All parts together: with the task they are one message."""
PART_TIMEOUT_S = 3600.0
ATTEMPTS = 3
SYNTHESIS = "synthesis"
"""What no part can be called: it is the step that puts the parts together."""
RESERVED = frozenset({SYNTHESIS, "task"})
_ID = re.compile(r"[a-z0-9](?:-?[a-z0-9_])*")
_ID_MAX = 32
_TOKEN = re.compile(r"[a-z0-9][a-z0-9_-]{0,63}")
_TARGET = re.compile(rf"{_TOKEN.pattern}(/{_TOKEN.pattern})?")

Text = Annotated[str, msgspec.Meta(max_length=32_768)]
Short = Annotated[str, msgspec.Meta(max_length=256)]
Level = Literal["trivial", "simple", "moderate", "complex", "very-complex"]


class Complexity(msgspec.Struct, frozen=True, omit_defaults=True):
    """How big a task seems: a number without a unit, a word for it, and why; `split`: whether several should do it."""

    level: Level
    score: int
    reasons: tuple[str, ...] = ()
    split: bool = False


class Part(msgspec.Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True):
    """What one sub-agent does. `needs` are ids of parts whose results it is given; times are seconds.

    One with `agent` goes to that agent (`agent` or `node/agent`), any other to whoever has the `capability`.
    """

    id: str
    title: Short = ""
    instructions: Text = ""
    capability: str = ""
    agent: str = ""
    needs: Annotated[tuple[str, ...], msgspec.Meta(max_length=NEEDS_MAX)] = ()
    acceptance: Annotated[
        tuple[Annotated[str, msgspec.Meta(max_length=1024)], ...], msgspec.Meta(max_length=ACCEPTANCE_MAX)
    ] = ()
    timeout_s: Annotated[float, msgspec.Meta(gt=0, le=30 * 86400)] = PART_TIMEOUT_S
    attempts: Annotated[int, msgspec.Meta(ge=1, le=100)] = ATTEMPTS
    why: Short = ""
    """Why it has this capability."""

    @property
    def heading(self) -> str:
        """Return its title, "" when its instructions begin with that: what is told twice is read as two things."""
        title = self.title.strip()
        begin = self.instructions.strip().split("\n", 1)[0].lstrip("# ").strip()
        cut = title.endswith("…") and begin.startswith(title[:-1])
        return "" if cut or begin.rstrip(".:") == title.rstrip(".:") or begin[:256].strip() == title else title


Parts = tuple[Part, ...]


def flaws(parts: Sequence[Part]) -> list[str]:  # noqa: C901, PLR0912  one line for each rule
    """Return everything that is wrong with a plan, in words; nothing when it can be carried out."""
    found: list[str] = []
    if not parts:
        found.append("A plan needs at least one part.")
    if len(parts) > PARTS_MAX:
        found.append(f"{len(parts)} parts, {PARTS_MAX} at most.")
    ids = [part.id for part in parts]
    for part in parts[:PARTS_MAX]:
        where = f"Part {part.id[:80]!r}"
        if not is_id(part.id):
            found.append(
                f"{where}: its id may have 32 of a-z, 0-9, '_' and single '-', and not be 'task' or 'synthesis'."
            )
        elif ids.count(part.id) > 1:
            found.append(f"{where} is there twice.")
        if bool(part.capability) == bool(part.agent):
            found.append(f"{where}: name a capability or an agent, one of the two.")
        if part.capability and not _TOKEN.fullmatch(part.capability):
            found.append(f"{where}: {part.capability[:80]!r} is no capability.")
        if part.agent and not _TARGET.fullmatch(part.agent):
            found.append(f"{where}: {part.agent[:80]!r} is no agent.")
        found += [f"{where} needs {need[:80]!r}, which is no part." for need in part.needs if need not in ids]
        if part.id in part.needs:
            found.append(f"{where} needs itself.")
        if len(set(part.needs)) != len(part.needs):
            found.append(f"{where} needs a part twice.")
    if not found and (circle := cycle({part.id: part.needs for part in parts})):
        found.append(f"The parts wait for each other: {' → '.join(circle)}.")
    if (count := sum(len(part.needs) for part in parts)) > ALL_NEEDS_MAX:
        found.append(f"The parts need {count} others in all, {ALL_NEEDS_MAX} at most.")
    size = len(msgspec.json.encode(parts))
    if size > PLAN_MAX_BYTES:
        found.append(f"The parts have {size} bytes together, {PLAN_MAX_BYTES} at most.")
    return found


def checked(parts: Iterable[Part]) -> Parts:
    """Return a plan that can be carried out; raises `Invalid` (`crew.bad_plan`) that names everything wrong with it."""
    made = tuple(parts)
    found = flaws(made)
    if found:
        raise Invalid(
            f"The plan cannot be carried out: {' '.join(found[:20])}", code="crew.bad_plan",
            hint="Mend these, and send the parts again.", detail={"problems": found[:100]},
        )  # fmt: skip
    return made


def is_id(text: str) -> bool:
    """Return whether a part may have this id."""
    return len(text) <= _ID_MAX and text not in RESERVED and _ID.fullmatch(text) is not None


def cycle(needs: Mapping[str, Sequence[str]]) -> list[str]:
    """Return parts that wait for each other, the first one at both ends; nothing when there are none."""
    done: set[str] = set()
    for start in needs:
        path: list[str] = []
        left = [(start, iter(needs.get(start, ())))]
        path.append(start)
        while left and start not in done:
            name, following = left[-1]
            step = next((one for one in following if one not in done), None)
            if step is None:
                done.add(name)
                left.pop()
                path.pop()
            elif step in path:
                return [*path[path.index(step) :], step]
            else:
                path.append(step)
                left.append((step, iter(needs.get(step, ()))))
    return []


def groups(parts: Sequence[Part]) -> list[list[str]]:
    """Return the parts in groups: those of one can be done side by side once those before are done."""
    level: dict[str, int] = {}
    left = list(parts)
    while left:
        ready = [part for part in left if all(need in level for need in part.needs)]
        if not ready:  # a plan that was never checked
            ready = left
        for part in ready:
            level[part.id] = max((level.get(need, -1) for need in part.needs), default=-1) + 1
        left = [part for part in left if part.id not in level]
    found: list[list[str]] = [[] for _ in range(max(level.values(), default=-1) + 1)]
    for part in parts:
        found[level[part.id]].append(part.id)
    return [group for group in found if group]


def drawn(parts: Sequence[Part]) -> str:
    """Return the groups in one line, such as `[db+api] → [ui+tests]`."""
    return " → ".join(f"[{'+'.join(group)}]" for group in groups(parts))


def followers(parts: Sequence[Part], of: Iterable[str]) -> set[str]:
    """Return parts and all that depend on them, directly or not."""
    found = set(of)
    while True:
        more = {part.id for part in parts if part.id not in found and found.intersection(part.needs)}
        if not more:
            return found
        found |= more
