"""How is the process of a hosted plugin started, watched and ended? One `Child` per running hosted plugin."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import socket
import sys
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import msgspec

from knotwork.bus import child as bus_child
from knotwork.sdk import Context, Invalid, KnotworkError, PluginFailed, Reporter, SecretRef
from knotwork.sockets import carried, frames
from knotwork.sockets.link import Link
from knotwork.sockets.output import Output

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from pydantic import BaseModel

    from knotwork.sockets.catalog import Entry

PONG_S = 5.0
"""How long an answer to a ping may take: a process that is starved of its core is not one that hangs."""
CLOSE_S = 4.0
REAP_S = 2.0
MEMORY_CHECK_S = 1.0
ASK_S = 10.0
MIB = 1024 * 1024
ARGUMENT = "--plugin-host"


class Spawn(Protocol):
    """Start a child with a clean environment plus `env`, in a session of its own, that dies with the node."""

    async def __call__(
        self,
        *command: str,
        env: Mapping[str, str] | None = None,
        stdout: int | None = None,
        stderr: int | None = None,
        pass_fds: Iterable[int] = (),
        own_executable: bool = False,
    ) -> asyncio.subprocess.Process:
        """Return the started process; its standard input is empty. Raises OSError when it cannot be started."""
        ...


@dataclass(frozen=True)
class Hosting:
    """How children are started. `command` is what turns into a plugin host when given a file descriptor's number."""

    spawn: Spawn = bus_child.spawn
    command: tuple[str, ...] = (
        (sys.executable, ARGUMENT)
        if bus_child.frozen()
        # -P: the folder the node happens to run in is not searched for modules
        else (sys.executable, "-P", "-m", "knotwork.sockets.hosted_child")
    )


class Child:
    """One running plugin host, as the node sees it."""

    def __init__(
        self, entry: Entry, memory_mb: int, context: Context, process: asyncio.subprocess.Process, ends: _Ends
    ) -> None:
        """Take over a process that was just started."""
        self.entry, self.memory_mb, self.context, self.process = entry, memory_mb, context, process
        self.group = ends.group
        self.output = Output(context.log, f"{entry.kind} {context.id}")
        self.link = Link(ends.reader, ends.writer, self._asked, self._noted)
        self.crash_text = ""
        self.told: Any = None
        """What the plugin said of itself when it was opened."""
        self._opened = False
        self._closing = False
        self._over: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._hello: asyncio.Future[int] = asyncio.get_running_loop().create_future()

    @classmethod
    async def spawned(
        cls, entry: Entry, memory_mb: int, hosting: Hosting, context: Context, group: asyncio.TaskGroup
    ) -> Child:
        """Start the process and the tasks that watch it, in `group`; raises `PluginFailed` when it cannot be started."""
        ours, theirs = socket.socketpair()
        try:
            process = await hosting.spawn(
                *hosting.command,
                str(theirs.fileno()),
                # the limit is one on address space, of which every further arena of malloc takes 64 MiB
                env={"MALLOC_ARENA_MAX": "2", "PYTHONUNBUFFERED": "1"},
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.PIPE,
                pass_fds=(theirs.fileno(),),
                own_executable=True,
            )
        except OSError as error:
            ours.close()
            raise PluginFailed(f"its process cannot be started: {error}", code="plugin.spawn_failed") from error
        except BaseException:
            ours.close()
            raise
        finally:
            theirs.close()
        try:
            reader, writer = await asyncio.open_unix_connection(sock=ours, limit=frames.FRAME_MAX_BYTES)
        except BaseException:  # cancelled before anybody watches over it
            with suppress(ProcessLookupError):
                process.kill()
            with suppress(TimeoutError):
                async with asyncio.timeout(REAP_S):
                    await process.communicate()  # its pipes end with it
            raise
        child = cls(entry, memory_mb, context, process, _Ends(reader, writer, group))
        assert process.stdout is not None
        assert process.stderr is not None
        group.create_task(child.output.follow(process.stdout, logging.INFO))
        group.create_task(child.output.follow(process.stderr, logging.WARNING))
        group.create_task(child._watch())
        return child

    async def open(self, config: BaseModel) -> None:
        """Let it open the plugin; raises what the plugin raised."""
        context = self.context
        await asyncio.shield(self._hello)
        wanted = {
            "kind": self.entry.kind,
            "type": self.entry.type,
            "source": msgspec.to_builtins(self.entry.source),
            "config": config.model_dump(mode="json", exclude_unset=True),
            "context": {
                "id": context.id,
                "node": context.node,
                "folder": str(context.folder),
                "base": str(context.base),
            },
            "memory_mb": self.memory_mb,
        }
        try:
            self.told = await self.link.call("open", wanted)
            self._opened = True
        except PluginFailed as error:
            if error.code == "plugin.crashed":
                await asyncio.wait(
                    [self._over], timeout=2 * REAP_S
                )  # then `_watch` says how it ended, and cancels this
            raise

    async def close(self) -> None:
        """Let it leave the plugin, then end it and everything it started, whatever it does."""
        self._closing = True
        try:
            if self._opened:
                with suppress(TimeoutError, KnotworkError):
                    async with asyncio.timeout(CLOSE_S):
                        await self.link.call("close")
                        await self.process.wait()
        finally:  # also when this task was cancelled: an early 3.11 then tells a time-out as another cancellation
            self._kill()
            self.link.close()
            with suppress(TimeoutError):
                async with asyncio.timeout(REAP_S):
                    await self.process.wait()

    def _kill(self) -> None:
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self.process.pid, signal.SIGKILL)

    async def _watch(self) -> None:
        """Return when it was closed; raises `PluginFailed` (`plugin.crashed`) when it ended by itself."""
        async with asyncio.TaskGroup() as group:
            helpers = [group.create_task(self._watch_hanging())]
            if self.memory_mb:
                helpers.append(group.create_task(self._watch_memory()))
            try:
                await self.link.run()
            except PluginFailed as error:
                self.crash_text = self.crash_text or error.message
            self._kill()
            with suppress(TimeoutError):
                async with asyncio.timeout(REAP_S):
                    await self.process.wait()
            for helper in helpers:
                helper.cancel()
        if not self._closing:
            raise self._crash()
        self._over.set_result(None)

    def _crash(self) -> PluginFailed:
        code = self.process.returncode
        how = f"exit code {code}"
        if code is not None and code < 0:
            how = f"killed by {signal.Signals(-code).name}"
        said = self.crash_text or (self.output.tail[-1] if self.output.tail else "")
        return PluginFailed(f"its process ended ({how})" + (f": {said}" if said else ""), code="plugin.crashed")

    async def _watch_hanging(self) -> None:
        """Kill it when it takes no call back and answers no ping: its loop is blocked, nothing else will help."""
        while True:
            await self.link.suspect.wait()
            self.link.suspect.clear()
            try:
                async with asyncio.timeout(PONG_S):
                    await self.link.call("ping")
            except TimeoutError:
                self.crash_text = "hung: it answered neither a cancelled call nor a ping"
                self._kill()
            except KnotworkError:
                return  # it is gone already

    async def _watch_memory(self) -> None:
        """Kill it when it uses more than its limit; for systems that do not keep to the limit set in the child."""
        pid = await asyncio.shield(self._hello)
        import psutil  # only for a plugin with a limit

        process = psutil.Process(pid)
        with suppress(psutil.Error):
            start_bytes = process.memory_info().rss
            while True:
                await asyncio.sleep(MEMORY_CHECK_S)
                if process.memory_info().rss > start_bytes + self.memory_mb * MIB:
                    self.crash_text = f"used over {self.memory_mb} MiB"
                    self._kill()

    def _noted(self, word: str, data: Any, about: Any) -> None:
        """Hear what it says unasked, `about` being the reporter of an attempt; anything malformed is ignored."""
        match word, data:
            case "progress", [float() | int() | None as percent, str(text)] if about is not None:
                about.progress(percent, text)
            case "hello", {"version": frames.PROTOCOL_VERSION, "pid": int(pid)}:
                if not self._hello.done():
                    self._hello.set_result(pid)
            case "hello", _:
                raise PluginFailed("speaks another version of the plugin protocol", code="plugin.protocol")
            case "log", [int(level), str(text)]:
                self.output.line(min(max(level, logging.DEBUG), logging.ERROR), text)
            case "emit", _:
                record = carried.to_record(data)
                if record is not None:
                    self.context.emit(record)
            case "crashed", str(text):
                self.crash_text = text[:1000]

    async def _asked(self, word: str, data: Any, _number: int) -> Any:
        """Answer what the plugin asks of its context."""
        context = self.context
        if word == "chunk" and isinstance(data, list) and len(data) == 2:  # noqa: PLR2004  call and value
            report: Reporter | None = self.link.about(data[0])
            return await report.stream(data[1]) if report is not None else None
        async with asyncio.timeout(ASK_S):
            match word, data:
                case "secret", dict():
                    return await asyncio.to_thread(context.secrets, SecretRef.model_validate(data))
                case "get", str(key):
                    return await context.keep.get(key)
                case "put", [str(key), value]:
                    return await context.keep.put(key, value)
                case "delete", str(key):
                    return await context.keep.delete(key)
                case "publish", [str(topic), str(payload), str(project)]:
                    return await context.stream.publish(topic, payload.encode("latin-1"), project)
        raise Invalid(f"unknown question {word[:40]!r}", code="plugin.protocol")


@dataclass(frozen=True)
class _Ends:
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    group: asyncio.TaskGroup
