"""What does the node answer over HTTP? The same tools, resources and prompts as the bridge, by the SDK's server."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from contextlib import aclosing
from typing import TYPE_CHECKING, Any

import msgspec
from mcp.server.context import ServerRequestContext
from mcp.server.lowlevel.server import Server
from mcp.server.subscriptions import InMemorySubscriptionBus, ListenHandler, ToolsListChanged
from mcp.shared.exceptions import MCPError
from mcp.types import (
    INTERNAL_ERROR,
    INVALID_PARAMS,
    CallToolRequestParams,
    CallToolResult,
    GetPromptRequestParams,
    GetPromptResult,
    ListPromptsResult,
    ListResourcesResult,
    ListResourceTemplatesResult,
    ListToolsResult,
    PaginatedRequestParams,
    PromptsCapability,
    ReadResourceRequestParams,
    ReadResourceResult,
    RequestParams,
    ResourcesCapability,
    ServerCapabilities,
    SubscriptionFilter,
    SubscriptionsListenRequestParams,
    SubscriptionsListenResult,
    ToolsCapability,
)

import knotwork
from knotwork.mcp import (
    answers,
    calling,
    dialect,
    instructions,
    prompts,
    resources,
    rows,
    spoken,
    tasks,
    toolsets,
    wording,
)
from knotwork.mcp.hanging_up import LEFT
from knotwork.mcp.held import Held
from knotwork.mcp.toolsets import aliases
from knotwork.ops.op import Caller
from knotwork.sdk.errors import Cancelled, KnotworkError
from knotwork.telemetry import trace

if TYPE_CHECKING:
    from knotwork.mcp.guests import Door, Guest, Guests
    from knotwork.ops.ports import NodeControl

Context = ServerRequestContext[Any, Any]
_EVERY = tuple(rows.ROWS)
_ALIASES = aliases(_EVERY)
HANDED = frozenset({"claim_work", "read_direct_messages", "wait_for_message"})
"""Tools that hand something to whoever calls them, and to nobody else."""


class TaskParams(RequestParams):
    """Which task (the Tasks extension)."""

    taskId: str  # noqa: N815 - the word of the protocol
    inputResponses: dict[str, Any] | None = None  # noqa: N815


class _Truthful(Server[Any]):
    """The SDK's server, which declares what ours tells of: changes of the tools that are listed, and no others."""

    def get_capabilities(self, *args: Any, **options: Any) -> ServerCapabilities:
        found = super().get_capabilities(*args, **options)
        told = {"tools": ToolsCapability(list_changed=True), "prompts": PromptsCapability()}
        return found.model_copy(update={**told, "resources": ResourcesCapability()})


class Served:
    """The SDK's server, made of our tools."""

    def __init__(self, node: NodeControl, held: Held, guests: Guests, door_of: Callable[[Any, str], Door]) -> None:
        """Answer with the ops of `node`, for the agents in `guests`."""
        self._node, self._held, self._guests, self._door_of = node, held, guests, door_of
        self._changes = InMemorySubscriptionBus()
        self._telling = ListenHandler(self._changes)

    def server(self) -> Server[Any]:
        """Return the server."""
        made = _Truthful(
            "knotwork", version=knotwork.__version__, title="Knotwork", instructions=instructions.TEXT,
            on_list_tools=self._tools, on_call_tool=self._call, on_list_resources=self._resources,
            on_list_resource_templates=self._templates, on_read_resource=self._read, on_list_prompts=self._prompts,
            on_get_prompt=self._prompt, on_subscriptions_listen=self._listen,
        )  # fmt: skip
        made.extensions = {dialect.TASKS: {}}
        made.add_request_handler("tasks/get", TaskParams, self._task)
        made.add_request_handler("tasks/cancel", TaskParams, self._task_cancel)
        made.add_request_handler("tasks/update", TaskParams, self._task_update)
        return made

    def _door(self, ctx: Context) -> Door:
        """Return how the client of a request came in."""
        told = ctx.session.client_params
        client = told.client_info.name if told is not None and told.client_info is not None else ""
        try:
            _named(ctx)
            return self._door_of(ctx.request, client)
        except KnotworkError as error:
            raise _error(error) from error

    def _guest(self, ctx: Context) -> Guest:
        """Return the agent behind a request."""
        try:
            return self._guests.of(self._door(ctx))
        except KnotworkError as error:
            raise _error(error) from error

    def _sets(self, ctx: Context) -> tuple[str, ...]:
        """Return the toolsets that are listed: those of the address, which may be another each time, and what was added."""
        guest = self._guests.known(self._door(ctx))
        more = guest.more if guest is not None else ()
        return tuple(dict.fromkeys((*(_named(ctx) or (toolsets.DEFAULT,)), *more)))

    # -- lists -------------------------------------------------------------------------------------------------------

    async def _tools(self, ctx: Context, params: PaginatedRequestParams | None) -> ListToolsResult:
        _no_cursor(params)
        listed = [json.loads(rows.ROWS[name]) for name in toolsets.names(self._sets(ctx), _EVERY)]
        return ListToolsResult.model_validate({"tools": listed, "ttlMs": 0, "cacheScope": "private"})

    async def _resources(self, _: Context, params: PaginatedRequestParams | None) -> ListResourcesResult:
        _no_cursor(params)
        return ListResourcesResult.model_validate(
            {"resources": [one.listed() for one in resources.RESOURCES], "ttlMs": 60_000, "cacheScope": "private"}
        )

    async def _templates(self, _: Context, params: PaginatedRequestParams | None) -> ListResourceTemplatesResult:
        _no_cursor(params)
        return ListResourceTemplatesResult.model_validate(
            {"resourceTemplates": list(resources.TEMPLATES), "ttlMs": 60_000, "cacheScope": "private"}
        )

    async def _read(self, ctx: Context, params: ReadResourceRequestParams) -> ReadResourceResult:
        try:
            caller = await self._guests.caller_of(self._guest(ctx))
            found = await resources.read(str(params.uri), calling.OpSession(caller, self._node, self._held).ask)
        except KnotworkError as error:
            raise _error(error) from error
        return ReadResourceResult.model_validate(found | {"ttlMs": 0, "cacheScope": "private"})

    async def _prompts(self, _: Context, params: PaginatedRequestParams | None) -> ListPromptsResult:
        _no_cursor(params)
        return ListPromptsResult.model_validate(
            {"prompts": [one.listed() for one in prompts.PROMPTS], "ttlMs": 60_000, "cacheScope": "private"}
        )

    async def _prompt(self, _: Context, params: GetPromptRequestParams) -> GetPromptResult:
        try:
            return GetPromptResult.model_validate(prompts.get(params.name, params.arguments))
        except KnotworkError as error:
            raise _error(error) from error

    # -- tools -------------------------------------------------------------------------------------------------------

    async def _call(self, ctx: Context, params: CallToolRequestParams) -> Any:
        guest, name = self._guest(ctx), _ALIASES.get(params.name, params.name)
        arguments = dict(params.arguments or {})
        guest.inside += 1
        try:
            if name in tasks.WAITS and _takes_tasks(ctx):
                checked = await self._outcome(ctx, guest, "check_work", {"work_id": arguments.get("work_id")})
                if not checked.is_error and not checked.structured["is_complete"]:
                    return tasks.handle(checked.structured)
            asking = self._handed if name in HANDED else self._outcome
            outcome = await asking(ctx, guest, name, arguments)
        finally:
            guest.inside -= 1
        if not outcome.is_error:
            if name == "toolsets":
                outcome = await self._more(ctx, guest, arguments)
            else:
                listed = toolsets.names(self._sets(ctx), _EVERY)
                await self._list(ctx, guest, toolsets.needed(name, outcome.structured, listed))
        return _result(outcome)

    async def _handed(self, ctx: Context, guest: Guest, name: str, arguments: dict[str, Any]) -> calling.Outcome:
        """Return what a call hands out, which nobody else gets then: it ends when its client hangs up.

        Other calls go on without a client that began with a handshake: in its revisions to hang up is not to cancel.
        """
        request: Any = ctx.request
        try:
            async with asyncio.timeout(None) as limit:
                request.scope[LEFT].ends(limit)
                return await self._outcome(ctx, guest, name, arguments)
        except TimeoutError:
            return calling.refused(Cancelled("Its client hung up.", code="call.cancelled"))

    async def _outcome(self, ctx: Context, guest: Guest, name: str, arguments: dict[str, Any]) -> calling.Outcome:
        caller = Caller("http")
        try:
            caller = msgspec.structs.replace(await self._guests.caller_of(guest), traceparent=_traceparent(ctx))
            tell = _Teller(ctx)
            async with aclosing(calling.play(name, arguments, caller, self._node, self._held)) as pieces:
                async for piece in pieces:
                    if isinstance(piece, calling.Outcome):
                        if not piece.is_error:
                            guest.keeping.heard(name, arguments, piece.structured)
                        return piece
                    await tell.told(piece.percent, piece.text)
        except asyncio.CancelledError:  # nobody gets the answer
            caller.take_back()
            raise
        except KnotworkError as error:
            if error.code == "tool.unknown":
                raise _error(error) from error
            return calling.refused(error)
        raise MCPError(INTERNAL_ERROR, "The call ended without an answer.")

    async def _more(self, ctx: Context, guest: Guest, arguments: dict[str, Any]) -> calling.Outcome:
        """List more tools for this agent, and tell which there are."""
        await self._list(ctx, guest, toolsets.asked(arguments))
        told = toolsets.told(self._sets(ctx), _EVERY)
        return calling.Outcome(wording.text_of(told), told)

    async def _list(self, ctx: Context, guest: Guest, wanted: tuple[str, ...]) -> None:
        """List sets or single tools, too, and tell the client when that is something new."""
        guest.more = tuple(dict.fromkeys((*guest.more, *wanted)))
        if guest.is_news(self._door(ctx).session):
            await ctx.session.send_tool_list_changed()
            await self._changes.publish(ToolsListChanged())

    async def _listen(self, ctx: Context, params: SubscriptionsListenRequestParams) -> SubscriptionsListenResult:
        """Tell of what changes here, which the acknowledgement says: the tools that are listed."""
        kept = SubscriptionFilter(tools_list_changed=params.notifications.tools_list_changed)
        return await self._telling(ctx, params.model_copy(update={"notifications": kept}))

    # -- the Tasks extension -----------------------------------------------------------------------------------------

    async def _task(self, ctx: Context, params: TaskParams) -> dict[str, Any]:
        checked = await self._outcome(ctx, self._guest(ctx), "check_work", {"work_id": params.taskId})
        if checked.is_error:
            raise MCPError(INVALID_PARAMS, checked.text)
        shown = _result(checked).model_dump(mode="json", by_alias=True, exclude_none=True)
        return tasks.state(params.taskId, checked.structured, shown)

    async def _task_cancel(self, ctx: Context, params: TaskParams) -> dict[str, Any]:
        cancelled = await self._outcome(ctx, self._guest(ctx), "cancel_work", {"work_id": params.taskId})
        if cancelled.is_error:
            raise MCPError(INVALID_PARAMS, cancelled.text)
        return {}

    async def _task_update(self, _: Context, __: TaskParams) -> dict[str, Any]:
        return {}  # none of ours asks for anything: what nobody asked for is ignored


class _Teller:
    """Tells a client how far its call is, when it wants to know."""

    def __init__(self, ctx: Context) -> None:
        self._ctx = ctx
        self._wanted = bool(ctx.meta and ctx.meta.get("progress_token") is not None)
        self._last = 0.0

    async def told(self, percent: float | None, text: str) -> None:
        if not self._wanted:
            return
        self._last = percent if percent is not None and percent > self._last else self._last + 0.001
        await self._ctx.session.report_progress(
            round(self._last, 3), 100 if percent is not None else None, text or None
        )


def _named(ctx: Context) -> tuple[str, ...]:
    """Return the toolsets that the address of a request names; raises `Invalid` (`tool.bad_toolset`)."""
    request: Any = ctx.request
    return toolsets.chosen(request.query_params.getlist("toolset"))


def _traceparent(ctx: Context) -> str:
    """Return the trace that a call belongs to: as its `_meta` says, else its HTTP header; "" for none."""
    request: Any = ctx.request
    said = (ctx.meta or {}).get("traceparent")
    return trace.clean(said) or trace.clean(request.headers.get("traceparent", ""))


def _takes_tasks(ctx: Context) -> bool:
    able = ctx.session.client_capabilities
    extensions = able.extensions if able is not None else None
    return ctx.protocol_version in dialect.MODERN and dialect.TASKS in (extensions or {})


def _result(outcome: calling.Outcome) -> CallToolResult:
    return CallToolResult.model_validate(
        {
            "content": [{"type": "text", "text": outcome.text}], "structuredContent": wording.shallow(outcome.structured),
            "isError": outcome.is_error,
        }
    )  # fmt: skip


def _no_cursor(params: PaginatedRequestParams | None) -> None:
    if params is not None and params.cursor:
        raise MCPError(INVALID_PARAMS, "This list has one page only: there is no such cursor.")


def _error(error: KnotworkError) -> MCPError:
    return MCPError(answers.code_of(error), spoken.for_agents(str(error)), {"code": error.code})
