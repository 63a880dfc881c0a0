"""Workflows for the doors' tests: one that is always the same, on paper."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping
from typing import Any

from knotwork.ops import flow_replies as replies
from knotwork.ops.flow_ports import NewRun, RunBatch, RunFilter
from knotwork.ops.op import Caller
from knotwork.ops.replies import Progress
from knotwork.sdk.errors import Conflict, Denied, NotFound

DIGEST = "0" * 32


class StandInFlows:
    """One workflow, one run."""

    def schema(self) -> replies.DefinitionSchema:
        return replies.DefinitionSchema(json_schema={"title": "Workflow"})

    async def check(self, definition: Any) -> replies.Verdict:
        return replies.Verdict(ok=True, name="hello", digest=DIGEST, steps=1)

    async def register(self, definition: Any) -> replies.Registered:
        return replies.Registered(name="hello", digest=DIGEST, new=True)

    async def workflows(self) -> list[replies.WorkflowRow]:
        return [replies.WorkflowRow(name="hello", digest=DIGEST)]

    async def workflow(self, name: str) -> replies.WorkflowInfo:
        return replies.WorkflowInfo(name=name, digest=DIGEST, definition={"name": name})

    async def drawn(self, name: str, form: str) -> str:
        return f"{form} of {name}"

    async def remove(self, name: str, caller: Caller, *, force: bool) -> bool:
        return True

    async def start(self, wanted: NewRun, caller: Caller) -> replies.RunInfo:
        return self._run("w0198c0ffee0012345678ab")

    async def runs(self, wanted: RunFilter, limit: int) -> replies.RunList:
        return replies.RunList(runs=[self._run("w0198c0ffee0012345678ab")])

    async def run(self, run: str, *, up_to: int | None = None) -> replies.RunInfo:
        return self._run(run)

    async def ended(self, run: str, timeout_s: float) -> replies.RunInfo:
        return self._run(run)

    async def watch(self, run: str, timeout_s: float, *, tree: bool) -> AsyncGenerator[Progress, None]:
        yield Progress(percent=0.0, text="start")

    async def why(self, run: str) -> replies.RunWhy:
        return replies.RunWhy(id=run, state="running", waits=[replies.Wait(step="ask", what="somebody")])

    async def events(self, run: str) -> list[replies.RunEvent]:
        return [replies.RunEvent(number=1, at="", what="start")]

    async def change(self, batch: RunBatch, caller: Caller) -> AsyncGenerator[replies.AllChanged, None]:
        runs = [replies.Changed(id=run, changed=True) for run in batch.ids]
        yield replies.AllChanged(runs=runs, matched=len(runs), done=len(runs))

    async def signal(self, run: str, name: str, payload: Any, key: str, caller: Caller) -> replies.Changed:
        return replies.Changed(id=run, changed=True)

    async def answer(self, run: str, step: str, comment: str, caller: Caller, *, approve: bool) -> replies.Changed:
        return replies.Changed(id=run, changed=True)

    async def spawn(self, claim: str, run: str, wanted: NewRun, capability: str) -> replies.Spawned:
        return replies.Spawned(step="s--c1", run=run, new=True, left=3)

    async def children(self, claim: str, run: str) -> replies.Children:
        return replies.Children(children=[])

    async def link(self, run: str, step: str, by: str, expires_s: float, caller: Caller) -> replies.ApprovalLink:
        return replies.ApprovalLink(url="http://here/approve/ka1.x.y", by=by or "me", expires_at="")

    async def fork(self, run: str, step: str, inputs: Mapping[str, Any], key: str, caller: Caller) -> replies.RunInfo:
        return self._run(run)

    async def exported(self, run: str) -> AsyncGenerator[replies.Exported, None]:
        yield replies.Exported(id=run, definition={"name": "hello"}, facts=[])

    async def exported_all(self, wanted: RunFilter, limit: int) -> AsyncGenerator[replies.Exported, None]:
        yield replies.Exported(exported=0)

    async def imported_all(self, runs: list[Any]) -> replies.AllChanged:
        return replies.AllChanged(runs=[], matched=len(runs))

    async def imported(self, run: Any) -> replies.Changed:
        return replies.Changed(id="w0198c0ffee0012345678ab", changed=True)

    async def replay(self, run: str) -> replies.Replay:
        return replies.Replay(id=run, same=True)

    async def publish(self, kind: str, body: Any, key: str) -> replies.Published:
        return replies.Published(kind=kind, number=1, already=bool(key))

    def _run(self, run: str) -> replies.RunInfo:
        return replies.RunInfo(id=run, workflow="hello", state="completed", output={"a": 1})


class StandInApprovals:
    """One question, asked by the link `ok`."""

    def _question(self, link: str, **more: Any) -> replies.Question:
        if link == "late":
            raise Denied("This link has expired.", code="flow.link_expired")
        if link != "ok":
            raise NotFound("There is no such link.", code="flow.no_link")
        fields = {"title": "Ship <it>?", "input": {"a": "<b>"}, "by": "me", "state": "waiting", "expires_at": ""}
        return replies.Question(run="w0198c0ffee0012345678ab", workflow="hello", step="ask", **{**fields, **more})

    async def question(self, link: str) -> replies.Question:
        return self._question(link)

    async def answer(self, link: str, comment: str, *, approve: bool) -> replies.Question:
        if comment == "again":
            raise Conflict("This was settled before.", code="flow.answered")
        return self._question(link, state="approved" if approve else "rejected", comment=comment)
