"""How is a run written down, and how is what was written down kept? One or many, each by itself."""

from __future__ import annotations

import json
import time
from collections.abc import AsyncGenerator
from typing import TYPE_CHECKING, Any

from knotwork.bus import codec
from knotwork.flow import history
from knotwork.flow.definitions import digest_of, text_of
from knotwork.ops import replies
from knotwork.ops.flow_replies import AllChanged, Changed, Exported
from knotwork.sdk.errors import Invalid, KnotworkError, TooLarge

if TYPE_CHECKING:
    from knotwork.flow.looking import Sight
    from knotwork.flow.model import Workflow
    from knotwork.flow.room import Flow
    from knotwork.host.run_lists import RunLists
    from knotwork.ops.flow_ports import RunFilter

LINE_MAX_BYTES = 7 * 1024 * 1024
"""A run that makes a longer line does not fit into one message."""


class RunCopies:
    """Runs of one project that go elsewhere, or come from there."""

    def __init__(self, flow: Flow) -> None:
        """Work through our part in the project's workflows."""
        self._flow = flow

    async def written(self, run: str) -> Exported:
        """Return a run as it is kept; raises `NotFound`, `TooLarge` (`flow.too_large`)."""
        return await self._written(await self._flow.runs.look(run))

    async def _written(self, sight: Sight) -> Exported:
        run = sight.id
        graph = await self._flow.definitions.graph(sight.start.digest)
        packed = history.packed(sight.facts)
        if len(packed) > LINE_MAX_BYTES:
            told = f"{run} has {len(packed)} bytes of facts, {LINE_MAX_BYTES} at most can be written down."
            raise TooLarge(told, code="flow.too_large")
        rows: list[dict[str, Any]] = json.loads(packed)
        return Exported(id=run, definition=json.loads(text_of(graph.workflow)), facts=rows)

    async def all(
        self, lists: RunLists, wanted: RunFilter, limit: int
    ) -> AsyncGenerator[replies.Chunk | Exported, None]:
        """Yield runs that fit and are over, one after another, then how many there were and how to go on."""
        found, cursor = await lists.page(wanted, limit)
        failed: list[Changed] = []
        going = 0
        for one in found:
            try:
                sight = await self._flow.runs.look(one.id)
                if sight.finish is None:  # nothing could be done with it elsewhere
                    going += 1
                    continue
                made = await self._written(sight)
            except KnotworkError as error:
                failed.append(Changed(id=one.id, changed=False, why=error.message, code=error.code))
            else:
                yield replies.Chunk(data=made.model_dump(include={"id", "definition", "facts"}))
        yield Exported(exported=len(found) - len(failed) - going, failed=failed, going=going, next=cursor)

    async def keep(self, run: Any) -> Changed:
        """Keep a run that was written down; raises `Invalid` (`flow.bad_history`, `flow.bad_workflow`)."""
        if not isinstance(run, dict) or not isinstance(run.get("facts"), list):
            raise Invalid("This is no run that was written down.", code="flow.bad_history")
        workflow = understood(run.get("definition"))
        await self._flow.definitions.put(workflow, now_ns=time.time_ns(), named=False)
        name = str(run.get("id", ""))
        new = await self._flow.runs.keep(name, codec.encode(run["facts"]), digest_of(text_of(workflow)))
        return Changed(id=name, changed=new, why="" if new else "it is there already")

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
