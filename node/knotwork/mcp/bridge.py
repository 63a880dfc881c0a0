"""What does `knotwork mcp` do? It speaks the protocol over standard input and output, and has the node do the work.

It knows which tools there are by itself (`rows`), so that a client sees them at once, whether a node runs or not. It
imports neither the models nor the SDK: every session starts one of these.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import secrets
from collections.abc import Callable
from typing import Any

import knotwork
from knotwork.bus.background import background
from knotwork.mcp import again, answers, dialect, instructions, prompts, resources, rows, tasks, toolsets, wording
from knotwork.mcp.dialect import Asked, Json, Refusal
from knotwork.mcp.keeping import Keeping
from knotwork.mcp.lines import LINE_MAX_BYTES, Lines, TooLong
from knotwork.mcp.link import MAYBE, Link
from knotwork.sdk.errors import KnotworkError, Unreachable

log = logging.getLogger(__name__)
AT_ONCE_MAX = 256
CALL_S = 2 * 3600.0
"""Longer than any tool waits."""
LEAVE_S = 1.5
"""What we do at the end: clients wait two seconds for it."""
TTL_MS = 60_000
CHANNEL = "claude/channel"
_EVERY = tuple(rows.ROWS)


class Bridge:
    """One client's session."""

    def __init__(
        self, lines: Lines, link: Link, keeping: Keeping, sets: tuple[str, ...], *, push: bool = False
    ) -> None:
        """Serve the client behind `lines`, first with the tools of `sets`; with `push` it is told what arrives."""
        self._lines, self._link, self._keeping, self._push = lines, link, keeping, push
        self._sets = sets
        self._aliases = toolsets.aliases(_EVERY)
        self._running: dict[str | int, asyncio.Task[None]] = {}
        self._listens: dict[str | int, Json] = {}
        self._group: asyncio.TaskGroup | None = None
        self._end = asyncio.Event()
        self._linked = False
        self.client_name = ""
        """What the client calls itself, "" until it said so."""

    async def run(self) -> None:
        """Serve until the client closes its side, then let go of what the agent holds."""
        async with background() as group:
            self._group = group
            self._lines.start(self._line, self._end.set)
            await self._end.wait()
            await self._leave()

    def end(self) -> None:
        """End soon; for signals."""
        self._end.set()

    async def _leave(self) -> None:
        """Finish what is nearly done, and hand back what was claimed."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(LEAVE_S):
                waiting = [task for name, task in self._running.items() if name not in self._listens]
                if waiting:
                    await asyncio.wait(waiting, timeout=LEAVE_S / 2)
                for work_id, claim in self._keeping.all():
                    with contextlib.suppress(KnotworkError):
                        told = {"claim": claim, "id": work_id, "why": "the session ended"}
                        await self._link.ask("work.release", told, timeout_s=LEAVE_S, patience_s=0.0, wakes=False)

    # -- lines -------------------------------------------------------------------------------------------------------

    def _line(self, line: bytes | TooLong) -> None:
        if isinstance(line, TooLong):
            told = f"A line has at most {LINE_MAX_BYTES} bytes. Send less at a time, or write it to a file and send its name."
            number = dialect.id_of(line.begin, line.end)
            self._send(dialect.refusal(Refusal(dialect.INVALID_REQUEST, told, request_id=number)))
            return
        try:
            asked = dialect.read(line)
            if asked is None:
                return
            if asked.id is None:
                self._notified(asked)
                return
            self._begin(asked)
        except Refusal as refusal:
            self._send(dialect.refusal(refusal))

    def _begin(self, asked: Asked) -> None:
        assert self._group is not None
        assert asked.id is not None
        if asked.id in self._running:
            raise Refusal(dialect.INVALID_REQUEST, "A request with this id is being answered.", request_id=asked.id)
        if len(self._running) >= AT_ONCE_MAX:
            raise Refusal(dialect.INTERNAL, f"More than {AT_ONCE_MAX} requests at once.", request_id=asked.id)
        task = self._group.create_task(self._answer(asked))
        self._running[asked.id] = task
        task.add_done_callback(lambda _: self._done(asked.id))

    def _done(self, number: str | int | None) -> None:
        if number is not None:
            self._running.pop(number, None)
            self._listens.pop(number, None)

    def _notified(self, asked: Asked) -> None:
        if asked.method == "notifications/cancelled":
            number = asked.params.get("requestId")
            task = self._running.get(number) if isinstance(number, str | int) else None
            if task is not None:
                task.cancel()

    async def _answer(self, asked: Asked) -> None:
        try:
            answer = dialect.result(asked, await self._do(asked), self.server)
        except Refusal as refusal:
            refusal.request_id = asked.id
            answer = dialect.refusal(refusal)
        except KnotworkError as error:
            answer = dialect.refusal(answers.as_refusal(error, asked.id))
        except Exception as error:  # nothing that a client sends may end its session
            log.exception("%s failed", asked.method)
            answer = dialect.refusal(Refusal(dialect.INTERNAL, type(error).__name__, request_id=asked.id))
        self._send(answer)

    def _send(self, message: Json) -> None:
        if not self._lines.send(dialect.write(message)):
            self._end.set()

    # -- methods -----------------------------------------------------------------------------------------------------

    @property
    def server(self) -> Json:
        """Return what we say of ourselves."""
        return {"name": "knotwork", "title": "Knotwork", "version": knotwork.__version__}

    async def _do(self, asked: Asked) -> Json:
        known = _METHODS.get(asked.method)
        if known is None:
            raise Refusal(dialect.NO_METHOD, f"There is no method {asked.method[:100]!r}.")
        self._meet(asked)
        answer: Json = await known(self, asked)
        return answer

    def _meet(self, asked: Asked) -> None:
        """Open the session as soon as we know whose it is."""
        name = asked.client.get("name")
        if isinstance(name, str) and name and not self.client_name:
            self.client_name = name[:200]
        if not self._linked and self._group is not None and asked.method != "ping":
            self._linked = True
            self._group.create_task(self._link.run())
            self._group.create_task(self._keeping.run())

    def _capabilities(self) -> Json:
        able: Json = {"tools": {"listChanged": True}, "resources": {}, "prompts": {}}
        return able | ({"experimental": {CHANNEL: {}}} if self._push else {})

    async def _initialize(self, asked: Asked) -> Json:
        if not isinstance(asked.params.get("protocolVersion"), str):
            raise Refusal(dialect.INVALID_PARAMS, "`protocolVersion` is needed, a text.")
        return {
            "protocolVersion": dialect.agreed(asked), "capabilities": self._capabilities(), "serverInfo": self.server,
            "instructions": instructions.TEXT,
        }  # fmt: skip

    async def _discover(self, asked: Asked) -> Json:
        able = self._capabilities() | {"extensions": {dialect.TASKS: {}}}
        found = {"supportedVersions": list(dialect.MODERN), "capabilities": able, "instructions": instructions.TEXT}
        return dialect.listed(asked, found, ttl_ms=TTL_MS)

    async def _ping(self, asked: Asked) -> Json:
        if asked.modern:
            raise Refusal(dialect.NO_METHOD, "There is no ping in this revision.")
        return {}

    async def _tools(self, asked: Asked) -> Json:
        answers.no_cursor(asked)
        listed = [json.loads(rows.ROWS[name]) for name in toolsets.names(self._sets, _EVERY)]
        return dialect.listed(asked, {"tools": listed}, ttl_ms=0)

    async def _resources(self, asked: Asked) -> Json:
        answers.no_cursor(asked)
        return dialect.listed(asked, {"resources": [one.listed() for one in resources.RESOURCES]}, ttl_ms=TTL_MS)

    async def _templates(self, asked: Asked) -> Json:
        answers.no_cursor(asked)
        return dialect.listed(asked, {"resourceTemplates": list(resources.TEMPLATES)}, ttl_ms=TTL_MS)

    async def _read(self, asked: Asked) -> Json:
        uri = asked.params.get("uri")
        if not isinstance(uri, str):
            raise Refusal(dialect.INVALID_PARAMS, "`uri` is needed, a text.")
        return dialect.listed(asked, await resources.read(uri, self._ask), ttl_ms=0)

    async def _prompts(self, asked: Asked) -> Json:
        answers.no_cursor(asked)
        return dialect.listed(asked, {"prompts": [one.listed() for one in prompts.PROMPTS]}, ttl_ms=TTL_MS)

    async def _prompt(self, asked: Asked) -> Json:
        return prompts.get(asked.params.get("name"), asked.params.get("arguments"))

    async def _listen(self, asked: Asked) -> Json:
        """Tell of changes until the client cancels it."""
        wanted = asked.params.get("notifications")
        if not asked.modern or not isinstance(wanted, dict):
            raise Refusal(dialect.INVALID_PARAMS, "`notifications` is needed: what to tell of.")
        assert asked.id is not None
        honored = {"toolsListChanged": True} if wanted.get("toolsListChanged") is True else {}
        if honored:
            self._listens[asked.id] = dialect.subscription(asked)
        params = {"notifications": honored} | dialect.subscription(asked)
        self._send(dialect.notification("notifications/subscriptions/acknowledged", params))
        await self._end.wait()
        return dialect.subscription(asked)

    # -- tools -------------------------------------------------------------------------------------------------------

    async def _call(self, asked: Asked) -> Json:
        name, arguments = asked.params.get("name"), asked.params.get("arguments")
        if not isinstance(name, str):
            raise Refusal(dialect.INVALID_PARAMS, "`name` is needed: which tool.")
        if arguments is not None and not isinstance(arguments, dict):
            raise Refusal(dialect.INVALID_PARAMS, "`arguments` must be an object.")
        name, arguments = self._aliases.get(name, name), dict(arguments or {})
        try:
            if name == "toolsets":
                return self._more(arguments)
            if name in tasks.WAITS and asked.takes_tasks:
                checked = await self._tool("check_work", {"work_id": arguments.get("work_id")})
                if not checked["isError"] and not checked["structuredContent"]["is_complete"]:
                    found = checked["structuredContent"]
                    return tasks.handle(found)
            return await self._tool(name, arguments, answers.teller(asked, self._send), answers.trace_of(asked))
        except KnotworkError as error:
            if error.code == "tool.unknown":
                raise Refusal(dialect.INVALID_PARAMS, str(error)) from error
            return answers.failed(error)

    async def _tool(
        self, name: str, arguments: Json, on_piece: Callable[[Json], None] = answers.unheard, traceparent: str = ""
    ) -> Json:
        """Call a tool on the node; claims are shown and kept for the agent."""
        work_id = arguments.get("work_id")
        if isinstance(work_id, str) and not arguments.get("claim"):
            listed = json.loads(rows.ROWS.get(name, "{}")).get("inputSchema", {}).get("properties", {})
            claim = await self._keeping.claim_of(work_id, self._ask) if "claim" in listed else ""
            arguments |= {"claim": claim} if claim else {}
        if halves := wording.halved(arguments):
            raise wording.half_a_character(halves)
        key = secrets.token_hex(8) if name in again.KEYED else ""
        try:
            told = await self._link.ask(
                "tool.call",
                lambda gone_s: {"name": name, "arguments": again.later(name, arguments, gone_s), "key": key},
                timeout_s=CALL_S, on_piece=on_piece, again=_harmless(name), traceparent=traceparent,
                waits_s=again.waits_s(name, arguments),
            )  # fmt: skip
        except Unreachable as error:
            raise again.unknown(name, error) if error.code in MAYBE and not _harmless(name) else error from error
        found: Json = told["structured"]
        if not told["is_error"]:
            self._keeping.heard(name, arguments, found)
            self._list(toolsets.needed(name, found, toolsets.names(self._sets, _EVERY)))
        return answers.result(told["text"], found, is_error=told["is_error"])

    def _more(self, arguments: Json) -> Json:
        """List more tools, and tell which there are."""
        self._list(toolsets.asked(arguments))
        told = toolsets.told(self._sets, _EVERY)
        return answers.result(wording.text_of(told), told)

    def _list(self, wanted: tuple[str, ...]) -> None:
        """List sets or single tools, too, and tell the client when that is something new."""
        before = toolsets.names(self._sets, _EVERY)
        self._sets = tuple(dict.fromkeys((*self._sets, *wanted)))
        if toolsets.names(self._sets, _EVERY) != before:
            self._send(dialect.notification("notifications/tools/list_changed", {}))
            for marked in self._listens.values():
                self._send(dialect.notification("notifications/tools/list_changed", marked))

    async def _ask(self, op: str, **fields: Any) -> Json:
        return await self._link.ask(op, fields, timeout_s=60.0)

    # -- the Tasks extension -----------------------------------------------------------------------------------------

    async def _task(self, asked: Asked) -> Json:
        """Say how work stands that a call became."""
        work_id = answers.task_id(asked)
        checked = await self._tool("check_work", {"work_id": work_id})
        if checked["isError"]:
            raise Refusal(dialect.INVALID_PARAMS, checked["content"][0]["text"])
        return tasks.state(work_id, checked["structuredContent"], checked)

    async def _task_cancel(self, asked: Asked) -> Json:
        cancelled = await self._tool("cancel_work", {"work_id": answers.task_id(asked)})
        if cancelled["isError"]:
            raise Refusal(dialect.INVALID_PARAMS, cancelled["content"][0]["text"])
        return {}

    async def _task_update(self, asked: Asked) -> Json:
        answers.task_id(asked)
        return {}  # none of ours asks for anything: what nobody asked for is ignored

    # -- what arrives ------------------------------------------------------------------------------------------------

    def noticed(self, notice: Json) -> None:
        """Take note of what the node tells this agent."""
        if notice.get("event") == "lost":
            self._keeping.lost(notice)
        if self._push:
            meta = {key: value for key, value in notice.items() if isinstance(value, str) and key.isidentifier()}
            text = wording.clean(wording.text_of(notice))[:4000]
            self._send(dialect.notification(f"notifications/{CHANNEL}", {"content": text, "meta": meta}))


_METHODS: dict[str, Any] = {
    "initialize": Bridge._initialize,  # noqa: SLF001  the table of the class above
    "server/discover": Bridge._discover,  # noqa: SLF001
    "ping": Bridge._ping,  # noqa: SLF001
    "tools/list": Bridge._tools,  # noqa: SLF001
    "tools/call": Bridge._call,  # noqa: SLF001
    "resources/list": Bridge._resources,  # noqa: SLF001
    "resources/templates/list": Bridge._templates,  # noqa: SLF001
    "resources/read": Bridge._read,  # noqa: SLF001
    "prompts/list": Bridge._prompts,  # noqa: SLF001
    "prompts/get": Bridge._prompt,  # noqa: SLF001
    "subscriptions/listen": Bridge._listen,  # noqa: SLF001
    "tasks/get": Bridge._task,  # noqa: SLF001
    "tasks/cancel": Bridge._task_cancel,  # noqa: SLF001
    "tasks/update": Bridge._task_update,  # noqa: SLF001
}


def _harmless(name: str) -> bool:
    """Return whether a tool may be called twice."""
    return again.may(name, json.loads(rows.ROWS.get(name, "{}")).get("annotations", {}))
