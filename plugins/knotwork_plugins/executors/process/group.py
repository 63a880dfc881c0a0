"""How does a command run so that, whatever happens, nothing of it is left behind?

A command leads a session and process group of its own and carries a mark in its environment that every descendant
inherits. Ending it means: SIGTERM to the group and to every marked process outside it, a grace, then SIGKILL.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
import signal
import sys
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

from knotwork_plugins.executors.process import tree as process_tree

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping, Sequence
    from concurrent.futures import Executor as ThreadPool
    from pathlib import Path

    import psutil

READ_BYTES = 16384  # small, so that even a flood of tiny lines leaves the loop free every few milliseconds
LINGER_S = 0.5  # how long an output pipe may stay silent after the command ended: a daemon it left may hold it open
REAP_S = 1.0  # how long to wait for the kernel to hand over a process that got SIGKILL
POLL_S = 0.02


class _Protocol(asyncio.subprocess.SubprocessStreamProtocol):
    """The library's own streams, plus events for what `Process.wait` mixes up in some Python versions."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(limit=4 * READ_BYTES, loop=loop)
        self.exited = asyncio.Event()
        self.closed = asyncio.Event()

    def process_exited(self) -> None:
        super().process_exited()
        self.exited.set()

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self.closed.set()


class Child:
    """A running command: its two output streams, its end, and the power to end it."""

    def __init__(
        self, transport: asyncio.SubprocessTransport, protocol: _Protocol, mark: str, threads: ThreadPool
    ) -> None:
        """Take over a process that has just been started."""
        self.pid: int = transport.get_pid() or 0
        self.exited = protocol.exited
        self._transport = transport
        self._protocol = protocol
        self._mark = mark
        self._threads = threads
        self._reads: set[asyncio.Timeout] = set()
        self._finished = False
        self._held_open = False

    @property
    def returncode(self) -> int | None:
        """Return the exit code, negative for a signal, None while it runs."""
        return self._transport.get_returncode()

    async def read(self, stream: int) -> bytes:
        """Return the next piece of output of stream 1 or 2, at most 16 KiB; empty at the end.

        After the command has ended, half a second of silence counts as the end, so that a daemon which
        inherited the pipe cannot hold the attempt.
        """
        reader = self._protocol.stdout if stream == 1 else self._protocol.stderr
        assert reader is not None
        try:
            async with asyncio.timeout(LINGER_S if self.exited.is_set() else None) as limit:
                self._reads.add(limit)
                try:
                    return await reader.read(READ_BYTES)
                finally:
                    self._reads.discard(limit)
        except TimeoutError:
            self._held_open = True
            return b""
        except ConnectionError:
            return b""

    async def wait(self, grace_s: float) -> None:
        """Wait until the command itself has ended, then end what it left in its group."""
        await self.exited.wait()
        self._finished = True
        now_s = asyncio.get_running_loop().time()
        for limit in self._reads:
            limit.reschedule(now_s + LINGER_S)
        if self._signal_group(0):
            await self.end(grace_s)

    @property
    def clean(self) -> bool:
        """Say whether the command ended by itself and nothing that it started holds its output open."""
        return self._finished and not self._held_open

    def limit_memory(self, limit_bytes: int) -> None:
        """Let the kernel refuse each process of the command more private memory than `limit_bytes` (Linux only)."""
        if sys.platform.startswith("linux"):
            import resource

            with contextlib.suppress(ProcessLookupError, PermissionError):
                resource.prlimit(self.pid, resource.RLIMIT_DATA, (limit_bytes, limit_bytes))

    async def end(self, grace_s: float) -> None:
        """End the group and every marked process: SIGTERM, at most `grace_s` seconds, SIGKILL. Safe to repeat.

        When this is cancelled, SIGKILL follows at once.
        """
        strays: list[psutil.Process] = []
        try:
            self._signal_group(_TERM)
            strays = await self._strays()
            _signal_each(strays, _TERM)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(grace_s):
                    await self._gone()
        finally:
            self._signal_group(_KILL)
            _signal_each(strays, _KILL)
        # Again, for what was forked while we looked the first time.
        _signal_each(await self._strays(), _KILL)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(REAP_S):
                await self._gone()

    async def close(self) -> None:
        """Close the pipes and let go of the process, which must have ended."""
        self._transport.close()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(REAP_S):
                await self._protocol.closed.wait()

    async def _living(self) -> list[psutil.Process]:
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._threads, process_tree.living, self.pid, self._mark)

    async def _strays(self) -> list[psutil.Process]:
        """Return the marked processes outside the group."""
        return [process for process in await self._living() if _group_of(process.pid) != self.pid]

    async def _gone(self) -> None:
        """Return when nothing of the command lives."""
        # Nothing tells us about processes that are not our children, so ask; the caller bounds the time.
        while await self._living():  # noqa: ASYNC110
            await asyncio.sleep(POLL_S)
        await self.exited.wait()

    def _signal_group(self, number: int) -> bool:
        """Send a signal to the group; say whether anybody was there.

        The leader's id stays reserved for its group as long as the group has members, so it can be used after the
        leader was reaped; with no members left the kernel answers that there is no such group.
        """
        if sys.platform == "win32":  # no groups that can be signalled: the marked processes are found instead
            if number and not self.exited.is_set():
                self._transport.kill()
            return not self.exited.is_set()
        try:
            os.killpg(self.pid, number)
        except ProcessLookupError:
            return False
        except PermissionError:
            # macOS says so for a group of zombies; Linux when a member took another user's rights: not ours to end.
            return False
        return True


_TERM: int = signal.SIGTERM
_KILL: int = getattr(signal, "SIGKILL", signal.SIGTERM)


def _group_of(pid: int) -> int:
    if sys.platform == "win32":
        return 0
    try:
        return os.getpgid(pid)
    except OSError:
        return 0


def _signal_each(processes: Sequence[psutil.Process], number: int) -> None:
    """Signal each one that is still the process we found; those that ended or are not ours are passed over."""
    if not processes:
        return
    import psutil

    for process in processes:
        with contextlib.suppress(psutil.Error, OSError):
            process.send_signal(number)


@asynccontextmanager
async def spawn(
    argv: Sequence[str],
    *,
    env: Mapping[str, str],
    cwd: Path | None,
    stdin: int,
    grace_s: float,
    threads: ThreadPool,
) -> AsyncIterator[Child]:
    """Run `argv` for the duration of the block; when the block is left, in any way, nothing of it runs any more.

    `stdin` is a file descriptor or `asyncio.subprocess.DEVNULL`. `grace_s` is the time between SIGTERM and SIGKILL.
    Raises OSError or ValueError when the command cannot be started.
    """
    loop = asyncio.get_running_loop()
    mark = secrets.token_hex(8)
    options: dict[str, Any] = {"start_new_session": True} if sys.platform != "win32" else {"creationflags": 0x200}
    # Cancelled in the middle, some Python versions wait for ever for a process they have started half-way; so it is
    # always let through to its end, which is a matter of milliseconds, and ended properly after that.
    start = loop.create_task(
        loop.subprocess_exec(
            lambda: _Protocol(loop),
            *argv,
            stdin=stdin,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env={**env, process_tree.MARK: mark},
            cwd=cwd,
            **options,
        )
    )
    cancelled: asyncio.CancelledError | None = None
    while not start.done():
        try:
            await asyncio.wait([start])
        except asyncio.CancelledError as error:
            cancelled = error
    if cancelled is not None and start.exception() is not None:
        raise cancelled
    transport, protocol = start.result()
    child = Child(transport, protocol, mark, threads)
    clean = False
    try:
        if cancelled is not None:
            raise cancelled
        yield child
        clean = child.clean
    finally:
        try:
            if not clean:
                await child.end(grace_s)
        finally:
            await child.close()
