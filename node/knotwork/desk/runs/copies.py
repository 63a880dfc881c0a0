"""How is a run written down, and how is what was written down kept? One or many, each by itself."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, Iterator
from typing import TYPE_CHECKING, Any

from knotwork.bus import clock, codec
from knotwork.flow import packing
from knotwork.flow.definitions import digest_of, text_of
from knotwork.ops import replies
from knotwork.ops.flow_replies import AllChanged, Changed, Exported
from knotwork.sdk.errors import Invalid, KnotworkError, TooLarge

if TYPE_CHECKING:
    from knotwork.bus.reading import Stored
    from knotwork.desk.runs.lists import RunLists
    from knotwork.flow.looking import Outline
    from knotwork.flow.model import Workflow
    from knotwork.flow.room import Flow
    from knotwork.ops.flow_ports import RunFilter

LINE_MAX_BYTES = 7 * 1024 * 1024
"""A longer line does not fit into one message."""
PARTS_MAX = 10_000
THERE = "it is there already"


class RunCopies:
    """Runs of one project that go elsewhere, or come from there."""

    def __init__(self, flow: Flow) -> None:
        """Work through our part in the project's workflows."""
        self._flow = flow

    async def lines(self, run: str) -> AsyncGenerator[replies.Chunk | Exported, None]:
        """Yield a run as it is kept: as one line, or a large one in parts, the last of them as the answer.

        Raises `NotFound`, `TooLarge` (`flow.too_large`) for one with a fact that fits into no line.
        """
        for line in await self._lines(await self._flow.runs.outline(run)):
            yield replies.Chunk(data=line.line()) if line.more else line

    async def _lines(self, outline: Outline) -> Iterator[Exported]:
        kept = await self._flow.definitions.kept(outline.start.digest)  # also one that this version cannot follow
        parts = list(packing.parts(outline.facts))
        large = next((part[0] for part in parts if packing.size(part) + len(kept.text) > LINE_MAX_BYTES), None)
        if large is not None:
            told = f"{outline.id} has a fact that no line of {LINE_MAX_BYTES} bytes can hold."
            raise TooLarge(told, code="flow.too_large", detail={"fact": large.subject})
        return _written(outline.id, json.loads(kept.text), parts)

    async def all(
        self, lists: RunLists, wanted: RunFilter, limit: int
    ) -> AsyncGenerator[replies.Chunk | Exported, None]:
        """Yield runs that fit and are over, one after another, then how many there were and how to go on."""
        found, cursor = await lists.page(wanted, limit)
        failed: list[Changed] = []
        going = 0
        for one in found:
            if one.row.state == "scheduled":
                going += 1
                continue
            try:
                outline = await self._flow.runs.outline(one.id)
                if outline.finish is None:  # nothing could be done with it elsewhere
                    going += 1
                    continue
                lines = await self._lines(outline)
            except KnotworkError as error:
                failed.append(Changed(id=one.id, changed=False, why=error.message, code=error.code))
            else:
                for line in lines:
                    yield replies.Chunk(data=line.line())
        yield Exported(exported=len(found) - len(failed) - going, failed=failed, going=going, next=cursor)

    async def keep(self, run: Any) -> Changed:
        """Keep a run that was written down; raises `Invalid` (`flow.bad_history`, `flow.bad_workflow`)."""
        if not isinstance(run, dict) or not isinstance(run.get("facts"), list):
            raise Invalid("This is no run that was written down.", code="flow.bad_history")
        workflow = understood(run.get("definition"))
        await self._flow.definitions.put(workflow, now_ns=clock.now_ns(), named=False)
        name = str(run.get("id", ""))
        part = run.get("part") or 1  # an answer says 0 of one that is whole
        if not isinstance(part, int) or not 1 <= part <= PARTS_MAX:
            raise Invalid(f"There is no part {str(part)[:20]!r} of a run.", code="flow.bad_history")
        facts = codec.encode(run["facts"])
        if run.get("more"):
            new = await self._flow.runs.put_by(name, facts, part)
            return Changed(id=name, changed=False, why=f"part {part} waits for the rest" if new else THERE)
        new = await self._flow.runs.keep(name, facts, digest_of(text_of(workflow)), part=part)
        return Changed(id=name, changed=new, why="" if new else THERE)

    async def keep_all(self, runs: list[Any]) -> AllChanged:
        """Keep each; what is wrong with one is told in its place, and loses no other."""
        found: list[Changed] = []
        for run in runs:
            try:
                found.append(await self.keep(run))
            except KnotworkError as error:
                if error.retriable:
                    raise  # the store is away or full: nothing is wrong with the run
                name = str(run.get("id", "")) if isinstance(run, dict) else ""
                found.append(Changed(id=name[:40], changed=False, why=error.message, code=error.code))
        done = sum(one.changed for one in found)
        return AllChanged(runs=found, matched=len(found), done=done, failed=sum(bool(one.code) for one in found))


def _written(run: str, definition: dict[str, Any], parts: list[list[Stored]]) -> Iterator[Exported]:
    """Yield the lines of a run, each made when its turn comes."""
    for number, part in enumerate(parts, start=1):
        rows = json.loads(packing.packed(part))
        place = {"part": number, "more": number < len(parts)} if len(parts) > 1 else {}
        yield Exported(id=run, definition=definition, facts=rows, **place)


def understood(definition: Any) -> Workflow:
    """Return the workflow that a definition means; raises `Invalid` (`flow.bad_workflow`) with all that is wrong."""
    from knotwork.flow import source  # and with it YAML, which a node need not load to start

    checked = source.check(definition)
    if checked.workflow is None:
        told = "\n".join(
            ": ".join(part for part in (f"line {one.line}, column {one.column}", one.path, one.message) if part)
            for one in checked.flaws
        )
        problems = [
            {"path": one.path, "line": one.line, "column": one.column, "message": one.message, "hint": one.hint}
            for one in checked.flaws
        ]
        raise Invalid(f"This is no workflow:\n{told}", code="flow.bad_workflow", detail={"problems": problems})
    return checked.workflow
