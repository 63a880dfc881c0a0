"""Is the MCP server there, and who talks to it? Holds one client, and starts the server again when it dies.

Imports the MCP SDK, which takes half a second: `mcp_tool` imports this file when an instance is opened.
"""

from __future__ import annotations

import asyncio
import logging
import os
import random
from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from importlib.metadata import version
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, TextIO

import anyio
import httpx2
import mcp_types
from mcp import Client, StdioServerParameters
from mcp.client.stdio import stdio_client
from mcp.client.streamable_http import streamable_http_client
from mcp.shared.exceptions import MCPError

from knotwork.sdk import Context, Unavailable
from knotwork_plugins.executors.mcp_tool.config import McpConfig
from knotwork_plugins.executors.prompting import clean

if TYPE_CHECKING:
    from mcp.client import Transport
    from mcp.client.client import ConnectMode


LEAVE_S = 8.0  # the SDK stops a stdio server within 2 s of patience, 2 s after SIGTERM, 2 s for SIGKILL
_PAUSE_MIN_S, _PAUSE_MAX_S = 0.2, 30.0
_HEALTHY_S = 10.0
_ASK_S = 4.0  # a start may take 10 s, and another greeting has to find room in it
_PAGES_MAX = 50
_REQUEST_S = 30.0
_LONGEST_READ_S = 86_400.0
_NAMED_MAX = 20
_STDERR_LINES, _STDERR_LINE_MAX = 20, 500
_SESSION_GONE = "Session terminated"  # how the SDK tells a 404 on a session it knows
_CLOSED = ("Connection closed", "SSE stream ")  # how what it says begins when there is no connection any more


class _NoTraceback(logging.Filter):
    """What a broken server does is no bug of ours: its SDK's log lines keep their message and lose the traceback."""

    def filter(self, record: logging.LogRecord) -> bool:
        record.exc_info = record.exc_text = None
        return True


for _name in ("mcp.client.stdio", "mcp.client.streamable_http"):
    logging.getLogger(_name).addFilter(_NoTraceback())


class Link:
    """One connection to one server, renewed when it is lost. `keep` runs in a task of its own."""

    timed_out_code = mcp_types.REQUEST_TIMEOUT

    def __init__(self, config: McpConfig, context: Context) -> None:
        """Connect nothing yet."""
        self.config = config
        self.context = context
        self._client: Client | None = None
        self._tool: mcp_types.Tool | None = None
        self._up = asyncio.Event()
        self._tried = asyncio.Event()
        self._stirred = asyncio.Event()
        self._leaving = False
        self._handshake: ConnectMode = "legacy" if config.command else "auto"
        self._greeted = False
        self._why = Unavailable("The MCP server is not there.", code="agent.unreachable")
        self._stderr: deque[str] = deque(maxlen=_STDERR_LINES)

    async def keep(self) -> None:
        """Connect, hold, and connect again after a growing pause, until told to leave."""
        clock, pause_s = asyncio.get_running_loop().time, _PAUSE_MIN_S
        while not self._leaving:
            began_s = clock()
            self._stirred.clear()
            try:
                await self._hold()
            except Exception as error:  # noqa: BLE001 - a server may fail in any way; it is told and tried again
                self._why = self._reason(error)
            finally:
                self._up.clear()
                self._client = None
                self._tried.set()
            if clock() - began_s > _HEALTHY_S:
                pause_s = _PAUSE_MIN_S
            if not self._leaving:
                self.context.log.warning("MCP server of %s: %s", self.context.id, self._why)
                await self._rest(pause_s * random.uniform(0.8, 1.2))  # noqa: S311 - jitter, no secret
                pause_s = min(2 * pause_s, _PAUSE_MAX_S)

    async def _hold(self) -> None:
        """Hold one connection for as long as it lasts.

        Of servers older than `server/discover` some are silent when they are asked for it, and some end. So programs
        are greeted with `initialize`, which nearly all know, and asked for the other when they refuse it. Servers at an
        address are asked first, and greeted when they do not answer that in time.
        """
        async with asyncio.timeout(self.config.connect_timeout_s) as limit:
            asks = self._handshake == "auto"
            asked_s = min(_ASK_S, self.config.connect_timeout_s / 2) if asks else None
            try:
                async with asyncio.timeout(asked_s) as patience:
                    await self._hold_by(self._handshake, limit, patience)
            except Exception as error:
                is_worth_it = not self.config.command if asks else self._is_refusal(_inmost(error))
                if self._greeted or not is_worth_it:
                    raise
                await self._hold_by("legacy" if asks else "auto", limit)

    def _is_refusal(self, error: BaseException) -> bool:
        return isinstance(error, MCPError) and error.code != self.timed_out_code and not self.is_lost(error)

    async def _hold_by(
        self, handshake: ConnectMode, limit: asyncio.Timeout, patience: asyncio.Timeout | None = None
    ) -> None:
        """Hold one; `patience` is for the greeting, `limit` for all until it is of use."""
        self._greeted = False
        async with (
            self._transport() as transport,
            Client(_Told(transport, self._stirred.set), client_info=_who_we_are(), mode=handshake) as client,
        ):
            self._greeted, self._handshake = True, handshake
            if patience is not None:
                patience.reschedule(None)
            self._tool = await self._find_tool(client)
            limit.reschedule(None)
            self._client = client
            self._why = Unavailable("The MCP server went away.", code="agent.unreachable")
            self._up.set()
            self._tried.set()
            await self._stirred.wait()
            self._up.clear()

    async def _rest(self, pause_s: float) -> None:
        self._stirred.clear()
        if not self._leaving:
            try:
                async with asyncio.timeout(pause_s):
                    await self._stirred.wait()
            except TimeoutError:
                return

    async def client(self, limit_s: float, *, first: bool = False) -> Client:
        """Return the connected client, waiting for it at most `limit_s` seconds; raises `Unavailable` with the reason.

        `first` raises as soon as the first try has failed.
        """
        try:
            async with asyncio.timeout(limit_s):
                await self._tried.wait()
                if first and not self._up.is_set():
                    raise _again(self._why)
                while not self._up.is_set():  # it may be lost again before we are woken
                    await self._up.wait()
        except TimeoutError as late:
            raise _again(self._why if self._tried.is_set() else self._reason(late)) from None
        assert self._client is not None, "up means connected"
        return self._client

    def is_lost(self, error: MCPError) -> bool:
        """Say whether an error means that the server, or our session with it, is gone.

        The code does not tell: servers give that of a closed connection to any error of their own.
        """
        closed = error.code == mcp_types.CONNECTION_CLOSED and error.message.startswith(_CLOSED)
        return closed or error.message == _SESSION_GONE

    def lose(self, client: Client) -> None:
        """Give up this connection; the next one is made at once. A connection made since then stays."""
        if client is self._client:
            self._up.clear()
            self._stirred.set()

    def leave(self) -> None:
        """Disconnect and do not come back."""
        self._leaving = True
        self._stirred.set()

    def only_argument(self, fixed: dict[str, Any]) -> str:
        """Return the one argument the tool needs (or has) besides the fixed ones, "" when there are several."""
        schema = self._tool.input_schema if self._tool is not None else {}
        required, properties = schema.get("required"), schema.get("properties")
        for names in (required, properties):
            left = [name for name in names if name not in fixed] if isinstance(names, list | dict) else []
            if len(left) == 1 and isinstance(left[0], str):
                return left[0]
        return ""

    @asynccontextmanager
    async def _transport(self) -> AsyncIterator[Transport]:
        if self.config.url:
            headers = {**self.config.headers, **await self._resolved(self.config.secret_headers)}
            timeout = httpx2.Timeout(_REQUEST_S, read=_LONGEST_READ_S, connect=self.config.connect_timeout_s)
            async with httpx2.AsyncClient(headers=headers, timeout=timeout) as http:
                yield streamable_http_client(self.config.url, http_client=http)
            return
        env = {**self.config.env, **await self._resolved(self.config.secret_env)}
        parameters = StdioServerParameters(
            command=self.config.program(self.context.base),
            args=[*self.config.command[1:]],
            env=self.context.child_env(env),
            cwd=self.config.folder(self.context.base),
        )
        self._stderr.clear()
        async with _listening(self.context.log, self._stderr) as errlog:
            yield stdio_client(parameters, errlog=errlog)

    async def _resolved(self, references: dict[str, Any]) -> dict[str, str]:
        # In threads: a `{cmd = …}` secret may take seconds.
        return {name: await asyncio.to_thread(self.context.secrets, ref) for name, ref in references.items()}

    async def _find_tool(self, client: Client) -> mcp_types.Tool:
        names: list[str] = []
        cursor: str | None = None
        for _ in range(_PAGES_MAX):
            page = await client.list_tools(cursor=cursor)
            for tool in page.tools:
                if tool.name == self.config.tool:
                    return tool
                names.append(tool.name)
            cursor = page.next_cursor
            if not cursor:
                break
        offered = ", ".join(sorted(names)[:_NAMED_MAX]) or "none"
        raise Unavailable(
            f"The MCP server has no tool {self.config.tool!r}.",
            code="agent.tool_missing",
            hint=f"Its tools: {clean(offered)}.",
        )

    def _reason(self, error: BaseException) -> Unavailable:
        error = _inmost(error)
        if isinstance(error, Unavailable):
            return error
        if isinstance(error, TimeoutError):
            said = f"it did not answer within {self.config.connect_timeout_s:g} s"
        else:
            said = str(error) or type(error).__name__
        if self._stderr:
            said += f"; its last words: {' | '.join([*self._stderr][-3:])}"
        where = self.config.url or self.config.command[0]
        return Unavailable(
            f"The MCP server {where} cannot be used: {clean(said)}.",
            code="agent.unreachable",
            hint="Check that it runs.",
        )


def _inmost(error: BaseException) -> BaseException:
    """Return the error itself of one that task groups have wrapped."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error


def _again(error: Unavailable) -> Unavailable:
    """Return a copy: an exception raised again and again would collect tracebacks for ever."""
    return Unavailable(error.message, code=error.code, hint=error.hint)


def _who_we_are() -> mcp_types.Implementation:
    return mcp_types.Implementation(name="knotwork", version=version("knotwork"))


class _Told(AbstractAsyncContextManager[Any]):
    """A transport that tells when its server has hung up; the SDK notices that only with the next request."""

    def __init__(self, inner: Transport, on_end: Callable[[], None]) -> None:
        self._inner = inner
        self._on_end = on_end

    async def __aenter__(self) -> Any:
        read, write = await self._inner.__aenter__()
        return _ToldStream(read, self._on_end), write

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool | None:
        return await self._inner.__aexit__(kind, error, trace)


class _ToldStream:
    def __init__(self, inner: Any, on_end: Callable[[], None]) -> None:
        self._inner = inner
        self._on_end = on_end

    @property
    def last_context(self) -> Any:
        return getattr(self._inner, "last_context", None)

    async def receive(self) -> Any:
        try:
            return await self._inner.receive()
        except (anyio.EndOfStream, anyio.ClosedResourceError):
            self._on_end()
            raise

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Any:
        try:
            return await self.receive()
        except anyio.EndOfStream:
            raise StopAsyncIteration from None

    async def aclose(self) -> None:
        await self._inner.aclose()

    async def __aenter__(self) -> Self:
        await self._inner.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool | None:
        ended: bool | None = await self._inner.__aexit__(kind, error, trace)
        return ended


class _Stderr(asyncio.Protocol):
    """Takes what the server writes to stderr into the log, line by line with bounded length."""

    def __init__(self, log: logging.Logger, tail: deque[str]) -> None:
        self._log = log
        self._tail = tail
        self._rest = b""

    def data_received(self, data: bytes) -> None:
        *lines, rest = (self._rest + data).split(b"\n")
        self._rest = rest[-_STDERR_LINE_MAX:]
        for line in lines:
            if text := line[:_STDERR_LINE_MAX].decode("utf-8", "replace").strip():
                self._tail.append(text)
                self._log.debug("MCP server: %s", text)


@asynccontextmanager
async def _listening(log: logging.Logger, tail: deque[str]) -> AsyncIterator[TextIO]:
    """Yield the file a server may use as its stderr."""
    read_end, write_end = os.pipe()
    with os.fdopen(read_end, "rb", buffering=0) as reading, os.fdopen(write_end, "w") as writing:
        transport, _ = await asyncio.get_running_loop().connect_read_pipe(lambda: _Stderr(log, tail), reading)
        try:
            yield writing
        finally:
            transport.close()
