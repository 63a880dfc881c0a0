"""What runs in the process of a hosted plugin? It opens the one plugin it is told to, and answers calls for it.

Started as `python -P -m knotwork.sockets.hosted_child FD` or, frozen, `knotwork --plugin-host FD`, where FD is a
connected socket. Standard output and error are not part of the protocol: the node logs them line by line.
"""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import sys
import time
import traceback
from contextlib import suppress
from pathlib import Path
from typing import Any

import msgspec
from pydantic import BaseModel, ValidationError

from knotwork.bus import child
from knotwork.sdk import (
    ConfigInvalid,
    Context,
    Factory,
    Invalid,
    KnotworkError,
    NotFound,
    PluginConfig,
    PluginFailed,
    Probes,
    Record,
    SecretRef,
    Unavailable,
)
from knotwork.sockets import answering, carried, factories, frames, hosted_trigger, limits, raised
from knotwork.sockets.link import Link
from knotwork.sockets.sources import Source

EXIT_CRASHED = 70


def main(arguments: list[str]) -> int:
    """Host the plugin until the node closes it or is gone; the process exits from here."""
    connection = socket.socket(fileno=int(arguments[-1]))
    connection.set_inheritable(False)  # what the plugin starts must not hold the connection open
    os.register_at_fork(after_in_child=lambda: _let_go(connection))  # nor what it forks, which would answer, too
    code = EXIT_CRASHED
    try:
        code = asyncio.Runner().run(_serve(connection))  # never closed: that would wait for what is left running
    except BaseException:  # noqa: BLE001  the last line of a process that ends: nothing may keep it alive
        traceback.print_exc()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)  # threads that a plugin left behind must not keep it alive


def _let_go(connection: socket.socket) -> None:
    """Take the connection from a process that the plugin has just forked; its number leads nowhere then."""
    if (number := connection.fileno()) < 0:
        return
    with suppress(OSError):
        nowhere = os.open(os.devnull, os.O_RDWR)
        os.dup2(nowhere, number, inheritable=False)
        os.close(nowhere)


async def _serve(connection: socket.socket) -> int:
    """Serve one connection; return the exit code."""
    reader, writer = await asyncio.open_unix_connection(sock=connection, limit=frames.FRAME_MAX_BYTES)
    served = Served(reader, writer)
    served.link.note("hello", {"version": frames.PROTOCOL_VERSION, "pid": os.getpid()}, droppable=False)
    async with asyncio.TaskGroup() as group:
        holding = group.create_task(served.hold())
        await served.link.run()
        holding.cancel()  # the node is gone
    return 0 if not served.crashed else EXIT_CRASHED


class Served:
    """The one plugin of this process and what is done with it."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Wait to be told which plugin."""
        self.link = Link(reader, writer, self.answer, lambda *_: None)
        self._secrets = _Secrets(self.link)
        loop = asyncio.get_running_loop()
        self._wanted: asyncio.Future[dict[str, Any]] = loop.create_future()
        self._ready: asyncio.Future[dict[str, Any]] = loop.create_future()
        self._closing = asyncio.Event()
        self._closed = asyncio.Event()
        self._plugin: Any = None
        self.crashed = False

    async def hold(self) -> None:
        """Enter, hold and leave the plugin, all in this task."""
        wanted = await self._wanted
        try:
            factory, config = self._prepared(wanted)
            await self._secrets.learn(config)
            async with factory.open(config, self._context(wanted["context"])) as plugin:
                if isinstance(plugin, Probes):
                    await plugin.probe()
                self._plugin = plugin
                self._ready.set_result({"wants": wants} if (wants := _wants(plugin)) else {})
                await self._closing.wait()
                self._plugin = None
        except raised.ENDS:
            raise
        except BaseException as error:  # noqa: BLE001  the boundary: told to the node, which decides
            self._plugin = None
            if not self._ready.done():
                self._ready.set_exception(raised.as_ours(error))
                return
            self.crashed = True
            traceback.print_exc()
            self.link.note("crashed", str(raised.as_ours(error)), droppable=False)
            if not self._closing.is_set():
                self.link.close()
        finally:
            self._closed.set()

    def _prepared(self, wanted: dict[str, Any]) -> tuple[Factory[Any], PluginConfig]:
        """Import the plugin and check its table."""
        source = msgspec.convert(wanted["source"], Source)
        if source.kind == "folder":
            sys.path[:0] = [source.where, str(Path(source.where, "vendor"))]
        limits.limit_memory(int(wanted["memory_mb"]))
        factory = _pick(source, wanted["kind"], wanted["type"])
        try:
            config = factory.config.model_validate(wanted["config"])
        except ValidationError as error:
            problems = [{"key": ".".join(map(str, e["loc"])), "message": e["msg"]} for e in error.errors()]
            told = "; ".join(f"{problem['key']}: {problem['message']}" for problem in problems)
            raise ConfigInvalid(told, detail={"problems": problems}) from error
        return factory, config

    def _context(self, given: dict[str, str]) -> Context:
        log = logging.getLogger(f"knotwork.plugin.{given['id']}")
        logging.basicConfig(level=logging.INFO, format="%(message)s", handlers=[_NoteHandler(self.link)], force=True)
        return Context(
            id=given["id"],
            node=given["node"],
            log=log,
            folder=Path(given["folder"]),
            emit=self._emit,
            clock=_SystemClock(),
            keep=_Keep(self.link),
            stream=_Stream(self.link),
            secrets=self._secrets,
            child_env=_child_env,
            base=Path(given["base"]),
        )

    def _emit(self, record: Record) -> None:
        self.link.note("emit", carried.from_record(record))

    async def answer(self, word: str, data: Any, number: int) -> Any:
        """Answer one call of the node."""
        match word:
            case "ping":
                return None
            case "open":
                self._wanted.set_result(data)
                return await asyncio.shield(self._ready)
            case "close":
                self._closing.set()
                await self._closed.wait()
                asyncio.get_running_loop().call_later(0.05, self.link.close)  # once this answer is out
                return None
        try:
            return await self._use(word, data, number)
        except raised.HARMLESS:
            raise
        except SystemExit as error:  # would end the loop, and with it the calls of others
            raise PluginFailed(f"called sys.exit({error.code!r})", code="plugin.raised") from error
        except BaseException as error:  # so would a panic of an extension
            raise raised.as_ours(error) from error

    async def _use(self, word: str, data: Any, number: int) -> Any:
        plugin = self._plugin
        if plugin is None:
            raise PluginFailed("the plugin is not open", code="plugin.crashed")
        match word:
            case "execute":
                return await answering.executed(plugin, carried.to_attempt(data, _Report(self.link, number)))
            case "route":
                return carried.from_route(await plugin.route(*carried.to_question(data)))
            case "firings":
                return await hosted_trigger.tell(plugin, data, self.link, number)
            case "emit":
                return await plugin.emit([record for one in data if (record := carried.to_record(one)) is not None])
            case "probe":
                return await plugin.probe() if isinstance(plugin, Probes) else None
        raise Invalid(f"unknown call {word[:40]!r}", code="plugin.protocol")


def _child_env(extra: dict[str, str]) -> dict[str, str]:
    """Return the clean environment, warded by the node and not by this process."""
    ward = {child.WARD: os.environ[child.WARD]} if child.WARD in os.environ else {}
    return {**child.clean_env(extra), **ward}


def _pick(source: Source, kind: str, type_name: str) -> Factory[Any]:
    try:
        offered = factories.offers(source)
    except BaseException as error:
        raise factories.failure(error) from error  # told as it is where a plugin is imported into the node
    for a_kind, factory in offered:
        if (a_kind, factory.name) == (kind, type_name):
            return factory
    raise NotFound(f"{source} offers no {kind} plugin {type_name!r}", code="plugin.unknown_type")


def _wants(plugin: Any) -> list[str]:
    wants = getattr(plugin, "wants", ())
    return sorted(str(kind) for kind in wants) if isinstance(wants, frozenset | set | tuple | list) else []


class _Report:
    """Tells the node what an attempt says; a piece of output waits until the node took it."""

    def __init__(self, link: Link, number: int) -> None:
        self._link, self._number = link, number

    def progress(self, percent: float | None, text: str) -> None:
        self._link.note("progress", [percent, text], self._number)

    async def stream(self, chunk: Any) -> None:
        await self._link.call("chunk", [self._number, chunk])


class _NoteHandler(logging.Handler):
    """Hands log records to the node."""

    def __init__(self, link: Link) -> None:
        super().__init__()
        self._link, self._loop = link, asyncio.get_running_loop()

    def emit(self, record: logging.LogRecord) -> None:
        try:
            note = [record.levelno, self.format(record)[:8000]]
            self._loop.call_soon_threadsafe(self._link.note, "log", note)
        except RuntimeError:  # the loop is closed: too late to tell
            self.handleError(record)


class _SystemClock:
    def time_ns(self) -> int:
        return time.time_ns()

    def monotonic_s(self) -> float:
        return time.monotonic()


class _Keep:
    def __init__(self, link: Link) -> None:
        self._link = link

    async def get(self, key: str) -> Any:
        return await self._link.call("get", key)

    async def put(self, key: str, value: Any) -> None:
        await self._link.call("put", [key, value])

    async def delete(self, key: str) -> None:
        await self._link.call("delete", key)


class _Stream:
    def __init__(self, link: Link) -> None:
        self._link = link

    async def publish(self, topic: str, payload: bytes, project: str = "") -> None:
        await self._link.call("publish", [topic, payload.decode("latin-1"), project])  # every byte has its character


class _Secrets:
    """Answers at once, as the protocol demands, what the node was asked for before the plugin opened."""

    def __init__(self, link: Link) -> None:
        self._link = link
        self._known: dict[str, str | KnotworkError] = {}

    async def learn(self, found: Any) -> None:
        """Ask the node for every reference in a config."""
        if isinstance(found, SecretRef):
            try:
                self._known[found.model_dump_json()] = await self._link.call("secret", found.model_dump())
            except KnotworkError as error:
                self._known[found.model_dump_json()] = error  # raised when the plugin asks for it
        elif isinstance(found, BaseModel):
            for name in type(found).model_fields:
                await self.learn(getattr(found, name))
        elif isinstance(found, dict | list | tuple | set | frozenset):
            for one in found.values() if isinstance(found, dict) else found:
                await self.learn(one)

    def __call__(self, reference: Any) -> str:
        if isinstance(reference, str):
            return reference
        known = self._known.get(SecretRef.model_validate(reference).model_dump_json())
        if isinstance(known, str):
            return known
        raise known or Unavailable("a hosted plugin can only resolve what its table holds", code="plugin.secret")


if __name__ == "__main__":
    sys.exit(main(sys.argv))
